"""Landsat Collection names: which band a file holds, and where its quality band lies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# Collection 2 Level-2 surface reflectance = DN * scale + offset (Landsat 8-9 C2 L2 science product guide, USGS);
# the files themselves do not say it.
SURFACE_SCALE, SURFACE_OFFSET = 2.75e-05, -0.2
FILL_BIT = 1  # bit 0 of QA_PIXEL (Collection 2) and of BQA (Collection 1)
# No data of a band, whether its file says so or not: data begin at 1 (Level-1 and Level-2 data format control books,
# USGS).
FILL = 0.0
_QUALITY = ("QA_PIXEL", "BQA")

_NAME = re.compile(
    r"(?P<platform>L[COET]0[4-9])_(?P<level>L[12][A-Z]{2})_(?P<path_row>\d{6})_(?P<date>\d{8})_\d{8}_(?P<collection>\d{2})"
    r"_(?:T1|T2|RT)_(?P<surface>SR_)?B(?P<band>\d{1,2})\.TIFF?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class LandsatBand:
    """One band file; `scene` is all of its name before the band, `surface` tells surface reflectance from DN."""

    path: Path
    scene: str
    platform: str
    path_row: str
    date: str
    collection: int
    surface: bool
    band: int


def landsat_band(path: Path) -> LandsatBand | None:
    """What a file's name says if it is that of a Landsat Collection band, else None."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    name = match.groupdict()
    return LandsatBand(
        path=path,
        scene=re.split(r"_(?:SR_)?B\d{1,2}\.", path.name, flags=re.IGNORECASE)[0],
        platform=name["platform"].upper(),
        path_row=name["path_row"],
        date=name["date"],
        collection=int(name["collection"]),
        surface=name["surface"] is not None,
        band=int(name["band"]),
    )


def quality_file(path: Path) -> Path | None:
    """The QA_PIXEL or BQA file beside a Landsat band file, None when there is none or `path` is something else."""
    band = landsat_band(path)
    if band is None:
        return None
    suffixes = dict.fromkeys((path.suffix, ".TIF", ".tif", ".TIFF", ".tiff"))
    names = (f"{quality}{suffix}" for kind in _QUALITY for quality in (kind, kind.lower()) for suffix in suffixes)
    beside = (path.with_name(f"{band.scene}_{name}") for name in names)
    return next((file for file in beside if file.is_file()), None)
