"""Running an exported model with ONNX Runtime. Loads no torch."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _binding

from pancrafter_cli.errors import DeviceError, ModelError, OutOfMemory, UsageError
from pancrafter_cli.geometry.inputs import NetworkInputs
from pancrafter_cli.networks.config import receptive_radius
from pancrafter_cli.runtime.groups import sharpen_groups
from pancrafter_cli.zoo import SPEC_KEY, WEIGHTS_KEY, ModelSpec, check_published, parse_spec

Float32 = NDArray[np.float32]

OUTPUT = "sharp"

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SILENT = 4  # of the library's severities: its log goes to stderr, and what matters is raised
# The library's exceptions have no common root of their own.
_FAILURES = tuple(v for v in vars(_binding).values() if isinstance(v, type) and issubclass(v, Exception))
# What it says of a file that a newer ONNX has written: what of it is newer, which it is, and the newest that it reads.
_NEWER = re.compile(r"(IR version|[Oo]pset)\W+(\d+).*(?:max supported IR version:|till opset) (\d+)")


class OnnxSession:
    """An exported model on a device; `device` becomes "cpu" or "cuda:N", the hashes are of the file and the weights.

    device: "auto" (CUDA when its provider loads), "cpu", "cuda" or "cuda:N". Raises ModelError for a file that is no
    exported model, DeviceError when the provider asked for does not load, UsageError for other names.
    """

    def __init__(self, path: Path, device: str = "auto") -> None:
        try:
            content = path.read_bytes()  # once, so that what is hashed is what runs
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror or error}", "give another file") from error
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._session, self.device = _open(content, path, device)
        facts = self._session.get_modelmeta().custom_metadata_map
        self.spec, self.weights_sha256 = _checked_spec(self._session, facts, path), facts[WEIGHTS_KEY]

    def run(self, images: Mapping[str, Float32]) -> Float32:
        """Images (B, C, H, W) by name, normalised; returns (B, C, H, W). Raises OutOfMemory, ModelError."""
        try:
            result: Float32 = self._session.run([OUTPUT], dict(images))[0]
        except _FAILURES as error:
            reason = _first_line(error)
            if not re.search(r"alloc|out of memory", reason, re.IGNORECASE):
                raise ModelError(f"the ONNX model cannot be run: {reason}", "export it again") from error
            height, width = images["lms"].shape[-2:]
            raise OutOfMemory(
                f"not enough memory on {self.device} for a tile of {height} x {width} pixels", "use a smaller --tile"
            ) from error
        return result


class OnnxRunner:
    """An exported model on a device: tiles in, sharpened tiles out, in fp32. Raises as OnnxSession does."""

    runtime = "onnx"
    precision, reason, undecided = "fp32", "", False

    def __init__(self, path: Path, device: str = "auto", precision: str = "auto") -> None:
        if precision not in ("auto", "fp32"):
            raise UsageError(f"precision '{precision}' is not for ONNX models, which run in fp32", "leave it out")
        self._session = OnnxSession(path, device)
        check_published(path, self._session.sha256)
        self.device, self.spec = self._session.device, self._session.spec
        self.sha256 = self._session.weights_sha256
        self.onnx_sha256: str | None = self._session.sha256
        self.radius = receptive_radius(self.spec.config)
        self.matched = self.spec.config.pan == "matched"

    def checked(self, images: NetworkInputs) -> OnnxRunner:
        """The runner itself: there is no precision to choose."""
        return self

    def sharpen(self, images: NetworkInputs) -> Float32:
        """Images of any bands C, normalised; returns (C, H, W). Raises OutOfMemory when memory runs out."""
        return sharpen_groups(self._run, self.spec.config, images)

    def _run(self, images: NetworkInputs) -> Float32:
        sharp: Float32 = self._session.run({name: getattr(images, name)[None] for name in self.spec.config.images})[0]
        return sharp


def _open(content: bytes, path: Path, device: str) -> tuple[Any, str]:
    """A session on the device, and the device's name."""
    wanted = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", device)
    if wanted is None:
        raise UsageError(f"unknown device '{device}'", "use auto, cpu, cuda or cuda:N")
    if device != "cpu":
        index = int(wanted[1] or 0)
        session, reason = _cuda_session(content, index)
        if session is not None:
            return session, f"cuda:{index}"
    try:
        session = _session(content, [_CPU])
    except _FAILURES as error:
        raise _unreadable(path, error) from error
    if device not in ("auto", "cpu"):
        raise DeviceError(
            f"device '{device}' was asked for, but ONNX Runtime's CUDA provider does not run here: {reason}",
            "use --device cpu; or install a driver and `pip install 'onnxruntime-gpu[cuda,cudnn]'`",
        )
    return session, "cpu"


