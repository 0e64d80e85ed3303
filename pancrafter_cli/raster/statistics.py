"""Scene-wide numbers, measured once from a bounded and repeatable part of the scene."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import RasterError
from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN
from pancrafter_cli.geometry.inputs import COARSE, FINE, detail, gain_beyond
from pancrafter_cli.geometry.normalisation import Normalisation, fit_normalisation
from pancrafter_cli.raster.measurable import MOST_WINDOWS, WINDOW, Measurable, measuring_windows, pan_under
from pancrafter_cli.raster.mtf import measure_mtf
from pancrafter_cli.raster.windows import Window

FloatArray = NDArray[np.float64]

MtfSource = Literal["given", "measured", "assumed"]

_MOST_SAMPLES = 4_000_000  # for percentiles


@dataclass(frozen=True)
class SceneStatistics:
    """What networks and classical methods need to know of the whole scene; all in DN.

    `normalisation` is the unit that networks see; `gain` and `offset` (C,) match PAN to the bands, mpan_b =
    gain_b * pan + offset_b: the detail of MS regressed on that of PAN degraded to the MS grid, see `gain_beyond`, and
    equal means; `ms_mean` is (C,); `valid_fraction` is the share of output pixels that are valid in some band.
    `ms_mtf`: what the blur that takes PAN to MS leaves at the MS Nyquist frequency, as was "given", "measured", or
    "assumed" where too little is common to both to tell.
    """

    normalisation: Normalisation
    gain: FloatArray
    offset: FloatArray
    ms_mean: FloatArray
    pan_mean: float
    valid_fraction: float
    ms_mtf: float
    ms_mtf_source: MtfSource

    @property
    def scale(self) -> float:
        """What the brightest bands are divided by: the 99th percentile of |MS| in most scenes."""
        return float(self.normalisation.scale.max())

    @property
    def of_pan(self) -> Normalisation:
        """The unit of PAN that is not matched to the bands."""
        return self.normalisation.for_pan(self.pan_mean, self.ms_mean)


class _Sums:
    """Running sums over the windows, from which the statistics follow."""

    def __init__(self, bands: int, keep_every: int) -> None:
        self.keep_every = keep_every
        self.samples: list[list[NDArray[np.float32]]] = [[] for _ in range(bands)]
        self.ms_count, self.ms_sum = np.zeros(bands), np.zeros(bands)
        # Of the pairs: count, sums of PAN and MS less their references, and of the products of coarse and fine detail.
        self.n, self.p, self.m = (np.zeros(bands) for _ in range(3))
        self.pp, self.pm = np.zeros((2, bands)), np.zeros((2, bands))
        self.reference: tuple[float, FloatArray] | None = None
        self.pixels, self.valid_pixels = 0, 0

    def add_ms(self, ms: FloatArray, valid: NDArray[np.bool_]) -> None:
        """MS samples (C, h, w)."""
        for kept, band, known in zip(self.samples, ms, valid, strict=True):
            kept.append(band[known].astype(np.float32)[:: self.keep_every])
        self.ms_count += valid.sum(axis=(1, 2))
        self.ms_sum += (ms * valid).sum(axis=(1, 2))

    def add_pairs(self, pan: FloatArray, ms: FloatArray, use: NDArray[np.bool_]) -> None:
        """PAN on the MS grid (1, h, w), MS (C, h, w) and which of them count (C, h, w)."""
        if not use.any():
            return
        if self.reference is None:  # sums about a near mean keep their digits
            self.reference = float(pan[0][use.any(axis=0)].mean()), self.ms_sum / np.maximum(self.ms_count, 1)
        p = (pan - self.reference[0]) * use
        m = (ms - self.reference[1][:, None, None]) * use
        for total, values in ((self.n, use), (self.p, p), (self.m, m)):
            total += values.sum(axis=(1, 2))
        for kind, sigma in enumerate((COARSE, FINE)):
            of_p, of_m = detail(p, use, sigma), detail(m, use, sigma)
            self.pp[kind] += (of_p * of_p).sum(axis=(1, 2))
            self.pm[kind] += (of_p * of_m).sum(axis=(1, 2))

    def matching(self) -> tuple[FloatArray, FloatArray, float]:
        """(gain, offset, mean of PAN); a PAN that is constant gets gain 0 and the band's mean."""
        ms_mean = self.ms_sum / np.maximum(self.ms_count, 1)
        if self.reference is None:
            return np.zeros_like(ms_mean), ms_mean, 0.0
        n = np.maximum(self.n, 1)
        p, m = self.p / n, self.m / n
        variance = self.pp / n
        pan_mean = self.reference[0] + p
        flat = (variance <= 1e-10 * (pan_mean**2 + variance) + 1e-30).any(axis=0)
        gain = gain_beyond(*np.where(flat, 0.0, self.pm / n / np.where(flat, 1.0, variance)))
        offset = np.where(self.n > 0, self.reference[1] + m, ms_mean) - gain * pan_mean
        return gain, offset, float(self.reference[0] + self.p.sum() / max(self.n.sum(), 1))


def measure(scene: Measurable, ms_mtf: float | None = None) -> SceneStatistics:
    """Statistics of a scene from at most 100 windows of 64 MS pixels, spread evenly over the overlap.

    ms_mtf: where it is known; else it is measured.

    Should all of those be invalid, the whole scene is searched for ones that are not. Raises RasterError
    when there is no pixel that is valid in both PAN and MS.
    """
    sums = _Sums(scene.bands, max(1, MOST_WINDOWS * WINDOW * WINDOW * scene.bands // _MOST_SAMPLES))
    spread, others = measuring_windows(scene)
    useful = [window for window in spread if _add_window(scene, window, sums)]
    if not useful:
        useful = list(islice((window for window in others if _add_window(scene, window, sums)), MOST_WINDOWS))
    if not useful:
        raise RasterError(
            "no pixel is valid in both PAN and MS",
            "check the nodata values and masks of both (gdalinfo -stats shows them)",
        )
    source: MtfSource = "given"
    if ms_mtf is None:
        ms_mtf = measure_mtf(scene, useful)
        source = "measured"
    gain, source = (DEFAULT_MS_GAIN, "assumed") if ms_mtf is None else (ms_mtf, source)
    for window in useful:
        ms, ms_valid = scene.read_ms(*window)
        pan, supported = pan_under(scene, window, gain).on_ms(gain)
        sums.add_pairs(pan, ms.astype(np.float64), ms_valid & supported)
    normalisation = fit_normalisation([np.concatenate(kept) for kept in sums.samples])
    slope, offset, pan_mean = sums.matching()
    ms_mean = sums.ms_sum / np.maximum(sums.ms_count, 1)
    share = sums.valid_pixels / sums.pixels
    return SceneStatistics(normalisation, slope, offset, ms_mean, pan_mean, share, gain, source)


def _add_window(scene: Measurable, window: Window, sums: _Sums) -> bool:
    """Add a window of MS pixels; tells whether any output pixel in it is valid."""
    over = scene.window_over(*window)
    area = over[2] * over[3]
    sums.pixels += area
    stored, ms_valid = scene.read_ms(*window)
    if not area or not ms_valid.any():
        return False
    valid = int(scene.valid(*over).any(axis=0).sum())
    sums.valid_pixels += valid
    if not valid:
        return False
    sums.add_ms(stored.astype(np.float64), ms_valid)
    return True
