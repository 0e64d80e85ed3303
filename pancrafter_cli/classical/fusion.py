"""Fusing a tile with fitted coefficients: every output pixel follows from that pixel of the inputs alone.

`apply(pan, lms, low)` takes PAN (1, H, W), MS brought to the PAN grid (C, H, W) and PAN brought to MS resolution and
back (C or 1, H, W), in DN, and gives the sharp image (C, H, W) in DN and their number format. `low` is looked at only
where `uses_low`. Coefficients are (C,) unless stated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Real = TypeVar("Real", np.float32, np.float64)

LARGEST_RATIO = 10.0  # of a sharp pixel to its lms; more comes from denominators near zero


@dataclass(frozen=True)
class Unsharpened:
    """lms as it is: the method EXP, and every method on a scene whose PAN holds no detail."""

    uses_low: ClassVar[bool] = False

    def apply(self, pan: NDArray[Real], lms: NDArray[Real], low: NDArray[Real]) -> NDArray[Real]:
        """Return lms."""
        return lms


@dataclass(frozen=True)
class Substitution:
    """Component substitution: M_b + pan_b P + sum_k mix_bk M_k + offset_b; mix is (C, C)."""

    pan: FloatArray
    mix: FloatArray
    offset: FloatArray
    uses_low: ClassVar[bool] = False

    def apply(self, pan: NDArray[Real], lms: NDArray[Real], low: NDArray[Real]) -> NDArray[Real]:
        """Return the sharp image."""
        mixed = np.tensordot(self.mix.astype(lms.dtype), lms, axes=1)
        sharp: NDArray[Real] = lms + mixed + _per_band(self.pan, lms) * pan + _per_band(self.offset, lms)
        return sharp


@dataclass(frozen=True)
class Injection:
    """Additive injection: M_b + gain_b (P - L_b) + offset_b."""

    gain: FloatArray
    offset: FloatArray
    uses_low: ClassVar[bool] = True

    def apply(self, pan: NDArray[Real], lms: NDArray[Real], low: NDArray[Real]) -> NDArray[Real]:
        """Return the sharp image."""
        sharp: NDArray[Real] = lms + _per_band(self.gain, lms) * (pan - low) + _per_band(self.offset, lms)
        return sharp


@dataclass(frozen=True)
class Modulation:
    """High-pass modulation: M_b (P + above_b) / (L_b + below_b), the ratio kept within [0, largest].

    Bands that are not `active` stay lms.
    """

    above: FloatArray
    below: FloatArray
    active: NDArray[np.bool_]
    largest: float = LARGEST_RATIO
    uses_low: ClassVar[bool] = True

    def apply(self, pan: NDArray[Real], lms: NDArray[Real], low: NDArray[Real]) -> NDArray[Real]:
        """Return the sharp image."""
        # The ratio less one: P - L keeps its digits where the offsets are large.
        detail = (pan - low) + _per_band(self.above - self.below, lms)
        change = _divided(detail, low + _per_band(self.below, lms))
        if np.isfinite(self.largest):
            change = np.clip(change, -1, self.largest - 1)
        sharp: NDArray[Real] = lms + lms * np.where(self.active[:, None, None], change, 0)
        return sharp


@dataclass(frozen=True)
class HazeBrovey:
    """Brovey above haze H: max(M_b - H_b, 0) (gain P + offset) / I + H_b, with I = sum_b weights_b (M_b - H_b).

    gain, offset: numbers, which match PAN to I. The ratio is kept below 10, and above 0 where I is less than `dark`,
    for there its sign is an accident. Bands that are not `active` stay lms.
    """

    weights: FloatArray
    haze: FloatArray
    gain: float
    offset: float
    dark: float
    active: NDArray[np.bool_]
    uses_low: ClassVar[bool] = False

    def apply(self, pan: NDArray[Real], lms: NDArray[Real], low: NDArray[Real]) -> NDArray[Real]:
        """Return the sharp image."""
        kind = lms.dtype.type
        clear = lms - _per_band(self.haze, lms)
        intensity = np.tensordot(self.weights.astype(lms.dtype), clear, axes=1)[None]
        matched = kind(self.gain) * pan + kind(self.offset)
        ratio = np.minimum(1 + _divided(matched - intensity, intensity), kind(LARGEST_RATIO))
        ratio = np.where(intensity < self.dark, np.maximum(ratio, 0), ratio)
        sharp: NDArray[Real] = np.maximum(clear, 0) * ratio + _per_band(self.haze, lms)
        return np.where(self.active[:, None, None], sharp, lms)


Fusion = Unsharpened | Substitution | Injection | Modulation | HazeBrovey


def _per_band(values: FloatArray, like: NDArray[Real]) -> NDArray[Real]:
    """Numbers (C,) as (C, 1, 1) in the number format of `like`."""
    column: NDArray[Real] = values.astype(like.dtype)[:, None, None]
    return column


def _divided(upper: NDArray[Real], lower: NDArray[Real]) -> NDArray[Real]:
    """Quotients, and 0 where `lower` is 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient: NDArray[Real] = np.where(lower != 0, upper / lower, 0)
    return quotient
