#!/usr/bin/env python
"""Measure what the default halo costs: the difference between its result and the exact one, on a scene.

    python examples/measure_halo.py pan.tif ms.tif

Both results are made with tiles of 256 PAN pixels, the smallest: the share of pixels near a border is largest then.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pancrafter_cli.raster.register import register
from pancrafter_cli.raster.scene import open_scene
from pancrafter_cli.tasks.confidence import Judge
from pancrafter_cli.tasks.fusers import make_fuser, network_runner
from pancrafter_cli.tasks.tiles import DEFAULT_HALO, judged_tiles, make_tiling


def main() -> None:
    """Print the 50th, 99th, 99.9th and 100th percentile of the difference in percent of the scene's scale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pan", type=Path)
    parser.add_argument("ms", type=Path, nargs="+")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="as of `sharpen`")
    options = parser.parse_args()
    runner = network_runner(precision=options.precision)
    images, tilings = [], []
    with open_scene(options.pan, options.ms) as scene:
        fuser = make_fuser(scene, runner=runner)
        judge = Judge(scene, register(scene, "off")[1], layer=False)
        for halo in (DEFAULT_HALO, "full"):
            tilings.append(make_tiling(256, halo, reach=fuser.reach))
            image = np.zeros((scene.bands, *scene.grid.shape), np.float32)
            for found in judged_tiles(scene, fuser, tilings[-1], judge):
                image[:, slice(*found.tile.rows.core), slice(*found.tile.cols.core)] = found.core
            images.append(image / scene.statistics.scale)
    difference = 100 * np.abs(images[0] - images[1])
    values = ", ".join(f"{p:g} %: {np.percentile(difference, p):.4f}" for p in (50, 99, 99.9, 100))
    print(
        f"halo {tilings[0].halo} against {tilings[1].halo}: difference in percent of the scale at percentile {values}"
    )


if __name__ == "__main__":
    main()
