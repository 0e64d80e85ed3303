"""Training a model from PAN+MS scenes: one loop, exactly resumable.

Everything random in step n comes from a generator seeded with (seed, n), so a run that was killed goes on from its
checkpoint and ends with the same weights as one that was not.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from pancrafter_cli.data.config import TrainConfig
from pancrafter_cli.data.samples import Sample, draw_batch
from pancrafter_cli.data.sources import Source, load_sources
from pancrafter_cli.errors import OutputError, TrainingError, UsageError
from pancrafter_cli.networks.pancrafter import PanCrafter
from pancrafter_cli.runtime.torch_runner import pick_device
from pancrafter_cli.zoo import WEIGHTS_FILE, ModelSpec, file_sha256, load_model, resolve, save_model

_CHECKPOINT = "checkpoint.safetensors"
_LOG = "log.csv"
_LOG_EVERY = 50
_PREFETCH = 4


@dataclass(frozen=True)
class TrainResult:
    """Where the run ended: last step, mean loss of the last logged stretch, and the model written."""

    step: int
    loss: float
    model: Path


@dataclass
class _State:
    network: PanCrafter
    optimizer: torch.optim.AdamW
    ema: dict[str, Tensor]
    device: torch.device
    step: int = 0
    seconds: float = 0.0


def train(
    config: TrainConfig,
    run: Path,
    *,
    device: str = "auto",
    stop_at: int | None = None,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> TrainResult:
    """Train `config` in the folder `run`, going on from its checkpoint when there is one.

    device: auto, cpu, cuda or cuda:N. `stop_at` ends this call early, after that many steps in all, with a
    checkpoint. `progress` gets (step, steps, loss). Raises TrainingError for unusable scenes, a checkpoint of another
    recipe, or a loss that is not finite.
    """
    if stop_at is not None and stop_at < 1:
        raise UsageError(f"--stop-at {stop_at}: expected a number of steps from 1 up", "leave it out")
    state = _start(config, pick_device(device))
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{run}: cannot be made a run folder ({error.strerror})", "choose another --run") from error
    _resume(run, config, state)
    sources = gather_sources(config)
    weights = source_weights(sources, config)
    last = config.steps if stop_at is None else min(stop_at, config.steps)
    losses: list[float] = []
    began, saved = time.monotonic() - state.seconds, time.monotonic()
    for batch in _prefetch(sources, weights, config, state.step, last):
        loss = _step(state, batch, config)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is not finite at step {state.step}", "lower `lr`, or look for broken scenes in the data"
            )
        losses.append(loss)
        state.seconds = time.monotonic() - began
        if state.step % _LOG_EVERY == 0 or state.step == last:
            mean = float(np.mean(losses[-_LOG_EVERY:]))
            _log(run, state, mean, _rate(config, state.step))
            progress(state.step, config.steps, mean)
        if time.monotonic() - saved > config.checkpoint_minutes * 60:
            _save(run, config, state, sources)
            saved = time.monotonic()
    model = _save(run, config, state, sources)
    return TrainResult(state.step, float(np.mean(losses[-_LOG_EVERY:])) if losses else math.nan, model)


def gather_sources(config: TrainConfig) -> list[Source]:
    """All sources of the configured scenes that hold at least one patch, in a fixed order."""
    sources: list[Source] = []
    for folder in config.scene_folders():
        kinds = config.kinds_of(folder.name)
        sources += [s for s in load_sources(folder, kinds) if min(s.truth.shape[1:]) >= config.sample.patch]
    if not sources:
        raise TrainingError(
            f"no scene under {config.scenes} matches {config.include} and holds a {config.sample.patch}-pixel patch",
            "each scene is a folder with pan.tif and ms.tif",
        )
    return sources


def source_weights(sources: list[Source], config: TrainConfig) -> NDArray[np.float64]:
    """Probability of drawing each source: its pixels to the power `size_power`, times the weight of its kind."""
    weights = np.array([s.pixels**config.size_power * config.weight_of(s.name, s.kind) for s in sources])
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def mars_loss(
    network: Callable[..., Tensor], batch: tuple[Tensor, Tensor, Tensor, Tensor], lam: float, pan_samples: int
) -> Tensor:
    """Eq. 4: mean L1 in MS mode plus lam times mean L1 in PAN mode.

    batch: mpan, lms, lpan, truth, each (B, C, H, W). PAN mode runs on the first `pan_samples` of it (the paper: all).
    """
    mpan, lms, lpan, truth = batch
    loss = (network(mpan, lms, lpan, "ms").float() - truth).abs().mean()
    if lam > 0 and pan_samples:
        back = network(mpan[:pan_samples], lms[:pan_samples], lpan[:pan_samples], "pan").float()
        loss = loss + lam * (back - mpan[:pan_samples]).abs().mean()
    return loss


def pan_samples(config: TrainConfig, step: int) -> int:
    """How many samples of a step's batch also run in PAN mode; over the steps their share is `pan_share`."""
    share = config.pan_share * config.batch
    return math.floor(share * (step + 1)) - math.floor(share * step)


