"""The PAN-Crafter network as it runs on a CPU: what `PanCrafter` computes in MS mode, in an order that suits caches.

`PanCrafter` stays the readable definition and the form that is trained; this one is made from its weights. It differs
in form only: convolutions that see the same features are one, the PAN mode and the per-mode vectors are folded away,
and every block goes through the image in strips of rows, so that what lies between its convolutions stays in the
processor's cache. In the plain form that traffic, and new memory for every array, cost more than the convolutions.

In bfloat16 only what blocks add to the features is computed in it, where nearly all arithmetic is. The features, the
images they come from and the result stay float32: rounded, these alone would put the result off by 0.5 % of the scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pancrafter_cli.networks.bands import in_place, in_strips
from pancrafter_cli.networks.pancrafter import AttnBlock, PanCrafter, ResBlock, pad_to_stride
from pancrafter_cli.networks.scratch import Scratch
from pancrafter_cli.networks.strips import Conv1, Conv3, Norm, Rows, attend, joined_channels

_FEATURES = torch.float32


def prepared(network: PanCrafter, dtype: torch.dtype = torch.float32) -> InferenceNetwork:
    """`network` in the form that runs fast on a CPU, with weights of its own; dtype: that of its blocks."""
    return InferenceNetwork(network, dtype).eval()


class InferenceNetwork(nn.Module):
    """`forward(mpan, lms, lpan)` is that of the PanCrafter it was made from, in MS mode and without gradients."""

    def __init__(self, network: PanCrafter, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        scratch = Scratch()  # blocks take turns
        self.embed = _Embedding(network)
        self.encoder1 = _blocks(network.encoder1, dtype)
        self.down1 = _Halving(network.down1)
        self.encoder2 = _blocks(network.encoder2, dtype)
        self.encoder2_attn = _AttnBlock(network.encoder2_attn, dtype, scratch)
        self.down2 = _Halving(network.down2)
        self.bottleneck = _blocks(network.bottleneck, dtype)
        self.bottleneck_attn = _AttnBlock(network.bottleneck_attn, dtype, scratch)
        self.up2 = _Upsampling(network.up2)
        self.decoder2 = _blocks(network.decoder2, dtype)
        self.decoder2_attn = _AttnBlock(network.decoder2_attn, dtype, scratch)
        self.up1 = _Upsampling(network.up1)
        # Before a plain head nothing dampens what is rounded here: two thirds of all that would be off come from it.
        self.decoder1 = _blocks(network.decoder1, dtype if network.config.head == "norm" else _FEATURES)
        self.head_norm = None
        if isinstance(network.head_norm, nn.Sequential):
            self.head_norm = Norm(network.head_norm[0], _FEATURES)  # type: ignore[arg-type]
        self.head = Conv3.of(network.head, _FEATURES)

    @torch.inference_mode()
    def forward(self, mpan: Tensor, lms: Tensor, lpan: Tensor) -> Tensor:
        """Sharpen: mpan, lpan (1, pan_channels, H, W), lms (1, bands, H, W), float32; returns (1, bands, H, W)."""
        height, width = lms.shape[-2:]
        pan, lms, lpan = (pad_to_stride(t) for t in (mpan, lms, lpan))
        half, quarter = ([_means(t, n, self.dtype) for t in ([lms], [lpan, pan])] for n in (2, 4))
        x = skip1 = _chain(self.encoder1, self.embed(pan, lms, lpan))
        x = _chain(self.encoder2, self.down1(x))
        x = skip2 = self.encoder2_attn(x, *half)
        x = self.bottleneck_attn(_chain(self.bottleneck, self.down2(x)), *quarter)
        x = self.decoder2_attn(_chain(self.decoder2, self.up2(x), skip2), *half)
        x = _chain(self.decoder1, self.up1(x), skip1)
        return self._with_head(x, lms)[..., :height, :width]

    def _with_head(self, x: Tensor, base: Tensor) -> Tensor:
        height = x.shape[2]

        def strip(start: int, stop: int) -> Tensor:
            lo, hi = max(0, start - 1), min(height, stop + 1)
            rows = Rows(x[:, :, lo:hi], lo, hi, height)
            if self.head_norm is not None:
                rows = rows.of(self.head_norm(rows.data, silu=True))
            found: Rows = self.head(rows)
            return base[:, :, start:stop] + found.crop(start, stop)

        return in_strips(torch.empty_like(base), strip, width=x.shape[1])


class _Embedding(nn.Module):
    """The first convolution. Of pan, lpan and their difference it is given two: the third adds nothing."""

    def __init__(self, network: PanCrafter) -> None:
        super().__init__()
        self._scratch = Scratch()
        config, weight, bias = network.config, network.embed.weight, _bias(network.embed)
        self.lowpass_inputs = config.lowpass_inputs
        if self.lowpass_inputs:
            n, bands = config.pan_channels, config.bands
            pan, lms, low, detail = torch.split(weight, [n, bands, n, n], dim=1)
            weight = torch.cat([pan + detail, lms, low + pan], dim=1)
        self.conv = Conv3(weight, bias, _FEATURES)

    def forward(self, pan: Tensor, lms: Tensor, lpan: Tensor) -> Tensor:
        """Images (1, C, H, W) to features (1, width, H, W)."""
        height = lms.shape[2]

        def strip(start: int, stop: int) -> Tensor:
            lo, hi = max(0, start - 1), min(height, stop + 1)
            p, m, low = (t[:, :, lo:hi] for t in (pan, lms, lpan))
            images = torch.cat([p - low, m, low] if self.lowpass_inputs else [p, m], dim=1)
            images = images.contiguous(memory_format=torch.channels_last)
            rows: Rows = self.conv(Rows(images, lo, hi, height))
            return rows.crop(start, stop)

        return in_strips(self._scratch.pixelwise(self.conv.width, height, lms.shape[3], _FEATURES), strip)


class _ResBlock(nn.Module):
    """Both convolutions of a ResBlock on one strip of rows."""

    def __init__(self, block: ResBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(block.norm1, dtype), Norm(block.norm2, dtype)
        self.conv1, self.conv2 = Conv3.of(block.conv1, dtype), Conv3.of(block.conv2, dtype)
        self.skip = Conv1.of(block.skip, _FEATURES) if isinstance(block.skip, nn.Conv2d) else None

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """X (1, C, H, W), overwritten with the result; `beside`: channels that the block sees after those of x."""

        def strip(rows: Rows, start: int, stop: int) -> Tensor:
            if beside is not None:
                rows = rows.of(joined_channels([rows.data, beside[:, :, rows.start : rows.stop]]))
            y = self.conv1(rows.of(self.norm1(rows.data, silu=True)))
            y = self.conv2(y.of(self.norm2(y.data, silu=True)))
            x_in = rows.crop(start, stop)
            return _sum(y.crop(start, stop), x_in if self.skip is None else self.skip(x_in))

        return in_place(x, 2, strip)


class _AttnBlock(nn.Module):
    """An AttnBlock on one strip of rows; alphas, projections and the queries' scale are in the weights."""

    def __init__(self, block: AttnBlock, dtype: torch.dtype, scratch: Scratch) -> None:
        super().__init__()
        self.heads, self._scratch = 0, scratch
        if block.attention is not None:
            cm3a = block.attention
            self.heads = cm3a.heads
            scale = (cm3a.project_ms.in_channels // cm3a.heads) ** -0.5
            self.norm1 = Norm(block.norm1, dtype)
            query = (cm3a.query.weight * scale, _bias(cm3a.query) * scale)
            self.from_ms = Conv3.joined([query, *((c.weight, _bias(c)) for c in (cm3a.key_ms, cm3a.value_ms))], dtype)
            # Keys of PAN do not see PAN itself, which values see last.
            key = F.pad(cm3a.key_pan.weight, (0, 0, 0, 0, 0, cm3a.value_pan.in_channels - cm3a.key_pan.in_channels))
            value = (cm3a.value_pan.weight, _bias(cm3a.value_pan))
            self.from_pan = Conv3.joined([(key, _bias(cm3a.key_pan)), value], dtype)
            projections = ((block.alpha_ms.ms, cm3a.project_ms), (block.alpha_pan.ms, cm3a.project_pan))
            self.project = Conv1(
                torch.cat([alpha[:, None] * conv.weight[:, :, 0, 0] for alpha, conv in projections], dim=1),
                sum((alpha * _bias(conv) for alpha, conv in projections), torch.zeros(())),
                dtype,
            )
        self.norm2 = Norm(block.norm2, dtype)
        wide, _, narrow = block.ffn
        self.wide, self.narrow = Conv1.of(wide, dtype), Conv1.of(narrow, dtype)  # type: ignore[arg-type]

    def forward(self, x: Tensor, ms: Tensor, pans: Tensor) -> Tensor:
        """X (1, C, h, w), overwritten with the result; ms: lms, pans: lpan and pan, at its scale."""

        def strip(rows: Rows, start: int, stop: int) -> Tensor:
            y = rows.crop(start, stop)
            if self.heads:
                y = _sum(self.project(self._attended(rows, start, stop, ms, pans)), y)
            return self._fed_forward(y)

        return in_place(x, 2 if self.heads else 0, strip)

    def _attended(self, rows: Rows, start: int, stop: int, ms: Tensor, pans: Tensor) -> Tensor:
        """What both branches find for the rows [start, stop): (1, 2C, n, w)."""
        x = self.norm1(rows.data)
        seen = [rows.of(joined_channels([x, t[:, :, rows.start : rows.stop]])) for t in (ms, pans)]
        qkv, kv = self.from_ms(seen[0]), self.from_pan(seen[1])
        return attend(qkv, kv, start, stop, self.heads, self._scratch)

    def _fed_forward(self, x: Tensor) -> Tensor:
        return _sum(self.narrow(self.wide.gelu(self.norm2(x))), x)


class _Halving(nn.Module):
    """Every second pixel of a convolution."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self._scratch = Conv3.of(conv, _FEATURES), Scratch()

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, H, W) to (1, C_out, H / 2, W / 2)."""
        _, _, height, width = x.shape
        out = self._scratch.pixelwise(self.conv.width, height // 2, width // 2, _FEATURES)
        return in_strips(out, lambda start, stop: self.conv.strided(x, start, stop))


class _Upsampling(nn.Module):
    """A transposed convolution of 2x2 pixels, stride 2."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.ConvTranspose2d) -> None:
        super().__init__()
        self._scratch = Scratch()
        self.register_buffer("weight", conv.weight.detach().to(_FEATURES))
        self.register_buffer("bias", _bias(conv).detach().to(_FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, h, w) to (1, C, 2h, 2w)."""
        _, _, height, width = x.shape

        def strip(start: int, stop: int) -> Tensor:
            lo, hi = start // 2, -(-stop // 2)
            out = F.conv_transpose2d(x[:, :, lo:hi], self.weight, self.bias, stride=2)
            return out[:, :, start - 2 * lo : stop - 2 * lo]

        out = self._scratch.pixelwise(len(self.bias), 2 * height, 2 * width, _FEATURES)
        return in_strips(out, strip)


def _blocks(blocks: nn.ModuleList, dtype: torch.dtype) -> nn.ModuleList:
    return nn.ModuleList(_ResBlock(block, dtype) for block in blocks)  # type: ignore[arg-type]


def _chain(blocks: nn.ModuleList, x: Tensor, beside: Tensor | None = None) -> Tensor:
    for block in blocks:
        x, beside = block(x, beside), None
    return x


def _means(images: Sequence[Tensor], n: int, dtype: torch.dtype) -> Tensor:
    """Averages of n x n pixels of all channels of images (1, C, H, W): (1, sum of C, H / n, W / n)."""
    means = torch.cat([F.avg_pool2d(image, n) for image in images], dim=1)
    return means.to(dtype=dtype, memory_format=torch.channels_last)


def _sum(branch: Tensor, x: Tensor) -> Tensor:
    """What a branch found, in place of it if it is float32, added to the features x."""
    return branch.float().add_(x)


def _bias(conv: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    assert conv.bias is not None  # every convolution of PanCrafter has one
    return conv.bias
