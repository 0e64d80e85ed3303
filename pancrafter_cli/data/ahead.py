"""Batches drawn ahead while the network works: by a thread of this process, or by several processes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
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
    Raises as `SourcePool.draw`; for processes that end before their time see `lost_drawers_told`.
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
    for drawn in loader:
        if isinstance(drawn, PancrafterError):
            raise drawn
        yield drawn


@contextmanager
def lost_drawers_told() -> Iterator[None]:
    """Raise TrainingError in place of torch's RuntimeError when a drawing process has vanished.

    torch raises that wherever this process happens to be, in the middle of a step for the most part.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error).splitlines()[0]
        if not text.startswith("DataLoader worker (pid"):
            raise
        raise TrainingError(
            f"a process that draws samples has ended: {text}",
            "each needs memory of its own: give fewer --workers, or more memory; the same command goes on from the "
            "last checkpoint",
        ) from error


def _as_it_is(drawn: Any) -> Any:
    return drawn
