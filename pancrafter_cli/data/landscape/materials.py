"""What a simulated scene is made of: reflectances, textures and the palette of its objects.

The reflectances are round numbers in the range of published spectral libraries, not measurements. Every
material has a fifth, hidden one: what lies in the yellow and the red edge, which a PAN sensor sees and
the four MS bands miss. It keeps PAN from being an exact mixture of the MS bands, as on real sensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BAND_NAMES = ("blue", "green", "red", "nir")
LAYERS = len(BAND_NAMES) + 1  # the bands and the hidden reflectance


class Use(IntEnum):
    """What may stand on a ground, or what stands there."""

    FREE = 0
    YARD = 1
    PAVEMENT = 2
    ROAD = 3
    PITCH = 4
    WATER = 5
    BUILDING = 6
    TREE = 7
    CAR = 8


class Material(NamedTuple):
    """Reflectance (blue, green, red, nir, hidden), contrast of texture (fine to coarse) and variation."""

    reflectance: tuple[float, float, float, float, float]
    grain: tuple[float, float, float]
    spread: float  # relative standard deviation between objects
    vigour: float = 0.0  # how far plants within one object differ in greenness
    use: Use = Use.FREE


MATERIALS: dict[str, Material] = {
    "meadow": Material((0.054, 0.092, 0.082, 0.31, 0.190), (0.05, 0.06, 0.08), 0.08, 0.14),
    "lawn": Material((0.050, 0.092, 0.072, 0.35, 0.185), (0.04, 0.06, 0.06), 0.13, 0.12),
    "dry grass": Material((0.075, 0.115, 0.125, 0.28, 0.210), (0.05, 0.07, 0.08), 0.10, 0.14),
    "forest floor": Material((0.036, 0.055, 0.048, 0.20, 0.110), (0.08, 0.10, 0.06), 0.05, 0.10),
    "leaves": Material((0.036, 0.070, 0.049, 0.37, 0.155), (0.09, 0.08, 0.03), 0.15, 0.10, Use.TREE),
    "needles": Material((0.030, 0.050, 0.038, 0.25, 0.105), (0.09, 0.08, 0.03), 0.12, 0.06, Use.TREE),
    "hedge": Material((0.036, 0.066, 0.048, 0.32, 0.150), (0.08, 0.08, 0.03), 0.10, 0.10, Use.TREE),
    "young crop": Material((0.048, 0.092, 0.066, 0.42, 0.215), (0.03, 0.04, 0.05), 0.12, 0.16),
    "maize": Material((0.036, 0.072, 0.048, 0.40, 0.170), (0.06, 0.05, 0.05), 0.10, 0.14),
    "ripe wheat": Material((0.086, 0.126, 0.154, 0.31, 0.215), (0.03, 0.04, 0.05), 0.10, 0.12),
    "rapeseed": Material((0.056, 0.140, 0.128, 0.44, 0.260), (0.04, 0.05, 0.05), 0.08, 0.12),
    "stubble": Material((0.105, 0.142, 0.174, 0.28, 0.220), (0.05, 0.05, 0.05), 0.10, 0.08),
    "soil": Material((0.080, 0.106, 0.130, 0.20, 0.160), (0.05, 0.06, 0.08), 0.15, 0.03),
    "gravel": Material((0.130, 0.155, 0.176, 0.22, 0.190), (0.08, 0.06, 0.05), 0.12),
    "sand": Material((0.150, 0.195, 0.230, 0.31, 0.270), (0.05, 0.05, 0.04), 0.08),
    "asphalt": Material((0.088, 0.098, 0.105, 0.125, 0.112), (0.05, 0.05, 0.07), 0.06, 0.0, Use.ROAD),
    "pavement": Material((0.142, 0.158, 0.170, 0.20, 0.180), (0.06, 0.06, 0.06), 0.06, 0.0, Use.PAVEMENT),
    "marking": Material((0.290, 0.310, 0.318, 0.32, 0.322), (0.22, 0.08, 0.05), 0.05, 0.0, Use.ROAD),
    "bridge": Material((0.190, 0.215, 0.225, 0.25, 0.235), (0.05, 0.05, 0.04), 0.05, 0.0, Use.ROAD),
    "yard asphalt": Material((0.100, 0.112, 0.120, 0.14, 0.128), (0.05, 0.07, 0.09), 0.12, 0.0, Use.YARD),
    "concrete": Material((0.165, 0.188, 0.202, 0.23, 0.215), (0.04, 0.06, 0.08), 0.13, 0.0, Use.YARD),
    "drive": Material((0.132, 0.146, 0.158, 0.19, 0.168), (0.06, 0.06, 0.05), 0.22, 0.0, Use.YARD),
    "turf": Material((0.046, 0.098, 0.062, 0.40, 0.180), (0.03, 0.04, 0.04), 0.06, 0.10, Use.PITCH),
    "running track": Material((0.085, 0.098, 0.200, 0.27, 0.250), (0.03, 0.03, 0.03), 0.08, 0.0, Use.PITCH),
    "court": Material((0.095, 0.155, 0.110, 0.20, 0.130), (0.03, 0.03, 0.03), 0.20, 0.0, Use.PITCH),
    "pitch line": Material((0.420, 0.450, 0.450, 0.52, 0.470), (0.05, 0.05, 0.05), 0.03, 0.0, Use.PITCH),
    "water": Material((0.042, 0.050, 0.034, 0.016, 0.022), (0.02, 0.02, 0.05), 0.12, 0.0, Use.WATER),
    "shallow": Material((0.058, 0.078, 0.064, 0.06, 0.066), (0.03, 0.05, 0.08), 0.08, 0.0, Use.WATER),
    "pool": Material((0.190, 0.240, 0.130, 0.06, 0.090), (0.03, 0.05, 0.02), 0.10, 0.0, Use.BUILDING),
    "red clay": Material((0.074, 0.098, 0.166, 0.25, 0.210), (0.06, 0.05, 0.04), 0.13, 0.0, Use.BUILDING),
    "brown tile": Material((0.075, 0.090, 0.125, 0.18, 0.150), (0.06, 0.05, 0.04), 0.14, 0.0, Use.BUILDING),
    "grey tile": Material((0.130, 0.140, 0.146, 0.17, 0.152), (0.05, 0.05, 0.04), 0.14, 0.0, Use.BUILDING),
    "dark slate": Material((0.068, 0.073, 0.076, 0.09, 0.079), (0.06, 0.05, 0.04), 0.14, 0.0, Use.BUILDING),
    "white metal": Material((0.310, 0.328, 0.331, 0.33, 0.335), (0.03, 0.04, 0.07), 0.12, 0.0, Use.BUILDING),
    "grey metal": Material((0.250, 0.270, 0.275, 0.28, 0.280), (0.02, 0.03, 0.05), 0.15, 0.0, Use.BUILDING),
    "blue metal": Material((0.215, 0.185, 0.130, 0.22, 0.145), (0.02, 0.03, 0.05), 0.12, 0.0, Use.BUILDING),
    "felt": Material((0.150, 0.165, 0.175, 0.19, 0.180), (0.04, 0.07, 0.08), 0.22, 0.0, Use.BUILDING),
    "roof gravel": Material((0.185, 0.205, 0.216, 0.24, 0.225), (0.05, 0.06, 0.07), 0.15, 0.0, Use.BUILDING),
    "skylight": Material((0.400, 0.430, 0.420, 0.36, 0.410), (0.03, 0.02, 0.02), 0.10, 0.0, Use.BUILDING),
    "glass": Material((0.060, 0.062, 0.058, 0.05, 0.056), (0.02, 0.02, 0.02), 0.15, 0.0, Use.BUILDING),
    "solar panel": Material((0.062, 0.055, 0.050, 0.07, 0.052), (0.02, 0.02, 0.02), 0.10, 0.0, Use.BUILDING),
    "vent": Material((0.240, 0.255, 0.260, 0.26, 0.262), (0.03, 0.03, 0.03), 0.25, 0.0, Use.BUILDING),
    "white paint": Material((0.400, 0.415, 0.415, 0.42, 0.417), (0.02, 0.02, 0.02), 0.08, 0.0, Use.CAR),
    "silver paint": Material((0.185, 0.192, 0.192, 0.19, 0.192), (0.02, 0.02, 0.02), 0.20, 0.0, Use.CAR),
    "black paint": Material((0.042, 0.042, 0.044, 0.05, 0.044), (0.02, 0.02, 0.02), 0.25, 0.0, Use.CAR),
    "red paint": Material((0.046, 0.044, 0.170, 0.26, 0.210), (0.02, 0.02, 0.02), 0.20, 0.0, Use.CAR),
    "blue paint": Material((0.120, 0.080, 0.055, 0.14, 0.062), (0.02, 0.02, 0.02), 0.20, 0.0, Use.CAR),
}
NAMES = tuple(MATERIALS)
_INDEX = {name: i for i, name in enumerate(NAMES)}


@dataclass(frozen=True)
class Rows:
    """Stripes on an object: direction (radians), period (m), contrast, metres between wheel tracks or 0."""

    angle: float
    period: float
    contrast: float
    tracks: float = 0.0


@dataclass(frozen=True)
class PaletteArrays:
    """One row per label: what every painted object looks like."""

    reflectance: NDArray[np.float32]  # (n, LAYERS)
    grain: NDArray[np.float32]  # (n, 3)
    vigour: NDArray[np.float32]  # (n,)
    rows: NDArray[np.float32]  # (n, 4): cycles per metre along x and y, contrast, metres between tracks
    material: NDArray[np.int32]  # (n,) index into NAMES
    use: NDArray[np.uint8]  # (n,)


class Palette:
    """Hands out labels; every label is one object with its own variation of a material."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._reflectance: list[NDArray[np.float64]] = []
        self._rows: list[tuple[float, float, float, float]] = []
        self._material: list[int] = []

    def add(self, name: str, tint: float = 1.0, rows: Rows | None = None) -> int:
        """Return a label for a new object of material `name`, `tint` times as bright as its kind."""
        material = MATERIALS[name]
        common = np.exp(self._rng.normal(0.0, material.spread))
        # Paints, soils and plants differ most from warm to cool, and little at random.
        warmth = np.array([-1.0, -0.2, 0.8, 0.6, 0.7]) * self._rng.normal(0.0, 0.25 * material.spread)
        free = np.array([0.08, 0.08, 0.08, 0.08, 0.5]) * material.spread  # no band tells what PAN alone sees
        bands = np.exp(warmth + free * self._rng.normal(0.0, 1.0, LAYERS))
        self._reflectance.append(np.clip(np.array(material.reflectance) * common * bands * tint, 0.01, 0.68))
        if rows is None:
            self._rows.append((0.0, 0.0, 0.0, 0.0))
        else:
            k = 1.0 / rows.period
            self._rows.append((k * np.cos(rows.angle), k * np.sin(rows.angle), rows.contrast, rows.tracks))
        self._material.append(_INDEX[name])
        return len(self._material) - 1

    def arrays(self) -> PaletteArrays:
        """Everything handed out so far, as arrays indexed by label."""
        kinds = [MATERIALS[NAMES[i]] for i in self._material]
        return PaletteArrays(
            reflectance=np.array(self._reflectance, np.float32),
            grain=np.array([k.grain for k in kinds], np.float32),
            vigour=np.array([k.vigour for k in kinds], np.float32),
            rows=np.array(self._rows, np.float32),
            material=np.array(self._material, np.int32),
            use=np.array([k.use for k in kinds], np.uint8),
        )


def noise(rng: np.random.Generator, size: int, scales: tuple[int, ...]) -> NDArray[np.float32]:
    """Smooth noise (size, size) of unit variance with detail at each of `scales` (pixels)."""
    total = np.zeros((size, size), np.float32)
    for scale in scales:
        cells = -(-size // scale) + 4
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        if scale == 1:
            total += grid[:size, :size]
            continue
        # A random start keeps the cells of one scale from lining up with the image's corner.
        x, y = rng.uniform(0.5, 1.5, 2)
        box = (x, y, x + size / scale, y + size / scale)
        total += np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC, box=box))
    return total / np.float32(total.std())
