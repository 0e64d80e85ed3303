"""What learns: a network, its optimiser and its averaged weights, taken one step at a time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pancrafter_cli.data.batches import Batch
from pancrafter_cli.data.config import TrainConfig
from pancrafter_cli.errors import NotFinite, TrainingError, UsageError
from pancrafter_cli.networks.pancrafter import PanCrafter
from pancrafter_cli.runtime.processes import Processes
from pancrafter_cli.runtime.torch_runner import why_not_bf16
from pancrafter_cli.zoo import load_model

LOSSES = 50  # steps whose mean loss is logged
_TINY = 1e-8  # keeps the root differentiable where there is no error
Tensors = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass
class Learner:
    """A network in training after `step` steps and `seconds` of the run; `ema` are the weights that become the model.

    With several processes each has its own, all alike, and learns from its share of every step's samples. `forward` is
    the network, compiled where the recipe says so; `bf16`: whether products are taken in bfloat16, as the recipe wants
    it and the device has units for it; `losses` are those of the last steps, oldest first; `started_from` is the
    SHA-256 of the model whose weights were the start, None without one.
    """

    network: PanCrafter
    forward: Callable[..., Tensor]
    optimizer: torch.optim.AdamW
    ema: dict[str, Tensor]
    processes: Processes
    bf16: bool = False
    step: int = 0
    seconds: float = 0.0
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=LOSSES))
    started_from: str | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.processes.device

    @property
    def loss(self) -> float:
        """Mean loss of the last LOSSES steps."""
        return sum(self.losses) / len(self.losses) if self.losses else math.nan


def start_learner(config: TrainConfig, processes: Processes) -> Learner:
    """A learner before its first step, its weights from the seed or from the model to start from.

    Raises TrainingError when that model is of another form, UsageError when the processes cannot share a step's
    samples equally.
    """
    if config.samples_per_step % processes.count:
        raise UsageError(
            f"{processes.count} processes cannot share the {config.samples_per_step} samples of a step equally",
            "start fewer, or change `batch` or `accumulate`",
        )
    device = processes.device
    torch.manual_seed(config.seed)
    first, started_from = _first_network(config)
    network = first.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}], lr=config.lr
    )
    ema = {name: value.detach().clone() for name, value in network.state_dict().items()}
    forward = torch.compile(network) if config.compile else network
    bf16 = config.bf16 and not why_not_bf16(device)
    return Learner(network, forward, optimizer, ema, processes, bf16=bf16, started_from=started_from)


def take_step(learner: Learner, batch: Batch, config: TrainConfig) -> None:
    """One step of the optimiser, with the loss of eq. 4 over `samples_per_step`; `batch` is this process's share.

    Of a step's samples it holds those numbered rank, rank + count, ...; the mean over the processes is what one alone
    would have taken. Raises NotFinite when loss or gradient is not finite; the learner is then as it was before.
    """
    for group in learner.optimizer.param_groups:
        group["lr"] = learning_rate(config, learner)
    learner.optimizer.zero_grad(set_to_none=True)
    tensors = tuple(torch.from_numpy(a).to(learner.device) for a in (*batch.images, batch.truth))
    rank, count = learner.processes.rank, learner.processes.count
    in_pan_mode = pan_samples(config, learner.step)
    own_in_pan_mode = len(range(rank, in_pan_mode, count))
    held, own_total = len(batch.truth), 0.0
    for start in range(0, held, config.batch):
        chunk = tuple(t[start : start + config.batch].contiguous(memory_format=torch.channels_last) for t in tensors)
        share = len(chunk[0]) / held
        shown = min(max(own_in_pan_mode - start, 0), len(chunk[0]))
        # The mean over a part's samples counts by how many of the step's PAN samples they are.
        lam = config.lam * count * shown / max(in_pan_mode, 1) / share
        with torch.autocast(learner.device.type, torch.bfloat16, enabled=learner.bf16):
            loss = mars_loss(learner.forward, chunk, lam, shown, config.loss) * share  # type: ignore[arg-type]
        own_total += float(loss.detach())
        loss.backward()  # type: ignore[no-untyped-call]
    # All processes must come to the same end, so that none waits for another that has given up.
    total = learner.processes.agreed(own_total)
    if not math.isfinite(total):
        raise _not_finite("loss", learner, batch if not math.isfinite(own_total) else None)
    parameters = [*learner.network.parameters()]
    learner.processes.average_gradients(parameters)
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip)
    if not math.isfinite(float(norm)):
        raise _not_finite("gradient", learner, batch if count == 1 else None)
    learner.optimizer.step()
    learner.step += 1
    learner.losses.append(total)
    _average(learner, config.ema)


def mars_loss(network: Callable[..., Tensor], batch: Tensors, lam: float, pan_samples: int, kind: str = "l1") -> Tensor:
    """Eq. 4: the loss in MS mode plus lam times mean L1 in PAN mode.

    batch: mpan, lms, lpan, truth, each (B, C, H, W). PAN mode runs on its first `pan_samples` (the paper: all).
    kind: "l1", the paper's mean absolute error; or "rmse", the root mean square error of each band of each sample,
    averaged: L1 settles for the median, which for uncertain detail is too little of it, and ERGAS counts squares.
    """
    *images, truth = batch
    error = network(*images, "ms").float() - truth
    loss = error.abs().mean() if kind == "l1" else (error.square().mean(dim=(2, 3)) + _TINY).sqrt().mean()
    if lam > 0 and pan_samples:
        shown = [image[:pan_samples] for image in images]
        back = network(*shown, "pan").float()
        loss = loss + lam * (back - shown[0]).abs().mean()
    return loss


def pan_samples(config: TrainConfig, step: int) -> int:
    """How many of a step's samples also run in PAN mode; over the steps their share is `pan_share`."""
    share = config.pan_share * config.samples_per_step
    return math.floor(share * (step + 1)) - math.floor(share * step)


