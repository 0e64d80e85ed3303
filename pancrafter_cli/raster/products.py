"""Products as vendors deliver them: which file of a folder is PAN, which are MS, and what sensor took them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from pancrafter_cli.errors import NoProduct, RasterError, UsageError
from pancrafter_cli.geometry.sensors import sensor_from_metadata
from pancrafter_cli.raster.finished import is_product
from pancrafter_cli.raster.folders import (
    DEPTH,
    files_by_name,
    files_in,
    is_preview,
    rasters_of,
    unpacking,
    without_previews,
    words_of,
)
from pancrafter_cli.raster.inputs import open_raster
from pancrafter_cli.raster.landsat import LandsatBand, landsat_band
from pancrafter_cli.raster.paths import is_local, stored_file

_SHOWN = 8
_VISIBLE = ("blue", "green", "red", "nir")

# Landsat: sensor and the numbers of its blue, green, red and near infrared bands. PAN is band 8 of each.
_LANDSAT = {
    "LC08": ("Landsat-8", (2, 3, 4, 5)),
    "LO08": ("Landsat-8", (2, 3, 4, 5)),
    "LC09": ("Landsat-9", (2, 3, 4, 5)),
    "LO09": ("Landsat-9", (2, 3, 4, 5)),
    "LE07": ("Landsat-7", (1, 2, 3, 4)),
}
_LANDSAT_PAN = 8
# What GF-7 and ZY-3 take looking forward (and ZY-3 backward) is stereo, and no PAN of their MS.
_GAOFEN = re.compile(
    r"(?P<platform>GF\d(?=[A-D]?_)|ZY3(?=-?\d*[A-Z]?_)).*-(?P<kind>(?:BWD)?PAN|NAD|MSS|(?:BWD)?MUX)\d?(?:[._-].*)?"
    r"\.tiff?",
    re.IGNORECASE,
)
_GAOFEN_PAN = ("PAN", "BWDPAN", "NAD")
_GAOFEN_GAINS = ("GF-1", "GF-2")  # of which the MTF is known
_MAXAR_KIND = re.compile(r"-([PMS])[123][A-Z]S(?:[-_.]|$)", re.IGNORECASE)
_MAXAR_TILE = re.compile(r"_R\d+C\d+[-_.]", re.IGNORECASE)
NAMED, GUESSED = "pan.tif and ms.tif", "two rasters, PAN by its one band"  # layouts
_KNOWN_NAMES = "names that tell by themselves are X_pan and X_ms, or X_pan, X_blue, X_green, X_red, X_nir"
PAN_WORDS = {"pan", "panchromatic"}
MS_WORDS = {"ms", "mul", "mss", "mux", "multi", "multispectral", "xs"}
_ALSO_MS = {"analytic"}  # SkySat, where no other word tells
_BAND_WORDS = {
    **dict.fromkeys(("pan", "panchromatic", "p"), "pan"),
    **dict.fromkeys(("blue", "blu", "b"), "blue"),
    **dict.fromkeys(("green", "grn", "g"), "green"),
    **dict.fromkeys(("red", "r"), "red"),
    **dict.fromkeys(("nir", "n"), "nir"),
}


@dataclass(frozen=True)
class ProductFiles:
    """The files of a scene: `pan`, and `ms` in the order of bands; `layout` says in words what was recognised.

    `sensor` is None and `band_names` empty where the product does not tell. `reference` is what a perfect product
    would be, where the folder holds that.
    """

    pan: Path
    ms: tuple[Path, ...]
    sensor: str | None = None
    band_names: tuple[str, ...] = ()
    layout: str = "files as given"
    reference: Path | None = None


def find_product(paths: Sequence[Path]) -> ProductFiles:
    """The scene that `paths` names: PAN and MS files as given, or what lies in the folder (or folders) of a product.

    Known are Landsat Collection, DIMAP (Pleiades, SPOT), Maxar (.TIL or .TIF with .IMD), GF and ZY-3, and any folder
    with one recognisable pair, or with PAN and bands in files named after them; folders are searched 3 levels deep, and
    our own products in them left out. Raises UsageError for paths that are no scene and RasterError when a folder holds
    none, more than one, or a part of one; the message lists what was seen.
    """
    folders = [path for path in paths if is_local(path) and os.path.isdir(path)]  # noqa: PTH112 - never raises
    if not folders:
        if len(paths) < 2:
            _check_archive(paths)
            given = f"only {paths[0]} is given" if paths else "no file is given"
            raise UsageError(f"{given}; expected PAN and MS", "give PAN and then MS, or the folder of a product")
        return ProductFiles(paths[0], tuple(paths[1:]))
    if len(folders) < len(paths):
        around = " ".join(dict.fromkeys(str(path if path in folders else path.parent) for path in paths))
        raise UsageError(
            f"{folders[0]} is a folder and {next(p for p in paths if p not in folders)} is not",
            f"give both by their files, PAN and then MS, or both by their folders: {around}",
        )
    where = ", ".join(map(str, folders))
    files = sorted({file for folder in folders for file in files_in(folder)})
    try:
        found = _only_scene(where, files)
    except RasterError:
        found = None
    if found is None or any(map(is_product, (found.pan, *found.ms))):
        # Not sooner: to know our own products costs an open each.
        return _only_scene(where, files, {path for path in files if is_product(path)})
    return found


def _only_scene(where: str, files: list[Path], products: Collection[Path] = ()) -> ProductFiles:
    """The scene in the files, less our own products. Raises RasterError where it is not alone, NoProduct for none."""
    inputs = [path for path in files if path not in products]
    found = _recognised(where, inputs)
    if found is None:
        raise _no_product(where, files, " beside products of pancrafter" if products else "")
    _check_alone(where, found, inputs)
    return found


def _check_archive(paths: Sequence[Path]) -> None:
    """Raise UsageError for an archive given as a product."""
    for path in paths:
        if (command := unpacking(stored_file(path) or path)) is not None:
            raise UsageError(
                f"{path}: is an archive; expected PAN and MS, or the folder of a product",
                f"unpack it ({command}) and give the folder",
            )


def _no_product(where: str, files: list[Path], beside: str = "") -> NoProduct:
    """The error for files among which there is no scene; it lists what was seen."""
    rasters = rasters_of(files)
    if not files:
        return NoProduct(
            f"{where}: holds no files within {DEPTH} levels of folders", "give the folder of the product itself"
        )
    archives = [(path, command) for path in files if (command := unpacking(path)) is not None]
    if archives and not rasters:
        path, command = archives[0]
        return NoProduct(f"{where}: holds no rasters, but an archive, {path.name}", f"unpack it: {command}")
    depth = "" if rasters else f" within {DEPTH} levels of folders"
    seen = _failure(f"{where}: no PAN and MS pair is recognised{beside}{depth}", rasters or files)
    return NoProduct(seen.message, f"{seen.hint}; {_KNOWN_NAMES}")


def _recognised(where: str, files: list[Path]) -> ProductFiles | None:
    """The scene in the files by the first layout that fits. Raises RasterError for several scenes and for parts."""
    finders = (_landsat, _dimap, _maxar, _gaofen, _plain, _bands_apart)
    return next((found for finder in finders if (found := finder(where, files)) is not None), None)


def _check_alone(where: str, found: ProductFiles, files: list[Path]) -> None:
    """Raise RasterError when scenes lie beside the folder of the one that was found, whose layout came first."""
    own = Path(os.path.commonpath([path.absolute().parent for path in (found.pan, *found.ms)]))
    beside: dict[Path, list[Path]] = {}
    for path in files:
        if not path.absolute().is_relative_to(own) and not is_preview(path):
            above = Path(os.path.commonpath([own, path.absolute()]))
            first = path.absolute().relative_to(above).parts[0]
            beside.setdefault(above / first, []).append(path)
    for folder, others in beside.items():
        try:
            other = _recognised(where, others)
        except RasterError:
            continue  # parts of a scene, or what is none
        if other is not None and other.layout != GUESSED:
            raise RasterError(
                f"{where}: holds more than one scene: {found.layout} in {own}, and {other.layout} in {folder}",
                "give the folder of one of them, or sharpen all with `pancrafter batch`",
            )


def scene_in(folder: Path) -> ProductFiles:
    """The scene of a folder: its pan.tif and ms.tif, with gt.tif as the reference, else the product in it.

    Raises UsageError when it is no folder, RasterError when it cannot be read or holds one of pan.tif and ms.tif
    alone, NoProduct and RasterError as `find_product` does.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder", "give the folder of a scene: pan.tif and ms.tif, or a product")
    try:
        files = files_by_name(folder)
    except OSError as error:
        raise RasterError(
            f"{folder}: cannot be read ({error.strerror})", "allow reading it, or move it away"
        ) from error
    reference = files.get("gt.tif")
    pan, ms = files.get("pan.tif"), files.get("ms.tif")
    if pan and ms:
        return ProductFiles(pan, (ms,), layout=NAMED, reference=reference)
    try:
        return replace(find_product([folder]), reference=reference)
    except NoProduct as error:
        if pan or ms:
            raise RasterError(
                f"{folder}: has {'pan' if pan else 'ms'}.tif and no {'ms' if pan else 'pan'}.tif",
                "put it beside the other, or move the folder away",
            ) from error
        raise


