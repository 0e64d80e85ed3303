"""Running a model with PyTorch."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from pancrafter_cli.errors import DeviceError, OutOfMemory, UsageError
from pancrafter_cli.networks.config import receptive_radius
from pancrafter_cli.runtime.groups import sharpen_groups
from pancrafter_cli.zoo import Model

Float32 = NDArray[np.float32]
Precision = Literal["auto", "fp32", "bf16"]


def pick_device(name: str) -> torch.device:
    """The device called "auto" (CUDA when there is one), "cpu", "cuda" or "cuda:N". Raises DeviceError, UsageError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{name}'", "use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device '{name}' is not supported", "use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(
                f"device '{name}' was asked for, but this machine shows {count} CUDA devices",
                "use --device cpu, or install a CUDA build of torch and a driver",
            )
    return device


class TorchRunner:
    """A model on a device: tiles in, sharpened tiles out, MARs mode fixed to MS."""

    runtime = "torch"
    onnx_sha256: str | None = None

    def __init__(self, model: Model, device: torch.device, precision: Precision = "auto") -> None:
        if precision not in get_args(Precision):
            raise UsageError(f"unknown precision '{precision}'", f"use {', '.join(get_args(Precision))}")
        self.device = device
        # bf16 halves the time where matrix units take it; on CPUs fp32 is the choice that is right everywhere.
        self.precision: str = ("bf16" if device.type == "cuda" else "fp32") if precision == "auto" else precision
        self.network = model.network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        if device.type == "cuda" and self.precision == "fp32":
            torch.backends.cudnn.allow_tf32 = False  # or convolutions would quietly keep 10 bits of 23
        self.spec, self.sha256 = model.spec, model.sha256
        self.radius = receptive_radius(model.spec.config)
        self.matched = model.spec.config.pan == "matched"

    def sharpen(self, mpan: Float32, lms: Float32, lpan: Float32) -> Float32:
        """(C, H, W) each, any C, in DN / scale; returns (C, H, W). Raises OutOfMemory when memory runs out."""
        return sharpen_groups(self._run, self.spec.config, mpan, lms, lpan)

    @torch.inference_mode()
    def _run(self, *images: Float32) -> Float32:
        tensors = [
            torch.from_numpy(image).unsqueeze(0).to(self.device).contiguous(memory_format=torch.channels_last)
            for image in images
        ]
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                result: Float32 = self.network(*tensors, "ms")[0].float().cpu().numpy()
        except RuntimeError as error:
            # On a CPU the allocator raises a plain RuntimeError.
            if not isinstance(error, torch.OutOfMemoryError) and "tried to allocate" not in str(error):
                raise
            height, width = images[0].shape[-2:]
            raise OutOfMemory(
                f"not enough memory on {self.device} for a tile of {height} x {width} pixels", "use a smaller --tile"
            ) from error
        return result
