"""Sensors: which one a product's metadata names, and how sharply each of them sees."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pancrafter_cli.errors import UsageError
from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, DEFAULT_PAN_GAIN

# What vendors write into the metadata of their products, most specific first.
_NAMES = (
    (r"\bWV-?0?3\b|WORLDVIEW-?0?3", "WorldView-3"),
    (r"\bWV-?0?2\b|WORLDVIEW-?0?2", "WorldView-2"),
    (r"\bWV-?0?4\b|WORLDVIEW-?0?4", "WorldView-4"),
    (r"\bGE-?0?1\b|GEOEYE-?0?1", "GeoEye-1"),
    (r"\bQB-?0?2\b|QUICKBIRD", "QuickBird"),
    (r"\bIKONOS", "IKONOS"),
    (r"\bPLEIADES[ _-]?NEO|\bPNEO", "Pleiades Neo"),
    (r"\bPLEIADES|\bPHR", "Pleiades"),
    (r"\bSPOT[ _|-]{0,3}[67]\b", "SPOT-6/7"),  # DIMAP gives mission and number as two texts
    (r"\bLANDSAT[ _-]?9\b", "Landsat-9"),
    (r"\bLANDSAT[ _-]?8\b", "Landsat-8"),
    (r"\bLANDSAT[ _-]?7\b", "Landsat-7"),
    (r"\b(GF|GAOFEN)[ -]?0?1[A-D]?(_|\b)", "GF-1"),
    (r"\b(GF|GAOFEN)[ -]?0?2(_|\b)", "GF-2"),
)


@dataclass(frozen=True)
class SensorMtf:
    """How sharply a sensor sees: its MTF at the MS Nyquist frequency, per MS band and for PAN.

    `ms` is in the sensor's own band order; a single number stands for any number of bands. `peak` is the greatest
    DN the sensor delivers (2047 for 11 bits), None where it is not fixed.
    """

    name: str
    ms: tuple[float, ...]
    pan: float
    peak: int | None = None

    @property
    def ms_mean(self) -> float:
        """The mean gain of the bands."""
        return sum(self.ms) / len(self.ms)


def expected_peak(sensor: SensorMtf, stated: float | None, dtype: str) -> float | None:
    """The greatest DN there can be: as the metadata state, else as the sensor delivers, or as the number format holds.

    None where neither is known. A product of 11 bits may have been brought to 8 since.
    """
    known = sensor.peak if stated is None else stated
    if known is None or not np.issubdtype(dtype, np.integer):
        return known
    return min(known, float(np.iinfo(dtype).max))


GENERIC_MTF = SensorMtf("generic", (DEFAULT_MS_GAIN,), DEFAULT_PAN_GAIN)

# Gains as the research toolboxes use them (Vivone et al. 2021); the generic ones where nothing is published.
_MTF = {
    sensor.name: sensor
    for sensor in (
        SensorMtf("QuickBird", (0.34, 0.32, 0.30, 0.22), 0.15, 2047),
        SensorMtf("IKONOS", (0.26, 0.28, 0.29, 0.28), 0.17, 2047),
        SensorMtf("GeoEye-1", (0.23,), 0.16, 2047),
        SensorMtf("WorldView-4", (0.23,), 0.16, 2047),
        SensorMtf("WorldView-2", (*(0.35,) * 7, 0.27), 0.11, 2047),
        SensorMtf("WorldView-3", (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315), 0.14, 2047),
        SensorMtf("GF-2", (DEFAULT_MS_GAIN,), DEFAULT_PAN_GAIN, 1023),
        *(
            SensorMtf(name, (DEFAULT_MS_GAIN,), DEFAULT_PAN_GAIN)
            for name in ("Pleiades", "Pleiades Neo", "SPOT-6/7", "Landsat-7", "Landsat-8", "Landsat-9", "GF-1")
        ),
        GENERIC_MTF,
    )
}
_SHORT = {
    "qb": "QuickBird",
    "ik": "IKONOS",
    "ge1": "GeoEye-1",
    "wv2": "WorldView-2",
    "wv3": "WorldView-3",
    "wv4": "WorldView-4",
    "gf1": "GF-1",
    "gf2": "GF-2",
    "gaofen1": "GF-1",
    "gaofen2": "GF-2",
    "phr": "Pleiades",
    "pneo": "Pleiades Neo",
    "spot6": "SPOT-6/7",
    "spot7": "SPOT-6/7",
    "none": "generic",
}


def sensor_from_metadata(values: Iterable[str]) -> str | None:
    """The sensor that metadata texts name, or None. File names are no metadata and must not be passed."""
    text = " | ".join(values).upper()
    return next((name for pattern, name in _NAMES if re.search(pattern, text)), None)


def sensor_mtf(sensor: str | None) -> SensorMtf:
    """A sensor's MTF by its name or short form, in any case (`WorldView-3`, `wv3`); the generic one for None.

    Raises UsageError for a name that is not in the table.
    """
    if sensor is None:
        return GENERIC_MTF
    asked = _plain(sensor)
    names = {_plain(name): name for name in _MTF} | _SHORT
    if asked not in names:
        raise UsageError(f"unknown sensor {sensor!r}", f"use one of: {', '.join(_MTF)}")
    return _MTF[names[asked]]


def mtf_of(sensor: str | None, bands: int) -> SensorMtf:
    """The MTF of a sensor's product with `bands` MS bands, `ms` having that many gains.

    Which bands a product of fewer or more bands holds is not known: all of them then get the gain that
    more than half of the sensor's bands have (0.35 for WorldView-2), else the mean of its gains. Raises UsageError
    for an unknown sensor.
    """
    mtf = sensor_mtf(sensor)
    gains = mtf.ms if len(mtf.ms) == bands else (_typical(mtf.ms),) * bands
    return SensorMtf(mtf.name, gains, mtf.pan, mtf.peak)


def _typical(gains: tuple[float, ...]) -> float:
    """The gain that more than half of the bands have, else the mean of all."""
    commonest = max(gains, key=gains.count)
    return commonest if 2 * gains.count(commonest) > len(gains) else sum(gains) / len(gains)


def _plain(name: str) -> str:
    """Lower case letters and digits only: `WorldView-3` and `worldview 3` are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
