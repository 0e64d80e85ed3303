"""What a batch is to do: a CSV file or a folder read into scenes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pancrafter_cli.errors import OutputError, UsageError
from pancrafter_cli.raster.align import SceneOptions, parse_nodata
from pancrafter_cli.raster.folders import is_raster
from pancrafter_cli.raster.paths import is_local
from pancrafter_cli.raster.register import parse_registration
from pancrafter_cli.raster.targets import check_local
from pancrafter_cli.tasks.pairing import Entry, Found, pair_folder, scene_name


def read_manifest(manifest: Path, out: Path) -> Found:
    """The scenes of a CSV file or of a folder; `out` is the folder that products go to.

    Raises UsageError for a manifest that is none, and when it holds no scene.
    """
    if manifest.is_dir():
        try:
            found = pair_folder(manifest, out)
        except OSError as error:
            raise UsageError(f"{manifest}: cannot be listed: {error.strerror}", "check who may read it") from error
        wanted = "subfolders of one product each, or files NAME_pan.tif and NAME_ms.tif"
    elif manifest.is_file():
        found = Found(_rows(manifest))
        wanted = "rows below the header `pan,ms`"
    else:
        raise UsageError(f"{manifest}: is neither a CSV file nor a folder", "give one that exists")
    if not found.scenes and not found.broken:
        listed = ", ".join(f"{item.name} ({item.reason})" for item in found.left_out[:8])
        seen = f"; seen: {listed}" if listed else ""
        raise UsageError(f"{manifest}: holds no scene{seen}", f"expected are {wanted}")
    return found


def _rows(manifest: Path) -> tuple[Entry, ...]:
    """The scenes of a CSV file. Raises UsageError that names the line."""
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip().lower() for cell in next(reader, [])]
            _check_header(manifest, header)
            rows = [(f"{manifest}, line {reader.line_num}", row) for row in reader if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{manifest}: cannot be read as CSV: {error}", "save it as CSV in UTF-8") from error
    return tuple(_entry(where, header, row, manifest.parent) for where, row in rows)


def _check_header(manifest: Path, header: list[str]) -> None:
    """Raise UsageError for columns that are unknown, missing, or there twice."""
    known = ("pan", "ms", "output", *_FIELDS)
    unknown = [name or "(empty)" for name in header if name not in known]
    hint = f"known are {', '.join(known)}, separated by commas"
    if unknown:
        raise UsageError(f"{manifest}: unknown column{'s'[: len(unknown) > 1]} {', '.join(unknown)}", hint)
    if "pan" not in header:
        raise UsageError(f"{manifest}: there is no column pan", hint)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UsageError(f"{manifest}: the column {twice[0]} is there twice", hint)


def _entry(where: str, header: list[str], row: list[str], base: Path) -> Entry:
    """A row as a scene. Raises UsageError."""
    if len(row) != len(header):
        raise UsageError(
            f"{where}: has {len(row)} fields, expected {len(header)}", 'put "..." around fields that hold commas'
        )
    broken = next((name for name, cell in zip(header, row, strict=True) if "\0" in cell), None)
    if broken:
        raise UsageError(f"{where}: {broken} holds a NUL character", "save the file as CSV in UTF-8")
    cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
    if not cells["pan"]:
        raise UsageError(f"{where}: pan is empty", "give the PAN file, or the folder of a product")
    pan = _path(cells["pan"], base)
    ms = tuple(_path(part.strip(), base) for part in cells.get("ms", "").split(";") if part.strip())
    output = _output(where, cells["output"]) if cells.get("output") else None
    given = {name: _value(where, name, cells[name]) for name in _FIELDS if cells.get(name)}
    if "dem" in given:
        given["dem"] = _path(cells["dem"], base.absolute())
    folder = not ms and not is_raster(pan)
    name = output.with_suffix("").as_posix() if output else pan.resolve().name if folder else scene_name(pan)
    return Entry(name, pan, ms, output, given)


def _path(text: str, base: Path) -> Path:
    """A path as the manifest means it: relative ones start at the manifest."""
    path = Path(text)
    return base / path if is_local(path) else path


def _output(where: str, text: str) -> Path:
    """Where a product goes. Raises UsageError that names the line."""
    path = Path(text)
    try:
        check_local(path)
    except OutputError as error:
        raise UsageError(f"{where}: output: {error.message}", error.hint) from error
    return path


def _value(where: str, name: str, text: str) -> Any:
    """A cell as what its column holds. Raises UsageError that names the line."""
    try:
        return _FIELDS[name](text)
    except UsageError as error:
        raise UsageError(f"{where}: {name}: {error.message}", error.hint) from error
    except ValueError as error:
        raise UsageError(f"{where}: {name} {text!r} is not possible", _EXAMPLES[name]) from error


def _mtf(text: str) -> float | None:
    return SceneOptions(ms_mtf=float(text)).ms_mtf


def _point(text: str) -> tuple[float, float]:
    x, y = (float(part) for part in text.split(","))
    return x, y


_FIELDS: dict[str, Callable[[str], Any]] = {
    "sensor": str,
    "ms_mtf": _mtf,
    "nodata": parse_nodata,
    "registration": parse_registration,
    "ratio": float,
    "ms_origin": _point,
    "dem": Path,
}
_EXAMPLES = {
    "ms_mtf": "give a number, such as 0.3",
    "ratio": "give a number, such as 4",
    "ms_origin": 'give X,Y in PAN pixels, such as "0.5,-2"',
}
