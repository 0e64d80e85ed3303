"""The journal of an unfinished run: a file replaced as a whole, which holds all of a moment or nothing."""

from __future__ import annotations

import hashlib
import io
import json
import operator
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.raster.writer import Progress

_DIGEST = 32  # bytes of SHA-256
_HEAD = "head"


@dataclass(frozen=True)
class Moment:
    """A run at the end of a row of tiles.

    facts: all that decides the product's pixels, by name; rows: rows of tiles that are done, `total` in all; numbers:
    sums carried from tile to tile; pending: the next row's share of pixels already computed; files: how far each is.
    """

    facts: Mapping[str, str]
    rows: int
    total: int
    numbers: Mapping[str, int]
    pending: NDArray[np.float32]
    files: tuple[Progress, ...]

    @property
    def place(self) -> str:
        """From where the next run goes on, for people."""
        if self.rows == self.total:
            return "its end, all rows of tiles are written"
        return f"row of tiles {self.rows + 1} of {self.total}"


def save(path: Path, moment: Moment) -> None:
    """Replace the journal; once this returns it survives a power cut. Raises OSError."""
    head = {
        "facts": dict(moment.facts),
        "rows": moment.rows,
        "total": moment.total,
        "numbers": dict(moment.numbers),
        "files": [(f.size, f.checksum) for f in moment.files],
    }
    arrays: dict[str, Any] = {
        _HEAD: np.frombuffer(json.dumps(head, default=operator.index).encode(), np.uint8),
        "pending": moment.pending,
    }
    for k, progress in enumerate(moment.files):
        arrays |= {f"offsets{k}": progress.offsets, f"sizes{k}": progress.sizes}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    data = buffer.getbuffer()
    new = _new(path)
    with new.open("wb") as file:
        file.write(hashlib.sha256(data).digest())
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync_folder(path.parent)


def load(path: Path) -> Moment | None:
    """The moment a journal holds; None where there is none, or it is not as it was written."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(memoryview(data)[_DIGEST:]).digest() != data[:_DIGEST]:
        return None
    with np.load(io.BytesIO(data[_DIGEST:]), allow_pickle=False) as arrays:
        head = json.loads(arrays[_HEAD].tobytes())
        files = tuple(
            Progress(size, checksum, arrays[f"offsets{k}"], arrays[f"sizes{k}"])
            for k, (size, checksum) in enumerate(head["files"])
        )
        return Moment(head["facts"], head["rows"], head["total"], head["numbers"], arrays["pending"], files)


def remove(path: Path) -> None:
    """Remove the journal, and what a run that was killed while it wrote one may have left."""
    for name in (path, _new(path)):
        with suppress(OSError):
            name.unlink(missing_ok=True)


def _new(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _sync_folder(folder: Path) -> None:
    """Have the system write the folder's names to the disk, where it lets us."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
