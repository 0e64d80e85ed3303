"""`pancrafter bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from pancrafter_cli.cli import options as opt
from pancrafter_cli.cli.output import print_json, print_rows

if TYPE_CHECKING:
    from pancrafter_cli.tasks.bench import BenchResult, Speed

EXAMPLES = """Examples:

pancrafter bench

pancrafter bench --precision fp32 --tile 256 --size 2048

pancrafter bench --device cuda --json
"""


def command(
    model: opt.Model = opt.DEFAULT_MODEL,
    device: opt.Device = "auto",
    precision: opt.Precision = opt.PrecisionChoice.AUTO,
    tile: int = typer.Option(512, help="Tile side in PAN pixels, a multiple of 256."),
    size: int = typer.Option(1024, help="PAN pixels a side of the synthetic scene, a multiple of 256."),
    repeat: int = typer.Option(5, help="How often everything is timed; the medians are reported."),
    as_json: opt.AsJson = False,
) -> None:
    """Measure how fast this machine sharpens: reading, network, writing and all of it, and how near to its limits."""
    from pancrafter_cli.tasks.bench import BenchOptions, bench

    result = bench(BenchOptions(model, device, precision.value, tile, size, repeat))
    if as_json:
        print_json(result)
    else:
        _print(result)


def _print(result: BenchResult) -> None:
    why = f" ({result.precision_reason})" if result.precision_reason else ""
    rows = [
        ("model", result.model),
        ("device", f"{result.device}, {result.threads} threads"),
        ("precision", result.precision + why),
        ("scene", f"{result.size} x {result.size} PAN pixels, {result.bands} bands"),
        ("tile", f"{result.tile}, halo {result.halo}"),
        *((name, _text(speed)) for name, speed in result.stages.items()),
        ("end to end", _text(result.end_to_end)),
        ("FLOPs per pixel", f"{result.flops_per_pixel / 1e3:.1f} thousand"),
        ("network", f"{result.network_flops / 1e9:.1f} GFLOP/s, halos counted"),
        ("matrix products", f"{result.matmul_flops / 1e9:.1f} GFLOP/s; the network reaches {result.share:.0%} of it"),
    ]
    for name, held in (("peak memory", result.peak_memory), ("GPU memory", result.device_memory)):
        if held is not None:
            rows.append((name, f"{held / 1e9:.2f} GB"))
    rows.append(("medians of", f"{result.repeats} runs"))
    print_rows(rows)


def _text(speed: Speed) -> str:
    return f"{speed.pixels_per_second / 1e6:.2f} Mpixel/s, {speed.seconds:.2f} s"
