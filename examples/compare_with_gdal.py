#!/usr/bin/env python
"""Score `pancrafter sharpen` beside cubic upsampling and GDAL's weighted Brovey, by Wald's protocol.

    python examples/compare_with_gdal.py SCENES_DIR gf2-rr-val vhr-henan --model universal-small

Every scene is a folder with pan.tif and ms.tif. MS is the truth; PAN is brought to its grid (antialiased cubic), MS is
degraded by the scene's ratio (MTF gain 0.30 at Nyquist), all pixels being areas. Where a gt.tif exists it is the truth
and PAN is used as it is. The reduced scene is written as GeoTIFFs, and each method works on those files.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from pancrafter_cli import sharpen
from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, degrade_weights
from pancrafter_cli.geometry.fill import fill_invalid
from pancrafter_cli.geometry.grid import AxisMap, GridMap, overlap
from pancrafter_cli.geometry.inputs import network_inputs, plan_inputs
from pancrafter_cli.geometry.resample import apply_weights, cubic_weights
from pancrafter_cli.metrics.reduced import ergas, sam
from pancrafter_cli.raster.arrays import read_array
from pancrafter_cli.raster.scene import open_scene

Float32 = NDArray[np.float32]

VRT = """<VRTDataset subClass="VRTPansharpenedDataset">
  <PansharpeningOptions>
    <Algorithm>WeightedBrovey</Algorithm>
    <Resampling>Cubic</Resampling>
    {nodata}
    <PanchroBand><SourceFilename>{pan}</SourceFilename><SourceBand>1</SourceBand></PanchroBand>
    {bands}
  </PansharpeningOptions>
</VRTDataset>"""


@dataclass(frozen=True)
class Reduced:
    """A reduced scene: truth (C, H, W) and PAN (1, H, W) on one grid, MS (C, h, w) `ratio` coarser, valid pixels."""

    truth: Float32
    pan: Float32
    ms: Float32
    valid: NDArray[np.bool_]
    ms_valid: NDArray[np.bool_]
    ratio: int


def reduce_scene(folder: Path) -> Reduced:
    """Wald's protocol on a scene folder."""
    if (folder / "gt.tif").exists():
        truth, pan = read_array(folder / "gt.tif"), read_array(folder / "pan.tif")
        valid = np.ones(truth.shape[1:], dtype=bool)
        ratio = 4
    else:
        with open_scene(folder / "pan.tif", [folder / "ms.tif"]) as scene:
            full_pan, pan_valid = scene.read_pan(0, 0, *scene.grid.shape)
            to_pan = scene.ms_map.inverse()
            (r0, r1), (c0, c1) = overlap(to_pan.rows), overlap(to_pan.cols)
            truth, truth_valid = scene.read_ms(r0, c0, r1 - r0, c1 - c0)
            rows, cols = cubic_weights(to_pan.rows, r0, r1), cubic_weights(to_pan.cols, c0, c1)
            part = np.s_[:, rows.first : rows.stop, cols.first : cols.stop]
            filled = fill_invalid(full_pan, pan_valid, np.array([scene.statistics.pan_mean], np.float32))
            pan = apply_weights(rows.matrix, cols.matrix, filled[part])
            covered = apply_weights(np.abs(rows.matrix), np.abs(cols.matrix), (~pan_valid).astype(np.float32)[part])
            valid = truth_valid.all(axis=0) & (covered[0] < 1e-6)
            truth = fill_invalid(truth, truth_valid, scene.statistics.ms_mean.astype(np.float32))
            ratio = round(scene.ratio)
    h, w = (size // ratio for size in truth.shape[1:])
    cut = np.s_[..., : h * ratio, : w * ratio]
    truth, pan, valid = truth[cut], pan[cut], valid[cut]
    down = [degrade_weights(AxisMap(ratio, 0.0, n, n * ratio), 0, n, DEFAULT_MS_GAIN).matrix for n in (h, w)]
    ms_valid = valid.reshape(h, ratio, w, ratio).all(axis=(1, 3))
    return Reduced(truth, pan, apply_weights(down[0], down[1], truth), valid, ms_valid, ratio)


def write_files(scene: Reduced, folder: Path) -> tuple[Path, Path]:
    """The reduced scene as float32 GeoTIFFs on a local grid; -9999 where invalid."""
    paths = folder / "pan.tif", folder / "ms.tif"
    for path, image, valid, step in (
        (paths[0], scene.pan, scene.valid, 1),
        (paths[1], scene.ms, scene.ms_valid, scene.ratio),
    ):
        nodata = None if valid.all() else -9999.0
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=len(image),
            height=image.shape[1],
            width=image.shape[2],
            dtype="float32",
            nodata=nodata,
            crs="EPSG:32631",
            transform=Affine(step, 0, 500_000, 0, -step, 5_400_000),
        ) as file:
            file.write(np.where(valid, image, -9999.0))
    return paths


def brovey(pan: Path, ms: Path) -> Float32:
    """GDAL's weighted Brovey with equal weights and cubic resampling, (C, H, W)."""
    with rasterio.open(ms) as file:
        bands = "".join(
            f'<SpectralBand dstBand="{b}"><SourceFilename>{ms}</SourceFilename>'
            f"<SourceBand>{b}</SourceBand></SpectralBand>"
            for b in range(1, file.count + 1)
        )
        nodata = "" if file.nodata is None else f"<NoData>{file.nodata}</NoData>"
    with rasterio.open(VRT.format(pan=pan, bands=bands, nodata=nodata)) as file:
        image: Float32 = file.read(out_dtype="float32")
    return image


def cubic(scene: Reduced) -> Float32:
    """MS brought to the PAN grid by the tool's own cubic resampling, (C, H, W)."""
    axes = [AxisMap(1 / scene.ratio, 0.0, n, n // scene.ratio) for n in scene.truth.shape[1:]]
    plan = plan_inputs(GridMap(*axes), *((0, n) for n in scene.truth.shape[1:]))
    zero = np.zeros(len(scene.ms), np.float32)
    return network_inputs(plan, scene.pan, scene.ms, zero, zero)[1]


def main() -> None:
    """Print one Markdown table row per scene and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("scenes", nargs="+")
    parser.add_argument("--model", default="universal-small")
    parser.add_argument("--consistency", type=int, default=5)
    options = parser.parse_args()
    print("| scene | method | ERGAS | SAM (degrees) |\n|---|---|---|---|")
    for name in options.scenes:
        scene = reduce_scene(options.root / name)
        with tempfile.TemporaryDirectory() as work:
            pan, ms = write_files(scene, Path(work))
            result = Path(work) / "sharp.tif"
            sharpen(pan, ms, result, model=options.model, consistency=options.consistency)
            images = {
                "cubic": cubic(scene),
                "GDAL weighted Brovey": brovey(pan, ms),
                f"pancrafter {Path(options.model).stem}": read_array(result),
            }
        # One set of pixels for all methods: those that every one of them could fill.
        ms_valid = np.kron(scene.ms_valid, np.ones((scene.ratio, scene.ratio), dtype=bool))
        valid = scene.valid & ms_valid & (images["GDAL weighted Brovey"] != -9999).all(axis=0)
        for method, image in images.items():
            scores = ergas(scene.truth, image, scene.ratio, valid), sam(scene.truth, image, valid)
            print(f"| {name} | {method} | {scores[0]:.3f} | {scores[1]:.3f} |")


if __name__ == "__main__":
    main()
