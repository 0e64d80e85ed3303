"""Memory: what a run is expected to need, what there is, and the tile that fits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pancrafter_cli.errors import UsageError
from pancrafter_cli.raster.blocks import TILE
from pancrafter_cli.tasks.tiles import DEFAULT_TILE

# Fitted to the peak memory of the default model in fp32 with tiles that read 336 and 592 pixels: 0.76 and 1.00 GB.
_BASE_BYTES = 620 << 20
_BYTES_PER_FEATURE = 12
_BYTES_PER_BAND = 156
# Classical methods do without torch; they peak while they are fitted, 0.36 GB with any tile.
_CLASSICAL_BYTES = 340 << 20

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PROC, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def estimate_memory(width: int, side: int, bands: int) -> int:
    """Bytes of memory a run is expected to need with tiles that read side x side pixels, on a CPU in fp32.

    width: features of the network; 0 for a classical method.
    """
    base = _BASE_BYTES if width else _CLASSICAL_BYTES
    return base + side * side * (width * _BYTES_PER_FEATURE + bands * _BYTES_PER_BAND)


def pick_tile(estimate: Callable[[int], int], tile: int | None, limit: int | None) -> int:
    """The tile to use: the one asked for, else the largest up to the default that fits.

    estimate: bytes a run with that tile needs; limit: bytes it may need, None for what is free. Raises UsageError when
    a limit was given and nothing fits.
    """
    sizes = [tile] if tile is not None else [DEFAULT_TILE, TILE]
    room = free_memory() if limit is None else limit
    fitting = [size for size in sizes if room is None or estimate(size) <= room]
    if fitting or limit is None:
        return (fitting or sizes[-1:])[0]
    least = estimate(sizes[-1])
    raise UsageError(
        f"--max-memory: {_text(limit)} were allowed, and a run with tiles of {sizes[-1]} pixels needs {_text(least)}",
        f"allow {_text(least)}" + (f", or use --tile {TILE}" if sizes[-1] > TILE else ""),
    )


def smaller_tile(tile: int) -> int | None:
    """Half a tile, as a multiple of the smallest; None where there is no smaller one."""
    half = tile // 2 // TILE * TILE
    return half or None


def free_memory() -> int | None:
    """Bytes of memory that this process could take now, by system and container; None where that cannot be told."""
    found = [n for n in (_available(), _container()) if n is not None]
    return min(found, default=None)


def parse_bytes(text: str | None) -> int | None:
    """'2G', '1.5GB', '800M' or a number of bytes; K, M, G, T are powers of 1024. Raises UsageError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", text.strip().upper())
    if found is None or not (size := int(float(found[1]) * _UNITS[found[2]])):
        raise UsageError(f"--max-memory {text}: expected a size", "for example --max-memory 2G, or 800M")
    return size


def _available() -> int | None:
    """What Linux holds to be available without swapping."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", _PROC.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) << 10 if found else None


def _container() -> int | None:
    """What is left of a container's limit (cgroup 2, else 1); what it only keeps of files it would give back."""
    for limit, used, files in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, taken = int((_CGROUP / limit).read_text()), int((_CGROUP / used).read_text())
            kept = re.search(rf"^{files} (\d+)$", (_CGROUP / limit).with_name("memory.stat").read_text(), re.MULTILINE)
        except (OSError, ValueError):  # there is none, or it says "max"
            continue
        return max(0, most - taken + (int(kept[1]) if kept else 0))
    return None


def _text(size: int) -> str:
    return f"{-(-size // (1 << 20))}M"
