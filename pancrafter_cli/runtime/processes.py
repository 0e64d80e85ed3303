"""Processes that train a network together, each on a device of its own: `torchrun` starts them, Fabric joins them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pancrafter_cli.errors import DeviceError, UsageError
from pancrafter_cli.runtime.installed import require
from pancrafter_cli.runtime.torch_runner import pick_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_PATIENCE = timedelta(hours=6)  # for the first process, while it validates and saves


@dataclass(frozen=True)
class Processes:
    """`count` processes that do the same, `count_here` of them on this machine; `rank` is this one's, `device` its own.

    The first, of rank 0, writes what is written once.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    count_here: int = 1
    fabric: Fabric | None = None

    @property
    def first(self) -> bool:
        """Whether this is the first of them."""
        return self.rank == 0

    def agreed(self, value: float) -> float:
        """The mean of a number over the processes, the same in all of them."""
        if self.fabric is None:
            return value
        # A clock of days is exact to milliseconds in float64, not in float32.
        return float(self._mean(torch.tensor([value], dtype=torch.float64)))

    def average_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Give all processes the mean of their gradients; one that only some have is 0 in the others."""
        if self.fabric is None:
            return
        present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=self.device)
        flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
        mean = self._mean(torch.cat([present, *flat]))
        shares, *parts = torch.split(mean, [len(parameters), *(p.numel() for p in parameters)])
        for parameter, share, part in zip(parameters, shares.tolist(), parts, strict=True):
            # The optimiser leaves alone what no process has a gradient for, as it does with a single process.
            parameter.grad = part.view_as(parameter).clone() if share > 0 else None

    def _mean(self, values: Tensor) -> Tensor:
        assert self.fabric is not None
        mean = self.fabric.all_reduce(values.to(self.device), reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean


def is_first() -> bool:
    """Whether this process is the only one, or the first of those that `torchrun` started."""
    return not _several() or os.environ["RANK"] == "0"


def _several() -> bool:
    """Whether `torchrun` started this process with others. Raises UsageError when something else seems to have."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return False
    missing = [name for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE") if name not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set",
            "start the processes with torchrun, or unset WORLD_SIZE",
        )
    return True


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Yields this process alone, or with those that `torchrun` started with it, on a CUDA device each where there are.

    device: as for `pick_device`. Raises UsageError and DeviceError, also when there are fewer devices than processes,
    and InstallError where several processes lack Lightning Fabric.
    """
    if not _several():
        yield Processes(pick_device(device))
        return
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    fabric = _launched(device, here)
    try:
        yield Processes(fabric.device, fabric.global_rank, fabric.world_size, here, fabric)
    finally:
        torch.distributed.destroy_process_group()


def _launched(device: str, here: int) -> Fabric:
    require("lightning_fabric", hint="pip install 'pancrafter[train]'")
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    picked = pick_device(device)
    if ":" in device:
        raise UsageError(f"--device {device}: every process takes a device of its own", "use auto, cpu or cuda")
    if picked.type == "cuda" and here > torch.cuda.device_count():
        raise DeviceError(
            f"{here} processes for {torch.cuda.device_count()} CUDA devices on this machine",
            "give torchrun as many --nproc-per-node as there are devices, or --device cpu",
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # who joined whom is of no use to people
    nodes = int(os.environ["WORLD_SIZE"]) // here
    strategy = DDPStrategy(timeout=_PATIENCE)
    fabric = Fabric(accelerator=picked.type, devices=here, num_nodes=nodes, strategy=strategy)
    fabric.launch()
    return fabric
