"""Training patches from files in PanCollection's layout: gt, ms, lms and pan, each (N, C, H, W), in one h5 file.

Truth is `gt`, PAN is `pan`; `ms` and `lms` are not read, for every sample degrades its truth itself. This also mends
QuickBird's training file, in two thirds of whose patches MS lies one pixel off: the patches were flipped before MS
was decimated, so that it holds other samples than those of its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.data.sources import Matching, Source, measure_matching
from pancrafter_cli.errors import RasterError

Float32 = NDArray[np.float32]

KIND = "patches"
_MEASURED = 64  # patches, spread over the file, that scale and band matching are measured on
_REMEDY = "expected the sets gt (N, C, H, W), ms (N, C, h, w) and pan (N, 1, H, W), as PanCollection has them"


@dataclass(frozen=True)
class PatchFile:
    """The patches of one file, read one at a time; scale and matching are those of the whole file."""

    path: Path
    count: int
    shape: tuple[int, int, int]
    ratio: float
    scale: np.float32
    matching: Matching

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def kind(self) -> str:
        """Kind of source."""
        return KIND

    @property
    def pixels(self) -> int:
        """Pixels of all patches."""
        return self.count * self.shape[1] * self.shape[2]

    def image(self, index: int) -> Source:
        """One patch, normalised. Raises RasterError when it cannot be read or holds what is no number."""
        truth, pan = _read(self.path, index)
        truth, pan = truth / self.scale, pan / self.scale
        pans = np.concatenate([pan, pan])
        return Source(f"{self.name}[{index}]", KIND, truth, pans, self.matching, self.ratio)


def open_patches(path: Path) -> PatchFile:
    """The patches of an h5 file, whose matching is measured on some of them. Raises RasterError for any other file."""
    count, shape, ratio = _layout(path)
    places = np.unique(np.linspace(0, count - 1, min(count, _MEASURED)).round().astype(int))
    truths, pans = [], []
    for place in places:
        truth, pan = _read(path, int(place))
        truths.append(truth)
        pans.append(pan[0])
    truth, pan = np.stack(truths, axis=1), np.stack(pans)
    scale = np.float32(np.percentile(np.abs(truth), 99))
    if not scale > 0:
        raise RasterError(f"{path}: gt is 0 everywhere", "this is no image")
    return PatchFile(path, count, shape, ratio, scale, measure_matching(truth / scale, pan / scale))


def _layout(path: Path) -> tuple[int, tuple[int, int, int], float]:
    """Number of patches, their shape (C, H, W) and the ratio."""
    try:
        with h5py.File(path, "r") as file:
            shapes = {name: tuple(file[name].shape) for name in ("gt", "ms", "pan") if name in file}
    except OSError as error:
        raise RasterError(f"{path}: not a readable h5 file ({error})", _REMEDY) from error
    gt, ms, pan = (shapes.get(name, ()) for name in ("gt", "ms", "pan"))
    fits = (
        (len(gt), len(ms), len(pan)) == (4, 4, 4)
        and pan == (gt[0], 1, *gt[2:])
        and ms[:2] == gt[:2]
        and min(*gt, *ms) > 0
        and gt[2] / ms[2] == gt[3] / ms[3]
    )
    if not fits:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none of them"
        raise RasterError(f"{path}: found {found}", _REMEDY)
    return gt[0], (gt[1], gt[2], gt[3]), gt[2] / ms[2]


def _read(path: Path, index: int) -> tuple[Float32, Float32]:
    """Truth (C, H, W) and PAN (1, H, W) of one patch, in DN."""
    try:
        with h5py.File(path, "r") as file:
            truth, pan = (np.asarray(file[name][index], np.float32) for name in ("gt", "pan"))
    except (OSError, KeyError, RuntimeError) as error:
        raise RasterError(f"{path}: patch {index} cannot be read ({error})", "get the file again") from error
    if not (np.isfinite(truth).all() and np.isfinite(pan).all()):
        raise RasterError(f"{path}: patch {index} holds values that are no numbers", "get the file again")
    return truth, pan
