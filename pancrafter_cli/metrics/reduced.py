"""Reduced-resolution indices: a fused image against the truth at the same size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.floating]


def _vectors(image: Image, valid: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    flat = np.asarray(image, dtype=np.float64).reshape(image.shape[0], -1)
    return flat if valid is None else flat[:, valid.reshape(-1)]


def ergas(truth: Image, fused: Image, ratio: float, valid: NDArray[np.bool_] | None = None) -> float:
    """ERGAS (Wald 2002): 100 / ratio * sqrt(mean over bands of MSE_b / mean(truth_b)^2).

    truth, fused: (C, H, W) in DN; valid: (H, W), pixels outside take no part. Smaller is better, 0 is perfect.
    """
    t, f = _vectors(truth, valid), _vectors(fused, valid)
    mse = ((f - t) ** 2).mean(axis=1)
    return float(100.0 / ratio * np.sqrt((mse / t.mean(axis=1) ** 2).mean()))


def sam(truth: Image, fused: Image, valid: NDArray[np.bool_] | None = None) -> float:
    """Spectral angle mapper (Yuhas et al. 1992): mean angle between the spectra of each pixel, in degrees.

    truth, fused: (C, H, W) in DN; pixels where either spectrum is zero, or outside `valid`, take no part.
    """
    t, f = _vectors(truth, valid), _vectors(fused, valid)
    norms = np.sqrt((t * t).sum(axis=0) * (f * f).sum(axis=0))
    keep = norms > 0
    cosine = (t * f).sum(axis=0)[keep] / norms[keep]
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)).mean()))
