"""The training configuration: a frozen dataclass read from TOML, with every name and type checked, none converted."""

from __future__ import annotations

import fnmatch
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from pancrafter_cli.data.samples import SampleOptions
from pancrafter_cli.errors import UsageError
from pancrafter_cli.networks.config import PanCrafterConfig
from pancrafter_cli.raster.folders import holds_rasters
from pancrafter_cli.raster.inputs import Nodata
from pancrafter_cli.zoo import read_spec, resolve

SCENE_KINDS = ("wald", "resynthesised")
KINDS = (*SCENE_KINDS, "patches", "simulated", "dead-leaves")
PATCH_FILES = "train*.h5"  # PanCollection's valid*.h5 and test*.h5 lie beside them and must not be trained on
# What a resumed run may do differently: where its scenes lie, how often it saves and validates, and how long it is.
_FREE = ("scenes", "checkpoint_minutes", "validate_minutes", "steps", "minutes")
_TABLES = ("network", "sample")
_MOST_STEPS = 10**9
_MOST_SEED = 2**63 - 1  # generators take no more than 64 bits
_NO_NUMBER = "NaN and infinity are never taken for data"
_FINE_TUNING = Path(__file__).parent / "recipes" / "finetune.toml"


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    scenes: folder of scene folders and PanCollection files; include/exclude: name patterns; validate: patterns of
    scene folders that are held out and scored; wald_only: patterns of scenes that give no resynthesised pairs; nodata:
    of all scenes, as of `SceneOptions`.
    simulated_scenes, dead_leaves: how many scenes are made up besides. start_from: name or path of a model of the
    same network whose weights are the start. weights: how often a kind is drawn per pixel; scene_weights: factors by
    name pattern. size_power: 1 draws in proportion to pixels, 0 every source equally. batch: samples in one pass;
    accumulate: passes in one step. minutes: time for the run, 0 for as long as `steps` take; the learning rate then
    follows the clock. loss: of MS mode, see `mars_loss`. lam and pan_share: weight of the PAN-mode loss and the share
    of the samples it runs on. ema: decay of the averaged weights that become the model. bf16: whether products are
    taken in it where the device has units for it; compile: whether torch compiles the network.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: str = "model"
    scenes: str = ""
    start_from: str = ""
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    validate: tuple[str, ...] = ()
    wald_only: tuple[str, ...] = ()
    nodata: Nodata | None = None
    simulated_scenes: int = 0
    dead_leaves: int = 0
    weights: dict[str, float] = field(default_factory=lambda: {"wald": 3.0, "resynthesised": 1.0})
    scene_weights: dict[str, float] = field(default_factory=dict)
    size_power: float = 1.0
    network: PanCrafterConfig = field(default_factory=PanCrafterConfig)
    sample: SampleOptions = field(default_factory=SampleOptions)
    steps: int = 50_000
    minutes: float = 0.0
    batch: int = 48
    accumulate: int = 1
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: int = 100
    lam: float = 1.0
    loss: Literal["l1", "rmse"] = "l1"
    pan_share: float = 1.0
    ema: float = 0.999
    clip: float = 1.0
    bf16: bool = True
    compile: bool = False
    seed: int = 2025
    checkpoint_minutes: float = 3.0
    validate_minutes: float = 10.0

    def __post_init__(self) -> None:
        # It names a folder in runs/, whatever the system.
        if not self.name.strip(". ") or set(self.name) & {"/", "\\"} or not self.name.isprintable():
            raise ValueError(f"name {self.name!r} must be that of a folder, not a path; --run takes any folder")
        if min(self.steps, self.batch, self.accumulate) < 1 or min(self.warmup, self.seed) < 0:
            raise ValueError("steps, batch and accumulate must be positive, warmup and seed not negative")
        if self.steps > _MOST_STEPS or self.seed > _MOST_SEED:
            raise ValueError(f"steps must be at most {_MOST_STEPS}, seed at most {_MOST_SEED}")
        if min(self.simulated_scenes, self.dead_leaves) < 0:
            raise ValueError("simulated_scenes and dead_leaves must not be negative")
        if isinstance(self.nodata, float) and not math.isfinite(self.nodata):
            raise ValueError(f"nodata: {_NO_NUMBER}")
        numbers = {n: v for n, v in vars(self).items() if isinstance(v, float) and n != "nodata"}
        for name, value in numbers.items():
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a number from 0 up")
        if self.lr == 0 or self.clip == 0 or self.ema >= 1 or self.pan_share > 1:
            raise ValueError("lr and clip must be positive, ema below 1, pan_share at most 1")
        if set(self.weights) - set(KINDS):
            raise ValueError(f"weights are for the kinds {', '.join(KINDS)}")
        if any(not 0 <= w < math.inf for w in (*self.weights.values(), *self.scene_weights.values())):
            raise ValueError("weights must be numbers from 0 up")

    @property
    def samples_per_step(self) -> int:
        """Samples that one step of the optimiser learns from."""
        return self.batch * self.accumulate

    def training_entries(self) -> list[Path]:
        """Scene folders and patch files to train on, sorted. Raises UsageError when `scenes` is no such place."""
        return [path for path in self._entries() if not _any(path.name, self.validate)]

    def held_out_entries(self) -> list[Path]:
        """What would be trained on but for `validate`, sorted. Raises UsageError when `scenes` is no such place."""
        return [path for path in self._entries() if _any(path.name, self.validate)]

    def validation_folders(self) -> list[Path]:
        """The scene folders that are held out, sorted. Raises UsageError when `validate` names none."""
        if not self.validate:
            return []
        found = [path for path in self._folders() if _any(path.name, self.validate) and holds_rasters(path)]
        if not found:
            raise UsageError(
                f"validate: no scene folder in {self.scenes} matches {', '.join(self.validate)}",
                "name folders of scenes, or leave `validate` out",
            )
        return found

    def idle_patterns(self, sources: Iterable[str]) -> dict[str, list[str]]:
        """Name patterns that match nothing, by setting: misspelt, or of scenes that are not here.

        sources: names of the sources, those of made-up scenes among them.
        """
        if self._file is not None:  # which no pattern selects
            return {}
        names = {*sources, *(path.name for path in self._everything())}
        given = {name: getattr(self, name) for name in ("include", "exclude", "validate", "wald_only", "scene_weights")}
        idle = {name: [p for p in patterns if not fnmatch.filter(names, p)] for name, patterns in given.items()}
        return {name: patterns for name, patterns in idle.items() if patterns}

    def kinds_of(self, scene: str) -> tuple[str, ...]:
        """The kinds of sources drawn from a scene folder."""
        return ("wald",) if _any(scene, self.wald_only) else SCENE_KINDS

    def weight_of(self, scene: str, kind: str) -> float:
        """How often a source is drawn, per pixel."""
        factor = next((w for pattern, w in self.scene_weights.items() if fnmatch.fnmatch(scene, pattern)), 1.0)
        return self.weights.get(kind, 1.0) * factor

    def differences(self, saved: Mapping[str, Any]) -> list[str]:
        """What a resumed run may not change, but does, against a configuration saved as JSON: "lr: 0.001, now 0.1".

        A run may be made longer or shorter on resuming; the learning rate then follows the new cosine. What the
        saved configuration does not know has its default there.
        """
        now, then = _flat(asdict(self)), _flat(asdict(TrainConfig())) | _flat(saved)
        return [
            f"{name}: {then.get(name)}, now {now.get(name)}"
            for name in sorted(now.keys() | then.keys())
            if name not in _FREE and now.get(name) != then.get(name)
        ]

    @property
    def _file(self) -> Path | None:
        """The patch file that `scenes` names in place of a folder."""
        root = Path(self.scenes)
        return root if self.scenes and root.is_file() and root.suffix == ".h5" else None

    def _everything(self) -> list[Path]:
        if self._file is not None:
            return [self._file]
        if not self.scenes and self.simulated_scenes + self.dead_leaves:
            return []
        files = [path for path in Path(self.scenes).glob(PATCH_FILES) if path.is_file()] if self.scenes else []
        return sorted([*self._folders(), *files])

    def _entries(self) -> list[Path]:
        if self._file is not None:
            return [self._file]
        wanted = (p for p in self._everything() if _any(p.name, self.include) and not _any(p.name, self.exclude))
        return [path for path in wanted if path.is_file() or holds_rasters(path)]

    def _folders(self) -> list[Path]:
        root = Path(self.scenes)
        if not self.scenes or not root.is_dir():
            raise UsageError(f"scenes: '{self.scenes}' is not a folder", "give --scenes DIR with one folder per scene")
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_config(
    path: Path,
    scenes: str | None = None,
    start_from: str | None = None,
    minutes: float | None = None,
    nodata: Nodata | None = None,
) -> TrainConfig:
    """Read a TOML file; the other arguments override it. Raises UsageError naming what is wrong and where."""
    config = _checked(_read_toml(path), str(path))
    return _overridden(config, scenes, start_from, minutes, nodata)