def _start(config: TrainConfig, device: torch.device) -> _State:
    torch.manual_seed(config.seed)
    network = _first_network(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}], lr=config.lr
    )
    ema = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return _State(network, optimizer, ema, device)


def _first_network(config: TrainConfig) -> PanCrafter:
    """A new network, or that of the model to start from. Raises TrainingError when that is of another form."""
    if not config.start_from:
        return PanCrafter(config.network)
    model = load_model(config.start_from)
    if model.spec.config != config.network:
        raise TrainingError(
            f"{config.start_from}: its network is {model.spec.config}, the recipe's {config.network}",
            "make [network] of the recipe the same",
        )
    return model.network.train()


def _step(state: _State, batch: Sample, config: TrainConfig) -> float:
    rate = _rate(config, state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    tensors = tuple(
        torch.from_numpy(a).to(state.device).contiguous(memory_format=torch.channels_last)
        for a in (batch.mpan, batch.lms, batch.lpan, batch.truth)
    )
    with torch.autocast(state.device.type, torch.bfloat16, enabled=config.bf16):
        loss = mars_loss(state.network, tensors, config.lam, pan_samples(config, state.step))  # type: ignore[arg-type]
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.clip)
    state.optimizer.step()
    state.step += 1
    # Early weights are poor: the average forgets them quickly at first.
    decay = min(config.ema, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for name, value in state.network.state_dict().items():
            state.ema[name].lerp_(value, 1 - decay)
    return float(loss.detach())


def _rate(config: TrainConfig, step: int) -> float:
    """Learning rate: linear warm-up, then a cosine to zero."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _prefetch(
    sources: list[Source], weights: NDArray[np.float64], config: TrainConfig, first: int, last: int
) -> Iterator[Sample]:
    """Batches of steps first..last-1, drawn by a thread while the network works."""

    def draw(step: int) -> Sample:
        return draw_batch(sources, weights, np.random.default_rng([config.seed, step]), config.batch, config.sample)

    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(draw, step) for step in range(first, min(first + _PREFETCH, last))]
        for step in range(first, last):
            yield waiting.pop(0).result()
            if step + _PREFETCH < last:
                waiting.append(pool.submit(draw, step + _PREFETCH))


def _save(run: Path, config: TrainConfig, state: _State, sources: list[Source]) -> Path:
    """Write checkpoint and model, each through a temporary name."""
    tensors: dict[str, Tensor] = {f"ema/{k}": v for k, v in state.ema.items()}
    tensors |= {f"net/{k}": v for k, v in state.network.state_dict().items()}
    for index, entry in state.optimizer.state_dict()["state"].items():
        tensors |= {f"opt/{index}/{k}": v for k, v in entry.items()}
    facts = {"step": state.step, "seconds": state.seconds, "config": config.fingerprint()}
    part = run / f".{_CHECKPOINT}.part"
    safetensors.torch.save_file(
        {k: v.detach().contiguous() for k, v in tensors.items()}, part, metadata={"state": json.dumps(facts)}
    )
    part.replace(run / _CHECKPOINT)
    spec = ModelSpec(
        name=config.name,
        config=config.network,
        ratios=config.sample.ratios,
        training={
            "steps": state.step,
            "of_steps": config.steps,
            "hours": round(state.seconds / 3600, 2),
            "scenes": sorted({s.name for s in sources}),
            "torch": torch.__version__,
            "recipe": asdict(config) | {"scenes": Path(config.scenes).name, "start_from": Path(config.start_from).name},
            "started_from_sha256": file_sha256(resolve(config.start_from)) if config.start_from else None,
        },
    )
    path = run / WEIGHTS_FILE
    save_model(path, state.ema, spec)
    return path


def _resume(run: Path, config: TrainConfig, state: _State) -> None:
    path = run / _CHECKPOINT
    if not path.exists():
        return
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["state"])
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: not a readable checkpoint", "delete the run folder to start again") from error
    if facts["config"] != config.fingerprint():
        raise TrainingError(
            f"{run} holds a run of another configuration", "give another --run folder, or the same configuration"
        )
    state.network.load_state_dict(_part(tensors, "net/"))
    state.ema.update({k: v.to(state.device) for k, v in _part(tensors, "ema/").items()})
    saved = state.optimizer.state_dict()
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in _part(tensors, "opt/").items():
        index, name = key.split("/")
        moments.setdefault(int(index), {})[name] = value
    state.optimizer.load_state_dict({"state": moments, "param_groups": saved["param_groups"]})
    state.step, state.seconds = facts["step"], facts["seconds"]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _log(run: Path, state: _State, loss: float, rate: float) -> None:
    path = run / _LOG
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "loss", "learning_rate", "seconds"])
        writer.writerow([state.step, f"{loss:.6f}", f"{rate:.3e}", f"{state.seconds:.0f}"])
