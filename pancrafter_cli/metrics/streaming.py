"""All reduced-resolution indices of a raster of any size, read once, window by window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pancrafter_cli.errors import MetricError
from pancrafter_cli.metrics.hypercomplex import Q2n
from pancrafter_cli.metrics.reduced import Ergas, Psnr, Sam, Scc, Ssim
from pancrafter_cli.metrics.uqi import SlidingUqi
from pancrafter_cli.metrics.windows import (
    BLOCK,
    TILE,
    Index,
    Mask,
    Read,
    Shape,
    accumulate,
    array_reader,
    common_shape,
    need_side,
    no_valid_pixel,
    parts,
    read_image,
    read_mask,
)


@dataclass(frozen=True)
class ReducedScores:
    """Indices of a fused image against the truth.

    sam: degrees, 0 is perfect; ergas: 0 is perfect; scc, q, q2n, ssim: 1 is perfect; psnr: dB, infinite when
    equal; peak: the DN that psnr and ssim were computed with.
    """

    sam: float
    ergas: float
    scc: float
    q: float
    q2n: float
    psnr: float
    ssim: float
    peak: float


def score_reduced(
    read_truth: Read,
    read_fused: Read,
    read_valid: Read | None,
    shape: Shape,
    ratio: float,
    *,
    peak: float | None = None,
    expected_peak: float | None = None,
    cut: int = 0,
    tile: int = TILE,
) -> ReducedScores:
    """Score a fused image against the truth, both (C, *shape) in DN and read in windows of about `tile` pixels.

    `read_valid` reads the mask (h, w); None: all pixels count. `peak`: the greatest DN possible (2047 for 11 bits);
    None: `expected_peak`, unless that is None or the truth exceeds it; then the greatest valid DN of the truth, which
    is looked for in a pass of its own. `cut`: rows and columns cut - 1 to
    n - cut - 1 (from 0, inclusive) are kept, as in the research toolboxes with 21. Raises MetricError when an
    index has no value: see each of them.
    """
    top, inner = _cut(shape, cut)
    if cut and min(inner) < BLOCK:
        raise MetricError(
            f"{shape[0]} x {shape[1]} pixels less a border of {cut} are too few for Q and Q2n, which need "
            f"{BLOCK} x {BLOCK}",
            "leave out a smaller border with --cut, or compare a larger part of the scene",
        )
    need_side(inner, BLOCK, "Q and Q2n")
    truth, fused = _moved(read_truth, top), _moved(read_fused, top)
    valid = None if read_valid is None else _moved(read_valid, top)
    if peak is None:
        found = greatest(truth, valid, inner, tile)
        peak = found if expected_peak is None else max(found, expected_peak)
    indices: dict[str, Index] = {
        "sam": Sam(),
        "ergas": Ergas(ratio),
        "scc": Scc(),
        "q": SlidingUqi(),
        "q2n": Q2n(),
        "psnr": Psnr(peak),
        "ssim": Ssim(peak),
    }
    accumulate([*indices.values()], truth, fused, valid, inner, tile)
    return ReducedScores(**{name: index.value() for name, index in indices.items()}, peak=peak)


def reduced_scores(
    truth: NDArray[Any],
    fused: NDArray[Any],
    ratio: float,
    valid: Mask | None = None,
    *,
    peak: float | None = None,
    cut: int = 0,
) -> ReducedScores:
    """`score_reduced` of two arrays (C, H, W) in DN and a mask (H, W)."""
    shape = common_shape({"truth": truth, "fused image": fused}, valid)
    masks = None if valid is None else array_reader(valid)
    return score_reduced(array_reader(truth), array_reader(fused), masks, shape, ratio, peak=peak, cut=cut)


def greatest(read: Read, valid: Read | None, shape: Shape, tile: int = TILE) -> float:
    """The greatest valid value of an image, in DN. Raises MetricError when it is not above 0."""
    peak = -math.inf
    for part in parts(shape, tile, 0):
        mask = read_mask(valid, part.rows, part.cols)
        if mask.any():
            peak = max(peak, float(read_image(read, "truth", mask, part.rows, part.cols)[:, mask].max()))
    if peak == -math.inf:
        raise no_valid_pixel()
    if peak <= 0:
        raise MetricError(f"the truth is nowhere above {peak:g} DN: PSNR and SSIM need a peak", "give the peak in DN")
    return peak


def _cut(shape: Shape, cut: int) -> tuple[int, Shape]:
    """The first row and column kept, and the shape of what is kept."""
    if cut == 0:
        return 0, shape
    return cut - 1, (shape[0] - 2 * cut + 1, shape[1] - 2 * cut + 1)


def _moved(read: Read, by: int) -> Read:
    """The same raster seen from row `by`, column `by` on."""
    return lambda rows, cols: read((rows[0] + by, rows[1] + by), (cols[0] + by, cols[1] + by))