# --- Landsat Collection


def _landsat(where: str, files: list[Path]) -> ProductFiles | None:
    """Level-1 bands with their PAN; or surface reflectance, to which the PAN of Level-1 has been added."""
    bands = [band for band in map(landsat_band, files) if band is not None]
    if not bands:
        return None
    scenes = sorted({band.scene for band in bands})
    acquisitions = {(band.platform, band.path_row, band.date) for band in bands}
    if len(acquisitions) > 1 or len(bands) > len({(band.surface, band.band) for band in bands}):
        raise _failure(f"{where}: holds several Landsat products", scenes)
    platform = bands[0].platform
    if platform not in _LANDSAT:
        raise RasterError(f"{where}: {platform} has no PAN band", "Landsat 7, 8 and 9 have one (OLI and ETM+ products)")
    sensor, numbers = _LANDSAT[platform]
    kinds = [_landsat_bands(bands, surface, numbers) for surface in (False, True)]
    complete = [kind for kind in kinds if kind]
    pan = _landsat_pan(where, bands)
    if len(complete) > 1:
        named = " ".join(path.name for path in (pan, *complete[1]))
        raise RasterError(
            f"{where}: holds both Level-1 and surface-reflectance bands: {', '.join(scenes)}",
            f"for Level-1, give its folder alone; for surface reflectance, name PAN and bands: {named}",
        )
    if not complete:
        wanted = ", ".join(f"B{n}" for n in numbers)
        raise _failure(f"{where}: bands are missing; needed are {wanted} of one level", [b.path for b in bands])
    names = ", ".join(f"B{n}" for n in numbers)
    kind = "surface reflectance" if kinds[1] else "Level-1"
    return ProductFiles(pan, complete[0], sensor, _VISIBLE, f"{sensor} {kind}, {names} as {', '.join(_VISIBLE)}")


