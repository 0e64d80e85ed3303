"""The inference form of the network against the plain one, and the choice of precision."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pancrafter_cli.geometry.inputs import NetworkInputs
from pancrafter_cli.networks import bands
from pancrafter_cli.networks.config import PanCrafterConfig
from pancrafter_cli.networks.inference import prepared
from pancrafter_cli.runtime import torch_runner
from pancrafter_cli.runtime.cpu import usable_cores
from pancrafter_cli.runtime.torch_runner import TorchRunner
from pancrafter_cli.zoo import Model, ModelSpec, load_model
from tests.test_network import images, randomised

CPU = torch.device("cpu")
MATCHED = PanCrafterConfig(bands=3, width=8, depths=(1, 1, 1), heads=2)
RAW = PanCrafterConfig(bands=2, width=16, depths=(2, 1, 2), heads=4, pan="raw", lowpass_inputs=False)
PLAIN = PanCrafterConfig(bands=4, width=8, depths=(1, 2, 1), heads=1, head="plain", attention=False)


@pytest.fixture
def thin_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of 8 rows, so that even small images have many."""
    monkeypatch.setattr(bands, "_STRIP_BYTES", 1)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many threads of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("thin_strips", "threads")
@pytest.mark.parametrize("config", [MATCHED, RAW, PLAIN])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (8, 64), (33, 30), (100, 12)])
def test_equals_the_plain_form(config: PanCrafterConfig, height: int, width: int) -> None:
    # Moderate weights: what is compared is float32, and large activations would only show its rounding.
    network = randomised(config, spread=0.1)
    x = images(config, height, width)
    with torch.inference_mode():
        expected = network(*x, mode="ms")
    assert (expected - x[1]).abs().max() > 0.1, "the network does nothing that could differ"
    before = torch.get_num_threads()
    torch.testing.assert_close(prepared(network)(*x), expected, atol=1e-5, rtol=1e-5)
    assert torch.get_num_threads() == before


def test_strips_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = prepared(randomised(MATCHED, spread=0.1))
    x = images(MATCHED, 68, 40)
    whole = fast(*x)
    monkeypatch.setattr(bands, "_STRIP_BYTES", 1)
    torch.testing.assert_close(fast(*x), whole, atol=1e-5, rtol=1e-5)


def test_tiles_leave_nothing_behind_in_memory_that_is_used_again() -> None:
    fast = prepared(randomised(MATCHED, spread=0.1))
    small, large = images(MATCHED, 20, 28), images(MATCHED, 68, 40, seed=2)
    first = fast(*large)
    kept = first.clone()
    fast(*small)
    assert torch.equal(first, kept), "a tile that was handed out was written over"
    assert torch.equal(fast(*large), kept)


def test_threads_have_memory_of_their_own() -> None:
    fast = prepared(randomised(MATCHED, spread=0.1))
    tiles = [images(MATCHED, 40, 48, seed=seed) for seed in range(8)]
    alone = [fast(*tile) for tile in tiles]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda tile: fast(*tile), tiles))
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_leaves_network_and_inputs_alone() -> None:
    network = randomised(MATCHED)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = images(MATCHED, 12, 12)
    kept = [t.clone() for t in x]
    prepared(network, torch.bfloat16)(*x)
    assert all(torch.equal(a, b) for a, b in zip(x, kept, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())


def test_the_shipped_model_in_bf16_agrees_with_fp32() -> None:
    network = load_model().network
    exact, rounded = (prepared(network, dtype)(*scenery(256)) for dtype in (torch.float32, torch.bfloat16))
    difference = (rounded - exact).abs().flatten()
    assert 0 < torch.quantile(difference, 0.999) < 0.002


def scenery(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs that look like a scene's: mpan sharp, lms and lpan smooth, around 0.5."""
    g = torch.Generator().manual_seed(5)
    sharp = torch.rand(1, 4, size, size, generator=g) * 0.2 + 0.4
    smooth = torch.nn.functional.avg_pool2d(sharp, 9, stride=1, padding=4, count_include_pad=False)
    return sharp, smooth.roll(1, dims=1), smooth


def arrays(size: int = 64) -> NetworkInputs:
    return NetworkInputs(*(t[0].numpy() for t in scenery(size)))


def test_auto_takes_bf16_where_it_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_runner, "multiplies_bf16", lambda: True)
    runner = TorchRunner(load_model(), CPU)
    assert (runner.precision, runner.undecided) == ("fp32", True)
    chosen = runner.checked(arrays())
    assert (chosen.precision, chosen.undecided) == ("bf16", False)
    assert "99.9th percentile" in chosen.reason
    assert chosen.checked(arrays()) is chosen


def test_auto_stays_fp32_where_bf16_is_off_or_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_runner, "multiplies_bf16", lambda: True)
    config = PanCrafterConfig(bands=4, width=8, depths=(1, 1, 1), heads=2)
    wild = TorchRunner(Model(randomised(config, spread=1.0), ModelSpec("wild", config), ""), CPU)
    chosen = wild.checked(arrays())
    assert (chosen.precision, chosen.undecided) == ("fp32", False)
    assert "of the scale off fp32" in chosen.reason
    monkeypatch.setattr(torch_runner, "multiplies_bf16", lambda: False)
    chosen = TorchRunner(load_model(), CPU).checked(arrays())
    assert chosen.precision == "fp32"
    assert "neither" in chosen.reason


@pytest.mark.parametrize(("off", "precision"), [(0.001, "bf16"), (0.003, "fp32")])
def test_bf16_may_be_off_by_a_five_hundredth_of_the_scale(
    monkeypatch: pytest.MonkeyPatch, off: float, precision: str
) -> None:
    def sharpen(runner: TorchRunner, images: NetworkInputs) -> np.ndarray:
        return images.lms + np.float32(off if runner.precision == "bf16" else 0)

    monkeypatch.setattr(torch_runner, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(TorchRunner, "sharpen", sharpen)
    chosen = TorchRunner(load_model(), CPU).checked(arrays())
    assert chosen.precision == precision
    assert f"{100 * off:.2g} % of the scale" in chosen.reason


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_that_was_asked_for_is_not_judged(precision: torch_runner.Precision) -> None:
    runner = TorchRunner(load_model(), CPU, precision)
    assert runner.checked(arrays()) is runner
    assert (runner.precision, runner.reason) == (precision, "")


def test_the_training_form_still_learns_after_it_was_prepared() -> None:
    network = randomised(MATCHED).train()
    prepared(network)(*images(MATCHED, 8, 8))
    network(*images(MATCHED, 8, 8), mode="ms").square().mean().backward()
    assert network.embed.weight.grad is not None


def test_cores_are_those_granted(tmp_path: Path) -> None:
    everything = usable_cores(tmp_path / "none")
    quota = tmp_path / "cpu.max"
    for text, expected in (("max 100000", everything), ("100000 100000", 1), ("50000 100000", 1)):
        quota.write_text(text + "\n")
        assert usable_cores(quota) == expected
