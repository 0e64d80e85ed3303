#!/usr/bin/env python
"""Sharpen one product of every layout, and print how far its corners and content lie from pyproj's answer.

    python examples/check_layouts.py [SCENES]

SCENES is a folder with the real scenes; without it only the built ones are looked at. Corners: distance from PAN's own
pixel corners; content: distance of the interpolated MS from MS sampled where pyproj puts each pixel, at worst in four
quarters; both in PAN pixels. Exit code 1 when any is 0.1 or more. Uses the builders of `tests/`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from rasterio.errors import NotGeoreferencedWarning

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.layouts import Found, built, check, real, remote, served

LARGEST = 0.1  # PAN pixels


def results(scenes: Path | None) -> Iterator[Found]:
    """Look at one layout after the other, each in a folder of its own."""
    with tempfile.TemporaryDirectory() as top:
        names = [name for name, _ in built(Path())] + ([name for name, _ in real(scenes, Path())] if scenes else [])
        for number, name in enumerate(names):
            folder = Path(top) / f"{number}"
            folder.mkdir()
            makers = dict(built(folder)) | (dict(real(scenes, folder)) if scenes else {})
            yield check(makers[name](), Path(top) / "out.tif")
        with served(Path(top)) as address:
            yield check(remote(Path(top), address), Path(top) / "out.tif")


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="?", type=Path, help="folder of real scenes to check too")
    scenes = parser.parse_args().scenes
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1"
    print("| layout | recognised as | grid | corners off | content off |\n|---|---|---|---|---|")
    worst = 0.0
    for found in results(scenes):
        print(
            f"| {found.layout} | {found.recognised} | {found.grid} | {found.corners:.4f} | {found.content:.4f} |",
            flush=True,
        )
        worst = max(worst, found.corners, found.content)
    return int(worst >= LARGEST)


if __name__ == "__main__":
    sys.exit(main())
