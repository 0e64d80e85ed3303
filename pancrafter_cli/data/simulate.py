"""Made-up scenes with a known truth: a town's edge seen by a PAN and an MS sensor.

A seeded landscape is painted at half a PAN pixel, lit by sun and sky, seen through a little haze, and
recorded by two sensors with their own MTF, band responses and noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.data.landscape.canvas import Canvas
from pancrafter_cli.data.landscape.layout import build_landscape
from pancrafter_cli.data.landscape.materials import BAND_NAMES, LAYERS, PaletteArrays, noise
from pancrafter_cli.geometry.degrade import DEFAULT_PAN_GAIN, degrade_reach, degrade_weights
from pancrafter_cli.geometry.grid import AxisMap

MS_GAINS = (0.34, 0.32, 0.30, 0.22)  # MTF of each band at the MS Nyquist frequency
PAN_RESPONSE = (0.09, 0.21, 0.25, 0.13, 0.32)  # blue, green, red, nir, and the part no MS band sees
SUPERSAMPLING = 2
MAX_DN = 2047.0  # 11 bit

_SKY_LIGHT = (0.34, 0.27, 0.22, 0.15, 0.20)  # share of the light that comes from the sky, not the sun
_HAZE = (0.055, 0.036, 0.022, 0.009, 0.018)  # path radiance as a reflectance
_DN_PER_REFLECTANCE = (2500.0, 2550.0, 2500.0, 2350.0)
_PAN_DN_PER_REFLECTANCE = 2500.0
_PAN_NOISE = (0.035, 1.6)  # variance per DN (shot noise) and standard deviation in DN (reading out)
_MS_NOISE = (0.008, 0.8)
_BLOCK = 64  # target rows or columns per matrix product: a blur's matrix is almost empty off its diagonal


@dataclass(frozen=True)
class SimulatedScene:
    """A PAN and MS pair and what a perfect sharpener would make of it."""

    pan: NDArray[np.float32]  # (1, H, W) DN, whole numbers
    ms: NDArray[np.float32]  # (C, h, w) DN, whole numbers
    reference: NDArray[np.float32]  # (C, H, W) DN, the MS bands through PAN's optics, without noise
    bands: tuple[str, ...]  # names of the C bands


def simulate_scene(seed: int, size: int = 1024, ratio: int = 4, pixel: float = 0.5) -> SimulatedScene:
    """Simulate a town's edge, `size` PAN pixels of `pixel` metres a side, MS pixels `ratio` times as large.

    The same seed gives the same arrays. MS pixel k covers PAN pixels ratio*k .. ratio*k + ratio - 1. PAN
    and reference are the landscape blurred with a Gaussian of gain 0.15 at the PAN Nyquist frequency,
    MS with gains 0.34, 0.32, 0.30, 0.22 at the MS Nyquist frequency, both from the same fine landscape;
    so MS is the reference degraded with slightly higher gains than those.

    Raises ValueError when size is not a positive multiple of ratio.
    """
    if size <= 0 or ratio < 1 or size % ratio:
        raise ValueError(f"size {size} is not a positive multiple of ratio {ratio}")
    rng = np.random.default_rng(seed)
    fine = SUPERSAMPLING
    # A margin around the scene gives the blur of the outermost pixels something real to see.
    margin = math.ceil(degrade_reach(fine * ratio, min(MS_GAINS))) + fine * ratio
    canvas = build_landscape(rng, fine * size + 2 * margin, pixel / fine)
    light = _Light(rng, canvas)
    pan_axis = AxisMap(float(fine), float(margin), size, canvas.size)
    ms_axis = AxisMap(float(fine * ratio), float(margin), size // ratio, canvas.size)

    pan = np.zeros((size, size), np.float32)
    reference = np.empty((len(BAND_NAMES), size, size), np.float32)
    ms = np.empty((len(BAND_NAMES), size // ratio, size // ratio), np.float32)
    for layer in range(LAYERS):
        radiance = light.radiance(layer)
        sharp = _blur(radiance, pan_axis, DEFAULT_PAN_GAIN)
        pan += np.float32(PAN_RESPONSE[layer]) * sharp
        if layer < len(BAND_NAMES):
            reference[layer] = np.float32(_DN_PER_REFLECTANCE[layer]) * sharp
            ms[layer] = np.float32(_DN_PER_REFLECTANCE[layer]) * _blur(radiance, ms_axis, MS_GAINS[layer])
    pan = _record(rng, np.float32(_PAN_DN_PER_REFLECTANCE) * pan[None], _PAN_NOISE)
    return SimulatedScene(pan, _record(rng, ms, _MS_NOISE), np.clip(reference, 0, MAX_DN), BAND_NAMES)


class _Light:
    """Light that leaves a landscape towards the sensors, one layer at a time to spare memory."""

    def __init__(self, rng: np.random.Generator, canvas: Canvas) -> None:
        self._palette = canvas.palette.arrays()
        self._haze = np.array(_HAZE, np.float32) * np.float32(rng.uniform(0.8, 1.4))
        self._label = canvas.label
        per_metre = 1.0 / canvas.pixel
        scales = [
            tuple(max(1, round(m * per_metre)) for m in metres)
            for metres in ((0.25, 0.5), (1.0, 2.0, 4.0), (10.0, 25.0, 60.0), (3.0, 15.0, 45.0))
        ]
        fields = [noise(rng, canvas.size, s) for s in scales]
        grain = self._palette.grain[self._label]
        self._texture = np.ones(self._label.shape, np.float32)
        for i, field in enumerate(fields[:3]):
            self._texture += grain[..., i] * field
        self._texture += _stripes(self._palette, self._label, canvas.pixel)
        self._greenness = self._palette.vigour[self._label] * fields[3]
        self._sun = canvas.shade * (1 - canvas.shadow())

    def radiance(self, layer: int) -> NDArray[np.float32]:
        """Radiance (size, size) of a band or the hidden layer, in units of reflectance under full light."""
        # Weak plants are brighter in the visible and darker in the near infrared.
        slope = np.float32((-0.7, -0.5, -1.0, 0.5, 0.4)[layer])
        surface = self._palette.reflectance[:, layer][self._label] * self._texture
        surface *= 1 + slope * self._greenness
        sky = np.float32(_SKY_LIGHT[layer])
        surface *= sky + (1 - sky) * self._sun
        seen: NDArray[np.float32] = np.clip(surface, 0.003, 0.80) + self._haze[layer]
        return seen


def _stripes(palette: PaletteArrays, label: NDArray[np.int32], pixel: float) -> NDArray[np.float32]:
    """Rows of crops, mowing stripes and wheel tracks (size, size), as a relative change of brightness."""
    out = np.zeros(label.shape, np.float32)
    y, x = np.nonzero((palette.rows[:, 2] > 0)[label])
    kx, ky, contrast, tracks = palette.rows[label[y, x]].T
    phase = (x.astype(np.float32) * kx + y.astype(np.float32) * ky) * np.float32(pixel)
    change = contrast * np.tanh(2.5 * np.sin(phase * np.float32(2 * math.pi)))
    spacing = np.where(tracks > 0, tracks, 1.0)
    metres = np.mod(phase / np.hypot(kx, ky), spacing) - spacing / 2
    wheel = (np.abs(np.abs(metres) - 0.9) < 0.3) & (tracks > 0)
    out[y, x] = np.where(wheel, -0.16, change)
    return out


def _blur(image: NDArray[np.float32], axis: AxisMap, gain: float) -> NDArray[np.float32]:
    """Pass an image (n, n) through a sensor's MTF onto a square grid (m, m), a block of rows at a time."""
    for _ in range(2):  # rows, then columns by way of the transpose
        blocks = []
        for start in range(0, axis.dst_size, _BLOCK):
            w = degrade_weights(axis, start, min(start + _BLOCK, axis.dst_size), gain)
            blocks.append(w.matrix.astype(np.float32) @ image[w.first : w.stop])
        image = np.ascontiguousarray(np.concatenate(blocks).T)
    return image


def _record(rng: np.random.Generator, dn: NDArray[np.float32], noise_of: tuple[float, float]) -> NDArray[np.float32]:
    """Write down what a sensor sees: shot and read noise, whole numbers, 11 bit."""
    per_dn, read = noise_of
    spread = np.sqrt(np.float32(per_dn) * np.maximum(dn, 0) + np.float32(read**2))
    noisy = dn + spread * rng.standard_normal(dn.shape, dtype=np.float32)
    written: NDArray[np.float32] = np.clip(np.round(noisy), 0, MAX_DN)
    return written
