"""What stands on the ground of a simulated landscape, and the sun above it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pancrafter_cli.data.landscape.polygons import Points


@dataclass(frozen=True)
class Sun:
    """Direction to the sun: unit vector (x right, y down, z up)."""

    x: float
    y: float
    z: float

    @classmethod
    def at(cls, azimuth: float, elevation: float) -> Sun:
        """From azimuth (degrees clockwise from north, which is up) and elevation (degrees)."""
        a, e = math.radians(azimuth), math.radians(elevation)
        return cls(math.sin(a) * math.cos(e), -math.cos(a) * math.cos(e), math.sin(e))


@dataclass(frozen=True)
class Wing:
    """A rectangle of a building: offset of its middle along and across, length, width (m)."""

    along: float
    across: float
    length: float
    width: float


@dataclass(frozen=True)
class Building:
    """A building of one or more wings; `roof` is gable, hip, flat, or row (ridge along u)."""

    centre: Points
    angle: float
    wings: tuple[Wing, ...]
    roof: str
    eaves: float  # m
    pitch: float  # radians
    material: str
    tint: float = 1.0
    label: int | None = None  # of the roof, when it shares that of other buildings
    skylights: float = 0.0  # m between rows of skylights; 0: none
    vents: int = 0
    solar: bool = False


@dataclass(frozen=True)
class Tree:
    """A crown: middle, radius and height (m), label."""

    x: float
    y: float
    radius: float
    height: float
    label: int


@dataclass(frozen=True)
class Car:
    """A vehicle; angle is its heading."""

    x: float
    y: float
    angle: float
    length: float = 4.5
    width: float = 1.8
    height: float = 1.5
