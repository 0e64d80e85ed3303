"""Layers of the inference form of the network, on strips of rows of one image, channels last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pancrafter_cli.networks.pancrafter import EPS, ModulatedNorm, PixelNorm
from pancrafter_cli.networks.scratch import Scratch

_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


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


def joined_rows(parts: Sequence[Tensor]) -> Tensor:
    """Images (1, C, n, W), channels last, one below the other: torch.cat itself would turn a batch of one around."""
    return torch.cat([part.permute(0, 2, 3, 1) for part in parts], dim=1).permute(0, 3, 1, 2)


def joined_channels(parts: Sequence[Tensor]) -> Tensor:
    """The channels of images (1, C, n, W), channels last, one after the other."""
    return torch.cat([part.permute(0, 2, 3, 1) for part in parts], dim=3).permute(0, 3, 1, 2)


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

    def strided(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of every second pixel of an image: (1, C_in, H, W) to (1, C_out, n, W / 2)."""
        data = x[:, :, max(0, 2 * start - 1) : 2 * stop].to(self.weight.dtype)
        # Zeros below the rows of the first strip are never reached.
        return F.conv2d(data, self.weight, self.bias, stride=2, padding=(int(start == 0), 1))


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
        if not _ONEDNN:
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
        if isinstance(norm, ModulatedNorm):
            gain, offset = 1 + norm.gamma.ms, norm.beta.ms
        else:
            gain, offset = norm.weight, norm.bias
        self.dtype = dtype
        self.register_buffer("gain", gain.detach().float())
        self.register_buffer("offset", offset.detach().float())

    def forward(self, x: Tensor, *, silu: bool = False) -> Tensor:
        """(1, C, n, W) to the same in new memory, after SiLU where asked for."""
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.gain.shape, self.gain, self.offset, EPS)
        if silu:
            F.silu(y, inplace=True)
        return y.to(self.dtype).permute(0, 3, 1, 2)


def attend(qkv: Rows, kv: Rows, start: int, stop: int, heads: int, scratch: Scratch) -> Tensor:
    """Attention of the pixels of rows [start, stop) to their 3x3 neighbours in MS and in PAN: (1, 2C, n, w).

    qkv: (1, 3C, m, w), scaled queries, keys and values of MS; kv: (1, 2C, m, w), keys and values of PAN; both also of
    the rows next to [start, stop), where the image has them. In float32, whatever the dtype of the data.
    """
    width, pixels = qkv.data.shape[3], (stop - start) * qkv.data.shape[3]
    first = (start - qkv.start) * width
    queries, *ms = _planes(qkv.data, 3, heads, scratch.flat("planes of ms", _plane_numbers(qkv.data)))
    pan = _planes(kv.data, 2, heads, scratch.flat("planes of pan", _plane_numbers(kv.data)))
    query = queries(first, pixels)
    product = scratch.flat("products", query.numel()).view(query.shape)
    scores = scratch.flat("scores", 9 * heads * pixels).view(9, heads, pixels)
    out = scratch.flat("attended", 2 * query.numel()).view(2, *query.shape)
    offsets = [first + dy * width + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    for found, (key, value) in zip(out, (ms, pan), strict=True):
        for score, offset in zip(scores, offsets, strict=True):
            torch.sum(torch.mul(query, key(offset, pixels), out=product), dim=1, out=score)
        near = scores.view(3, 3, heads, stop - start, width)
        near[:, 0, :, :, 0] = near[:, 2, :, :, -1] = -torch.inf
        if start == 0:
            near[0, :, :, 0] = -torch.inf
        if stop == qkv.height:
            near[2, :, :, -1] = -torch.inf
        found.zero_()
        for weight, offset in zip(torch.softmax(scores, 0, out=scores).unsqueeze(2), offsets, strict=True):
            found.addcmul_(weight, value(offset, pixels))
    pixelwise = out.view(-1, pixels).t().contiguous().to(qkv.data.dtype)
    return pixelwise.view(1, stop - start, width, -1).permute(0, 3, 1, 2)


def _plane_numbers(data: Tensor) -> int:
    """How many numbers `_planes` of data (1, C, m, w) hold: they begin and end with what lies beyond the image."""
    return data.numel() + 2 * (data.shape[3] + 1)


def _planes(data: Tensor, parts: int, heads: int, memory: Tensor) -> list[Callable[[int, int], Tensor]]:
    """The parts of data (1, C, m, w), each as a function of (start, n): n pixels of its planes, (heads, d, n).

    The rows of a plane lie one after another, and one plane after another, so that the neighbours on one side of all
    pixels are one slice. Where it runs across an edge its pixels are of other places, and have to be masked. The planes
    are written to `memory`.
    """
    _, channels, height, width = data.shape
    size, margin = height * width, width + 1
    memory[:margin] = 0
    memory[-margin:] = 0
    pixelwise = data.permute(0, 2, 3, 1).reshape(size, channels)
    memory[margin:-margin].view(channels, size).copy_(pixelwise.t())
    depth = channels // parts // heads

    def part(first: int) -> Callable[[int, int], Tensor]:
        def pixels(start: int, n: int) -> Tensor:
            return memory.as_strided((heads, depth, n), (depth * size, size, 1), margin + first * size + start)

        return pixels

    return [part(k * heads * depth) for k in range(parts)]
