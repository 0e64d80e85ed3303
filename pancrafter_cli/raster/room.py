"""Whether a disk has room for what a run is going to write, asked before it begins."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from pancrafter_cli.errors import OutputError
from pancrafter_cli.raster.part import kept_name
from pancrafter_cli.raster.spec import OutputSpec

# What sensors see was never compressed further than this; what has no data compresses to next to nothing.
_SMALLEST_SHARE = 1 / 8


def uncompressed_bytes(spec: OutputSpec) -> int:
    """Bytes of the pixels of a product, and of its mask."""
    pixels = spec.grid.width * spec.grid.height
    return pixels * len(spec.bands) * np.dtype(spec.dtype).itemsize + (pixels // 8 if spec.needs_mask else 0)


def check_room(files: Mapping[Path, OutputSpec], valid: float, notice: Callable[[str], None]) -> None:
    """Compare the room on the disks of some files with what they need; `valid` is the share of pixels with data.

    How far they will compress is known only afterwards. Less than an eighth of the valid pixels' bytes can never do and
    raises OutputError; less than all their bytes is worth a notice, for it mostly does.
    """
    disks: dict[int, list[Path]] = {}
    for path in files:
        disks.setdefault(_folder(path).stat().st_dev, []).append(path)
    for paths in disks.values():
        most = int(valid * sum(uncompressed_bytes(files[path]) for path in paths))
        least = int(most * _SMALLEST_SHARE)
        free = shutil.disk_usage(_folder(paths[0])).free + sum(_kept(path) for path in paths)
        if free < least:
            raise OutputError(
                f"{paths[0]}: cannot be written: {least / 1e6:.1f} MB are needed at the least, "
                f"{free / 1e6:.1f} MB are free there",
                "make room or write to another disk",
            )
        if free < most:
            notice(f"{free / 1e6:.1f} MB are free for {paths[0]}, which may take up to {most / 1e6:.1f} MB")


def _folder(path: Path) -> Path:
    return Path(os.path.realpath(path)).parent


def _kept(path: Path) -> int:
    """Bytes that an unfinished run has written already."""
    try:
        return kept_name(Path(os.path.realpath(path))).stat().st_size
    except OSError:
        return 0
