"""The training configuration: a frozen dataclass read from TOML, with every name and type checked."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from pancrafter_cli.data.samples import SampleOptions
from pancrafter_cli.errors import UsageError
from pancrafter_cli.networks.pancrafter import PanCrafterConfig

KINDS = ("wald", "resynthesised")
T = TypeVar("T")


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    scenes: folder of scene folders; include/exclude: name patterns; wald_only: patterns of scenes that give no
    resynthesised pairs. weights: how often a kind is drawn per pixel; scene_weights: factors by name pattern.
    size_power: 1 draws in proportion to pixels, 0 every source equally. lam and pan_share: weight of the PAN-mode
    loss and the share of the batch it runs on. ema: decay of the averaged weights that become the model.
    """

    name: str = "model"
    scenes: str = ""
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    wald_only: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=lambda: {"wald": 3.0, "resynthesised": 1.0})
    scene_weights: Mapping[str, float] = field(default_factory=dict)
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


def read_config(path: Path, scenes: str | None = None) -> TrainConfig:
    """Read a TOML file; `scenes` overrides its folder. Raises UsageError naming what is wrong and where."""
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give the path of a TOML file; examples/ has one") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}", "examples/ has a working one") from error
    network = _build(PanCrafterConfig, raw.pop("network", {}), f"{path} [network]")
    sample = _build(SampleOptions, raw.pop("sample", {}), f"{path} [sample]")
    config = _build(TrainConfig, raw | {"network": network, "sample": sample}, str(path))
    if sample.bands != network.bands:
        raise UsageError(
            f"{path}: [sample] bands = {sample.bands}, but [network] bands = {network.bands}", "make them equal"
        )
    return replace(config, scenes=scenes) if scenes is not None else config


def _build(kind: type[T], values: dict[str, Any], where: str) -> T:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UsageError(f"{where}: unknown setting {', '.join(unknown)}", f"known: {', '.join(sorted(known))}")
    default = kind()
    frozen = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    for name, value in frozen.items():
        wanted = type(getattr(default, name))
        if not isinstance(value, (int, float) if wanted is float else wanted):
            raise UsageError(f"{where}: {name} = {value!r} is {type(value).__name__}", f"expected {wanted.__name__}")
    return kind(**frozen)


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
