"""What describes the network without building it: its configuration, and how far its output pixels see.

Loads no torch: model files are listed, and tiles planned, where none is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pancrafter_cli.geometry.tiling import STRIDE

_ATTENTION_RADIUS = 1  # CM3A attends to 3x3 neighbourhoods


@dataclass(frozen=True)
class PanCrafterConfig:
    """Size and input form of the network.

    depths: ResBlocks in encoder 1, encoder 1/2 and bottleneck 1/4; the decoder mirrors the encoder.
    pan: "matched" takes PAN matched to every band (bands channels); "raw" takes PAN itself (1 channel),
    replicated only where an output or a query needs one channel per band.
    lowpass_inputs: whether the first convolution also sees lpan and pan - lpan (the paper's does not).
    head: what comes before the last convolution. "norm": LayerNorm and SiLU. "plain": nothing, as in the paper's
    figure; features then reach the output linearly, and detail scales with contrast without being learned.
    attention: False leaves CM3A out of the AttnBlocks, for ablation; their feed-forward layers stay.
    """

    # Whoever builds this from a file is told of names that do not exist.
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    bands: int = 4
    width: int = 128
    depths: tuple[int, int, int] = (2, 2, 4)
    heads: int = 8
    pan: Literal["matched", "raw"] = "matched"
    lowpass_inputs: bool = True
    head: Literal["norm", "plain"] = "norm"
    attention: bool = True

    def __post_init__(self) -> None:
        if min(self.bands, self.width, self.heads) < 1 or min(self.depths) < 0:
            raise ValueError("bands, width and heads must be positive, depths not negative")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")

    @property
    def pan_channels(self) -> int:
        """Channels of `mpan` and `lpan`."""
        return self.bands if self.pan == "matched" else 1

    @property
    def images(self) -> dict[str, int]:
        """The images that the network looks at, by the names of NetworkInputs, and their channels."""
        return {"mpan": self.pan_channels, "lms": self.bands, "lpan": self.pan_channels}


def receptive_radius(config: PanCrafterConfig) -> int:
    """Largest distance, in PAN pixels along an axis, at which an input pixel can change an output pixel.

    Follows the interval of pixels an output depends on backwards through the network, for each of the
    STRIDE phases an output pixel can have.
    """
    first, second, bottom = config.depths
    # A ResBlock is two 3x3 convolutions; CM3A a 3x3 and its neighbourhood.
    res, attn = 2, 1 + _ATTENTION_RADIUS if config.attention else 0

    def radius(phase: int) -> int:
        lo = hi = phase
        reach1 = 1 + res * first  # head, decoder 1
        skip1 = (lo - reach1, hi + reach1)
        lo, hi = skip1[0] // 2, skip1[1] // 2  # up 1
        reach2 = attn + res * second  # attention, decoder 1/2
        skip2 = (lo - reach2, hi + reach2)
        lo, hi = skip2[0] // 2, skip2[1] // 2  # up 2
        reach4 = attn + res * bottom
        lo, hi = 2 * (lo - reach4) - 1, 2 * (hi + reach4) + 1  # attention, bottleneck, down 2
        lo, hi = min(lo, skip2[0]), max(hi, skip2[1])
        lo, hi = 2 * (lo - reach2) - 1, 2 * (hi + reach2) + 1  # attention, encoder 1/2, down 1
        lo, hi = min(lo, skip1[0]), max(hi, skip1[1])
        lo, hi = lo - res * first - 1, hi + res * first + 1  # encoder 1, embed
        return max(phase - lo, hi - phase)

    return max(radius(phase) for phase in range(STRIDE))
