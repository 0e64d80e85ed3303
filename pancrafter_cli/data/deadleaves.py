"""Dead-leaves images with spectra: opaque shapes that cover one another (Lee, Mumford & Huang 2001), seen in bands.

Their edges have every size and direction, as in natural images, and belong to no sensor and no place. Every leaf is
of one material; bands and PAN see the material's reflectance, so that PAN explains some edges well and others hardly.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
FloatArray = NDArray[np.float64]

WAVELENGTHS = (450.0, 550.0, 650.0, 720.0, 850.0)  # nm, knots of the signatures
# Typical reflectances of surfaces, rounded: what matters is that their slopes differ.
SIGNATURES = {
    "meadow": (0.04, 0.09, 0.06, 0.22, 0.45),
    "forest": (0.02, 0.05, 0.03, 0.14, 0.30),
    "dry grass": (0.09, 0.15, 0.21, 0.26, 0.33),
    "bare soil": (0.09, 0.14, 0.20, 0.24, 0.29),
    "sand": (0.18, 0.27, 0.34, 0.38, 0.43),
    "asphalt": (0.08, 0.09, 0.10, 0.11, 0.12),
    "concrete": (0.23, 0.27, 0.29, 0.30, 0.32),
    "clay tiles": (0.07, 0.10, 0.24, 0.29, 0.34),
    "blue metal": (0.28, 0.22, 0.13, 0.14, 0.20),
    "green water": (0.06, 0.08, 0.04, 0.02, 0.01),
}
_PAN_RANGE = (450.0, 800.0)  # nm, where PAN sees
_SUPERSAMPLING = 2
_SMALLEST, _LARGEST = 3.0, 90.0  # fine pixels, radius of a leaf
_POWER = 3.0  # number of leaves by radius: the one that makes an image alike at all scales
_COVER = 6.0  # area of all leaves over that of the image


def dead_leaves(rng: np.random.Generator, size: int, bands: int) -> tuple[Float32, Float32]:
    """PAN (1, size, size) and bands (C, size, size), as reflectances, without noise.

    The bands are narrow and evenly spread over WAVELENGTHS; PAN is the mean over 450 to 800 nm. Edges are antialiased,
    which stands for the sensor's own aperture.
    """
    fine = size * _SUPERSAMPLING
    spectra = _materials(rng, bands)
    picture = np.empty((bands + 1, fine, fine), np.float32)
    picture[:] = spectra[rng.integers(len(spectra))][:, None, None]
    for radius in _radii(rng, fine):
        _drop(rng, picture, radius, spectra[rng.integers(len(spectra))])
    image = picture.reshape(bands + 1, size, _SUPERSAMPLING, size, _SUPERSAMPLING).mean(axis=(2, 4))
    return image[bands:], image[:bands]


def _materials(rng: np.random.Generator, bands: int) -> Float32:
    """Spectra (N, bands + 1) of the signatures, of mixtures of two, and of brighter and darker ones; PAN comes last."""
    known = np.array(list(SIGNATURES.values()))
    first, second = (known[rng.integers(len(known), size=60)] for _ in range(2))
    share = rng.uniform(0, 1, (60, 1)) ** 2
    knots = np.clip((1 - share) * first + share * second, 0.005, 0.8) * np.exp(rng.normal(0, 0.25, (60, 1)))
    centres = np.linspace(WAVELENGTHS[0], WAVELENGTHS[-1], bands) if bands > 1 else np.array([650.0])
    seen_by_pan = np.linspace(*_PAN_RANGE, 15)
    of_bands = [np.interp(centres, WAVELENGTHS, k) for k in knots]
    of_pan = [[np.interp(seen_by_pan, WAVELENGTHS, k).mean()] for k in knots]
    return np.concatenate([of_bands, of_pan], axis=1).astype(np.float32)


def _radii(rng: np.random.Generator, size: int) -> FloatArray:
    """Radii of enough leaves to cover the image several times, drawn from r^-POWER, the last ones on top."""
    # Inverse of the cumulative distribution of r^-3 between the smallest and the largest.
    low, high = _SMALLEST ** (1 - _POWER), _LARGEST ** (1 - _POWER)
    mean_area = 2 * math.pi * _SMALLEST**2 * math.log(_LARGEST / _SMALLEST)
    count = int(_COVER * size**2 / mean_area)
    return np.asarray((low + rng.random(count) * (high - low)) ** (1 / (1 - _POWER)))


def _drop(rng: np.random.Generator, picture: Float32, radius: float, spectrum: Float32) -> None:
    """Lay one leaf, an ellipse or a rectangle with a slope of brightness and some grain, onto the picture."""
    size = picture.shape[-1]
    y, x = rng.uniform(-radius, size + radius, 2)
    reach = math.ceil(1.5 * radius)
    (y0, y1), (x0, x1) = ((max(0, int(c) - reach), min(size, int(c) + reach + 1)) for c in (y, x))
    if y0 >= y1 or x0 >= x1:
        return
    angle, flatness = rng.uniform(0, math.pi), rng.uniform(0.4, 1.0)
    dy, dx = np.arange(y0, y1)[:, None] + 0.5 - y, np.arange(x0, x1)[None] + 0.5 - x
    u = (math.cos(angle) * dx + math.sin(angle) * dy) / radius
    v = (math.cos(angle) * dy - math.sin(angle) * dx) / (radius * flatness)
    inside = np.maximum(np.abs(u), np.abs(v)) <= 0.9 if rng.random() < 0.5 else u * u + v * v <= 1
    slope, grain = rng.normal(0, 0.08), abs(rng.normal(0, 0.03))
    shade = 1 + slope * u + grain * rng.standard_normal(inside.shape)
    part = picture[:, y0:y1, x0:x1]
    part[:, inside] = spectrum[:, None] * np.clip(shade, 0.3, 1.7)[inside].astype(np.float32)
