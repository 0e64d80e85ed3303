"""Cross-Modality Alignment-Aware Attention (CM3A) over exact 3x3 neighbourhoods."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Mode = Literal["ms", "pan"]

_SHIFTS = tuple((dy, dx) for dy in range(3) for dx in range(3))


def local_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention of every pixel to its exact 3x3 neighbourhood; neighbours outside the image take no part.

    query, key, value: (B, C, H, W) with C divisible by heads. Returns (B, C, H, W).
    """
    b, c, h, w = query.shape
    depth = c // heads
    q = query.reshape(b, heads, depth, h, w) * depth**-0.5
    k = F.pad(key, (1, 1, 1, 1)).reshape(b, heads, depth, h + 2, w + 2)
    v = F.pad(value, (1, 1, 1, 1)).reshape(b, heads, depth, h + 2, w + 2)
    outside = F.pad(query.new_zeros(h, w), (1, 1, 1, 1), value=float("-inf"))
    # One slice per neighbour: the nine copies of K and V of an unfold are never made.
    scores = torch.stack(
        [(q * k[..., dy : dy + h, dx : dx + w]).sum(dim=2) + outside[dy : dy + h, dx : dx + w] for dy, dx in _SHIFTS],
        dim=2,
    ).softmax(dim=2)
    out = torch.zeros_like(q)
    for n, (dy, dx) in enumerate(_SHIFTS):
        out = out + scores[:, :, n].unsqueeze(2) * v[..., dy : dy + h, dx : dx + w]
    return out.reshape(b, c, h, w)


class CM3A(nn.Module):
    """Eq. 9-12 of the paper: MS attends to MS and to PAN (MS mode), PAN to both in PAN mode.

    Each branch has its own keys and values. Keys of PAN come from the low-passed PAN, whose blur matches
    that of MS; values also see the full PAN, which carries the detail.
    """

    def __init__(self, width: int, heads: int, bands: int, pan_channels: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(width + bands, width, 3, padding=1)
        self.key_ms = nn.Conv2d(width + bands, width, 3, padding=1)
        self.value_ms = nn.Conv2d(width + bands, width, 3, padding=1)
        self.key_pan = nn.Conv2d(width + pan_channels, width, 3, padding=1)
        self.value_pan = nn.Conv2d(width + 2 * pan_channels, width, 3, padding=1)
        self.project_ms = nn.Conv2d(width, width, 1)
        self.project_pan = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, lms: Tensor, pan: Tensor, lpan: Tensor, mode: Mode) -> tuple[Tensor, Tensor]:
        """X (B, C, h, w); lms (B, bands, h, w); pan, lpan (B, pan_channels, h, w). Two (B, C, h, w)."""
        guide = lms if mode == "ms" else pan.expand_as(lms)
        q = self.query(torch.cat([x, guide], dim=1))
        x_lms = torch.cat([x, lms], dim=1)
        x_lpan = torch.cat([x, lpan], dim=1)
        x_pan = torch.cat([x, lpan, pan], dim=1)
        from_ms = local_attention(q, self.key_ms(x_lms), self.value_ms(x_lms), self.heads)
        from_pan = local_attention(q, self.key_pan(x_lpan), self.value_pan(x_pan), self.heads)
        return self.project_ms(from_ms), self.project_pan(from_pan)
