"""The training configuration: a frozen dataclass read from TOML, with every name and type checked."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import tomllib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pancrafter_cli.data.samples import SampleOptions
from pancrafter_cli.errors import UsageError
from pancrafter_cli.networks.pancrafter import PanCrafterConfig

KINDS = ("wald", "resynthesised")


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    scenes: folder of scene folders; include/exclude: name patterns; wald_only: patterns of scenes that give no
    resynthesised pairs. start_from: name or path of a model of the same network whose weights are the start.
    weights: how often a kind is drawn per pixel; scene_weights: factors by name pattern.
    size_power: 1 draws in proportion to pixels, 0 every source equally. lam and pan_share: weight of the PAN-mode
    loss and the share of the batch it runs on. ema: decay of the averaged weights that become the model.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: str = "model"
    scenes: str = ""
    start_from: str = ""
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    wald_only: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=lambda: {"wald": 3.0, "resynthesised": 1.0})
    scene_weights: dict[str, float] = field(default_factory=dict)
    size_power: float = 1.0
    network: PanCrafterConfig = field(default_factory=PanCrafterConfig)
    sample: SampleOptions = field(default_factory=SampleOptions)
    steps: int = 50_000
    batch: int = 48
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: int = 100
    lam: float = 1.0
    pan_share: float = 1.0
    ema: float = 0.999
    clip: float = 1.0
    bf16: bool = True
    seed: int = 2025
    checkpoint_minutes: float = 3.0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or min(self.warmup, self.seed) < 0:
            raise ValueError("steps and batch must be positive, warmup and seed not negative")
        numbers = {n: v for n, v in vars(self).items() if isinstance(v, float)}
        for name, value in numbers.items():
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a number from 0 up")
        if self.lr == 0 or self.clip == 0 or self.ema >= 1 or self.pan_share > 1:
            raise ValueError("lr and clip must be positive, ema below 1, pan_share at most 1")
        if set(self.weights) - set(KINDS):
            raise ValueError(f"weights are for the kinds {', '.join(KINDS)}")
        if any(not w >= 0 for w in (*self.weights.values(), *self.scene_weights.values())):
            raise ValueError("weights must not be negative")

    def scene_folders(self) -> list[Path]:
        """The scene folders the patterns select, sorted. Raises UsageError when `scenes` is not a folder."""
        root = Path(self.scenes)
        if not self.scenes or not root.is_dir():
            raise UsageError(f"scenes: '{self.scenes}' is not a folder", "give --scenes DIR with one folder per scene")
        return [
            folder
            for folder in sorted(root.iterdir())
            if (folder / "pan.tif").exists() and _any(folder.name, self.include) and not _any(folder.name, self.exclude)
        ]

    def kinds_of(self, scene: str) -> tuple[str, ...]:
        """The kinds of sources drawn from a scene."""
        return ("wald",) if _any(scene, self.wald_only) else KINDS

    def weight_of(self, scene: str, kind: str) -> float:
        """How often a source is drawn, per pixel."""
        factor = next((w for pattern, w in self.scene_weights.items() if fnmatch.fnmatch(scene, pattern)), 1.0)
        return self.weights.get(kind, 1.0) * factor

    def fingerprint(self) -> str:
        """Hash of what a resumed run must share: all but the place of the scenes, the saving, and the length.

        A run may be made longer or shorter on resuming; the learning rate then follows the new cosine.
        """
        facts = asdict(self)
        for name in ("scenes", "checkpoint_minutes", "steps"):
            del facts[name]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_config(path: Path, scenes: str | None = None, start_from: str | None = None) -> TrainConfig:
    """Read a TOML file; `scenes` and `start_from` override it. Raises UsageError naming what is wrong and where."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give the path of a TOML file; examples/ has one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}", "examples/ has a working one") from error
    try:
        config = TypeAdapter(TrainConfig).validate_python(raw)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors())
        raise UsageError(f"{path}: {found}", "examples/ has a working recipe") from error
    if config.sample.bands != config.network.bands:
        raise UsageError(
            f"{path}: [sample] bands = {config.sample.bands}, but [network] bands = {config.network.bands}",
            "make them equal",
        )
    config = replace(config, sample=replace(config.sample, matched=config.network.pan == "matched"))
    return replace(
        config,
        scenes=config.scenes if scenes is None else scenes,
        start_from=config.start_from if start_from is None else start_from,
    )


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
