"""What all runtimes do with a tile of more or fewer bands than their network takes at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.inputs import NetworkInputs, band_groups
from pancrafter_cli.networks.config import PanCrafterConfig

Float32 = NDArray[np.float32]


def sharpen_groups(run: Callable[[NetworkInputs], Float32], config: PanCrafterConfig, images: NetworkInputs) -> Float32:
    """Images of any number of bands C, normalised, given to `run` in groups of the network's; returns (C, H, W)."""
    mpan, lms, lpan = images
    out = np.empty_like(lms)
    for group in band_groups(len(lms), config.bands):
        shown = list(group.shown)
        pan_bands = shown if config.pan == "matched" else [0]
        part = NetworkInputs(mpan[pan_bands], lms[shown], lpan[pan_bands])
        out[list(group.bands)] = run(part)[list(group.channels)]
    return out
