"""Exporting a model for ONNX Runtime: one file, checked against torch before it takes its name."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pancrafter_cli.errors import ModelError, OutputError
from pancrafter_cli.raster.targets import OutputKind, check_output
from pancrafter_cli.runtime.onnx_runner import OUTPUT, OnnxSession
from pancrafter_cli.version import __version__
from pancrafter_cli.zoo import DEFAULT_MODEL, SPEC_KEY, WEIGHTS_KEY, Model, file_sha256, load_model, spec_text

Float32 = NDArray[np.float32]

OPSET = 17  # the first that has LayerNormalization
TOLERANCE = 1e-4  # of the scale, or of the greatest value where that is more; sums in another order stay far below
_KIND = OutputKind("an ONNX model", (".onnx",))
# (batch, height, width) that are compared: multiples of the network's stride and not, down to a single pixel.
_CASES = ((1, 64, 64), (2, 36, 52), (1, 33, 47), (3, 5, 7), (1, 1, 1), (1, 97, 130))
_TRACED = (2, 37, 50)  # no multiples of the stride, so that padding to them is in the graph


@dataclass(frozen=True)
class ExportOptions:
    """model: a shipped name or a path; output: the .onnx file to write."""

    output: Path
    model: str = DEFAULT_MODEL
    overwrite: bool = False


@dataclass(frozen=True)
class ExportResult:
    """What was written: `difference` from torch is the greatest of all cases compared, in parts of the scale."""

    output: Path
    model: str
    bytes: int
    sha256: str
    weights_sha256: str
    opset: int
    cases: int
    difference: float
    tolerance: float


def export_model(options: ExportOptions) -> ExportResult:
    """Write a model as ONNX: (B, C, H, W) of any batch, height and width, MARs mode fixed to MS, facts in its metadata.

    Nothing is written when it fails. Raises UsageError, ModelError (also when ONNX Runtime's results are not those
    of torch) or OutputError.
    """
    target = check_output(options.output, overwrite=options.overwrite, kind=_KIND)
    model = load_model(options.model)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        write_onnx(part, model)
        difference = compare(part, model)
        digest = file_sha256(part)
        part.replace(target)
    except OSError as error:
        raise OutputError(
            f"{options.output}: cannot be written: {error.strerror or error}", "make room, or choose another folder"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return ExportResult(
        output=options.output,
        model=model.spec.name,
        bytes=target.stat().st_size,
        sha256=digest,
        weights_sha256=model.sha256,
        opset=OPSET,
        cases=len(_CASES),
        difference=difference,
        tolerance=TOLERANCE,
    )


class _MsMode(nn.Module):
    """The network with its mode fixed."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *images: Tensor) -> Tensor:
        out: Tensor = self.network(*images, mode="ms")
        return out


def write_onnx(path: Path, model: Model) -> None:
    """Write the network as an ONNX model with the spec and the weights' hash in its metadata."""
    axes = {0: "batch", 2: "height", 3: "width"}
    images = _images(model, _TRACED)
    names = list(images)
    with warnings.catch_warnings(), torch.no_grad():
        # Of the tracer, which cannot know that the padding it keeps is right for all sizes; `compare` proves it.
        warnings.simplefilter("ignore")
        # The tracing exporter: that of torch.export needs onnxscript, and fixes what it takes for constant.
        torch.onnx.export(
            _MsMode(model.network.cpu().float().eval()),
            tuple(map(torch.from_numpy, images.values())),
            path,
            input_names=names,
            output_names=[OUTPUT],
            dynamic_axes=dict.fromkeys((*names, OUTPUT), axes),
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load_model(path)
    graph.producer_name, graph.producer_version = "pancrafter", __version__
    onnx.helper.set_model_props(graph, {SPEC_KEY: spec_text(model.spec), WEIGHTS_KEY: model.sha256})
    onnx.checker.check_model(graph)
    onnx.save_model(graph, path)


def compare(path: Path, model: Model) -> float:
    """Greatest difference of ONNX Runtime's results from torch's, both on the CPU. Raises ModelError past TOLERANCE."""
    session = OnnxSession(path, "cpu")
    worst = 0.0
    for case in _CASES:
        images = _images(model, case)
        with torch.inference_mode():
            expected = model.network(*map(torch.from_numpy, images.values()), mode="ms").numpy()
        found = session.run(images)
        if found.shape != expected.shape:
            raise ModelError(f"the exported model makes {found.shape} of {case}, torch {expected.shape}", _WRONG)
        difference = float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
        if not difference <= TOLERANCE:  # nor is NaN
            raise ModelError(
                f"ONNX Runtime differs from torch by {difference:.2g} of the scale on a batch of "
                f"{case[0]} x {case[1]} x {case[2]} pixels; {TOLERANCE:g} is tolerated",
                _WRONG,
            )
        worst = max(worst, difference)
    return worst


_WRONG = "nothing was written; use other versions of torch and onnxruntime: constraints.txt names tested ones"


def _images(model: Model, case: tuple[int, int, int]) -> dict[str, Float32]:
    """Noise of the scale's range as the images that the network looks at."""
    rng = np.random.default_rng(0)
    batch, height, width = case
    seen = model.spec.config.images.items()
    return {name: rng.random((batch, count, height, width), dtype=np.float32) for name, count in seen}
