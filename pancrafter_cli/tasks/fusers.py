"""Methods ready to fuse one scene: a network with its model, or a classical method fitted to the scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.classical.methods import METHODS
from pancrafter_cli.errors import GeometryError, ModelError, UsageError
from pancrafter_cli.geometry.consistency import consistency_reach
from pancrafter_cli.geometry.inputs import NetworkInputs
from pancrafter_cli.geometry.sensors import mtf_of, sensor_from_metadata
from pancrafter_cli.raster.scene import Scene
from pancrafter_cli.runtime.installed import require
from pancrafter_cli.tasks.fusion import ClassicalFuser, fit_classical
from pancrafter_cli.tasks.tile_inputs import Span, read_inputs, read_observed
from pancrafter_cli.zoo import DEFAULT_MODEL, ONNX_SUFFIX, ModelSpec, file_sha256, resolve, resolve_onnx

if TYPE_CHECKING:
    from pancrafter_cli.runtime.torch_runner import Precision

Float32 = NDArray[np.float32]
Runtime = Literal["torch", "onnx"]

NETWORK = "network"  # the method's name when a model does the work
DEFAULT_CONSISTENCY = 2  # of networks; classical methods are run as published, without
MOST_CONSISTENCY = 100  # long before, a result no longer changes; each takes its time
_PROBE = 256  # PAN pixels a side in which precisions are compared
_RATIO_SLACK = 1.02  # a ratio of 6.01 is 6, written with rounded pixel sizes


@dataclass(frozen=True)
class FuserFacts:
    """What did the work: method, and for a network its model, where and in which precision it ran.

    model_sha256: of the model's weights; runtime: "torch" or "onnx"; onnx_sha256: of the exported file that ran.
    precision_reason: why that one, where it was left to choose. consistency: back-projections after it.
    """

    method: str
    model: str | None = None
    model_sha256: str | None = None
    runtime: str | None = None
    onnx_sha256: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    precision_reason: str = ""
    consistency: int = 0


class Runner(Protocol):
    """A model on a device. sha256: of its weights; radius: PAN pixels around a pixel that can change it.

    reason: why it runs in its precision, where that was left to choose.
    """

    runtime: str
    onnx_sha256: str | None
    precision: str
    reason: str
    spec: ModelSpec
    sha256: str
    radius: int
    matched: bool

    @property
    def device(self) -> object:
        """Where it runs; its `str` is the name."""

    @property
    def undecided(self) -> bool:
        """Whether the precision is still to be decided, by `checked`."""

    def checked(self, images: NetworkInputs) -> Self:
        """The runner in the precision that serves a scene of which these are a tile's inputs, as for `sharpen`."""

    def sharpen(self, images: NetworkInputs) -> Float32:
        """Images of any bands C, normalised; returns (C, H, W). Raises DeviceError when memory runs out."""


AnyRunner = TypeVar("AnyRunner", bound=Runner)


class Fuser(Protocol):
    """A method bound to a scene. `reach`: PAN pixels around a pixel that can change it."""

    facts: FuserFacts
    reach: int

    def read(self, rows: Span, cols: Span) -> Callable[[], Float32]:
        """Read a window of the output grid; the call that is returned makes it sharp: (C, h, w) in DN."""


class NetworkFuser:
    """A network on a device, and back-projections onto MS after it."""

    def __init__(self, scene: Scene, runner: Runner, consistency: int = DEFAULT_CONSISTENCY) -> None:
        check_ratio(scene, runner.spec)
        runner = checked_runner(runner, scene)
        self._scene, self._runner, self._steps = scene, runner, consistency
        self.facts = FuserFacts(
            method=NETWORK,
            model=runner.spec.name,
            model_sha256=runner.sha256,
            runtime=runner.runtime,
            onnx_sha256=runner.onnx_sha256,
            device=str(runner.device),
            precision=runner.precision,
            precision_reason=runner.reason,
            consistency=consistency,
        )
        self.reach = runner.radius + consistency_reach(scene.ratio, consistency, scene.statistics.ms_mtf)

    def read(self, rows: Span, cols: Span) -> Callable[[], Float32]:
        """Read a window of the output grid; the call that is returned makes it sharp: (C, h, w) in DN."""
        inputs = read_inputs(self._scene, rows, cols, matched=self._runner.matched)
        normalisation = self._scene.statistics.normalisation

        def fuse() -> Float32:
            sharp = self._runner.sharpen(inputs.images)
            # A band of one value has no detail, whatever PAN shows.
            sharp[normalisation.constant] = inputs.images.lms[normalisation.constant]
            return normalisation.undone(inputs.observed.pull(sharp, self._steps))

        return fuse


