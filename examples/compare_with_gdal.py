#!/usr/bin/env python
"""Score `pancrafter sharpen` beside cubic upsampling and GDAL's weighted Brovey, by Wald's protocol.

    python examples/compare_with_gdal.py SCENES_DIR gf2-rr-val vhr-henan --model universal-small

Every scene is a folder with pan.tif and ms.tif, reduced as `pancrafter eval` does it: MS is the truth, PAN is brought
to its grid, MS is degraded. Where a gt.tif exists it is the truth and PAN is used as it is. The reduced scene is
written as GeoTIFFs, and each method works on those files. PAN and MS are registered before they are reduced, and the
tool moves PAN from place to place after that; with --unregistered neither is done.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from pancrafter_cli import sharpen
from pancrafter_cli.data.wald import NODATA, Pair, reduce_scene, referenced_pair, write_pair
from pancrafter_cli.geometry.sensors import mtf_of, sensor_from_metadata
from pancrafter_cli.metrics.reduced import ergas, sam
from pancrafter_cli.raster.arrays import read_array
from pancrafter_cli.raster.products import scene_in
from pancrafter_cli.raster.register import register
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


def load(folder: Path, *, registered: bool) -> Pair:
    """The scene, reduced; before that PAN and MS are registered or taken as they lie."""
    product = scene_in(folder)
    with open_scene(product.pan, product.ms) as opened:
        gains = mtf_of(sensor_from_metadata(opened.metadata), opened.bands).ms
        if product.reference is not None:
            return referenced_pair(folder.name, product, gains)
        scene, _ = register(opened, "auto" if registered else "off")
        return reduce_scene(scene, folder.name, gains, 1024)


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


def main() -> None:
    """Print one Markdown table row per scene and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("scenes", nargs="+")
    parser.add_argument("--model", default="universal-small")
    parser.add_argument("--consistency", type=int, help="back-projections of the model; default: those of sharpen")
    parser.add_argument(
        "--unregistered", action="store_true", help="take PAN and MS as they lie, on the whole and from place to place"
    )
    options = parser.parse_args()
    print("| scene | method | ERGAS | SAM (degrees) |\n|---|---|---|---|")
    for name in options.scenes:
        pair = load(options.root / name, registered=not options.unregistered)
        with tempfile.TemporaryDirectory() as work:
            pan, ms, _ = write_pair(pair, Path(work))
            images = {}
            for label, given in (
                ("cubic", {"method": "exp"}),
                (
                    f"pancrafter {Path(options.model).stem}",
                    {"model": options.model, "consistency": options.consistency},
                ),
            ):
                result = Path(work) / f"{len(images)}.tif"
                # The truth lies where MS says, and so must what is compared with it: only PAN may move.
                sharpen(pan, ms, result, registration="off", local_registration=not options.unregistered, **given)
                images[label] = read_array(result)
            images["GDAL weighted Brovey"] = brovey(pan, ms)
        # One set of pixels for all methods: those that every one of them could fill.
        valid = pair.valid & (images["GDAL weighted Brovey"] != NODATA).all(axis=0)
        for method, image in images.items():
            scores = ergas(pair.truth, image, pair.ratio, valid), sam(pair.truth, image, valid)
            print(f"| {name} | {method} | {scores[0]:.3f} | {scores[1]:.3f} |")


if __name__ == "__main__":
    main()