def learning_rate(config: TrainConfig, learner: Learner) -> float:
    """Linear warm-up, then a cosine to zero over the steps or the minutes of the run, whichever end first."""
    step = learner.step
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    if config.minutes:
        done = max(done, learner.seconds / (60 * config.minutes))
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def is_finished(config: TrainConfig, learner: Learner) -> bool:
    """Whether all steps are taken, or the time for them is over."""
    return learner.step >= config.steps or 0 < 60 * config.minutes <= learner.seconds


def _first_network(config: TrainConfig) -> tuple[PanCrafter, str | None]:
    """A new network, or that of the model to start from and the model's SHA-256."""
    if not config.start_from:
        return PanCrafter(config.network), None
    model = load_model(config.start_from)
    if model.spec.config != config.network:
        theirs, ours = vars(model.spec.config), vars(config.network)
        found = ", ".join(f"{name} = {theirs[name]}, not {ours[name]}" for name in ours if theirs[name] != ours[name])
        raise TrainingError(
            f"{config.start_from}: its network is not that of the recipe: it has {found}",
            "make [network] of the recipe the same, and [sample] bands with it",
        )
    return model.network.train(), model.sha256


def _average(learner: Learner, most: float) -> None:
    """Draw the averaged weights towards the present ones."""
    # Early weights are poor: the average forgets them quickly at first.
    decay = min(most, (1 + learner.step) / (10 + learner.step))
    with torch.no_grad():
        for name, value in learner.network.state_dict().items():
            learner.ema[name].lerp_(value, 1 - decay)


def _not_finite(what: str, learner: Learner, batch: Batch | None) -> NotFinite:
    """The error for a loss or gradient from a batch, or from any process's."""
    where = f", in samples of {', '.join(sorted(set(batch.names)))}" if batch else ""
    return NotFinite(
        f"the {what} is not finite at step {learner.step + 1}{where}; nothing of that step was kept",
        f"lower `lr`, or look for broken values in {'these' if batch else 'the'} scenes",
    )
