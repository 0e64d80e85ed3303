"""All sources of a run: scenes and patch files opened, made-up scenes made; what cannot serve is left out and named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pancrafter_cli.data.batches import MOST_UNREADABLE, Skipped
from pancrafter_cli.data.config import TrainConfig
from pancrafter_cli.data.pancollection import open_patches
from pancrafter_cli.data.scenes import load_sources
from pancrafter_cli.data.sources import AnySource
from pancrafter_cli.data.synthetic import synthetic_sources
from pancrafter_cli.errors import NoProduct, PancrafterError, RasterError, TrainingError

_NAMED = 5  # scenes that an error message names


@dataclass(frozen=True)
class Gathered:
    """The sources of a run in a fixed order, the entries of `scenes` they come from, and what was left out."""

    sources: tuple[AnySource, ...]
    entries: tuple[Path, ...]
    skipped: tuple[Skipped, ...]


def gather_sources(config: TrainConfig) -> Gathered:
    """Open every scene and file that the configuration selects, and make the scenes that are made up.

    Raises TrainingError when nothing is left, or more than a quarter of the scenes cannot be read.
    """
    sources: list[AnySource] = []
    used: list[Path] = []
    skipped: list[Skipped] = []
    unreadable = scenes = 0
    entries = config.training_entries()
    for entry in entries:
        try:
            found = _open(entry, config)
        except (PancrafterError, OSError) as error:
            reason = error.message if isinstance(error, PancrafterError) else str(error)
            skipped.append(Skipped(entry.name, reason))
            if not isinstance(error, NoProduct):  # a folder of something else is no damaged scene
                unreadable += isinstance(error, RasterError | OSError)
                scenes += 1
            continue
        scenes += 1
        sources += found
        used.append(entry)
    if unreadable > MOST_UNREADABLE * scenes:
        raise TrainingError(
            f"{unreadable} of {scenes} scenes cannot be used: {_listed(skipped)}",
            "repair them, or leave them out with `exclude`; --nodata names a fill value that all of them have",
        )
    sources += synthetic_sources(config)
    if not sources:
        none_good = f"none of {len(entries)} scenes can be trained on: {_listed(skipped)}"
        raise TrainingError(
            none_good if skipped else _none_selected(config),
            f"each scene is a folder with pan.tif and ms.tif, or of a product, that holds {config.sample.patch} x "
            f"{config.sample.patch} MS pixels, or a PanCollection file train*.h5",
        )
    return Gathered(tuple(sources), tuple(used), tuple(skipped))


def _open(entry: Path, config: TrainConfig) -> list[AnySource]:
    """The sources of a scene folder or patch file that a patch fits into. Raises TrainingError when there are none."""
    bands, patch = config.sample.bands, config.sample.patch
    found: list[AnySource]
    if entry.is_file():
        found = [open_patches(entry)]
        if min(found[0].shape[1:]) < patch:
            rows, cols = found[0].shape[1:]
            raise TrainingError(f"its patches of {rows} x {cols} pixels are too small for {patch}", "lower `patch`")
    else:
        found = [*load_sources(entry, config.kinds_of(entry.name), patch, config.nodata)]
    wrong = next((s.shape[0] for s in found if s.shape[0] != bands), None)
    if wrong is not None and not config.sample.shuffle_bands:
        raise TrainingError(f"has {wrong} bands, but the recipe keeps the order of {bands}", "use scenes of one sensor")
    return found


def _none_selected(config: TrainConfig) -> str:
    """Why there is nothing to open."""
    held_out = config.held_out_entries()
    if held_out:
        names = ", ".join(path.name for path in held_out[:_NAMED]) + (", ..." if held_out[_NAMED:] else "")
        return f"all scenes under {config.scenes} that could be trained on are held out by `validate`: {names}"
    but = f" and not {', '.join(config.exclude)}" if config.exclude else ""
    return f"no scene under {config.scenes} matches {', '.join(config.include)}{but}"


def _listed(skipped: list[Skipped]) -> str:
    """The first of what was left out, with reasons."""
    named = "; ".join(f"{s.name}: {s.reason}" for s in skipped[:_NAMED])
    return named + (f"; and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else "")