def _unreadable(path: Path, error: Exception) -> ModelError:
    """Why a file cannot be opened: it is newer than the library, or damaged."""
    reason = _first_line(error)
    newer = _NEWER.search(reason)
    if newer:
        what, found, known = newer.groups()
        return ModelError(
            f"{path}: is of ONNX {what.replace('O', 'o')} {found}, "
            f"and the installed onnxruntime {onnxruntime.__version__} reads up to {known}",
            "update it with: pip install -U onnxruntime (or onnxruntime-gpu); or export the model again",
        )
    return ModelError(f"{path}: not a readable ONNX model: {reason}", "the file is damaged; export it again")


def _cuda_session(content: bytes, index: int) -> tuple[Any, str]:
    """A session that the CUDA provider runs, or None and the reason."""
    if _CUDA not in onnxruntime.get_available_providers():
        return None, "the installed onnxruntime was built without it"
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard):  # which libraries are missing is printed, where our JSON goes
        onnxruntime.preload_dlls()
    # Without TF32: it would quietly keep 10 bits of 23.
    options = {"device_id": index, "use_tf32": 0}
    try:
        session = _session(content, [(_CUDA, options), _CPU])
    except _FAILURES as error:
        return None, _first_line(error)
    if _CUDA in session.get_providers():
        return session, ""
    return None, next(iter(heard.getvalue().splitlines()), "it did not load")


def _session(content: bytes, providers: list[Any]) -> Any:
    onnxruntime.set_default_logger_severity(_SILENT)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = _threads()
    # Waiting threads sleep: between tiles, and while others read and write, the processor is not theirs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=0)


def _threads() -> int:
    """How many threads OMP_NUM_THREADS grants, as it does to torch; 0, for as many as there are cores, without it."""
    count = re.match(r"\s*(\d+)", os.environ.get("OMP_NUM_THREADS", ""))
    return int(count[1]) if count else 0


def _checked_spec(session: Any, facts: Mapping[str, str], path: Path) -> ModelSpec:
    """The spec in a file's metadata; raises ModelError when there is none or it is not that of the graph."""
    if not {SPEC_KEY, WEIGHTS_KEY} <= facts.keys():
        raise ModelError(
            f"{path}: no PAN-Crafter model in this file's metadata", "use a file that `pancrafter export` wrote"
        )
    spec = parse_spec(facts[SPEC_KEY], path)
    expected = spec.config.images
    found = {image.name: image.shape[1] if len(image.shape) == 4 else None for image in session.get_inputs()}
    if found != expected or [image.name for image in session.get_outputs()] != [OUTPUT]:
        raise ModelError(
            f"{path}: its metadata tell of inputs with {_counts(expected)} bands, its graph takes {_counts(found)}",
            "the file was changed; export it again",
        )
    return spec


def _counts(bands: Mapping[str, int | None]) -> str:
    return ", ".join(f"{name} {count}" for name, count in bands.items())


def _first_line(error: Exception) -> str:
    """What the library says, without the code and the C++ function before it."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    line = re.sub(r"\S+\.(?:cc|h):\d+ [^()]*\([^()]*\) ", "", line)
    return line.split(" : ")[-1].strip() or type(error).__name__
