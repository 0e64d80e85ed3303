"""Layers of the inference form of the network, on strips of rows of one image, channels last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pancrafter_cli.networks.pancrafter import EPS, ModulatedNorm, PixelNorm


@dataclass(frozen=True)
class Rows:
    """Rows [start, stop) of an image of `height` rows: data (1, C, stop - start, W)."""

    data: Tensor
    start: int
    stop: int
    height: int

    def of(self, data: Tensor) -> Rows:
        """Other data of the same rows."""
        return Rows(data, self.start, self.stop, self.height)

    def crop(self, start: int, stop: int) -> Tensor:
        """The rows [start, stop) of the image."""
        return self.data[:, :, start - self.start : stop - self.start]


class Conv3(nn.Module):
    """A 3x3 convolution: zeros beyond the image's edges, one row less where the image goes on."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.width = len(weight)
        self.register_buffer("weight", weight.detach().to(dtype).contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias.detach().to(dtype))

    @classmethod
    def of(cls, conv: nn.Conv2d, dtype: torch.dtype) -> Conv3:
        """With the weights of `conv`."""
        assert conv.bias is not None  # every convolution of PanCrafter has one
        return cls(conv.weight, conv.bias, dtype)

    @classmethod
    def joined(cls, weights: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Conv3:
        """One convolution that gives what several give, each (weight, bias), on the same input; in their order."""
        return cls(torch.cat([w for w, _ in weights]), torch.cat([b for _, b in weights]), dtype)

    def forward(self, rows: Rows) -> Rows:
        """(1, C_in, n, W) to (1, C_out, n to n - 2, W)."""
        top, bottom = rows.start == 0, rows.stop == rows.height
        data = rows.data
        if top != bottom:
            data = F.pad(data, (0, 0, int(top), int(bottom)))
        out = F.conv2d(data, self.weight, self.bias, padding=(int(top and bottom), 1))
        return Rows(out, rows.start + (not top), rows.stop - (not bottom), rows.height)

    def strided(self, x: Tensor) -> Tensor:
        """Of a whole image, every second pixel: (1, C_in, H, W) to (1, C_out, H / 2, W / 2)."""
        return F.conv2d(x, self.weight, self.bias, stride=2, padding=1)


class Conv1(nn.Module):
    """A 1x1 convolution."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().to(dtype))
        self.register_buffer("bias", bias.detach().to(dtype))

    @classmethod
    def of(cls, conv: nn.Conv2d, dtype: torch.dtype) -> Conv1:
        """With the weights of `conv`."""
        assert conv.bias is not None
        return cls(conv.weight[:, :, 0, 0], conv.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(1, C_in, n, W) to (1, C_out, n, W)."""
        return F.linear(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU, in its tanh form, of what `forward` gives."""
        if not torch.backends.mkldnn.is_available():
            return F.gelu(self(x), approximate="tanh")
        # Computed while the product is in registers: alone, GELU costs several times what the product does.
        fused = torch.ops.mkldnn._linear_pointwise
        y: Tensor = fused(x.permute(0, 2, 3, 1), self.weight, self.bias, "gelu", [], "tanh")
        return y.permute(0, 3, 1, 2)


class Norm(nn.Module):
    """LayerNorm of each pixel's channels, modulated for MS mode where the network does that."""

    gain: Tensor
    offset: Tensor

    def __init__(self, norm: PixelNorm | ModulatedNorm, dtype: torch.dtype) -> None:
        super().__init__()
        modulated = isinstance(norm, ModulatedNorm)
        gain, offset = (1 + norm.gamma.ms, norm.beta.ms) if modulated else (norm.weight, norm.bias)
        
        self.register_buffer("gain", gain.detach().to(dtype))
        self.register_buffer("offset", offset.detach().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, n, W) to the same, in new memory."""
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.gain.shape, self.gain, self.offset, EPS)
        return y.permute(0, 3, 1, 2)


def attend(qkv: Rows, kv: Rows, start: int, stop: int, heads: int) -> Tensor:
    """Attention of the pixels of rows [start, stop) to their 3x3 neighbours in MS and in PAN: (1, 2C, n, w).

    qkv: (1, 3C, m, w), scaled queries, keys and values of MS; kv: (1, 2C, m, w), keys and values of PAN; both also of
    the rows next to [start, stop), where the image has them. In float32, whatever the dtype of the data.
    """
    width, pixels = qkv.data.shape[3], (stop - start) * qkv.data.shape[3]
    query, *ms = _planes(qkv, start, stop, 3, heads)
    query = query[..., width + 1 : width + 1 + pixels]
    out = query.new_empty(2, *query.shape)
    for found, (key, value) in zip(out, (ms, _planes(kv, start, stop, 2, heads)), strict=True):
        scores = _scores(query, key, width)
        near = scores.view(3, 3, heads, stop - start, width)
        near[:, 0, :, :, 0] = near[:, 2, :, :, -1] = -torch.inf
        if start == 0:
            near[0, :, :, 0] = -torch.inf
        if stop == qkv.height:
            near[2, :, :, -1] = -torch.inf
        _weigh(scores.softmax(0), value, width, found)
    pixelwise = out.view(-1, pixels).t().contiguous().to(qkv.data.dtype)
    return pixelwise.view(1, stop - start, width, -1).permute(0, 3, 1, 2)


def _planes(rows: Rows, start: int, stop: int, parts: int, heads: int) -> list[Tensor]:
    """What a convolution gave together, each part as planes (heads, C / heads, pixels).

    The pixels are those of rows [start - 1, stop + 1) one after another, with one more at both ends: so every
    neighbour of all pixels is one slice, whose wrong pixels, across the image's edges, can be masked.
    """
    lo, hi = max(0, start - 1), min(stop + 1, rows.height)
    piece = rows.crop(lo, hi)
    _, channels, count, width = piece.shape
    planes = torch.empty(channels, (stop - start + 2) * width + 2, device=piece.device)
    first = 1 + (lo - start + 1) * width
    planes[:, :first] = 0
    planes[:, first : first + count * width] = piece.permute(0, 2, 3, 1).reshape(-1, channels).float().t()
    planes[:, first + count * width :] = 0
    return list(planes.view(parts, heads, -1, planes.shape[1]))


def _scores(query: Tensor, key: Tensor, width: int) -> Tensor:
    """Products of queries (heads, d, n) and the keys of their neighbours: (9, heads, n)."""
    heads, _, pixels = query.shape
    scores = query.new_empty(9, heads, pixels)
    product = torch.empty_like(query)
    for score, offset in zip(scores, _offsets(width), strict=True):
        torch.mul(query, key[..., offset : offset + pixels], out=product)
        torch.sum(product, dim=1, out=score)
    return scores


def _weigh(weights: Tensor, value: Tensor, width: int, out: Tensor) -> None:
    """Fill `out` (heads, d, n) with the sum of the neighbours' values by `weights` (9, heads, n)."""
    out.zero_()
    for weight, offset in zip(weights.unsqueeze(2), _offsets(width), strict=True):
        out.addcmul_(weight, value[..., offset : offset + out.shape[-1]])


def _offsets(width: int) -> list[int]:
    """Where the nine neighbours of a row of pixels begin in `_planes`."""
    return [dy * width + dx for dy in range(3) for dx in range(3)]
