"""Training sources that are made up: simulated towns and dead leaves, from seeds alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.data.config import TrainConfig
from pancrafter_cli.data.deadleaves import dead_leaves
from pancrafter_cli.data.simulate import simulate_scene
from pancrafter_cli.data.sources import Source, make_source

SIZE = 512  # pixels a side
RATIO = 4.0
_SEEDS = 1000  # made-up scenes of one run have seeds of their own


def synthetic_sources(config: TrainConfig) -> Iterator[Source]:
    """The made-up sources that a configuration asks for, one after the other; the same for the same seed."""
    for number in range(config.simulated_scenes):
        scene = simulate_scene(config.seed * _SEEDS + number, SIZE)
        yield _scaled(f"simulated-{number:04d}", "simulated", scene.pan, scene.reference)
    for number in range(config.dead_leaves):
        rng = np.random.default_rng([config.seed, number])
        pan, truth = dead_leaves(rng, SIZE, config.network.bands)
        yield _scaled(f"dead-leaves-{number:04d}", "dead-leaves", pan, truth)


def _scaled(name: str, kind: str, pan: NDArray[np.float32], truth: NDArray[np.float32]) -> Source:
    scale = np.float32(np.percentile(np.abs(truth), 99))
    return make_source(name, kind, truth / scale, np.concatenate([pan / scale] * 2), RATIO)
