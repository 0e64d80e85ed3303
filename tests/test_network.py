from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pancrafter_cli.networks.attention import local_attention
from pancrafter_cli.networks.config import PanCrafterConfig, receptive_radius
from pancrafter_cli.networks.pancrafter import PanCrafter

SMALL = PanCrafterConfig(bands=3, width=8, depths=(1, 1, 1), heads=2)


def parameters(config: PanCrafterConfig) -> int:
    return sum(p.numel() for p in PanCrafter(config).parameters())


def randomised(config: PanCrafterConfig, seed: int = 0, spread: float = 0.2) -> PanCrafter:
    """A network whose zero-initialised parameters are random too, so that every path carries signal."""
    torch.manual_seed(seed)
    network = PanCrafter(config)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(spread * torch.randn_like(p))
    return network.eval()


def images(config: PanCrafterConfig, height: int, width: int, seed: int = 1) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(1, n, height, width, generator=g) for n in config.images.values())


def test_paper_config_has_the_papers_size() -> None:
    paper = PanCrafterConfig(bands=8, pan="raw", lowpass_inputs=False)
    assert 7.16e6 <= parameters(paper) <= 7.22e6


def test_extra_input_channels_cost_little() -> None:
    paper = parameters(PanCrafterConfig(bands=8, pan="raw", lowpass_inputs=False))
    matched = parameters(PanCrafterConfig(bands=8))
    assert paper < matched < 1.03 * paper


def test_a_plain_head_passes_contrast_on_linearly() -> None:
    """Without norms on its way, doubling what the embedding adds doubles the answer; with them it does not."""
    for head, linear in (("plain", True), ("norm", False)):
        config = PanCrafterConfig(bands=2, width=8, depths=(1, 1, 1), heads=2, head=head)  # type: ignore[arg-type]
        torch.manual_seed(0)
        network = PanCrafter(config).eval()
        with torch.no_grad():
            network.head.weight.normal_()
            for block in (*network.encoder1, *network.decoder1):
                assert block.conv2.weight.abs().sum() == 0
            network.up1.weight.zero_()
            network.up1.bias.zero_()
            for conv in (network.embed, network.decoder1[0].skip, network.head):
                conv.bias.zero_()
        x = images(config, 8, 8)
        once, twice = (network(*(t * k for t in x), mode="ms") - k * x[1] for k in (1, 2))
        assert torch.allclose(twice, 2 * once, atol=1e-5) == linear


@pytest.mark.parametrize("mode", ["ms", "pan"])
def test_untrained_network_returns_its_base_exactly(mode: str) -> None:
    torch.manual_seed(0)
    mpan, lms, lpan = images(SMALL, 12, 16)
    out = PanCrafter(SMALL)(mpan, lms, lpan, mode=mode)
    assert torch.equal(out, lms if mode == "ms" else lpan)


def test_raw_pan_is_repeated_for_every_band_in_pan_mode() -> None:
    config = PanCrafterConfig(bands=3, width=8, depths=(1, 1, 1), heads=2, pan="raw")
    mpan, lms, lpan = images(config, 8, 8)
    out = PanCrafter(config)(mpan, lms, lpan, mode="pan")
    assert torch.equal(out, lpan.expand(1, 3, 8, 8))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (8, 4), (13, 30)])
def test_any_size(height: int, width: int) -> None:
    out = randomised(SMALL)(*images(SMALL, height, width))
    assert out.shape == (1, 3, height, width)
    assert torch.isfinite(out).all()


def test_modes_share_weights_but_differ() -> None:
    network = randomised(SMALL)
    x = images(SMALL, 16, 16)
    ms = network(*x, mode="ms") - x[1]
    pan = network(*x, mode="pan") - x[2]
    assert not torch.allclose(ms, pan, atol=1e-3)


def test_every_parameter_learns_in_its_mode() -> None:
    network = randomised(SMALL).train()
    x = images(SMALL, 16, 16)
    (network(*x, mode="ms").square().mean() + network(*x, mode="pan").square().mean()).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("config", [SMALL, PanCrafterConfig(bands=2, width=8, depths=(2, 1, 2), heads=2)])
def test_receptive_radius_by_perturbing_a_pixel(config: PanCrafterConfig) -> None:
    # In double precision even the farthest influence of a pixel stays above rounding.
    network = randomised(config).double()
    radius = receptive_radius(config)
    size = 2 * radius + 20
    size += -size % 4
    base = [t.double() for t in images(config, size, size)]
    reached = 0
    with torch.inference_mode():
        before = network(*base, mode="ms")
        for y in range(size // 2, size // 2 + 4):  # every phase a pixel can have on the strided scales
            moved = [t.clone() for t in base]
            for t in moved:
                t[:, :, y, y] += 5.0
            changed = (network(*moved, mode="ms") - before).abs().amax(dim=(0, 1)) > 0
            ys, xs = torch.nonzero(changed, as_tuple=True)
            reached = max(reached, int((ys - y).abs().max()), int((xs - y).abs().max()))
    assert reached == radius


def test_local_attention_is_softmax_over_the_exact_neighbourhood() -> None:
    g = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(1, 4, 5, 6, generator=g) for _ in range(3))
    out = local_attention(q, k, v, heads=2)
    for y, x in ((0, 0), (2, 3), (4, 5), (0, 4)):  # corners and edges see fewer neighbours
        near = [(j, i) for j in range(y - 1, y + 2) for i in range(x - 1, x + 2) if 0 <= j < 5 and 0 <= i < 6]
        for head in (slice(0, 2), slice(2, 4)):
            scores = torch.stack([(q[0, head, y, x] * k[0, head, j, i]).sum() / math.sqrt(2) for j, i in near])
            weights = scores.softmax(0)
            expected = sum(w * v[0, head, j, i] for w, (j, i) in zip(weights, near, strict=True))
            torch.testing.assert_close(out[0, head, y, x], expected)


def test_branches_use_their_own_keys() -> None:
    network = randomised(SMALL)
    x = images(SMALL, 16, 16)
    before = network(*x, mode="ms")
    for name in ("key_ms", "key_pan", "value_ms", "value_pan"):
        changed = randomised(SMALL)
        with torch.no_grad():
            getattr(changed.bottleneck_attn.attention, name).weight.mul_(-1)
        assert not torch.allclose(changed(*x, mode="ms"), before, atol=1e-4), name
