"""Folders as they are searched for products: which files count, and which of them look like rasters by their names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pancrafter_cli.errors import RasterError

_DEPTH = 3  # folders below the one given
_MOST_FILES = 20_000
_RASTERS = {".tif", ".tiff", ".jp2", ".j2k", ".ntf", ".nitf", ".img", ".vrt", ".gpkg", ".til", ".pix", ".dat", ".bsq"}


def is_raster(path: Path) -> bool:
    """Whether a file looks like a raster by its name."""
    return path.suffix.lower() in _RASTERS


def rasters_of(files: Iterable[Path]) -> list[Path]:
    """Those that look like rasters by their names."""
    return [file for file in files if is_raster(file)]


def files_by_name(folder: Path) -> dict[str, Path]:
    """What a folder holds, by names in small letters. Raises OSError."""
    return {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True)}


def holds_rasters(folder: Path) -> bool:
    """Whether a folder holds a file that looks like a raster by its name, as deep as `files_in` looks.

    A folder that cannot be listed may hold some.
    """
    unreadable: list[OSError] = []
    for root, names, files in os.walk(folder, onerror=unreadable.append):
        names[:] = _below(folder, Path(root), names)
        if any(is_raster(Path(file)) for file in files if not file.startswith(".")):
            return True
    return bool(unreadable)


def rasters_in(folder: Path) -> list[Path]:
    """The files that look like rasters by their names, as deep as `files_in` looks. Raises RasterError."""
    return sorted(rasters_of(files_in(folder)))


def files_in(folder: Path) -> list[Path]:
    """All files of a folder down to `_DEPTH`, hidden ones left out. Raises RasterError for far too many."""
    found: list[Path] = []
    for root, names, files in os.walk(folder):
        here = Path(root)
        names[:] = _below(folder, here, names)
        found += [here / name for name in files if not name.startswith(".")]
        if len(found) > _MOST_FILES:
            raise RasterError(f"{folder}: holds more than {_MOST_FILES} files", "give the folder of one product")
    return found


def _below(folder: Path, here: Path, names: list[str]) -> list[str]:
    """Which subfolders of `here` a search of `folder` goes into."""
    return [n for n in names if not n.startswith(".")] if len(here.relative_to(folder).parts) < _DEPTH else []
