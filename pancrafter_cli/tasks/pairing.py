"""Scenes of a folder, paired by the names of files and folders; opened are only what may be products of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pancrafter_cli.errors import RasterError
from pancrafter_cli.raster.finished import is_product
from pancrafter_cli.raster.folders import (
    DEPTH,
    files_by_name,
    files_in,
    is_preview,
    is_raster,
    name_of,
    rasters_of,
    unpacking,
)
from pancrafter_cli.raster.products import MS_WORDS, PAN_WORDS

_WORD = re.compile(r"[^\W\d_]+\d*")
_LEFT_OUT = "neither PAN nor MS by its name"


@dataclass(frozen=True)
class Entry:
    """A scene to sharpen: its name, and PAN and MS files, or the folder of a product as `pan` alone.

    output: where to, None for the scene's name; given: fields of SharpenOptions that are its own.
    """

    scene: str
    pan: Path
    ms: tuple[Path, ...] = ()
    output: Path | None = None
    given: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Remark:
    """A scene that cannot be sharpened as it is, or a file that belongs to none, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Found:
    """The scenes of a manifest; those that are incomplete or ambiguous; and what belongs to no scene."""

    scenes: tuple[Entry, ...] = ()
    broken: tuple[Remark, ...] = ()
    left_out: tuple[Remark, ...] = ()


@dataclass(frozen=True)
class _Role:
    """What a name says: PAN or MS, of which scene; `key` is the same for the two files of a scene."""

    kind: Literal["PAN", "MS"]
    scene: str
    key: str


def pair_folder(folder: Path, output: Path) -> Found:
    """The scenes of a folder: those of its subfolders, and pairs such as NAME_pan.tif with NAME_ms.tif beside them.

    A subfolder is a scene if it holds rasters; which they are, is seen when it is sharpened, and `pan.tif` with
    `ms.tif` is clear at once. The folder `output` and hidden ones take no part, nor do products of earlier runs.
    """
    output = output.resolve()
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    inside = [_subfolder(path, output) for path in entries if path.is_dir() and path.resolve() != output]
    flat = _pairs(path for path in entries if is_raster(path) and not path.is_dir())
    packed = Found(left_out=tuple(Remark(path.name, "an archive: unpack it") for path in entries if unpacking(path)))
    parts = [flat, *inside, packed]
    scenes, broken, left_out = (
        tuple(item for part in parts for item in getattr(part, name)) for name in ("scenes", "broken", "left_out")
    )
    return Found(scenes, broken, left_out)


def scene_name(pan: Path) -> str:
    """What to call the scene of a PAN file: its name less the word that says PAN, else that of its folder."""
    role = _role(pan)
    name = role.scene if role else pan.stem
    return name or pan.absolute().parent.name


def _subfolder(folder: Path, output: Path) -> Found:
    """A subfolder as a scene; `output`, resolved, may lie within it."""
    try:
        exact = files_by_name(folder)
        if "pan.tif" in exact and "ms.tif" in exact:
            return Found((Entry(folder.name, exact["pan.tif"], (exact["ms.tif"],)),))
        files = files_in(folder)
        around = folder.resolve() in output.parents
        rasters = [p for p in rasters_of(files) if not (around and p.resolve().is_relative_to(output))]
        if not all(map(is_product, rasters)):
            return Found((Entry(folder.name, folder),))
    except (RasterError, OSError) as error:
        return Found(broken=(Remark(folder.name, str(error)),))
    if around and not rasters:
        return Found()
    packed = ", but with an archive: unpack it" if any(map(unpacking, files)) else ""
    nothing = f"a folder without rasters within {DEPTH} levels{packed}"
    return Found(left_out=(Remark(folder.name, "holds nothing but products of pancrafter" if rasters else nothing),))


def _pairs(files: Iterable[Path]) -> Found:
    """The pairs among files that lie side by side."""
    groups: dict[str, list[tuple[_Role, Path]]] = {}
    left_out: list[Remark] = []
    for path in files:
        role = _role(path)
        if role is None:
            left_out.append(Remark(path.name, _LEFT_OUT))
        elif is_product(path):
            left_out.append(Remark(path.name, "a product of pancrafter"))
        else:
            groups.setdefault(role.key, []).append((role, path))
    scenes: list[Entry] = []
    broken: list[Remark] = []
    for group in groups.values():
        pan, ms = ([path for role, path in group if role.kind == kind] for kind in ("PAN", "MS"))
        if len(pan) == len(ms) == 1:
            scenes.append(Entry(scene_name(pan[0]), pan[0], (ms[0],)))
        elif all(is_preview(path) for _, path in group):
            left_out += [Remark(path.name, "a preview by its name") for _, path in group]
        else:
            name = group[0][0].scene or group[0][1].absolute().parent.name
            broken.append(Remark(name, _fault(pan, ms)))
    return Found(tuple(scenes), tuple(broken), tuple(left_out))


def _fault(pan: list[Path], ms: list[Path]) -> str:
    """Why files are no pair, in words."""
    names = ", ".join(path.name for path in (*pan, *ms))
    if pan and ms:
        return f"{len(pan)} PAN and {len(ms)} MS files share this name: {names}"
    return f"{names}: there is no {'MS' if pan else 'PAN'} of this name"


def _role(path: Path) -> _Role | None:
    """What the last PAN or MS word of a name says: `a_PAN2.tif` is PAN of a scene `a-2`."""
    name = name_of(path)
    for word in reversed(list(_WORD.finditer(name))):
        letters = word[0].lower().rstrip("0123456789")
        if letters in PAN_WORDS | MS_WORDS:
            parts = (name[: word.start()], word[0][len(letters) :], name[word.end() :])
            scene = "-".join(part.strip(" _.-") for part in parts if part.strip(" _.-"))
            key = "/".join(part.strip(" _.-").lower() for part in parts)
            return _Role("PAN" if letters in PAN_WORDS else "MS", scene, key)
    return None
