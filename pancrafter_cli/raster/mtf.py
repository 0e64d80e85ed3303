"""How much softer MS is than PAN, measured on the scene.

Sensors' MTFs are published, but products are resampled and sharpened on the ground: at the Nyquist frequency of MS,
real scenes show anything from 0.15 to 0.9 of what PAN shows there, and some lie beyond. A blur that is off by that much
takes away from PAN what MS has too, or leaves in it what MS never had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN
from pancrafter_cli.geometry.inputs import COARSE, FINE, detail
from pancrafter_cli.geometry.parts import NEAR, part_shifts
from pancrafter_cli.geometry.registration import evenly
from pancrafter_cli.raster.displacement import MOST_BANDS, Displacement, moved_pan
from pancrafter_cli.raster.measurable import Measurable, PanUnder, pan_under
from pancrafter_cli.raster.windows import Window

FloatArray = NDArray[np.float64]

_GAINS = (0.15, 0.22, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # what is tried; the answer lies between the ends
_MOST_WINDOWS = 25
_STEP = 6  # MS pixels from one part to the next; relief and movement displace about twice as much as one
_FEWEST_PIXELS = 25  # MS pixels of a band: of less, chance tells
_LEAST_CORRELATION = 0.3  # of the fine detail of PAN and MS: below it, nothing can be told


def measure_mtf(scene: Measurable, windows: Sequence[Window]) -> float | None:
    """Gain at the MS Nyquist frequency of the Gaussian that makes PAN as soft as MS, 0.15 to 0.9.

    With the right one, fine detail of MS is to that of PAN as coarse detail is; of too soft a PAN, more is needed of
    the fine. Only what PAN and MS have in common counts: neither the noise of MS nor what bands show and PAN does not.
    PAN is first moved to where MS shows the same, part by part: displaced (relief, a shift that was not corrected),
    they have less in common of the fine, and MS would look softer than it is. None where PAN explains too little of MS
    to tell, or there is too little of it.
    """
    sums = np.zeros((len(_GAINS), 2, 4, min(scene.bands, MOST_BANDS)))
    for window in windows[:: math.ceil(len(windows) / _MOST_WINDOWS)]:
        sums += _products(scene, window)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = sums[:, :, 1] / sums[:, :, 0]
        explained = np.nan_to_num(sums[:, 1, 1] ** 2 / (sums[:, 1, 0] * sums[:, 1, 2]))
        step = slope[:, 1] / slope[:, 0]
    tells = (step > 0).all(axis=0) & (sums[:, :, 3].min(axis=(0, 1)) >= _FEWEST_PIXELS)
    weight = np.where(tells, explained.mean(axis=0), 0.0)
    # A band without detail says nothing, also not that PAN explains little.
    if not weight.sum() > 0 or weight[weight > 0].mean() < _LEAST_CORRELATION**2:
        return None
    lacking = np.log(np.where(weight > 0, step, 1.0)) @ (weight / weight.sum())
    # It falls as the gain grows; interp asks for rising numbers.
    # Rounded, for all that follows depends on it, and sums differ in their last digits from machine to machine.
    return round(float(np.interp(0.0, lacking[::-1], _GAINS[::-1])), 3)


def _products(scene: Measurable, window: Window) -> FloatArray:
    """Sums over a window, for each gain, of coarse and fine detail: (gains, 2, 4, C).

    Of PAN PAN, of PAN MS, of MS MS, and how many pixels they are of.
    """
    stored, valid = scene.read_ms(*window)
    bands = evenly(scene.bands, MOST_BANDS)
    ms, valid = stored[bands].astype(np.float64), valid[bands]

    def details(pan: PanUnder, gain: float) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
        low, supported = pan.on_ms(gain)
        use = valid & supported
        p, m = _centred(low, use), _centred(ms, use)
        return [(detail(p, use, sigma), detail(m, use, sigma), use.astype(np.float64)) for sigma in (COARSE, FINE)]

    pan = pan_under(scene, window, _GAINS[0])
    pan = _matched(pan, *details(pan, DEFAULT_MS_GAIN)[1][:2])
    return np.array(
        [
            [[(x * y).sum(axis=(1, 2)) for x, y in ((p, p), (p, m), (m, m), (n, n))] for p, m, n in details(pan, gain)]
            for gain in _GAINS
        ]
    )


def _matched(pan: PanUnder, low: FloatArray, ms: FloatArray) -> PanUnder:
    """PAN moved to where MS shows the same; low, ms: fine detail of both on the grid of MS (C, h, w).

    They are matched part by part, and between the middles of the parts the displacement is interpolated. PAN around the
    window counts as without detail.
    """
    shifts = part_shifts(np.pad(low, ((0, 0), (NEAR, NEAR), (NEAR, NEAR))), ms, _STEP)[..., :2]
    row, col = pan.window[:2]
    displacement = Displacement(shifts, (row + _STEP, col + _STEP), _STEP)
    spans = [(first, first + size) for first, size in zip(pan.first, pan.pan.shape[1:], strict=True)]
    whole = slice(0, pan.pan.shape[1]), slice(0, pan.pan.shape[2])
    moved, _ = moved_pan((pan.pan, pan.valid), whole, displacement.at(pan.relation.inverse(), spans[0], spans[1]))
    return replace(pan, pan=moved)


def _centred(image: FloatArray, use: NDArray[np.bool_]) -> FloatArray:
    """An image (C or 1, h, w) less its mean over the pixels in use (C, h, w), so that sums keep digits; 0 elsewhere."""
    mean = (image * use).sum(axis=(1, 2), keepdims=True) / np.maximum(use.sum(axis=(1, 2), keepdims=True), 1)
    return np.where(use, image - mean, 0.0)
