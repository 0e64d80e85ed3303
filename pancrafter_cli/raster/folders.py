"""Folders as they are searched for products: which files count, and which of them look like rasters by their names."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from pancrafter_cli.errors import RasterError

DEPTH = 3  # folders below the one given
_MOST_FILES = 20_000
_RASTERS = {
    *(".tif", ".tiff", ".jp2", ".j2k", ".ntf", ".nitf", ".img", ".vrt", ".gpkg", ".til", ".pix"),
    *(".dat", ".bsq", ".bil", ".bip", ".ers"),
}
_HEADER = ".hdr"  # of ENVI, after the whole name of a raster
_PREVIEWS = {"browse", "preview", "quicklook", "ql", "thumbnail", "thumb", "udm"}
_PREVIEW_ENDING = "qb"  # elsewhere in a name, that is QuickBird
# How archives are unpacked into a folder of their own, by their endings.
_UNPACK = {
    **dict.fromkeys(
        (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), "mkdir -p {folder} && tar -xf {path} -C {folder}"
    ),
    ".zip": "unzip {path} -d {folder}",
    ".7z": "7z x {path} -o{folder}",
    ".rar": "unrar x {path} {folder}/",
}


def is_raster(path: Path) -> bool:
    """Whether a file looks like a raster by its name, or by that of an ENVI header beside it."""
    return path.suffix.lower() in _RASTERS or os.path.isfile(f"{path}{_HEADER}")  # noqa: PTH113 - never raises


def is_preview(path: Path) -> bool:
    """Whether a file is called a browse image, a quicklook, a thumbnail or a mask of usable data."""
    words = words_of(path)
    return not _PREVIEWS.isdisjoint(word.rstrip("0123456789") for word in words) or words[-1] == _PREVIEW_ENDING


def without_previews(files: list[Path]) -> list[Path]:
    """The files less those that are called previews, unless there are no others."""
    return [file for file in files if not is_preview(file)] or files


def name_of(path: Path) -> str:
    """The name of a raster less its ending; dots stay in names that have none (`scene_0.5m_pan`, as ENVI has it)."""
    return path.stem if path.suffix.lower() in _RASTERS else path.name


def words_of(path: Path) -> list[str]:
    """The words of a file's name in small letters, in order."""
    return re.split(r"[^a-z0-9]+", name_of(path).lower())


def unpacking(path: Path) -> str | None:
    """The command that unpacks an archive into the folder it is in, None for what is no archive by its name."""
    for ending, command in _UNPACK.items():
        if path.name.lower().endswith(ending):
            folder = path.parent / path.name[: -len(ending)]
            return command.format(path=shlex.quote(str(path)), folder=shlex.quote(str(folder)))
    return None


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
        if any(is_raster(Path(root, file)) for file in files if not file.startswith(".")):
            return True
    return bool(unreadable)


def files_in(folder: Path) -> list[Path]:
    """All files of a folder down to `DEPTH`, hidden ones left out. Raises RasterError for far too many."""
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
    return [n for n in names if not n.startswith(".")] if len(here.relative_to(folder).parts) < DEPTH else []
