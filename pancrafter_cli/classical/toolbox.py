"""Classical fusion as the MATLAB toolbox of the field does it: MS sample k at PAN pixel 4 k + 2, whole images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.classical.methods import fit
from pancrafter_cli.classical.moments import SceneMoments, SceneSampler
from pancrafter_cli.geometry.toolbox import (
    binomial_lowpass,
    correlate,
    decimate,
    gauss_kernel,
    mtf_kernel,
    mtf_lowpass,
    shrink,
    upsample23,
)

FloatArray = NDArray[np.float64]


def classical_toolbox(
    method: str, ms: FloatArray, pan: FloatArray, gains: Sequence[float], pan_gain: float, ratio: int = 4
) -> FloatArray:
    """Sharpened MS (C, H, W) in DN, for comparison with published tables.

    ms: (C, h, w); pan: (H, W) = ratio (h, w), both in DN; gains: MTF at MS Nyquist of each band; pan_gain: that of
    PAN. Raises UsageError when there is no such method.
    """
    image = pan[None]
    lms = upsample23(ms, ratio)
    low = upsample23(decimate(mtf_lowpass(np.repeat(image, len(ms), axis=0), ratio, gains), ratio), ratio)
    moments = _moments(ms, lms, image, low, gains, pan_gain, ratio)
    return fit(method, moments).apply(image, lms, low)


def _moments(
    ms: FloatArray,
    lms: FloatArray,
    pan: FloatArray,
    low: FloatArray,
    gains: Sequence[float],
    pan_gain: float,
    ratio: int,
) -> SceneMoments:
    """The moments of whole images, their scales made with the toolbox's filters."""
    sampler = SceneSampler(len(ms), np.array([mtf_kernel(ratio, gain).sum() for gain in gains]))
    everywhere = np.ones(pan.shape[1:], dtype=bool)
    sampler.add_fine(everywhere, pan, correlate(pan, gauss_kernel(ratio)), lms, low)
    degraded = shrink(lms, ratio)
    sampler.add_coarse(
        np.ones(ms.shape[1:], dtype=bool),
        decimate(binomial_lowpass(pan), ratio),
        decimate(mtf_lowpass(pan, ratio, [pan_gain]), ratio),
        ms,
        degraded,
        mtf_lowpass(degraded, ratio, gains),
    )
    return sampler.result()
