"""Batches drawn ahead while the network works: by a thread of this process, or by several processes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, Dataset

from pancrafter_cli.data.batches import Batch, SourcePool
from pancrafter_cli.errors import PancrafterError, TrainingError

_AHEAD = 4  # steps


@dataclass(frozen=True)
class Drawer(Dataset[Batch | PancrafterError]):
    """Draws, of every step, the samples first, first + apart, ... of a pool."""

    pool: SourcePool
    first: int = 0
    apart: int = 1

    def draw(self, step: int) -> Batch:
        """The samples of a step. Raises as `SourcePool.draw`."""
        return self.pool.draw(step, self.first, self.apart)

    def __getitem__(self, step: int) -> Batch | PancrafterError:
        """The samples of a step, or the failure: one that is raised in another process would lose its hint."""
        try:
            return self.draw(step)
        except PancrafterError as error:
            return error


def drawn_ahead(drawer: Drawer, first: int, last: int, workers: int = 0) -> Generator[Batch, None, None]:
    """The batches of the steps first..last-1, by so many processes, or by a thread where that is 0.

    A step's samples follow from the seed and the step alone, wherever a run was interrupted and whoever draws them.
    Raises as `SourcePool.draw`, and TrainingError when a process ends before its time.
    """
    batches = _by_processes(drawer, range(first, last), workers) if workers else _by_thread(drawer, range(first, last))
    with closing(batches):
        yield from batches


def _by_thread(drawer: Drawer, steps: Iterable[int]) -> Generator[Batch, None, None]:
    with ThreadPoolExecutor(1) as threads:
        left = iter(steps)
        waiting = [threads.submit(drawer.draw, step) for step in islice(left, _AHEAD)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [threads.submit(drawer.draw, step) for step in islice(left, 1)]


def _by_processes(drawer: Drawer, steps: range, workers: int) -> Generator[Batch, None, None]:
    loader = DataLoader(
        drawer,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        collate_fn=_as_it_is,
    )
    for drawn in _watched(iter(loader)):
        if isinstance(drawn, PancrafterError):
            raise drawn
        yield drawn


def _watched(drawn: Iterator[Batch | PancrafterError]) -> Iterator[Batch | PancrafterError]:
    """What the processes draw. Raises TrainingError in place of torch's RuntimeError when one has vanished."""
    try:
        yield from drawn
    except RuntimeError as error:
        if "worker" not in str(error):
            raise
        raise TrainingError(
            f"a process that draws samples has ended: {str(error).splitlines()[0]}",
            "each needs memory of its own: give fewer --workers, or more memory",
        ) from error


def _as_it_is(drawn: Any) -> Any:
    return drawn
