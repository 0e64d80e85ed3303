#!/usr/bin/env python
"""Measure the MTF of MS on pairs whose MTF is known, while PAN is displaced against MS from place to place.

    python examples/measure_mtf.py SCENES NAME [NAME ...]

The scenes are reduced by Wald's protocol with an MTF of 0.30, and PAN is then displaced by a smooth random field. For
each amount (MS pixels, root mean square) are printed the MTF that is found, and ERGAS of the default model when it is
told the true MTF and when it measures it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy import ndimage

from pancrafter_cli.data.wald import Pair, reduce_scene, referenced_pair, write_pair
from pancrafter_cli.metrics.streaming import reduced_scores
from pancrafter_cli.raster.products import scene_in
from pancrafter_cli.raster.register import register
from pancrafter_cli.raster.scene import SceneOptions, open_scene
from pancrafter_cli.tasks.fusers import Runner, make_fuser, network_runner

GAIN = 0.3
AMOUNTS = (0.0, 0.3, 0.6)
KNOT = 24.0  # PAN pixels: sigma of the Gaussian that makes the field smooth
LARGEST = 512  # MS pixels a side


def pair_of(folder: Path) -> Pair:
    """The scene reduced with GAIN, or its own reference degraded with it."""
    product = scene_in(folder)
    with open_scene(product.pan, product.ms) as opened:
        gains = (GAIN,) * opened.bands
        if product.reference is not None:
            return referenced_pair(folder.name, product, gains)
        return reduce_scene(register(opened)[0], folder.name, gains, LARGEST)


def displaced(pair: Pair, amount: float) -> Pair:
    """The pair with PAN displaced by `amount` MS pixels, root mean square, in a random direction at each place."""
    rng = np.random.default_rng(1)
    fields = [ndimage.gaussian_filter(rng.standard_normal(pair.pan.shape[1:]), KNOT, mode="wrap") for _ in range(2)]
    off = np.stack([field / field.std() for field in fields]) * amount * pair.ratio / np.sqrt(2)
    at = np.indices(pair.pan.shape[1:]) + off
    pan = ndimage.map_coordinates(pair.pan[0], at, order=3, mode="nearest")
    return replace(pair, pan=pan[None].astype(np.float32))


def measured(pair: Pair, runner: Runner) -> tuple[float, dict[str, float]]:
    """The MTF that is found, and ERGAS when it was told and when it was measured."""
    if pair.truth is None:
        raise ValueError("the pair has no truth")
    found, ergas = 0.0, {}
    with TemporaryDirectory() as work:
        pan, ms, _ = write_pair(pair, Path(work))
        for name, gain in (("told", GAIN), ("measured", None)):
            with open_scene(pan, [ms], SceneOptions(ms_mtf=gain)) as scene:
                sharp = make_fuser(scene, runner=runner).read((0, scene.grid.height), (0, scene.grid.width))()
                found = scene.statistics.ms_mtf
            scores = reduced_scores(pair.truth.astype(float), sharp.astype(float), pair.ratio, valid=pair.valid)
            ergas[name] = scores.ergas
    return found, ergas


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()
    runner = network_runner()
    print("| scene | displaced by | MTF found | ERGAS, MTF told | ERGAS, MTF measured |\n|---|---|---|---|---|")
    for name in options.names:
        pair = pair_of(options.scenes / name)
        for amount in AMOUNTS:
            found, ergas = measured(displaced(pair, amount) if amount else pair, runner)
            print(f"| {name} | {amount:g} | {found:.3f} | {ergas['told']:.3f} | {ergas['measured']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
