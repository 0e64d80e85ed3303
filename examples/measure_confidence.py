#!/usr/bin/env python
"""Measure what the confidence layer is worth: its rank correlation with the true error, on scenes whose truth is known.

    python examples/measure_confidence.py SCENES NAME [NAME ...]

The project's figures are for vhr-henan, wv2-rotterdam-1, wv2-rotterdam-2, ikonos, wv2-8band, gf2-rr-val,
pleiades-rr-val, landsat8-pamplona, dg-4band, geoeye1-8bit, landsat7-05, qb-shifted-2 and wv3-chip-0.
SCENES is a folder of folders with pan.tif and ms.tif. PAN and MS are reduced by Wald's protocol, so that the original
MS is the truth; a folder that has a gt.tif too is taken as it is. The synthetic demo scene comes last. The true error
of a block of 8 x 8 PAN pixels is the mean over pixels and bands of |sharp - truth|, relative to the mean of the truth.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pancrafter_cli.data.wald import Pair, reduce_scene, referenced_pair, write_pair
from pancrafter_cli.geometry.sensors import mtf_of, sensor_from_metadata
from pancrafter_cli.raster.arrays import read_array
from pancrafter_cli.raster.products import scene_in
from pancrafter_cli.raster.scene import open_scene
from pancrafter_cli.tasks.demo import write_demo
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions

BLOCK = 8  # PAN pixels
LARGEST = 512  # MS pixels a side of a reduced scene
FLOOR = 0.02  # of the brightest percent: darker blocks count as so bright


def main() -> None:
    """Print one line per scene: rank correlation, and the true error where confidence is high and low."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--method", default="network")
    options = parser.parse_args()
    print(f"{'scene':20} {'rank correlation':>16} {'mean error':>10} {'most confident 20 %':>20} {'least 20 %':>10}")
    with tempfile.TemporaryDirectory() as work:
        for name, pan, ms, truth in prepared(options.scenes, options.names, Path(work)):
            confidence, error = blocks(pan, ms, truth, options.method, Path(work))
            rho = spearmanr(1 - confidence, error).statistic
            low, high = np.quantile(confidence, (0.2, 0.8))
            worst, best = error[confidence <= low].mean(), error[confidence >= high].mean()
            print(f"{name:20} {rho:16.2f} {error.mean():10.1%} {best:20.1%} {worst:10.1%}", flush=True)


def prepared(scenes: Path, names: list[str], work: Path) -> Iterator[tuple[str, Path, Path, Path]]:
    """(name, PAN, MS, truth) of every scene and the demo, as files."""
    for name in names:
        folder = work / name
        folder.mkdir()
        pan, ms, truth = write_pair(reduced(scenes / name), folder)
        if truth is not None:
            yield name, pan, ms, truth
    write_demo(work / "demo", size=512)
    yield "demo", work / "demo" / "pan.tif", work / "demo" / "ms.tif", work / "demo" / "reference.tif"


def reduced(folder: Path) -> Pair:
    """The pair of a scene's folder."""
    product = scene_in(folder)
    with open_scene(product.pan, product.ms) as scene:
        mtf = mtf_of(sensor_from_metadata(scene.metadata), scene.bands)
        if product.reference is not None:
            return referenced_pair(folder.name, product, mtf.ms)
        return reduce_scene(scene, folder.name, mtf.ms, LARGEST)


def blocks(
    pan: Path, ms: Path, truth: Path, method: str, work: Path
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Confidence and true relative error of the blocks that are valid throughout."""
    product, layer = work / "sharp.tif", work / "confidence.tif"
    # A made pair lies as it says: the truth is where MS is.
    sharpen_scene(SharpenOptions(pan, (ms,), product, method, registration="off", confidence=layer, overwrite=True))
    sharp, reference, confidence = read_array(product), read_array(truth), read_array(layer)[0]
    error = block_means(np.abs(sharp - reference).mean(axis=0))
    level = np.maximum(block_means(reference.mean(axis=0)), FLOOR * np.percentile(np.nan_to_num(reference), 99))
    relative, mean = (error / level).ravel(), block_means(confidence).ravel()
    known = np.isfinite(relative) & np.isfinite(mean)
    return mean[known], relative[known]


def block_means(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """Means of whole blocks of an image (H, W)."""
    height, width = (size // BLOCK for size in image.shape)
    cut = image[: height * BLOCK, : width * BLOCK]
    return cut.reshape(height, BLOCK, width, BLOCK).mean(axis=(1, 3))


if __name__ == "__main__":
    main()
