from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pancrafter_cli.cli import bench as command
from pancrafter_cli.cli.main import app
from pancrafter_cli.errors import UsageError
from pancrafter_cli.networks.config import PanCrafterConfig
from pancrafter_cli.networks.pancrafter import PanCrafter
from pancrafter_cli.runtime.measure import flops_per_pixel, matmul_ceiling, peak_memory
from pancrafter_cli.tasks.bench import STAGES, BenchOptions, bench
from pancrafter_cli.zoo import DEFAULT_MODEL
from tests.test_sharpen import random_model


def test_every_figure_is_there_and_fits_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = BenchOptions(str(random_model(tmp_path)), "cpu", "fp32", tile=256, size=256, repeats=1)
    result = bench(options)
    assert tuple(result.stages) == STAGES
    for speed in (*result.stages.values(), result.end_to_end):
        assert speed.seconds > 0
        assert speed.pixels_per_second == pytest.approx(256**2 / speed.seconds)
    # One tile without neighbours reads no halo.
    assert result.network_flops == pytest.approx(result.flops_per_pixel * 256**2 / result.stages["network"].seconds)
    assert result.share == pytest.approx(result.network_flops / result.matmul_flops)
    assert 0 < result.share < 1
    assert (result.precision, result.device, result.bands) == ("fp32", "cpu", 4)
    assert result.device_memory is None
    command._print(result)
    printed = capsys.readouterr().out
    for name in ("read", "network", "write", "end to end", "FLOPs per pixel", "matrix products"):
        assert name in printed


def test_the_command_measures_what_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[BenchOptions] = []

    def measured(options: BenchOptions) -> BenchOptions:
        asked.append(options)
        return options

    monkeypatch.setattr("pancrafter_cli.tasks.bench.bench", measured)
    given = "--model", "a.safetensors", "--device", "cpu", "--precision", "bf16"
    words = *given, "--tile", "768", "--size", "2048", "--repeat", "3"
    for arguments in ((), words):
        done = CliRunner().invoke(app, ["bench", "--json", *arguments])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout) == asdict(asked[-1])
    assert asked == [
        BenchOptions(DEFAULT_MODEL),
        BenchOptions("a.safetensors", "cpu", "bf16", tile=768, size=2048, repeats=3),
    ]


def test_operations_are_counted_as_by_hand() -> None:
    config = PanCrafterConfig(bands=2, width=8, depths=(1, 1, 0), heads=2, lowpass_inputs=False, attention=False)
    c = 8
    conv = 2 * 9 * c * c
    full = 2 * 9 * 4 * c + 2 * conv + (3 * conv + 2 * 2 * c * c) + 2 * 9 * c * 2  # embed, encoder, decoder, head
    feed_forward = 2 * (c * 4 * c + 4 * c * c)
    half = conv + 2 * conv + 3 * conv + 2 * 2 * c * c + 2 * feed_forward  # down, encoder, decoder, two AttnBlocks
    quarter = conv + feed_forward
    up = 2 * c * c * 4 / 4 + 2 * c * c * 4 / 16  # each input pixel gives 2 x 2 pixels
    assert flops_per_pixel(PanCrafter(config)) == pytest.approx(full + half / 4 + quarter / 16 + up)


def test_counting_leaves_the_network_where_it_is() -> None:
    network = PanCrafter(PanCrafterConfig(width=8, depths=(1, 1, 1), heads=2))
    flops_per_pixel(network)
    assert all(p.device.type == "cpu" and p.requires_grad for p in network.parameters())


def test_the_machine_gives_plausible_figures() -> None:
    assert 1e8 < matmul_ceiling(torch.device("cpu"), torch.float32) < 1e15
    held = peak_memory()
    assert held is None or 50e6 < held < 1e12


@pytest.mark.parametrize("options", [BenchOptions(size=300), BenchOptions(size=0), BenchOptions(repeats=0)])
def test_what_cannot_be_measured_is_refused(options: BenchOptions) -> None:
    with pytest.raises(UsageError):
        bench(options)
