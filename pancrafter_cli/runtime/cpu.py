"""What the processor has to offer: cores this process may use, and units that multiply bfloat16 numbers."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "max 100000" or "150000 100000": microseconds granted in each period


def use_usable_cores() -> None:
    """Let torch use no more threads than cores: those this process is bound to, or is granted time on in a container.

    Threads without a core of their own make every parallel step wait for the one that was put off.
    """
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))


def usable_cores(quota: Path = _QUOTA) -> int:
    """How many cores this process may use at a time, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        granted, period = quota.read_text().split()
        cores = min(cores, int(granted) // int(period))
    except (OSError, ValueError):
        pass  # no control group, or none with a limit
    return max(cores, 1)


def multiplies_bf16() -> bool:
    """Whether this processor has units for bfloat16, AVX512-BF16 or AMX, and torch what makes use of them."""
    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return onednn and any(getattr(torch.cpu, name, lambda: False)() for name in known)