def _landsat_bands(bands: list[LandsatBand], surface: bool, numbers: tuple[int, ...]) -> tuple[Path, ...]:
    """The files of these bands, empty when one is missing."""
    paths = {band.band: band.path for band in bands if band.surface == surface}
    return tuple(paths[n] for n in numbers) if all(n in paths for n in numbers) else ()


def _landsat_pan(where: str, bands: list[LandsatBand]) -> Path:
    """The file of the PAN band. Raises RasterError that says which file is needed."""
    for band in bands:
        if band.band == _LANDSAT_PAN and not band.surface:
            return band.path
    first = bands[0]
    level = "surface-reflectance products have none; " if any(b.surface for b in bands) else ""
    raise RasterError(
        f"{where}: there is no PAN (band 8, 15 m); {level}it comes with Level-1",
        f"put {first.platform}_L1TP_{first.path_row}_{first.date}_..._B8.TIF, from the Level-1 product of the same "
        "scene, into this folder, or name the files: PAN first, then the bands",
    )


# --- DIMAP, Maxar, GF


def _dimap(where: str, files: list[Path]) -> ProductFiles | None:
    """Airbus: DIM_*.XML of PAN and of MS, told apart by what is in them."""
    documents = [f for f in files if f.name.upper().startswith("DIM_") and f.suffix.upper() == ".XML"]
    return _pair(where, "DIMAP", documents, _dimap_kind) if documents else None


def _dimap_kind(path: Path) -> str:
    """P, M or S (sharpened already), from the number of bands and the processing that the document names."""
    with closing(open_raster(path)) as file:
        if any(text.startswith("PMS") for text in file.metadata):
            return "S"
        return "P" if file.bands == 1 else "M"


def _maxar(where: str, files: list[Path]) -> ProductFiles | None:
    """WorldView, QuickBird, GeoEye: .TIL mosaics of tiles, or single .TIF files; .IMD beside them."""
    if not any(f.suffix.upper() == ".IMD" for f in files):
        return None
    mosaics = [f for f in files if f.suffix.upper() == ".TIL"]
    single = [f for f in files if f.suffix.upper() in (".TIF", ".NTF") and not _MAXAR_TILE.search(f.name)]
    return _pair(where, "Maxar", mosaics or single, _maxar_kind)


def _maxar_kind(path: Path) -> str:
    """P, M or S as the product code in the name (-P2AS-, -M2AS-, -S2AS-) or the end of the folder's name tells."""
    match = _MAXAR_KIND.search(path.name)
    if match:
        return match[1].upper()
    ending = re.split(r"[_-]", path.parent.name.upper())[-1]
    return {"PAN": "P", "MUL": "M"}.get(ending, "")


