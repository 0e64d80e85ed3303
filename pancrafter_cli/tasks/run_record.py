"""What a run was made from, written into its folder at the start: enough to do it again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pancrafter_cli.data.config import TrainConfig, recipe_text
from pancrafter_cli.data.gather import Gathered
from pancrafter_cli.errors import TrainingError
from pancrafter_cli.raster.products import scene_in
from pancrafter_cli.raster.scene import open_scene
from pancrafter_cli.tasks.checkpoint import written_whole
from pancrafter_cli.tasks.learner import Learner
from pancrafter_cli.version import __version__
from pancrafter_cli.zoo import file_sha256

RECIPE_FILE = "recipe.toml"
RECORD_FILE = "run.json"
_PACKAGES = ("torch", "numpy", "scipy", "rasterio", "h5py", "safetensors")


def record_run(run: Path, config: TrainConfig, gathered: Gathered, held_out: Sequence[Path], learner: Learner) -> None:
    """Write the recipe as resolved (recipe.toml) and, as run.json, its data with sizes and hashes, and the versions.

    held_out: the scene folders that the model is validated on.

    A run that goes on adds to its record when and with which versions. Raises TrainingError when its scenes, or the
    model it started from, are no longer those it began with, OutputError when the folder cannot be written to.
    """
    record: dict[str, Any] = {
        "scenes": [_scene(entry, gathered) for entry in gathered.entries],
        "validation": [_files(folder) for folder in held_out],
        "left_out": [asdict(s) for s in gathered.skipped],
        "start_from_sha256": learner.started_from,
    }
    earlier = _read(run) if learner.step else {}
    changes = [c for part in ("scenes", "validation") if earlier for c in _changes(earlier[part], record[part])]
    if changes:
        raise TrainingError(
            f"{run}: the scenes are not those the run began with: {', '.join(changes)}",
            "bring them back, or begin a new --run with --from and this run's model",
        )
    began_from = earlier.get("start_from_sha256", learner.started_from)
    if began_from != learner.started_from:
        raise TrainingError(
            f"{run}: {config.start_from} is not the model the run began with (SHA-256 {_short(began_from)}, now "
            f"{_short(learner.started_from)})",
            "bring it back, or begin a new --run with --from and this run's model",
        )
    record["starts"] = [*earlier.get("starts", []), _start(learner)]
    # First what shows that the folder is a run's: a kill in between must not leave it looking like somebody else's.
    with written_whole(run / RECORD_FILE) as part:
        part.write_text(json.dumps(record, indent=2), encoding="utf-8")
    with written_whole(run / RECIPE_FILE) as part:
        part.write_text(recipe_text(config), encoding="utf-8")


def is_recorded(run: Path) -> bool:
    """Whether a folder holds what `record_run` writes."""
    try:
        return bool(_read(run))
    except TrainingError:
        return False


def _scene(entry: Path, gathered: Gathered) -> dict[str, Any]:
    sources = [
        {"kind": s.kind, "images": s.count, "bands": s.shape[0], "rows": s.shape[1], "columns": s.shape[2]}
        for s in gathered.sources
        if s.name == entry.name
    ]
    return _files(entry) | {"sources": sources}


def _files(entry: Path) -> dict[str, Any]:
    """Name, size in bytes and hash of a patch file, or of all files that reading a scene folder depends on."""
    files = [
        {"name": name, "bytes": p.stat().st_size, "sha256": file_sha256(p)}
        for name, p in ([(entry.name, entry)] if entry.is_file() else _scene_files(entry))
    ]
    return {"name": entry.name, "files": files}


def _scene_files(folder: Path) -> list[tuple[str, Path]]:
    """The files of a scene and what to call them: their paths from its folder."""
    product = scene_in(folder)
    with open_scene(product.pan, product.ms) as scene:
        files = dict.fromkeys([*scene.files, *([product.reference] if product.reference else [])])
    return [(Path(os.path.relpath(path, folder)).as_posix(), path) for path in files]


def _changes(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    before, after = ({scene["name"]: scene["files"] for scene in scenes} for scenes in (then, now))
    return [
        *(f"{name} is new" for name in after if name not in before),
        *(f"{name} is gone" for name in before if name not in after),
        *(f"{name} has changed" for name in after if name in before and after[name] != before[name]),
    ]


def _start(learner: Learner) -> dict[str, Any]:
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "step": learner.step,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": str(learner.device),
        "precision": "bf16" if learner.bf16 else "fp32",
        "processes": learner.processes.count,
        "platform": platform.platform(),
        "versions": {"pancrafter": __version__, "python": platform.python_version(), **packages},
    }


def _read(run: Path) -> dict[str, Any]:
    path = run / RECORD_FILE
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: not readable", "choose another --run to start again") from error
    if not isinstance(record, dict) or not record.keys() >= {"scenes", "validation", "starts"}:
        return {}
    return record


def _short(digest: str | None) -> str:
    return f"{digest[:12]}..." if digest else "none"
