"""Batches of samples from many sources; what cannot be read is left out and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.data.config import TrainConfig
from pancrafter_cli.data.samples import Sample, draw_sample, range_of_ratios
from pancrafter_cli.data.scenes import SceneParts
from pancrafter_cli.data.sources import AnySource, Source
from pancrafter_cli.errors import PancrafterError, TrainingError
from pancrafter_cli.geometry.inputs import NetworkInputs

MOST_UNREADABLE = 0.25  # share of the scenes, or of a file's patches, beyond which training stops
_OF_SAMPLES, _OF_PARTS = 1, 2  # what a generator is for, the last word of its seed
# Parts of large scenes in memory, and samples and steps before there are others. Processes that draw read their own.
_PARTS, _SAMPLES_TOGETHER, _STEPS_TOGETHER = 16, 128, 16


@dataclass(frozen=True)
class Skipped:
    """A scene or patch that takes no part, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Stacked samples, every image (B, bands, patch, patch), normalised, and the source of each.

    skipped: what was found while drawing them that cannot be read.
    """

    images: NetworkInputs
    truth: NDArray[np.float32]
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()


class SourcePool:
    """Sources with the probability of drawing each. What cannot be read is remembered and not tried again.

    Of scenes that are read part by part, the same few parts serve a stretch of steps, so that reading does not hold
    up the network. Which they are follows from the seed and the stretch.
    """

    def __init__(self, sources: Sequence[AnySource], config: TrainConfig) -> None:
        """Raises TrainingError when all sources have weight 0."""
        self.sources = tuple(sources)
        self.weights = source_weights(self.sources, config)
        self._config = config
        self._in_parts = np.array([isinstance(source, SceneParts) for source in self.sources])
        self._steps_together = max(_STEPS_TOGETHER, _SAMPLES_TOGETHER // config.samples_per_step)
        self._together: tuple[int, tuple[Source, ...]] = -1, ()
        self._failed: dict[tuple[int, int], Skipped] = {}
        self._empty = {(k, i) for k, source in enumerate(self.sources) for i in getattr(source, "empty", ())}

    @property
    def ratios(self) -> tuple[float, float]:
        """The least and greatest ratio that samples have."""
        drawn = (source.ratio for source, weight in zip(self.sources, self.weights, strict=True) if weight > 0)
        return range_of_ratios(drawn, self._config.sample)

    def draw(self, step: int, first: int = 0, apart: int = 1) -> Batch:
        """The samples first, first + apart, ... of a step, of sources drawn by weight.

        One that cannot be read gives its place to another. A sample depends on the seed, the step and its number in
        it, and on what is readable, not on when it was found to be unreadable, nor on who draws the others. Raises
        TrainingError when more than a quarter of a source is unreadable.
        """
        known = len(self._failed)
        drawn = [self._sample(step, number) for number in range(first, self._config.samples_per_step, apart)]
        samples = [sample for sample, _ in drawn]
        images = NetworkInputs(*(_stacked(kind) for kind in zip(*(s.images for s in samples), strict=True)))
        truth, names = _stacked([s.truth for s in samples]), tuple(name for _, name in drawn)
        return Batch(images, truth, names, tuple(self._failed.values())[known:])

    def _sample(self, step: int, number: int) -> tuple[Sample, str]:
        rng = np.random.default_rng([self._config.seed, step, number, _OF_SAMPLES])
        image = None
        while image is None:
            pick = int(rng.choice(len(self.sources), p=self.weights))
            if self._in_parts[pick]:
                parts = self._parts_at(step // self._steps_together)
                image = parts[rng.integers(len(parts))]
            else:
                image = self._image(pick, self._index(pick, rng))
        return draw_sample(image, rng, self._config.sample), image.name

    def _parts_at(self, stretch: int) -> tuple[Source, ...]:
        """The parts of a stretch of steps, read when the first of its samples asks for one."""
        if self._together[0] != stretch:
            self._together = -1, ()  # so that two stretches are never held at once
            rng = np.random.default_rng([self._config.seed, stretch, 0, _OF_PARTS])
            weights = self.weights * self._in_parts
            picks = rng.choice(len(self.sources), size=_PARTS, p=weights / weights.sum())
            held: dict[tuple[int, int], Source] = {}
            self._together = stretch, tuple(self._part(int(pick), rng, held) for pick in picks)
        return self._together[1]

    def _part(self, pick: int, rng: np.random.Generator, held: dict[tuple[int, int], Source]) -> Source:
        """A part of a scene in which patches begin, of those `held` or else read and added to them."""
        source = self.sources[pick]
        while True:
            index = self._index(pick, rng)
            part = held.get((pick, index)) or self._image(pick, index)
            if part is not None:
                held[pick, index] = part
                return part
            if all((pick, k) in self._empty or (pick, k) in self._failed for k in range(source.count)):
                raise TrainingError(
                    f"{source.name}: its parts with valid patches can no longer be read",
                    "repair the file, or leave it out with `exclude`",
                )

    def _index(self, pick: int, rng: np.random.Generator) -> int:
        count = self.sources[pick].count
        return int(rng.integers(count)) if count > 1 else 0

    def _image(self, pick: int, index: int) -> Source | None:
        """An image, None where it cannot be read or no valid patch fits into it."""
        if (pick, index) in self._failed or (pick, index) in self._empty:
            return None
        try:
            image = self.sources[pick].image(index)
        except PancrafterError as error:
            self._fail(pick, index, error)
            return None
        if image.places is not None and not len(image.places):
            self._empty.add((pick, index))
            return None
        return image

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
