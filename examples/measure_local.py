#!/usr/bin/env python
"""Measure what local registration gains on the demo scene, whose truth is known, while PAN is displaced.

    python examples/measure_local.py [--method network]

PAN is displaced by a smooth field of so many MS pixels (greatest along one axis). Printed are ERGAS against the
reference, and HQNR, which does not know it, without and with local registration.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
from scipy import ndimage

from pancrafter_cli import sharpen
from pancrafter_cli.metrics.reduced import ergas
from pancrafter_cli.raster.arrays import read_array
from pancrafter_cli.tasks.demo import RATIO, write_demo

AMOUNTS = (0.0, 0.1, 0.2, 0.4, 0.8)
WAVES = 900.0, 1100.0  # PAN pixels


def displace(pan: Path, amount: float) -> None:
    """Move the content of PAN by up to `amount` MS pixels along each axis, differently from place to place."""
    with rasterio.open(pan, "r+") as file:
        image = file.read(1).astype(np.float64)
        rows, cols = np.indices(image.shape).astype(np.float64)
        off = np.stack([np.sin(2 * np.pi * cols / WAVES[0]), np.cos(2 * np.pi * (rows + cols) / WAVES[1])])
        at = np.stack([rows, cols]) - amount * RATIO * off
        moved = ndimage.map_coordinates(image, at, order=3, mode="nearest")
        file.write(np.rint(moved).clip(1, None).astype(file.dtypes[0]), 1)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="network")
    options = parser.parse_args()
    print("| displaced by | ERGAS | HQNR | ERGAS, local | HQNR, local |\n|---|---|---|---|---|")
    for amount in AMOUNTS:
        with TemporaryDirectory() as work:
            pan, ms, truth = write_demo(Path(work)).files
            displace(pan, amount)
            numbers = []
            for local in (False, True):
                product = Path(work) / f"{local}.tif"
                given = {"method": options.method, "registration": (0.0, 0.0), "local_registration": local}
                result = sharpen(pan, ms, product, score=True, **given)
                numbers += [ergas(read_array(truth), read_array(product), RATIO), result.scores["hqnr"]]
        texts = (f"{value:.3f}" if n % 2 == 0 else f"{value:.4f}" for n, value in enumerate(numbers))
        print(f"| {amount:g} | {' | '.join(texts)} |", flush=True)


if __name__ == "__main__":
    main()
