"""What a network costs and what a device could do: operations per pixel, and the rate of its matrix products."""

from __future__ import annotations

import copy
import statistics
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from pancrafter_cli.networks.pancrafter import PanCrafter

_SIDE = 64  # pixels of the image whose operations are counted
# Rows, inner and columns of the products tried: a square one, and the shapes of 1x1 convolutions.
_PRODUCTS = ((2048, 2048, 2048), (65536, 128, 128), (65536, 288, 32))
_TRIALS = 5


def flops_per_pixel(network: PanCrafter) -> float:
    """Floating-point operations of the network per pixel and group of bands: two for every product that is summed.

    Counts convolutions and matrix products, of the network's plain form in MS mode.
    """
    # On the meta device nothing is computed; without gradients the counter follows no graph.
    shapes = copy.deepcopy(network).to("meta").requires_grad_(False)
    images = [torch.empty(1, n, _SIDE, _SIDE, device="meta") for n in network.config.images.values()]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(*images, mode="ms")
    return float(counter.get_total_flops()) / _SIDE**2


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of matrix products: the best of a few shapes, each the median of trials."""
    return max(_matmul_rate(device, dtype, *shape) for shape in _PRODUCTS)


def peak_memory() -> int | None:
    """Most bytes of memory this process has held so far; None where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@torch.inference_mode()
def _matmul_rate(device: torch.device, dtype: torch.dtype, rows: int, inner: int, columns: int) -> float:
    a = torch.ones(rows, inner, dtype=dtype, device=device)
    b = torch.ones(inner, columns, dtype=dtype, device=device)
    seconds = []
    for _ in range(_TRIALS + 1):
        began = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return 2 * rows * inner * columns / statistics.median(seconds[1:])  # the first one warms up
