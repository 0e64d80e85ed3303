"""Sensors: which one a product's metadata names."""

from __future__ import annotations

import re
from collections.abc import Iterable

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
    (r"\bSPOT[ _-]?([67])\b", "SPOT-6/7"),
    (r"\bLANDSAT[ _-]?9\b", "Landsat-9"),
    (r"\bLANDSAT[ _-]?8\b", "Landsat-8"),
    (r"\bLANDSAT[ _-]?7\b", "Landsat-7"),
    (r"\bGF-?1\b|\bGAOFEN-?1\b", "GF-1"),
    (r"\bGF-?2\b|\bGAOFEN-?2\b", "GF-2"),
)


def sensor_from_metadata(values: Iterable[str]) -> str | None:
    """The sensor that metadata texts name, or None. File names are no metadata and must not be passed."""
    text = " | ".join(values).upper()
    return next((name for pattern, name in _NAMES if re.search(pattern, text)), None)