class FittedFuser:
    """A classical method fitted to the scene, and back-projections onto MS after it where asked for."""

    def __init__(self, scene: Scene, method: str, sensor: str | None = None, consistency: int = 0) -> None:
        mtf = mtf_of(sensor or sensor_from_metadata(scene.metadata), scene.bands)
        self._scene, self._steps = scene, consistency
        self._fuser: ClassicalFuser = fit_classical(scene, method, mtf.ms, mtf.pan)
        self.facts = FuserFacts(method, consistency=consistency)
        # Windows are read with all that their pixels depend on.
        self.reach = consistency_reach(scene.ratio, consistency, scene.statistics.ms_mtf)

    def read(self, rows: Span, cols: Span) -> Callable[[], Float32]:
        """Fuse a window of the output grid; the call that is returned only hands it over: (C, h, w) in DN."""
        sharp = self._fuser.fuse(self._scene, rows, cols)
        if self._steps:
            normalisation = self._scene.statistics.normalisation
            observed = read_observed(self._scene, rows, cols)
            sharp = normalisation.undone(observed.pull(normalisation.of(sharp), self._steps))
        return lambda: sharp


def make_fuser(
    scene: Scene,
    method: str = NETWORK,
    runner: Runner | None = None,
    *,
    sensor: str | None = None,
    consistency: int | None = None,
) -> Fuser:
    """The method by its name, ready for a scene; `runner` holds the model of the method "network".

    sensor: whose MTF classical methods assume; by default the one the scene's metadata name, else generic gains.
    consistency: back-projections; by default 2 for networks and none for classical methods.
    Raises UsageError for an unknown method or sensor, GeometryError for a ratio the model was not made for.
    """
    check_consistency(consistency)
    if runner is not None and method == NETWORK:
        return NetworkFuser(scene, runner, DEFAULT_CONSISTENCY if consistency is None else consistency)
    check_method(method)
    return FittedFuser(scene, method, sensor, consistency or 0)


def check_consistency(steps: int | None) -> None:
    """Raise UsageError for a number of back-projections that cannot be or serves nobody."""
    if steps is not None and not 0 <= steps <= MOST_CONSISTENCY:
        raise UsageError(
            f"--consistency {steps}: expected a number of steps from 0 to {MOST_CONSISTENCY}",
            f"the default after a network is {DEFAULT_CONSISTENCY}; 0 turns it off",
        )


def check_method(method: str) -> None:
    """Raise UsageError when there is no such method."""
    if method not in (NETWORK, *METHODS):
        raise UsageError(f"unknown method '{method}'", f"use {NETWORK}, {', '.join(METHODS)}")


def network_runner(
    model: str | None = None, device: str = "auto", precision: Precision = "auto", runtime: Runtime | None = None
) -> Runner:
    """A model by name or path, or the default one, on a device.

    runtime: by default "onnx" for the path of an ONNX file, else "torch".
    Raises ModelError, DeviceError, InstallError or UsageError.
    """
    name = model or DEFAULT_MODEL
    exported = Path(name).suffix == ONNX_SUFFIX
    if runtime not in (None, *get_args(Runtime)):
        raise UsageError(f"unknown runtime '{runtime}'", f"use {' or '.join(get_args(Runtime))}")
    if runtime == "torch" and exported:
        raise UsageError(f"{name}: torch does not run ONNX models", "leave out --runtime torch, or give another model")
    if exported or runtime == "onnx":
        return _onnx_runner(name, device, precision)
    resolve(name)  # a wrong name is told before torch, which takes a second to load
    require("torch", hint="pip install 'pancrafter[torch]'; or 'pancrafter[onnx]', and sharpen with --runtime onnx")
    from pancrafter_cli.runtime.torch_runner import TorchRunner, pick_device
    from pancrafter_cli.zoo import load_model

    picked = pick_device(device)
    return TorchRunner(load_model(name), picked, precision)


def _onnx_runner(name: str, device: str, precision: Precision) -> Runner:
    path = resolve_onnx(name)
    require("onnxruntime", hint="pip install 'pancrafter[onnx]'")
    from pancrafter_cli.runtime.onnx_runner import OnnxRunner

    runner = OnnxRunner(path, device, precision)
    if path != Path(name) and runner.sha256 != file_sha256(resolve(name)):
        raise ModelError(
            f"{path}: was exported from other weights than those beside it",
            f"`pancrafter export {name} -o {path} --overwrite` writes it anew",
        )
    return runner


def checked_runner(runner: AnyRunner, scene: Scene) -> AnyRunner:
    """The runner in the precision that serves a scene, where that was left to choose (see `Runner.checked`).

    It is judged in the middle of the scene: the first tile of one that was turned onto its grid is all collar.
    """
    if not runner.undecided:
        return runner
    rows, cols = ((max(0, (n - _PROBE) // 2), min(n, (n + _PROBE) // 2)) for n in scene.grid.shape)
    inputs = read_inputs(scene, rows, cols, matched=runner.matched)
    return runner.checked(inputs.images)


def check_ratio(scene: Scene, spec: ModelSpec) -> None:
    """Raise GeometryError when the scene's ratio lies beyond what the model was trained on."""
    low, high = spec.ratios
    if not low / _RATIO_SLACK <= scene.ratio <= high * _RATIO_SLACK:
        raise GeometryError(
            f"MS pixels are {scene.ratio:.2f} times as large as PAN pixels; model '{spec.name}' "
            f"was trained for ratios {low:g} to {high:g}",
            "choose a model for this ratio with --model, or resample MS nearer to PAN first",
        )
