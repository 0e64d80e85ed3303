"""Batches of samples from many sources, drawn ahead by a thread; what cannot be read is left out and named."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.data.config import TrainConfig
from pancrafter_cli.data.samples import Sample, SampleOptions, draw_sample
from pancrafter_cli.data.sources import AnySource
from pancrafter_cli.errors import PancrafterError, TrainingError
from pancrafter_cli.geometry.inputs import NetworkInputs

MOST_UNREADABLE = 0.25  # share of the scenes, or of a file's patches, beyond which training stops
_PREFETCH = 4


@dataclass(frozen=True)
class Skipped:
    """A scene or patch that takes no part, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Stacked samples, every image (B, bands, patch, patch) in DN / scale, and the source of each."""

    images: NetworkInputs
    truth: NDArray[np.float32]
    names: tuple[str, ...]


class SourcePool:
    """Sources with the probability of drawing each, and a record of what could not be read."""

    def __init__(self, sources: Sequence[AnySource], config: TrainConfig) -> None:
        """Raises TrainingError when all sources have weight 0."""
        self.sources = tuple(sources)
        self.weights = source_weights(self.sources, config)
        self._failed: dict[tuple[int, int], Skipped] = {}

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What could not be read while drawing, in the order it was met."""
        return tuple(self._failed.values())

    def draw(self, rng: np.random.Generator, size: int, options: SampleOptions) -> Batch:
        """`size` samples of sources drawn by weight; one that cannot be read gives its place to another.

        What is drawn depends on the generator and on what is readable, not on when it was found to be unreadable.
        Raises TrainingError when more than a quarter of a source is unreadable.
        """
        picks = rng.choice(len(self.sources), size=size, p=self.weights)
        drawn = [self._sample(int(pick), rng, options) for pick in picks]
        samples = [sample for sample, _ in drawn]
        images = NetworkInputs(*(_stacked(kind) for kind in zip(*(s.images for s in samples), strict=True)))
        return Batch(images, _stacked([s.truth for s in samples]), tuple(name for _, name in drawn))

    def _sample(self, pick: int, rng: np.random.Generator, options: SampleOptions) -> tuple[Sample, str]:
        while True:
            source = self.sources[pick]
            index = int(rng.integers(source.count)) if source.count > 1 else 0
            if (pick, index) not in self._failed:
                try:
                    image = source.image(index)
                except PancrafterError as error:
                    self._fail(pick, index, error)
                else:
                    return draw_sample(image, rng, options), image.name
            pick = int(rng.choice(len(self.sources), p=self.weights))

    def _fail(self, pick: int, index: int, error: PancrafterError) -> None:
        source = self.sources[pick]
        name = source.name if source.count == 1 else f"{source.name}[{index}]"
        self._failed[pick, index] = Skipped(name, error.message)
        count = sum(1 for failed, _ in self._failed if failed == pick)
        if count > MOST_UNREADABLE * source.count:
            raise TrainingError(
                f"{source.name}: {count} of {source.count} images in it cannot be read; the last one: {error.message}",
                "repair the file, or leave it out with `exclude`",
            ) from error


def _stacked(images: Sequence[NDArray[np.floating]]) -> NDArray[np.float32]:
    return np.stack(images).astype(np.float32, copy=False)


def source_weights(sources: Sequence[AnySource], config: TrainConfig) -> NDArray[np.float64]:
    """Probability of drawing each source: its pixels to the power `size_power`, times the weight of its kind.

    Raises TrainingError when all are 0.
    """
    weights = np.array([s.pixels**config.size_power * config.weight_of(s.name, s.kind) for s in sources])
    if not weights.sum() > 0:
        raise TrainingError("all sources have weight 0", "raise one of `weights` or `scene_weights`")
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def prefetch(pool: SourcePool, config: TrainConfig, first: int, last: int) -> Generator[Batch, None, None]:
    """The batches of the steps first..last-1, drawn by a thread while the network works.

    A step's samples follow from the seed and the step alone, wherever a run was interrupted.
    """

    def draw(step: int) -> Batch:
        return pool.draw(np.random.default_rng([config.seed, step]), config.samples_per_step, config.sample)

    with ThreadPoolExecutor(1) as threads:
        waiting = [threads.submit(draw, step) for step in range(first, min(first + _PREFETCH, last))]
        for step in range(first, last):
            yield waiting.pop(0).result()
            if step + _PREFETCH < last:
                waiting.append(threads.submit(draw, step + _PREFETCH))
