"""What all runtimes do with a tile of more or fewer bands than their network takes at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.inputs import band_groups
from pancrafter_cli.networks.config import PanCrafterConfig

Float32 = NDArray[np.float32]


def sharpen_groups(
    run: Callable[[Float32, Float32, Float32], Float32],
    config: PanCrafterConfig,
    mpan: Float32,
    lms: Float32,
    lpan: Float32,
) -> Float32:
    """(C, H, W) each, any C, in DN / scale, given to `run` in groups of the network's bands; returns (C, H, W)."""
    out = np.empty_like(lms)
    for group in band_groups(len(lms), config.bands):
        shown = list(group.shown)
        pan_bands = shown if config.pan == "matched" else [0]
        out[list(group.bands)] = run(mpan[pan_bands], lms[shown], lpan[pan_bands])[list(group.channels)]
    return out
