"""The one error tree: every failure a user can cause or meet, with a message and a hint."""

from __future__ import annotations


class PancrafterError(Exception):
    """Root of all expected failures: says what was found and, in `hint`, what to do about it.

    `exit_code` is 1 for data (files, rasters, weights, devices) and 2 for usage (flags, arguments).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PancrafterError):
    """The command was asked for something that cannot be: a flag, a name or a combination."""

    exit_code = 2


class RasterError(PancrafterError):
    """A raster cannot be read, or is not what its place in the scene requires."""


class NoProduct(RasterError):  # noqa: N818 - of a folder that may be meant for something else
    """A folder holds no PAN and MS that belong together."""


class GeometryError(PancrafterError):
    """PAN and MS cannot be brought onto one grid."""


class OutputError(PancrafterError):
    """The result cannot be written where it was asked for."""


class ModelError(PancrafterError):
    """A model is missing, damaged, or does not fit the scene."""


class DeviceError(PancrafterError):
    """The requested device or precision is not available here, or ran out of memory."""


class OutOfMemory(DeviceError):  # noqa: N818 - a state, as in torch
    """A tile does not fit the memory of the device."""


class InstallError(PancrafterError):
    """A library that this task needs is not installed, or cannot be loaded."""


class ClusterError(PancrafterError):
    """The Dask cluster cannot be reached, or its workers cannot run this version."""


class TrainingError(PancrafterError):
    """Training cannot start, cannot go on, or cannot be resumed."""


class NotFinite(TrainingError):  # noqa: N818 - of a loss
    """A loss or its gradient is not a finite number."""


class MetricError(PancrafterError):
    """A quality index has no value for these images."""
