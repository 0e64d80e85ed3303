#!/usr/bin/env python
"""Check a product of `pancrafter sharpen` against its inputs: grid, bands, dtype, nodata, and agreement with MS.

    python examples/check_product.py sharp.tif pan.tif ms.tif [more MS files]

The product is degraded to the MS grid (exact geometry; the MTF that its tags name, or --ms-mtf) and compared with MS:
per band, the mean absolute difference over the band's mean magnitude, on MS pixels whose whole support is valid.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio

from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, degrade_weights
from pancrafter_cli.geometry.grid import overlap
from pancrafter_cli.geometry.resample import apply_weights
from pancrafter_cli.raster.scene import SceneOptions, open_scene


def main() -> None:
    """Print facts, and the disagreement of each band in percent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("product", type=Path)
    parser.add_argument("pan", type=Path)
    parser.add_argument("ms", type=Path, nargs="+")
    parser.add_argument("--ratio", type=float)
    parser.add_argument("--ms-origin", type=lambda text: tuple(float(v) for v in text.split(",")))
    parser.add_argument("--ms-mtf", type=float)
    options = parser.parse_args()
    with (
        open_scene(options.pan, options.ms, SceneOptions(options.ratio, options.ms_origin)) as opened,
        rasterio.open(options.product) as product,
    ):
        # Where sharpen found MS to lie, which is where it put it.
        dx, dy = (float(text) for text in product.tags().get("PANCRAFTER_SHIFT", "0,0").split(","))
        scene = opened.with_shift(dx, dy)
        image = product.read().astype(np.float64)
        stored = product.read_masks() > 0
        valid = scene.valid(0, 0, *scene.grid.shape)
        same_grid = product.shape == scene.grid.shape and product.transform.almost_equals(scene.grid.transform)
        to_pan = scene.ms_map.inverse()
        (r0, r1), (c0, c1) = overlap(to_pan.rows), overlap(to_pan.cols)
        mtf = options.ms_mtf or float(product.tags().get("PANCRAFTER_MS_MTF", DEFAULT_MS_GAIN))
        rows = degrade_weights(to_pan.rows, r0, r1, mtf)
        cols = degrade_weights(to_pan.cols, c0, c1, mtf)
        part = np.s_[:, rows.first : rows.stop, cols.first : cols.stop]
        low = apply_weights(rows.matrix, cols.matrix, np.where(valid, image, 0.0)[part])
        whole = apply_weights(rows.matrix, cols.matrix, valid.astype(np.float64)[part]) > 1 - 1e-9
        ms, ms_valid = scene.read_ms(r0, c0, r1 - r0, c1 - c0)
        keep = whole & ms_valid
        percent = [100 * np.abs(a - b)[k].mean() / np.abs(b[k]).mean() for a, b, k in zip(low, ms, keep, strict=True)]
        print(
            f"{options.product.name}: grid {'ok' if same_grid else 'WRONG'}, {product.count} of {scene.bands} bands, "
            f"{product.dtypes[0]} of {scene.dtype}, nodata {product.nodata}, "
            f"nodata pixels {'exact' if np.array_equal(stored, valid) else 'WRONG'}, {100 * valid.mean():.2f} % valid, "
            f"against MS (MTF {mtf:.2f}): " + ", ".join(f"{p:.2f} %" for p in percent)
        )


if __name__ == "__main__":
    main()
