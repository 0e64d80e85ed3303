#!/usr/bin/env python
"""Write a large synthetic scene by repeating the demo scene, to measure memory and speed with.

python examples/make_large_scene.py large/ --size 16384
/usr/bin/time -v pancrafter sharpen large/pan.tif large/ms.tif -o large/sharp.tif
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rasterio
from affine import Affine
from rasterio.windows import Window

from pancrafter_cli.data.simulate import simulate_scene

UNIT = 1024  # PAN pixels of the demo scene that is repeated


def main() -> None:
    """Write pan.tif and ms.tif of 4 bands, uint16, tiled and compressed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=16384, help=f"PAN pixels per side, a multiple of {UNIT}")
    options = parser.parse_args()
    if options.size < UNIT or options.size % UNIT:
        parser.error(f"--size {options.size}: expected a multiple of {UNIT}")
    options.folder.mkdir(parents=True, exist_ok=True)
    scene = simulate_scene(6, UNIT)
    for name, unit, step in (("pan", scene.pan, 0.5), ("ms", scene.ms, 2.0)):
        side = unit.shape[1]
        times = options.size // UNIT
        profile = {
            "driver": "GTiff",
            "count": len(unit),
            "height": side * times,
            "width": side * times,
            "dtype": "uint16",
            "crs": "EPSG:32631",
            "transform": Affine(step, 0, 400_000, 0, -step, 5_500_000),
            "tiled": True,
            "blockxsize": 256,
            "blockysize": 256,
            "compress": "zstd",
            "bigtiff": "if_safer",
        }
        with rasterio.open(options.folder / f"{name}.tif", "w", **profile) as file:
            for row in range(times):
                for col in range(times):
                    file.write(unit.astype("uint16"), window=Window(col * side, row * side, side, side))
        print(options.folder / f"{name}.tif")


if __name__ == "__main__":
    main()
