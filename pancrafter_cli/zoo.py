"""The zoo: finding, verifying, loading and saving models. Weights are safetensors; nothing is ever unpickled.

A model is a folder `models/<name>/` with `model.safetensors`, whose header carries the ModelSpec as JSON, and a
card. `models/SHA256SUMS` holds the hashes of the shipped ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from pancrafter_cli.errors import ModelError, UsageError
from pancrafter_cli.networks.pancrafter import PanCrafter, PanCrafterConfig

WEIGHTS_FILE = "model.safetensors"
SUMS_FILE = "SHA256SUMS"
DEFAULT_MODEL = "universal-small"
_SPEC_KEY = "pancrafter"


@dataclass(frozen=True)
class ModelSpec:
    """The facts needed to use a trained network.

    bands: how many bands it takes at once; sensor: the sensor it was trained for, or "any";
    ratios: (low, high) of the ratios it was trained on; training: free facts for the card.
    """

    name: str
    config: PanCrafterConfig
    sensor: str = "any"
    ratios: tuple[float, float] = (1.7, 6.0)
    licence: str = "Apache-2.0"
    network: str = "pancrafter"
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bands(self) -> int:
        """Bands taken at once; scenes with other counts go through in groups."""
        return self.config.bands


@dataclass(frozen=True)
class Model:
    """A trained network, its facts, and the SHA-256 of the file it came from."""

    network: PanCrafter
    spec: ModelSpec
    sha256: str


@dataclass(frozen=True)
class ZooEntry:
    """One shipped model as it lies on disk; `intact` says whether its hash is the published one."""

    spec: ModelSpec
    path: Path
    bytes: int
    sha256: str
    intact: bool


def models_dir() -> Path:
    """The folder of the shipped models: inside the installed package, or beside it in a source checkout."""
    package = Path(__file__).parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def list_models() -> list[ZooEntry]:
    """Every shipped model, verified, in the order of names."""
    sums = _read_sums()
    entries = []
    for path in sorted(models_dir().glob(f"*/{WEIGHTS_FILE}")):
        digest = file_sha256(path)
        entries.append(
            ZooEntry(read_spec(path), path, path.stat().st_size, digest, sums.get(_sums_name(path)) == digest)
        )
    return entries


def resolve(name: str) -> Path:
    """The weights file of a shipped model's name, or of a path to a file or folder. Raises UsageError."""
    given = Path(name)
    if given.suffix == ".safetensors" or os.sep in name:
        path = given / WEIGHTS_FILE if given.is_dir() else given
        if not path.is_file():
            raise UsageError(
                f"no model at {given}", "give the path of a .safetensors file, or a name from `pancrafter models`"
            )
        return path
    path = models_dir() / name / WEIGHTS_FILE
    if not path.is_file():
        known = ", ".join(sorted(p.parent.name for p in models_dir().glob(f"*/{WEIGHTS_FILE}"))) or "none"
        raise UsageError(f"unknown model '{name}'", f"shipped models: {known}; or give the path of a .safetensors file")
    return path


def load_model(name: str = DEFAULT_MODEL) -> Model:
    """Load a model by name or path; a shipped one must have its published hash. Raises ModelError, UsageError."""
    path = resolve(name)
    digest = file_sha256(path)
    if path.parent.parent == models_dir() and _read_sums().get(_sums_name(path)) != digest:
        raise ModelError(
            f"{path}: the weights are not the published ones (SHA-256 {digest[:12]}...)",
            "the file is damaged or was changed; install the package again",
        )
    spec = read_spec(path)
    network = PanCrafter(spec.config)
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise ModelError(
            f"{path}: the weights do not fit the network they name", "the file is damaged; get it again"
        ) from error
    return Model(network.eval(), spec, digest)


def save_model(path: Path, state: Mapping[str, Tensor], spec: ModelSpec) -> None:
    """Write weights and spec to `path`, through a temporary name."""
    part = path.with_name(f".{path.name}.part")
    tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    safetensors.torch.save_file(tensors, part, metadata={_SPEC_KEY: json.dumps(asdict(spec))})
    part.replace(path)


def read_spec(path: Path) -> ModelSpec:
    """The ModelSpec in a weights file's header. Raises ModelError when there is none or it makes no sense."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {})[_SPEC_KEY]
        raw = json.loads(header)
        config = raw.pop("config")
        config["depths"] = tuple(config["depths"])
        raw["ratios"] = tuple(raw["ratios"])
        known = {f.name for f in fields(ModelSpec)}
        return ModelSpec(config=PanCrafterConfig(**config), **{k: v for k, v in raw.items() if k in known})
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file", "the file is damaged; get it again") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: no PAN-Crafter model in this file's header", "use a file that `pancrafter train` wrote"
        ) from error


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sums_name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _read_sums() -> dict[str, str]:
    path = models_dir() / SUMS_FILE
    if not path.is_file():
        return {}
    pairs = (line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip())
    return {name.strip().lstrip("*"): digest for digest, name in pairs}