def fine_tuning(
    start_from: str, scenes: str | None = None, minutes: float | None = None, nodata: Nodata | None = None
) -> TrainConfig:
    """The shipped recipe for going on with a model on own scenes: its network, a small learning rate, a time budget.

    Raises UsageError for an unknown model, ModelError for a damaged one.
    """
    spec = read_spec(resolve(start_from))
    raw = _read_toml(_FINE_TUNING)
    raw |= {"name": f"{Path(spec.name).name}-tuned", "network": asdict(spec.config)}
    raw["sample"] = raw.get("sample", {}) | {"bands": spec.bands}
    return _overridden(_checked(raw, str(_FINE_TUNING)), scenes, start_from, minutes, nodata)


def recipe_text(config: TrainConfig) -> str:
    """A configuration as TOML that `read_config` reads back."""
    facts = asdict(config)
    tables = {name: facts.pop(name) for name in _TABLES}
    lines = [f"{name} = {_toml(value)}" for name, value in facts.items() if value is not None]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give the path of a TOML file; examples/ has one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}", "examples/ has a working one") from error


def _checked(raw: dict[str, Any], where: str) -> TrainConfig:
    try:
        # Strictly, but for what TOML lacks: as of JSON, lists are tuples, and whole numbers will do for any.
        config = TypeAdapter(TrainConfig).validate_json(json.dumps(raw), strict=True)
    except TypeError as error:  # of TOML's values, JSON lacks these alone
        raise UsageError(f"{where}: nothing in a recipe is a date or a time", "write text in quotes") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors())
        raise UsageError(f"{where}: {found}", "examples/ has a working recipe") from error
    if config.sample.bands != config.network.bands:
        raise UsageError(
            f"{where}: [sample] bands = {config.sample.bands}, but [network] bands = {config.network.bands}",
            "make them equal",
        )
    return replace(config, sample=replace(config.sample, matched=config.network.pan == "matched"))


def _overridden(
    config: TrainConfig,
    scenes: str | None,
    start_from: str | None,
    minutes: float | None,
    nodata: Nodata | None,
) -> TrainConfig:
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"--minutes {minutes:g}: expected a time above 0", "leave it out to train for all steps")
    if isinstance(nodata, float) and not math.isfinite(nodata):
        raise UsageError(f"--nodata {nodata:g}: {_NO_NUMBER}", "leave it out")
    return replace(
        config,
        scenes=config.scenes if scenes is None else scenes,
        start_from=config.start_from if start_from is None else start_from,
        minutes=config.minutes if minutes is None else minutes,
        nodata=config.nodata if nodata is None else nodata,
    )


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of the tables under dotted names; tuples become the lists they are in JSON."""
    flat = {name: value for name, value in facts.items() if name not in _TABLES}
    for table in _TABLES:
        flat |= {f"{table}.{name}": value for name, value in facts.get(table, {}).items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    # Strings, whole numbers and truth values are written alike in JSON and TOML.
    return json.dumps(value, ensure_ascii=False)
