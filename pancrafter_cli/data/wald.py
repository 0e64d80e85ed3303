"""Pairs with a known truth for evaluation: Wald's protocol on a raw scene, a scene's own reference, or an h5 file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from pancrafter_cli.errors import RasterError, UsageError
from pancrafter_cli.geometry.degrade import degrade_weights
from pancrafter_cli.geometry.fill import fill_invalid
from pancrafter_cli.geometry.grid import AxisMap, overlap
from pancrafter_cli.geometry.resample import apply_weights, cubic_weights, known_only
from pancrafter_cli.raster.arrays import read_array, write_array
from pancrafter_cli.raster.inputs import Nodata, open_raster
from pancrafter_cli.raster.products import ProductFiles
from pancrafter_cli.raster.scene import Scene

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

_H5_SETS = ("ms", "lms", "pan")
_H5_REMEDY = "expected the sets ms, lms, pan and perhaps gt, each (N, C, H, W), as PanCollection has them"
NODATA = -9999.0


@dataclass(frozen=True)
class Pair:
    """PAN and MS with what a perfect sharpener would make of them, in DN.

    pan: (1, H, W); ms: (C, h, w); truth: (C, H, W), or None; valid: (H, W); ms_valid: (h, w). The upper left corner
    of MS lies `origin` PAN pixels right of and below that of PAN: 0, or 0.5 where sample k lies at 4k + 2.
    """

    name: str
    pan: Float32
    ms: Float32
    truth: Float32 | None
    valid: Mask
    ms_valid: Mask
    ratio: int
    origin: float = 0.0


def reduce_scene(scene: Scene, name: str, gains: Sequence[float], size: int) -> Pair:
    """Wald's protocol (Wald et al. 1997): MS is the truth, PAN is brought to its grid, MS is degraded by the ratio.

    gains (C,): MTF at the MS Nyquist frequency. The middle `size` MS pixels of a larger scene are taken. Raises
    RasterError when less than a block of 32 MS pixels is left.
    """
    ratio = max(2, round(scene.ratio))
    to_pan = scene.ms_map.inverse()
    rows, cols = (_middle(overlap(axis), size, ratio) for axis in (to_pan.rows, to_pan.cols))
    truth, truth_valid = scene.read_ms(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
    # Antialiased cubic, as the research toolboxes bring PAN down.
    down = cubic_weights(to_pan.rows, *rows), cubic_weights(to_pan.cols, *cols)
    y, x = ((weights.first, weights.stop) for weights in down)
    full_pan, pan_valid = scene.read_pan(y[0], x[0], y[1] - y[0], x[1] - x[0])
    filled = fill_invalid(full_pan, pan_valid, np.array([scene.statistics.pan_mean]))
    pan = apply_weights(down[0].matrix, down[1].matrix, filled)
    valid = truth_valid.all(axis=0) & known_only(down[0].matrix, down[1].matrix, pan_valid[0])
    truth = fill_invalid(truth, truth_valid, scene.statistics.ms_mean)
    return _degraded(name, pan, truth, valid, gains, ratio)


def referenced_pair(name: str, product: ProductFiles, gains: Sequence[float], nodata: Nodata | None = None) -> Pair:
    """The pair of a scene with a reference, its MS made from that, pixels being areas.

    Of MS only size and number of bands are used. nodata: as of `SceneOptions`, of PAN and of the reference. Raises
    RasterError when the three do not fit, UsageError when their ratio is not 2 or 4.
    """
    if product.reference is None:
        raise ValueError(f"{name} has no reference")
    pan, truth = read_array(product.pan, nodata), read_array(product.reference, nodata)
    ms = _shape_of(product.ms)
    if len(truth) != ms[0]:
        raise RasterError(
            f"{product.reference}: has {len(truth)} bands, but MS has {ms[0]}",
            f"{product.reference.name} has the bands of MS, in their order",
        )
    if pan.shape[1:] != truth.shape[1:]:
        raise RasterError(
            f"{product.reference}: {truth.shape[1:]} rows and columns, but PAN has {pan.shape[1:]}",
            f"{product.reference.name} lies on the PAN grid",
        )
    ratio = _ratio_of(product.pan.parent, pan.shape, ms)
    known, pan_known = np.isfinite(truth), np.isfinite(pan)
    valid = known.all(axis=0) & pan_known[0]
    if not valid.any():
        raise RasterError(
            f"{product.reference}: no pixel is valid in it and in PAN", "check the nodata values and masks of both"
        )
    # Zeros in the holes would darken the MS around them.
    truth = fill_invalid(truth, known, truth[:, valid].mean(axis=1))
    return _degraded(name, fill_invalid(pan, pan_known, pan[:, valid].mean(axis=1)), truth, valid, gains, ratio)


def toolbox_pair(name: str, product: ProductFiles) -> Pair:
    """The pair of a scene, with a reference where there is one, whose MS sample k lies at PAN pixel 4k + 2.

    Raises UsageError when its MS is more than one file, RasterError when its files have gaps or do not fit.
    """
    if len(product.ms) > 1:
        raise UsageError(f"{name}: its MS is {len(product.ms)} files", "the toolbox's geometry needs all bands in one")
    truth = None if product.reference is None else read_array(product.reference)
    return _toolbox_pair(name, read_array(product.pan), read_array(product.ms[0]), truth)


def h5_pairs(path: Path, name: str) -> Iterator[Pair]:
    """The pairs of an h5 file as `h5_patches` counts them, in DN, called by the file's `name` and their number.

    Raises RasterError as that does, and for patches with gaps.
    """
    for k in range(h5_patches(path)):
        with _opened_h5(path) as file:
            truth = np.asarray(file["gt"][k], np.float32) if "gt" in file else None
            pan, ms = (np.asarray(file[images][k], np.float32) for images in ("pan", "ms"))
        yield _toolbox_pair(f"{name}-{k:03d}", pan, ms, truth)


def h5_patches(path: Path) -> int:
    """How many patches there are in PanCollection's layout: `ms`, `lms`, `pan`, perhaps `gt`, each (N, C, H, W).

    Raises RasterError when the file is of no such layout, or has none.
    """
    with _opened_h5(path) as file:
        missing = [name for name in _H5_SETS if name not in file]
        if missing:
            found = ", ".join(file) or "nothing"
            raise RasterError(f"{path}: has no set {' and '.join(missing)}; found {found}", _H5_REMEDY)
        shapes = {name: file[name].shape for name in (*_H5_SETS, "gt") if name in file}
    counts = {shape[0] for shape in shapes.values() if len(shape) == 4}
    if any(len(shape) != 4 for shape in shapes.values()) or len(counts) != 1 or 0 in counts:
        raise RasterError(f"{path}: its sets have shapes {shapes}", _H5_REMEDY)
    return int(counts.pop())


@contextmanager
def _opened_h5(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise RasterError(f"{path}: not a readable h5 file ({error})", _H5_REMEDY) from error


def moved(pair: Pair, shift: tuple[float, float], *, with_truth: bool) -> Pair:
    """The pair with PAN moved `shift` (x, y) MS pixels against MS; the truth goes along, or stays with MS.

    What PAN would need from beyond its edge is not valid.
    """
    dx, dy = (s * pair.ratio for s in shift)
    margin = math.ceil(max(abs(dx), abs(dy))) + 2

    def move(image: Float32) -> Float32:
        bands = [ndimage.shift(band, (dy, dx), order=3, mode="nearest") for band in image]
        return np.stack(bands).astype(np.float32)

    valid = ndimage.binary_erosion(pair.valid, np.ones((3, 3), bool), iterations=margin, border_value=0)
    truth = move(pair.truth) if with_truth and pair.truth is not None else pair.truth
    return replace(pair, pan=move(pair.pan), truth=truth, valid=valid)


def write_pair(pair: Pair, folder: Path) -> tuple[Path, Path, Path | None]:
    """The pair as float32 GeoTIFFs on a local grid, -9999 where invalid: (pan, ms, truth or None)."""
    step, places = float(pair.ratio), pair.origin
    pan = _write(folder / "pan.tif", pair.pan, pair.valid, 1.0, 0.0)
    ms = _write(folder / "ms.tif", pair.ms, pair.ms_valid, step, places)
    truth = None if pair.truth is None else _write(folder / "truth.tif", pair.truth, pair.valid, 1.0, 0.0)
    return pan, ms, truth


def _write(path: Path, image: Float32, valid: Mask, step: float, origin: float) -> Path:
    transform = Affine(step, 0, 500_000 + origin, 0, -step, 5_400_000 - origin)
    return write_array(path, image, valid, transform, "EPSG:32631", NODATA)


def _degraded(name: str, pan: Float32, truth: Float32, valid: Mask, gains: Sequence[float], ratio: int) -> Pair:
    h, w = (size // ratio for size in truth.shape[1:])
    cut = np.s_[..., : h * ratio, : w * ratio]
    truth, pan, valid = truth[cut], pan[cut], valid[cut]
    axes = [AxisMap(ratio, 0.0, n, n * ratio) for n in (h, w)]
    bands = []
    for band, gain in zip(truth, gains, strict=True):
        rows, cols = (degrade_weights(axis, 0, axis.dst_size, gain).matrix for axis in axes)
        bands.append(apply_weights(rows, cols, band))
    ms_valid = np.asarray(valid.reshape(h, ratio, w, ratio).all(axis=(1, 3)))
    # Only pixels whose MS is known can be sharpened: all methods are then judged on the same ones.
    valid = valid & np.kron(ms_valid, np.ones((ratio, ratio), bool))
    return Pair(name, pan, np.stack(bands), truth, valid, ms_valid, ratio)


def _toolbox_pair(name: str, pan: Float32, ms: Float32, truth: Float32 | None) -> Pair:
    ratio = _ratio_of(Path(name), pan.shape, ms.shape)
    images = {"PAN": pan, "MS": ms, "the reference": truth}
    gappy = [what for what, image in images.items() if image is not None and not np.isfinite(image).all()]
    if gappy:
        raise RasterError(
            f"{name}: there are pixels without data in {' and '.join(gappy)}",
            "the toolbox's indices know no gaps: cut the scene to a part without, or leave out --geometry toolbox",
        )
    if truth is not None and truth.shape != (len(ms), *pan.shape[1:]):
        raise RasterError(
            f"{name}: the reference has shape {truth.shape}, PAN {pan.shape}, MS {ms.shape}",
            "the reference has the bands of MS and the pixels of PAN",
        )
    valid = np.ones(pan.shape[1:], bool)
    return Pair(name, pan, ms, truth, valid, np.ones(ms.shape[1:], bool), ratio, origin=0.5)


def _shape_of(files: Sequence[Path]) -> tuple[int, int, int]:
    """Bands of all files together, rows and columns."""
    bands = 0
    for path in files:
        with closing(open_raster(path)) as file:
            bands += file.bands
            height, width = file.grid.shape
    return bands, height, width


def _ratio_of(where: Path, pan: tuple[int, ...], ms: tuple[int, ...]) -> int:
    ratios = {p / m for p, m in zip(pan[1:], ms[1:], strict=True)}
    if pan[0] != 1 or len(ratios) != 1 or (ratio := ratios.pop()) not in (2.0, 4.0):
        raise UsageError(
            f"{where}: PAN of shape {pan} over MS of shape {ms}; expected one PAN band, ratio 2 or 4",
            "evaluate it as a scene of its own: pan.tif and ms.tif without gt.tif",
        )
    return int(ratio)


def _middle(span: tuple[int, int], size: int, ratio: int) -> tuple[int, int]:
    """The middle `size` pixels of a span, or all of it; whole multiples of the ratio, the size by rounding up."""
    length = min(span[1] - span[0], -(-size // ratio) * ratio) // ratio * ratio
    if length < 32:
        raise RasterError(
            f"only {length} MS pixels in a row or column lie under PAN, in whole blocks of {ratio}; Wald's protocol "
            "needs at least 32 x 32",
            "evaluate a larger scene, or at full resolution only",
        )
    start = span[0] + (span[1] - span[0] - length) // 2
    return start, start + length
