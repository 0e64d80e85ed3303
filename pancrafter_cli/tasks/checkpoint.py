"""What a run keeps on disk to go on from or to be used: checkpoint and models, each written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from pancrafter_cli.data.config import TrainConfig
from pancrafter_cli.errors import OutputError, TrainingError
from pancrafter_cli.tasks.learner import Learner
from pancrafter_cli.zoo import ModelSpec, read_spec, save_model

CHECKPOINT_FILE = "checkpoint.safetensors"
BEST_FILE = "best.safetensors"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, always the same one, for a file that replaces `path` at the end.

    Raises OutputError when the disk is full or the like; what `path` was before is then still there.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: cannot be written ({error}); what it was before is kept",
            "make room on the disk and give the same command again: the run goes on from its last checkpoint",
        ) from error


def save_checkpoint(run: Path, config: TrainConfig, learner: Learner) -> None:
    """Write all that a resumed run needs. Raises OutputError."""
    tensors: dict[str, Tensor] = {f"ema/{k}": v for k, v in learner.ema.items()}
    tensors |= {f"net/{k}": v for k, v in learner.network.state_dict().items()}
    for index, entry in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"opt/{index}/{k}": v for k, v in entry.items()}
    facts = {"step": learner.step, "seconds": learner.seconds, "losses": [*learner.losses], "config": asdict(config)}
    with written_whole(run / CHECKPOINT_FILE) as part:
        safetensors.torch.save_file(
            {k: v.detach().contiguous() for k, v in tensors.items()}, part, metadata={"state": json.dumps(facts)}
        )


def restore_checkpoint(run: Path, config: TrainConfig, learner: Learner) -> bool:
    """Take the learner to where the run's checkpoint is; False when there is none.

    Raises TrainingError for a damaged checkpoint and for one of another configuration.
    """
    path = run / CHECKPOINT_FILE
    if not path.exists():
        return False
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["state"])
        saved, losses = dict(facts["config"]), list(facts["losses"])
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path}: not a readable checkpoint of this version", "choose another --run to start again"
        ) from error
    differing = config.differences(saved)
    if differing:
        raise TrainingError(
            f"{run} holds a run of another configuration: {'; '.join(differing)}",
            "give another --run folder, or the same configuration",
        )
    learner.network.load_state_dict(_part(tensors, "net/"))
    learner.ema.update({k: v.to(learner.device) for k, v in _part(tensors, "ema/").items()})
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in _part(tensors, "opt/").items():
        index, name = key.split("/")
        moments.setdefault(int(index), {})[name] = value
    groups = learner.optimizer.state_dict()["param_groups"]
    learner.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    learner.step, learner.seconds = facts["step"], facts["seconds"]
    learner.losses.extend(losses)
    return True


def write_model(path: Path, learner: Learner, spec: ModelSpec) -> None:
    """Write the averaged weights as a model. Raises OutputError."""
    with written_whole(path) as part:
        save_model(part, learner.ema, spec)


def best_score(run: Path) -> float | None:
    """What the best model of the run scored in validation; None when there is none yet."""
    path = run / BEST_FILE
    if not path.exists():
        return None
    score = read_spec(path).training.get("validation_ergas")
    return None if score is None else float(score)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
