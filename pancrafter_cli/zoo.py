"""The zoo: finding, verifying, loading and saving models. Weights are safetensors; nothing is ever unpickled.

A model is a folder `models/<name>/` with `model.safetensors`, whose header carries the ModelSpec as JSON, and a
card; `model.onnx` beside it, where there is one, is the same network exported for ONNX Runtime. `models/SHA256SUMS`
holds the hashes of the shipped ones. Only loading and saving weights needs torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import safetensors
from pydantic import TypeAdapter, ValidationError

from pancrafter_cli.errors import ModelError, UsageError
from pancrafter_cli.networks.config import PanCrafterConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pancrafter_cli.networks.pancrafter import PanCrafter

WEIGHTS_FILE = "model.safetensors"
ONNX_SUFFIX = ".onnx"
SUMS_FILE = "SHA256SUMS"
DEFAULT_MODEL = "universal-small"
# Of the metadata of a weights file, and of an ONNX file, which also names the weights it was exported from.
SPEC_KEY = "pancrafter"
WEIGHTS_KEY = "pancrafter_weights_sha256"


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
    network: Literal["pancrafter"] = "pancrafter"
    training: dict[str, Any] = field(default_factory=dict)

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


def damaged_models() -> list[str]:
    """Names in the published list whose weights are missing or have another hash."""
    return sorted(
        {
            Path(name).parent.name
            for name, digest in _read_sums().items()
            if not (models_dir() / name).is_file() or file_sha256(models_dir() / name) != digest
        }
    )


def resolve(name: str) -> Path:
    """The weights file of a shipped model's name, or of a path to a file or folder. Raises UsageError."""
    given = Path(name)
    if len(given.parts) == 1 and (models_dir() / name / WEIGHTS_FILE).is_file():
        return models_dir() / name / WEIGHTS_FILE
    path = given / WEIGHTS_FILE if given.is_dir() else given
    if path.is_file():
        return path
    if path.suffix == ".safetensors" or len(given.parts) > 1:
        raise UsageError(
            f"no model at {given}", "give the path of a .safetensors file, or a name from `pancrafter models`"
        )
    known = ", ".join(sorted(p.parent.name for p in models_dir().glob(f"*/{WEIGHTS_FILE}"))) or "none"
    raise UsageError(f"unknown model '{name}'", f"shipped models: {known}; or give the path of a .safetensors file")


def resolve_onnx(name: str) -> Path:
    """The ONNX file of a model by name, or by the path of the file itself or of its weights. Raises UsageError."""
    given = Path(name)
    if given.suffix == ONNX_SUFFIX:
        if given.is_file():
            return given
        raise UsageError(f"no model at {given}", "`pancrafter export MODEL -o FILE.onnx` writes one")
    path = resolve(name).with_suffix(ONNX_SUFFIX)
    if path.is_file():
        return path
    file = f"{given.stem}{ONNX_SUFFIX}"
    raise UsageError(
        f"model '{name}' is not here as an ONNX file: there is no {path}",
        f"`pancrafter export {name} -o {file}` writes one, also on another machine; then give --model {file}",
    )


def load_model(name: str = DEFAULT_MODEL) -> Model:
    """Load a model by name or path; a shipped one must have its published hash. Raises ModelError, UsageError."""
    # torch takes a second to load, and a model's facts are read without it.
    import safetensors.torch

    from pancrafter_cli.networks.pancrafter import PanCrafter

    path = resolve(name)
    spec = read_spec(path)
    digest = file_sha256(path)
    check_published(path, digest)
    network = PanCrafter(spec.config)
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (RuntimeError, OSError, safetensors.SafetensorError) as error:
        raise ModelError(
            f"{path}: the weights do not fit the network they name", "the file is damaged; get it again"
        ) from error
    return Model(network.eval(), spec, digest)


def check_published(path: Path, digest: str) -> None:
    """Raise ModelError when a shipped file has not its published hash."""
    path = path.resolve()
    if path.parent.parent == models_dir().resolve() and _read_sums().get(_sums_name(path)) != digest:
        raise ModelError(
            f"{path}: the weights are not the published ones (SHA-256 {digest[:12]}...)",
            "the file is damaged or was changed; install the package again",
        )


def save_model(path: Path, state: Mapping[str, Tensor], spec: ModelSpec) -> None:
    """Write weights and spec to `path` itself, not by way of a temporary name. Raises OSError or SafetensorError."""
    import safetensors.torch

    tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    safetensors.torch.save_file(tensors, path, metadata={SPEC_KEY: spec_text(spec)})
    path.chmod(0o644)  # the library makes it readable for its owner alone


def read_spec(path: Path) -> ModelSpec:
    """The ModelSpec in a weights file's header.

    Raises ModelError when there is none or it makes no sense, UsageError for an exported model.
    """
    if path.suffix == ONNX_SUFFIX:
        raise UsageError(
            f"{path}: is an exported model, and this needs the weights that it was exported from",
            "give the path of their .safetensors file, or a name from `pancrafter models`",
        )
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(SPEC_KEY)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file", "the file is damaged; get it again") from error
    if header is None:
        raise ModelError(
            f"{path}: no PAN-Crafter model in this file's header", "use a file that `pancrafter train` wrote"
        )
    return parse_spec(header, path)


def spec_text(spec: ModelSpec) -> str:
    """A ModelSpec as the JSON that `parse_spec` reads."""
    return json.dumps(asdict(spec))


def parse_spec(header: str, path: Path) -> ModelSpec:
    """The ModelSpec in the JSON of a model file's header. Raises ModelError when it makes no sense."""
    try:
        return TypeAdapter(ModelSpec).validate_json(header)
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(
            f"{path}: its header says {'.'.join(map(str, first['loc']))}: {first['msg']}",
            "the model is of another version of pancrafter, or damaged",
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
    pairs = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {name.strip().lstrip("*"): digest for digest, name in pairs}
