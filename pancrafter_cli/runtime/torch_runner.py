"""Running a model with PyTorch."""

from __future__ import annotations

from typing import Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from pancrafter_cli.errors import DeviceError, OutOfMemory, UsageError
from pancrafter_cli.geometry.inputs import NetworkInputs
from pancrafter_cli.networks.config import receptive_radius
from pancrafter_cli.networks.inference import prepared
from pancrafter_cli.runtime.cpu import multiplies_bf16, use_usable_cores
from pancrafter_cli.runtime.groups import sharpen_groups
from pancrafter_cli.zoo import Model

Float32 = NDArray[np.float32]
Precision = Literal["auto", "fp32", "bf16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# How far bf16 may be off fp32, in shares of the scale, and at which percentile of the pixels.
_AGREEMENT, _PERCENTILE = 0.002, 99.9


def why_not_bf16(device: torch.device) -> str:
    """What speaks against computing in bfloat16 on a device; "" where it has units for it."""
    if device.type == "cpu" and not multiplies_bf16():
        return "this processor has neither AVX512-BF16 nor AMX"
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU has no units for bf16"
    return ""


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
    """A model on a device: tiles in, sharpened tiles out, MARs mode fixed to MS.

    precision: what it computes in, "fp32" or "bf16"; reason: why, where "auto" was asked for, which is fp32 until
    `checked` has seen bf16 agree with it.
    """

    runtime = "torch"
    onnx_sha256: str | None = None

    def __init__(self, model: Model, device: torch.device, precision: Precision = "auto", reason: str = "") -> None:
        if precision not in get_args(Precision):
            raise UsageError(f"unknown precision '{precision}'", f"use {', '.join(get_args(Precision))}")
        self.device = device
        self.model, self._auto = model, precision == "auto"
        self.precision: str = precision
        self.reason = reason
        if self._auto:
            self.precision, self.reason = "fp32", "not compared with bf16"
        if device.type == "cpu":
            use_usable_cores()
            self.network: torch.nn.Module = prepared(model.network, DTYPES[self.precision])
        else:
            self.network = model.network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        if device.type == "cuda" and self.precision == "fp32":
            torch.backends.cudnn.allow_tf32 = False  # or convolutions would quietly keep 10 bits of 23
        self.spec, self.sha256 = model.spec, model.sha256
        self.radius = receptive_radius(model.spec.config)
        self.matched = model.spec.config.pan == "matched"

    @property
    def undecided(self) -> bool:
        """Whether the precision is still to be decided, by `checked`."""
        return self._auto

    def checked(self, images: NetworkInputs) -> Self:
        """The runner to use for a scene of which these are a tile's inputs, as for `sharpen`.

        Where precision was left to choose: in bf16 if the device has units for it and the tile comes out as in fp32,
        to 0.2 % of the scale at the 99.9th percentile; else in fp32, and `reason` says why.
        """
        if not self.undecided:
            return self
        slow = why_not_bf16(self.device)
        if slow:
            return self._as("fp32", slow)
        fast = self._as("bf16", "")
        difference = np.abs(fast.sharpen(images) - self.sharpen(images))
        off = float(np.percentile(difference, _PERCENTILE))
        found = f"bf16 is {100 * off:.2g} % of the scale off fp32 at the {_PERCENTILE}th percentile of a tile"
        return self._as("bf16" if off < _AGREEMENT else "fp32", found)

    def _as(self, precision: Precision, reason: str) -> Self:
        return type(self)(self.model, self.device, precision, reason)

    def sharpen(self, images: NetworkInputs) -> Float32:
        """Images of any bands C, normalised; returns (C, H, W). Raises OutOfMemory when memory runs out."""
        return sharpen_groups(self._run, self.spec.config, images)

    @torch.inference_mode()
    def _run(self, images: NetworkInputs) -> Float32:
        seen = (getattr(images, name) for name in self.spec.config.images)
        tensors = [torch.from_numpy(image).unsqueeze(0).to(self.device) for image in seen]
        try:
            result: Float32 = self._network_of(tensors)[0].float().cpu().numpy()
        except RuntimeError as error:
            # On a CPU the allocator raises a plain RuntimeError.
            if not isinstance(error, torch.OutOfMemoryError) and "tried to allocate" not in str(error):
                raise
            height, width = images.lms.shape[-2:]
            raise OutOfMemory(
                f"not enough memory on {self.device} for a tile of {height} x {width} pixels", "use a smaller --tile"
            ) from error
        return result

    def _network_of(self, images: list[torch.Tensor]) -> torch.Tensor:
        if self.device.type == "cpu":
            return self.network(*images)  # type: ignore[no-any-return]
        images = [image.contiguous(memory_format=torch.channels_last) for image in images]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.network(*images, mode="ms")  # type: ignore[no-any-return]
