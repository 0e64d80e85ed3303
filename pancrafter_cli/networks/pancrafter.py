"""The PAN-Crafter network (Do et al., ICCV 2025), in the paper's form.

A U-Net of three scales. ResBlocks and AttnBlocks normalise over the channels of one pixel, never over
space, so every output pixel depends on a finite neighbourhood and tiles can be joined exactly. One
network serves both MARs modes: "ms" reconstructs the sharp MS, "pan" the PAN. Inference uses "ms".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pancrafter_cli.geometry.tiling import STRIDE
from pancrafter_cli.networks.attention import CM3A, Mode
from pancrafter_cli.networks.config import PanCrafterConfig

EPS = 1e-6


class PixelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel of a (B, C, H, W) tensor."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PerMode(nn.Module):
    """One zero-initialised channel vector for each MARs mode."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ms = nn.Parameter(torch.zeros(width))
        self.pan = nn.Parameter(torch.zeros(width))

    def forward(self, mode: Mode) -> Tensor:
        """The vector of `mode`, (C,)."""
        return self.ms if mode == "ms" else self.pan


class ModulatedNorm(nn.Module):
    """Eq. 6 after a LayerNorm of each pixel: (1 + gamma_mode) * LN(x) + beta_mode, in one pass over memory."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = PerMode(width)
        self.beta = PerMode(width)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        """(B, C, H, W) to the same."""
        gamma, beta = self.gamma(mode), self.beta(mode)
        y = F.layer_norm(x.permute(0, 2, 3, 1), gamma.shape, 1 + gamma, beta, EPS)
        return y.permute(0, 3, 1, 2)


class ResBlock(nn.Module):
    """Eq. 5-6: LN, SiLU, Conv; LN modulated by the mode, SiLU, zero-initialised Conv; added to the input."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.norm1 = PixelNorm(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2 = ModulatedNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.skip = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)
        _zero(self.conv2)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        """(B, width_in, H, W) to (B, width, H, W)."""
        y = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = self.skip(x) + self.conv2(F.silu(self.norm2(y, mode)))
        return out


class AttnBlock(nn.Module):
    """Eq. 7-8: CM3A, Select by per-mode alphas, and a feed-forward layer, each added to its input."""

    def __init__(self, config: PanCrafterConfig) -> None:
        super().__init__()
        width = config.width
        self.attention: CM3A | None = None
        if config.attention:
            self.norm1 = PixelNorm(width)
            self.attention = CM3A(width, config.heads, config.bands, config.pan_channels)
            self.alpha_ms = PerMode(width)
            self.alpha_pan = PerMode(width)
        self.norm2 = PixelNorm(width)
        self.ffn = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1), nn.GELU(approximate="tanh"), nn.Conv2d(4 * width, width, 1)
        )

    def forward(self, x: Tensor, lms: Tensor, pan: Tensor, lpan: Tensor, mode: Mode) -> Tensor:
        """X (B, C, h, w) with the images at its scale; returns (B, C, h, w)."""
        if self.attention is not None:
            from_ms, from_pan = self.attention(self.norm1(x), lms, pan, lpan, mode)
            alpha_ms, alpha_pan = (a(mode)[:, None, None] for a in (self.alpha_ms, self.alpha_pan))
            x = x + (alpha_ms * from_ms + alpha_pan * from_pan).to(x.dtype)
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


class PanCrafter(nn.Module):
    """`forward(mpan, lms, lpan, mode)` on PAN-grid tensors, normalised, any H and W."""

    def __init__(self, config: PanCrafterConfig) -> None:
        super().__init__()
        self.config = config
        c, bands, pan = config.width, config.bands, config.pan_channels
        first, second, bottom = config.depths
        inputs = bands + (3 if config.lowpass_inputs else 1) * pan

        self.embed = nn.Conv2d(inputs, c, 3, padding=1)
        self.encoder1 = nn.ModuleList(ResBlock(c, c) for _ in range(first))
        self.down1 = nn.Conv2d(c, c, 3, stride=2, padding=1)
        self.encoder2 = nn.ModuleList(ResBlock(c, c) for _ in range(second))
        self.encoder2_attn = AttnBlock(config)
        self.down2 = nn.Conv2d(c, c, 3, stride=2, padding=1)
        self.bottleneck = nn.ModuleList(ResBlock(c, c) for _ in range(bottom))
        self.bottleneck_attn = AttnBlock(config)
        self.up2 = nn.ConvTranspose2d(c, c, 2, stride=2)
        self.decoder2 = nn.ModuleList(ResBlock(2 * c if n == 0 else c, c) for n in range(second))
        self.decoder2_attn = AttnBlock(config)
        self.up1 = nn.ConvTranspose2d(c, c, 2, stride=2)
        self.decoder1 = nn.ModuleList(ResBlock(2 * c if n == 0 else c, c) for n in range(first))
        self.head_norm = nn.Sequential(PixelNorm(c), nn.SiLU()) if config.head == "norm" else nn.Identity()
        self.head = nn.Conv2d(c, bands, 3, padding=1)
        _zero(self.head)

    def forward(self, mpan: Tensor, lms: Tensor, lpan: Tensor, mode: Mode = "ms") -> Tensor:
        """Sharpen (mode "ms") or reconstruct PAN (mode "pan").

        mpan, lpan: (B, pan_channels, H, W); lms: (B, bands, H, W); all normalised. Returns (B, bands, H, W).
        """
        height, width = lms.shape[-2:]
        mpan, lms, lpan = (pad_to_stride(t) for t in (mpan, lms, lpan))
        base = lms if mode == "ms" else lpan.expand_as(lms)
        out = base + self._residual(mpan, lms, lpan, mode).to(base.dtype)
        return out[..., :height, :width]

    def _residual(self, pan: Tensor, lms: Tensor, lpan: Tensor, mode: Mode) -> Tensor:
        images = [pan, lms, lpan, pan - lpan] if self.config.lowpass_inputs else [pan, lms]
        # Averages over 2x2 and 4x4 pixels: antialiased, and in phase with the pixels they cover.
        half = [F.avg_pool2d(t, 2) for t in (lms, pan, lpan)]
        quarter = [F.avg_pool2d(t, 4) for t in (lms, pan, lpan)]

        x = self.embed(torch.cat(images, dim=1))
        x = skip1 = _chain(self.encoder1, x, mode)
        x = _chain(self.encoder2, self.down1(x), mode)
        x = skip2 = self.encoder2_attn(x, *half, mode)
        x = _chain(self.bottleneck, self.down2(x), mode)
        x = self.bottleneck_attn(x, *quarter, mode)
        x = _chain(self.decoder2, torch.cat([self.up2(x), skip2], dim=1), mode)
        x = self.decoder2_attn(x, *half, mode)
        x = _chain(self.decoder1, torch.cat([self.up1(x), skip1], dim=1), mode)
        out: Tensor = self.head(self.head_norm(x))
        return out


def _chain(blocks: nn.ModuleList, x: Tensor, mode: Mode) -> Tensor:
    for block in blocks:
        x = block(x, mode)
    return x


def _zero(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def pad_to_stride(image: Tensor) -> Tensor:
    """(B, C, H, W) with its last row and column repeated up to multiples of STRIDE."""
    bottom, right = -image.shape[-2] % STRIDE, -image.shape[-1] % STRIDE
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image
