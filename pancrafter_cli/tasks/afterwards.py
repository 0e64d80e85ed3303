"""What is asked of a finished product: its scores, and a STAC item beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from pancrafter_cli.errors import PancrafterError
from pancrafter_cli.raster.finished import add_tags
from pancrafter_cli.raster.scene import Scene
from pancrafter_cli.raster.stac import acquisition_time, stac_item, write_item
from pancrafter_cli.tasks.provenance import score_tags
from pancrafter_cli.tasks.score import FUSED, ScoreOptions, score
from pancrafter_cli.version import __version__

_SCORES = ("hqnr", "d_lambda_k", "d_s")


@dataclass(frozen=True)
class Afterwards:
    """Full-resolution indices by name, the item's path, and what could not be done to a product that is kept."""

    scores: Mapping[str, float] = field(default_factory=dict)
    stac: Path | None = None
    warnings: tuple[str, ...] = ()


def add_scores(options: ScoreOptions) -> Afterwards:
    """Score the finished product at full resolution; the indices become tags of it."""
    try:
        with ExitStack() as stack:
            measured = score(options, stack).result
        scores = {name: measured.scores[FUSED][name] for name in _SCORES}
        add_tags(options.fused, score_tags(scores))
    except PancrafterError as error:
        return Afterwards(warnings=(f"the product was not scored: {error.message}",))
    return Afterwards(scores, warnings=measured.warnings)


def add_item(
    found: Afterwards, output: Path, scene: Scene, tags: Mapping[str, str], confidence: Path | None
) -> Afterwards:
    """Write the STAC item of the finished product, with its tags and the scores found."""
    facts = {**tags, **score_tags(found.scores)}
    properties = {name.lower().replace("_", ":", 1): value for name, value in facts.items()}
    item = stac_item(
        output,
        scene.output,
        version=__version__,
        acquired=acquisition_time(scene.files),
        confidence=confidence,
        properties=properties | {"pancrafter:inputs": json.loads(tags["PANCRAFTER_INPUTS"])},
    )
    try:
        return replace(found, stac=write_item(output, item))
    except PancrafterError as error:
        return replace(found, warnings=(*found.warnings, f"the STAC item is missing: {error.message}"))