def _gaofen(where: str, files: list[Path]) -> ProductFiles | None:
    """GF-1, 2, 6 and 7 and ZY-3: *-PAN*.tiff and *-MSS*.tiff or *-MUX*.tiff of blue, green, red and near infrared."""
    matches = {f: m for f in files if (m := _GAOFEN.fullmatch(f.name))}
    kinds = {f: "P" if m["kind"].upper() in _GAOFEN_PAN else "M" for f, m in matches.items()}
    if len(set(kinds.values())) < 2:  # the other half may have another name
        return None
    found = _pair(where, "GF", list(matches), lambda path: kinds[path])
    platform = matches[found.pan]["platform"].upper()
    name = f"{platform[:2]}-{platform[2]}"
    with closing(open_raster(found.ms[0])) as file:
        names = found.band_names or (_VISIBLE if file.bands == len(_VISIBLE) else ())
    return ProductFiles(found.pan, found.ms, name if name in _GAOFEN_GAINS else None, names, name)


def _pair(where: str, layout: str, candidates: list[Path], kind: Callable[[Path], str]) -> ProductFiles:
    """The one PAN (kind P) and the one MS (M) among the candidates. Raises RasterError when it is not one of each."""
    kinds = {path: kind(path) for path in candidates}
    pan, ms = (without_previews([path for path, found in kinds.items() if found == wanted]) for wanted in "PM")
    if len(pan) != 1 or len(ms) != 1:
        raise _failure(f"{where}: expected one PAN and one MS ({layout}), found {len(pan)} and {len(ms)}", candidates)
    with closing(open_raster(pan[0])) as pan_file, closing(open_raster(ms[0])) as ms_file:
        sensor = sensor_from_metadata((*ms_file.metadata, *pan_file.metadata))
        names = tuple(fact.description or "" for fact in ms_file.facts)
    return ProductFiles(pan[0], (ms[0],), sensor, names if all(names) else (), layout)


# --- any other folder


def _plain(where: str, files: list[Path]) -> ProductFiles | None:
    """One raster named PAN and one named MS; or two rasters, of which one has one band and the other more."""
    rasters = rasters_of(files)
    pan = [f for f in rasters if _words(f) & PAN_WORDS and not _words(f) & MS_WORDS]
    others = [f for f in rasters if not _words(f) & PAN_WORDS]
    ms = [f for f in others if _words(f) & MS_WORDS] or [f for f in others if _words(f) & _ALSO_MS]
    layout = "pair by name"
    pair = without_previews(rasters)
    if not (pan and ms) and len(pair) == 2:
        layout, bands = GUESSED, {}
        for path in pair:
            with closing(open_raster(path)) as file:
                bands[path] = file.bands
        pan, ms = [f for f in pair if bands[f] == 1], [f for f in pair if bands[f] > 1]
    if not pan or not ms:
        return None
    chosen = pan + ms
    return _pair(where, layout, chosen, lambda path: "P" if path in pan else "M")


def _bands_apart(where: str, files: list[Path]) -> ProductFiles | None:
    """PAN and four bands in files of their own, whose names differ in the last word for a band alone."""
    groups: dict[tuple[str, ...], dict[str, list[Path]]] = {}
    for path in without_previews(rasters_of(files)):
        words = words_of(path)
        last = max((n for n, word in enumerate(words) if word in _BAND_WORDS), default=None)
        if last is not None:
            group = groups.setdefault((*words[:last], "", *words[last + 1 :]), {})
            group.setdefault(_BAND_WORDS[words[last]], []).append(path)
    wanted = ("pan", *_VISIBLE)
    complete = [group for group in groups.values() if all(len(group.get(name, ())) == 1 for name in wanted)]
    if len(complete) > 1:
        raise _failure(f"{where}: holds several scenes", [group["pan"][0] for group in complete])
    if not complete:
        return None
    pan, *ms = (complete[0][name][0] for name in wanted)
    texts: list[str] = []
    for path in (*ms, pan):
        with closing(open_raster(path)) as file:
            if file.bands != 1:
                return None
            texts += file.metadata
    layout = f"bands by name: {', '.join(_VISIBLE)}"
    return ProductFiles(pan, tuple(ms), sensor_from_metadata(texts), _VISIBLE, layout)


def _words(path: Path) -> set[str]:
    """The words of a file's name, without digits at their ends: `scene-PAN1_b.tif` holds `pan`."""
    return {word.rstrip("0123456789") for word in words_of(path)}


def _failure(message: str, seen: Sequence[Path | str]) -> RasterError:
    """An error that lists what was seen."""
    names = [item.name if isinstance(item, Path) else item for item in seen]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    listed = f"; seen: {', '.join(names[:_SHOWN])}{more}"
    return RasterError(message + listed, "name the files: PAN first, then MS (or its bands in order)")
