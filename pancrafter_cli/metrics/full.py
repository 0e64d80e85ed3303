"""Full-resolution indices: a fused image against the MS and PAN it was made of, without a truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import MetricError
from pancrafter_cli.metrics.hypercomplex import q2n_of_blocks
from pancrafter_cli.metrics.lowpass import Geometry, fill_reach, lowpass, lowpass_radius
from pancrafter_cli.metrics.uqi import block_uqi, blocks_of, full_blocks, no_valid_block
from pancrafter_cli.metrics.windows import (
    BLOCK,
    TILE,
    FloatArray,
    Mask,
    Part,
    Read,
    Shape,
    array_reader,
    common_shape,
    need_side,
    parts,
    read_image,
    read_mask,
)


@dataclass(frozen=True)
class FullScores:
    """Indices of a fused image without a truth; 0 is perfect for the distortions, 1 for hqnr and qnr.

    d_lambda_k (Khan et al. 2009): 1 - Q2n of lms and the low-passed fused image. d_s (Alparone et al. 2008): mean
    over bands of |UQI(fused, PAN) - UQI(lms, low-passed PAN)|. hqnr = (1 - d_lambda_k) (1 - d_s). d_lambda: that of
    QNR, mean over band pairs of |UQI of the fused pair - UQI of the lms pair|; qnr = (1 - d_lambda) (1 - d_s).

    blocks: complete 32 x 32 blocks that are valid throughout; flat_spatial, flat_spectral: those of them that d_s
    and d_lambda left out because a UQI is 0 / 0 there (constant images). spectral_map: 1 - Q2n of each block,
    spatial_map: |UQI(fused, PAN) - UQI(lms, low-passed PAN)| of each block, mean over bands; NaN where left out.
    """

    d_lambda_k: float
    d_s: float
    hqnr: float
    d_lambda: float
    qnr: float
    blocks: int
    flat_spatial: int
    flat_spectral: int
    spectral_map: FloatArray = field(repr=False, compare=False)
    spatial_map: FloatArray = field(repr=False, compare=False)


def score_full(
    read_fused: Read,
    read_lms: Read,
    read_pan: Read,
    read_pan_low: Read,
    read_valid: Read | None,
    shape: Shape,
    ratio: float,
    gains: Sequence[float],
    *,
    geometry: Geometry = "area",
    tile: int = TILE,
) -> FullScores:
    """Score a fused image on the PAN grid of `shape` (rows, columns), reading windows of about `tile` pixels.

    fused, lms (C, h, w), pan, pan_low (1, h, w), all in DN; pan_low is PAN brought to MS resolution and back as
    lms was brought. `read_valid` reads the mask (h, w); None: all pixels count. `gains` (C,): MTF at the MS Nyquist
    frequency. `geometry` is that of lms and pan_low and sets the low-pass of the fused image (see `lowpass`).
    Blocks are counted from the upper left; those cut by the right and bottom border or not valid throughout are
    left out. Raises MetricError when no block is left, band counts disagree, or a valid pixel is NaN.
    """
    need_side(shape, BLOCK, "a block of D_lambda and D_S")
    inner = (shape[0] // BLOCK * BLOCK, shape[1] // BLOCK * BLOCK)
    radius = lowpass_radius(ratio, gains, geometry)
    sums = _Sums(inner)
    for part in parts(inner, tile, radius + fill_reach(radius), shape):
        mask = read_mask(read_valid, part.read_rows, part.read_cols)
        good = full_blocks(mask[part.core])
        if not good.any():
            continue
        fused = read_image(read_fused, "fused image", mask, part.read_rows, part.read_cols)
        core = mask[part.core], part.rows, part.cols
        lms = read_image(read_lms, "MS on the PAN grid", *core)
        pans = read_image(read_pan, "PAN", *core), read_image(read_pan_low, "low-passed PAN", *core)
        _check_bands(len(fused), len(lms), len(gains), *(len(pan) for pan in pans))
        low = lowpass(fused, mask, part, ratio, gains, geometry)
        chosen = good.ravel()
        high_blocks = blocks_of(np.concatenate([fused[:, *part.core], pans[0]]))[chosen]
        low_blocks = blocks_of(np.concatenate([lms, pans[1]]))[chosen]
        spectral = q2n_of_blocks(low_blocks[:, :-1], blocks_of(low)[chosen])
        sums.add(part, good, spectral, block_uqi(high_blocks), block_uqi(low_blocks))
    return sums.scores()


def full_scores(
    fused: NDArray[Any],
    lms: NDArray[Any],
    pan: NDArray[Any],
    pan_low: NDArray[Any],
    ratio: float,
    gains: Sequence[float],
    valid: Mask | None = None,
    *,
    geometry: Geometry = "area",
) -> FullScores:
    """`score_full` of arrays (C, H, W), PAN (1, H, W), and a mask (H, W)."""
    images = {"fused image": fused, "MS on the PAN grid": lms, "PAN": pan, "low-passed PAN": pan_low}
    shape = common_shape(images, valid)
    masks = None if valid is None else array_reader(valid)
    return score_full(
        array_reader(fused),
        array_reader(lms),
        array_reader(pan),
        array_reader(pan_low),
        masks,
        shape,
        ratio,
        gains,
        geometry=geometry,
    )


class _Sums:
    """What the windows have added up to: sums over blocks, and the maps."""

    def __init__(self, shape: Shape) -> None:
        self._spectral_map = np.full((shape[0] // BLOCK, shape[1] // BLOCK), np.nan)
        self._spatial_map = self._spectral_map.copy()
        self._spectral = 0.0
        self._blocks = self._spatial_blocks = self._pair_blocks = 0
        self._high_pan: FloatArray | float = 0.0
        self._low_pan: FloatArray | float = 0.0
        self._pairs: FloatArray | float = 0.0

    def add(self, part: Part, good: Mask, spectral: FloatArray, high: FloatArray, low: FloatArray) -> None:
        """Q2n (n,) and UQI (n, C + 1, C + 1; PAN last) of the n good blocks of a part, at PAN and MS resolution."""
        high_pan, low_pan = high[:, :-1, -1], low[:, :-1, -1]
        spatial = np.abs(high_pan - low_pan).mean(axis=1)
        defined = np.isfinite(spatial)
        self._high_pan = self._high_pan + high_pan[defined].sum(axis=0)
        self._low_pan = self._low_pan + low_pan[defined].sum(axis=0)
        self._spatial_blocks += int(defined.sum())
        first, second = np.triu_indices(high_pan.shape[1], k=1)
        pairs = high[:, first, second] - low[:, first, second]
        kept = pairs[np.isfinite(pairs).all(axis=1)]
        self._pairs = self._pairs + kept.sum(axis=0)
        self._pair_blocks += len(kept)
        self._spectral += float(spectral.sum())
        self._blocks += len(spectral)
        where = tuple(slice(start // BLOCK, stop // BLOCK) for start, stop in (part.rows, part.cols))
        self._spectral_map[where][good] = 1 - spectral
        self._spatial_map[where][good] = spatial

    def scores(self) -> FullScores:
        """The indices of all blocks. Raises MetricError when there are none, or all are constant."""
        if self._blocks == 0:
            raise no_valid_block("D_lambda and D_S")
        if self._spatial_blocks == 0 or self._pair_blocks == 0:
            raise MetricError(
                f"all {self._blocks} valid blocks are constant in some band or PAN: D_S and D_lambda are 0 / 0",
                "check that the images hold data, and that no band is empty",
            )
        d_lambda_k = 1 - self._spectral / self._blocks
        d_s = float(np.abs(np.asarray(self._high_pan) - self._low_pan).mean()) / self._spatial_blocks
        pairs = np.abs(np.asarray(self._pairs)) / self._pair_blocks
        d_lambda = float(pairs.mean()) if pairs.size else 0.0  # a single band has no spectrum to distort
        return FullScores(
            d_lambda_k=d_lambda_k,
            d_s=d_s,
            hqnr=(1 - d_lambda_k) * (1 - d_s),
            d_lambda=d_lambda,
            qnr=(1 - d_lambda) * (1 - d_s),
            blocks=self._blocks,
            flat_spatial=self._blocks - self._spatial_blocks,
            flat_spectral=self._blocks - self._pair_blocks,
            spectral_map=self._spectral_map,
            spatial_map=self._spatial_map,
        )


def _check_bands(fused: int, lms: int, gains: int, pan: int, pan_low: int) -> None:
    """Raises MetricError when band counts disagree."""
    if not (fused == lms == gains and pan == pan_low == 1):
        raise MetricError(
            f"the fused image has {fused} bands, MS {lms}, the MTF gains {gains}, PAN {pan}, low-passed PAN {pan_low}",
            "the first three must agree, and PAN has one band",
        )
