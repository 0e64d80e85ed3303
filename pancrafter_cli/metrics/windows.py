"""Walking over two images window by window, so that an index of a raster of any size needs little memory.

An index in one piece is the same code with a single window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import MetricError

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]
Shape = tuple[int, int]
# (first row, one past the last), the same for columns -> (C, h, w), or (h, w) for masks; always inside the raster.
Read = Callable[[tuple[int, int], tuple[int, int]], NDArray[Any]]

BLOCK = 32  # side of the blocks and sliding windows of the UQI family, in pixels
TILE = 512
_FLAT = 1e-13


@dataclass(frozen=True)
class Part:
    """One window of a raster of `shape`: the pixels it answers for and those it may look at, [start, stop) each."""

    rows: tuple[int, int]
    cols: tuple[int, int]
    read_rows: tuple[int, int]
    read_cols: tuple[int, int]
    shape: Shape

    @property
    def core(self) -> tuple[slice, slice]:
        """Where the pixels it answers for lie within the read ones."""
        return self.local(0, 0)

    def local(self, before: int, after: int) -> tuple[slice, slice]:
        """The core and up to `before` pixels above and left of it, `after` below and right, within the read ones."""
        return (
            _local(self.rows, self.read_rows, before, after),
            _local(self.cols, self.read_cols, before, after),
        )


@dataclass(frozen=True)
class Pair:
    """Both images (C, h, w) in DN and the mask (h, w) over the pixels a part reads; 0 where not valid."""

    part: Part
    truth: FloatArray
    fused: FloatArray
    valid: Mask


class Index(Protocol):
    """A quality index that is fed window by window."""

    def add(self, pair: Pair) -> None:
        """Take in one window; every pixel of the raster is in the core of exactly one."""

    def value(self) -> float:
        """The index of everything taken in. Raises MetricError when it has no value."""


def parts(shape: Shape, tile: int, halo: int, raster: Shape | None = None) -> Iterator[Part]:
    """Windows whose cores partition `shape`, row by row, reading up to `halo` more pixels inside `raster`.

    The cores' sides are `tile` rounded up to whole blocks. `raster` is `shape` unless given; it may be larger.
    """
    step = -(-max(tile, 1) // BLOCK) * BLOCK
    height, width = raster or shape
    for top in range(0, shape[0], step):
        rows = (top, min(top + step, shape[0]))
        for left in range(0, shape[1], step):
            cols = (left, min(left + step, shape[1]))
            yield Part(rows, cols, _widen(rows, halo, height), _widen(cols, halo, width), (height, width))


def accumulate(
    indices: Sequence[Index], truth: Read, fused: Read, valid: Read | None, shape: Shape, tile: int = TILE
) -> None:
    """Feed all indices with every window of two images of one shape (rows, columns).

    `valid` reads the mask (h, w); None: all pixels are valid. Raises MetricError when band counts or shapes
    disagree, when a valid pixel is NaN or infinite, and when no pixel is valid.
    """
    found = False
    for part in parts(shape, tile, BLOCK):
        window = part.read_rows, part.read_cols
        mask = read_mask(valid, *window)
        if not mask[part.core].any():
            continue
        found = True
        images = read_image(truth, "truth", mask, *window), read_image(fused, "fused image", mask, *window)
        if len(images[0]) != len(images[1]):
            raise MetricError(
                f"the truth has {len(images[0])} bands, the fused image {len(images[1])}",
                "compare images with the same bands in the same order",
            )
        pair = Pair(part, *images, mask)
        for index in indices:
            index.add(pair)
    if not found:
        raise no_valid_pixel()


def whole(index: Index, truth: NDArray[Any], fused: NDArray[Any], valid: Mask | None) -> float:
    """An index of two arrays (C, H, W) and a mask (H, W) in one piece; raises MetricError when they do not fit."""
    shape = common_shape({"truth": truth, "fused image": fused}, valid)
    masks = None if valid is None else array_reader(valid)
    accumulate([index], array_reader(truth), array_reader(fused), masks, shape, max(shape))
    return index.value()


def common_shape(images: dict[str, NDArray[Any]], valid: Mask | None) -> Shape:
    """(rows, columns) of images (C, H, W) and a mask (H, W); raises MetricError when they are not all the same."""
    shapes = {name: image.shape[1:] if image.ndim == 3 else None for name, image in images.items()}
    if valid is not None:
        shapes["mask"] = valid.shape
    if len(set(shapes.values())) != 1 or None in shapes.values():
        found = ", ".join(f"{name} {image.shape}" for name, image in images.items())
        found += "" if valid is None else f", mask {valid.shape}"
        raise MetricError(
            f"the images do not lie on one grid: {found}",
            "give images as (bands, rows, columns) and the mask as (rows, columns), all of one size",
        )
    height, width = next(iter(images.values())).shape[1:]
    return height, width


def array_reader(image: NDArray[Any]) -> Read:
    """Reads windows of an array (..., H, W)."""
    return lambda rows, cols: image[..., slice(*rows), slice(*cols)]


def read_mask(valid: Read | None, rows: tuple[int, int], cols: tuple[int, int]) -> Mask:
    """The mask (h, w) of a window; all true where there is none."""
    expected = (rows[1] - rows[0], cols[1] - cols[0])
    if valid is None:
        return np.ones(expected, dtype=bool)
    mask = np.asarray(valid(rows, cols), dtype=bool)
    if mask.shape != expected:
        raise MetricError(
            f"a mask of {mask.shape} was read where {expected} was expected", "it must be on the PAN grid"
        )
    return mask


def read_image(read: Read, name: str, mask: Mask, rows: tuple[int, int], cols: tuple[int, int]) -> FloatArray:
    """A window (C, h, w) in float64, 0 where not valid; raises MetricError for another shape, NaN or infinity."""
    image = np.asarray(read(rows, cols), dtype=np.float64)
    if image.ndim != 3 or image.shape[1:] != mask.shape:
        raise MetricError(
            f"the {name} was read as {image.shape}, expected (bands, {mask.shape[0]}, {mask.shape[1]})",
            "all images must be on one grid",
        )
    bad = ~np.isfinite(image) & mask
    if bad.any():
        band, row, col = (int(k) for k in np.argwhere(bad)[0])
        raise MetricError(
            f"the {name} has {image[band, row, col]} in a valid pixel: band {band + 1}, row {row + rows[0]}, "
            f"column {col + cols[0]}",
            "mark pixels without data as not valid, with a nodata value or a mask",
        )
    return image if mask.all() else np.where(mask, image, 0.0)


def no_valid_pixel() -> MetricError:
    """The error of an image that is masked altogether."""
    return MetricError("no pixel is valid", "check the nodata value and the mask: they leave nothing to compare")


def need_side(shape: Shape, size: int, what: str) -> None:
    """Raises MetricError when an image of `shape` cannot hold one block or window of `size` pixels per side."""
    if min(shape) < size:
        raise MetricError(
            f"{shape[0]} x {shape[1]} pixels are too few for {what}, which needs {size} x {size}",
            "compare a larger part of the scene",
        )


def is_flat(variance: FloatArray, mean_square: FloatArray) -> Mask:
    """Where a variance is mere rounding: above float32 noise, below one odd DN in a block of 16-bit data."""
    return np.asarray(variance <= _FLAT * mean_square)


def looks_scaled(image: NDArray[Any]) -> bool:
    """Whether an image (..., H, W) said to be in DN holds fractions within 1.5 of 0, as if divided by its scale.

    Q2n rounds to whole DN, and PSNR and SSIM know the peak: such an image gets wrong scores without any sign of it.
    Reflectance of dark surfaces comes out of the atmospheric correction a little below 0.
    """
    known = image[np.isfinite(image)]
    if known.size == 0 or np.abs(known).max() > 1.5:
        return False
    return bool((known != np.round(known)).any())


def _widen(span: tuple[int, int], halo: int, size: int) -> tuple[int, int]:
    return max(0, span[0] - halo), min(size, span[1] + halo)


def _local(span: tuple[int, int], read: tuple[int, int], before: int, after: int) -> slice:
    return slice(max(span[0] - before, read[0]) - read[0], min(span[1] + after, read[1]) - read[0])
