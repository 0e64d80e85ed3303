#!/usr/bin/env python
"""How much faster the inference form of the network is on this CPU than the plain form run eagerly in fp32.

python examples/measure_network.py --repeat 5

The plain form (pancrafter_cli/networks/pancrafter.py) of the paper's size, 128 channels and 8 bands, on 256 x 256 is
the reference. It takes turns with the inference form in bf16 and fp32, and with the default model on a tile as
`sharpen` reads it, so that whatever else the machine does hits all alike. Prints medians, and ratios of the time per
PAN pixel.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from pancrafter_cli.networks.config import PanCrafterConfig
from pancrafter_cli.networks.inference import prepared
from pancrafter_cli.networks.pancrafter import PanCrafter
from pancrafter_cli.runtime.cpu import use_usable_cores
from pancrafter_cli.runtime.measure import flops_per_pixel, matmul_ceiling
from pancrafter_cli.zoo import load_model

PAPER = PanCrafterConfig(bands=8, pan="raw", lowpass_inputs=False)
SIZE = 256
TILE = 592  # pixels a side that a tile of 512 reads


def main() -> None:
    """Print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="runs of each, after one that warms up")
    parser.add_argument("--threads", type=int, help="default: the cores this process may use")
    options = parser.parse_args()
    use_usable_cores()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    paper, default = PanCrafter(PAPER).eval(), load_model().network
    runs = {
        "plain, fp32, paper": (SIZE, plain(paper, SIZE)),
        "inference, fp32, paper": (SIZE, fast(paper, SIZE, torch.float32)),
        "inference, bf16, paper": (SIZE, fast(paper, SIZE, torch.bfloat16)),
        "plain, fp32, default": (TILE, plain(default, TILE)),
        "inference, fp32, default": (TILE, fast(default, TILE, torch.float32)),
        "inference, bf16, default": (TILE, fast(default, TILE, torch.bfloat16)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(options.repeat + 1):
        for name, (_, run) in runs.items():
            began = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    print(f"{torch.get_num_threads()} threads, medians of {options.repeat}")
    reference = statistics.median(seconds["plain, fp32, paper"]) / SIZE**2
    for name, (size, _) in runs.items():
        median = statistics.median(seconds[name])
        each = [s / r for s, r in zip(seconds[name], seconds["plain, fp32, paper"], strict=True)]
        ratio = statistics.median(1 / (e * SIZE**2 / size**2) for e in each)
        flops = flops_per_pixel(paper if name.endswith("paper") else default) * size**2 / median
        print(
            f"{name:<26}{median:8.3f} s {1e6 * median / size**2:8.2f} us/pixel {flops / 1e9:8.0f} GFLOP/s "
            f"{reference / (median / size**2):6.1f} x the reference (median of turns {ratio:.1f})"
        )
    for dtype in (torch.float32, torch.bfloat16):
        print(f"matrix products, {dtype}: {matmul_ceiling(torch.device('cpu'), dtype) / 1e9:.0f} GFLOP/s")


def plain(network: PanCrafter, size: int) -> Callable[[], object]:
    """A run of the plain form on random images, as anybody would write it."""
    images = inputs(network, size)

    def run() -> object:
        with torch.inference_mode():
            return network(*images, mode="ms")

    return run


def fast(network: PanCrafter, size: int, dtype: torch.dtype) -> Callable[[], object]:
    """A run of the inference form on random images."""
    images, ready = inputs(network, size), prepared(network, dtype)
    return lambda: ready(*images)


def inputs(network: PanCrafter, size: int) -> list[torch.Tensor]:
    """The images that the network looks at, of random numbers."""
    return [torch.rand(1, n, size, size) for n in network.config.images.values()]


if __name__ == "__main__":
    main()
