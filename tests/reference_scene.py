"""The synthetic scene that the reference values of the toolbox were computed on, by its closed formulas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

TAU = 2 * np.pi


@dataclass(frozen=True)
class ReferenceScene:
    """truth, fused: (C, n, n); pan: (1, n, n); all float64 in DN."""

    truth: np.ndarray
    fused: np.ndarray
    pan: np.ndarray


@cache
def reference_scene(bands: int, n: int = 256) -> ReferenceScene:
    """The scene with `bands` bands and n x n pixels; arrays are shared between tests and must not be changed."""
    i, j, b = np.arange(n)[None, :, None], np.arange(n)[None, None, :], np.arange(bands)[:, None, None]
    h = ((7919 * i + 104729 * j + 1299709 * b + 31 * i * j) % 1009) / 1009
    h2 = ((6101 * i + 3571 * j + 15485863 * b + 17 * i * j) % 997) / 997
    truth = np.floor(
        500
        + 40 * b
        + 220 * np.sin(TAU * (i * (b + 3) / 97 + j / 53))
        + 150 * np.cos(TAU * (i / 61 - j * (b + 2) / 113))
        + 90 * ((i // 12 + j // 20) % 2)
        + 60 * h
    )
    fused = truth + 18 * np.sin(TAU * (i / 17 + j / 23 + b / 5)) + 24 * (h2 - 0.5)
    pan = np.floor(
        0.9 * truth.mean(axis=0, keepdims=True)
        + 70 * ((i // 5 + j // 7) % 2)
        + 25 * ((4099 * i + 2053 * j) % 991) / 991
    )
    scene = ReferenceScene(truth, fused, pan)
    for image in (scene.truth, scene.fused, scene.pan):
        image.flags.writeable = False
    return scene
