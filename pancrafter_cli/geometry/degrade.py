"""Degrading to a coarser grid with a sensor's MTF: what MS would have seen of a finer image."""

from __future__ import annotations

import math

import numpy as np

from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.geometry.resample import AxisWeights, gather_weights

DEFAULT_MS_GAIN = 0.30  # MTF at the MS Nyquist frequency when the sensor is not known
DEFAULT_PAN_GAIN = 0.15
_TRUNCATE_SIGMAS = 3.5


def mtf_sigma(ratio: float, gain: float) -> float:
    """Standard deviation, in fine pixels, of the Gaussian whose MTF is `gain` at the coarse Nyquist frequency.

    exp(-2 pi^2 sigma^2 f^2) = gain at f = 1 / (2 ratio), solved for sigma.
    """
    return ratio * math.sqrt(-2.0 * math.log(gain)) / math.pi


def degrade_reach(ratio: float, gain: float) -> float:
    """How many fine pixels around its centre a degraded pixel draws on."""
    return _TRUNCATE_SIGMAS * mtf_sigma(ratio, gain)


def degrade_weights(axis: AxisMap, start: int, stop: int, gain: float) -> AxisWeights:
    """Weights that blur with the MTF Gaussian and sample, for coarse pixels start..stop-1.

    `axis` maps the coarse grid (target) to the fine grid (source): its scale is the ratio. The fine
    raster's edges are replicated.
    """
    return blur_weights(axis, start, stop, mtf_sigma(max(abs(axis.scale), 1.0), gain))


def blur_weights(axis: AxisMap, start: int, stop: int, sigma: float) -> AxisWeights:
    """Weights of a Gaussian of `sigma` source pixels for target pixels start..stop-1; edges are replicated."""

    def gaussian(distance: np.ndarray) -> np.ndarray:
        inside = np.abs(distance) <= _TRUNCATE_SIGMAS * sigma
        return np.where(inside, np.exp(-0.5 * (distance / sigma) ** 2), 0.0)

    return gather_weights(axis, start, stop, _TRUNCATE_SIGMAS * sigma, gaussian)
