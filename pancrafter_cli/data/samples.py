"""Drawing training samples: a window of a source, degraded, augmented and turned into network inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.data.sources import MATCH_RATIOS, Source
from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, degrade_reach, degrade_weights
from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.geometry.resample import CUBIC_SUPPORT, apply_weights, cubic_weights

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class SampleOptions:
    """What a sample is and how far it may stray from its source.

    ratios: (low, high) of the degradation where it is random; a sample's MS gain at Nyquist is drawn from
    `ms_gain`, noise up to `noise` of the scale; `pan_shift` is the standard deviation, in MS pixels, of what
    a registration may have left between PAN and MS; `crisp_share` of the samples show the source's crisp PAN
    as it is. `matched` False shows PAN itself, one channel, in place of PAN matched to every band.
    """

    # Whoever builds this from a file is told of names that do not exist.
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    patch: int = 64
    bands: int = 4
    ratios: tuple[float, float] = (1.7, 6.0)
    ms_gain: tuple[float, float] = (0.20, 0.42)
    noise: float = 0.004
    pan_shift: float = 0.03
    crisp_share: float = 0.5
    match_jitter: float = 0.03
    matched: bool = True

    def __post_init__(self) -> None:
        if self.patch < 8 or self.bands < 1:
            raise ValueError("patch must be at least 8 pixels, bands at least 1")
        if not 1.0 < self.ratios[0] <= self.ratios[1] <= 16.0:
            raise ValueError("ratios must be (low, high) between 1 and 16")
        if not 0.0 < self.ms_gain[0] <= self.ms_gain[1] < 1.0:
            raise ValueError("ms_gain must be (low, high) between 0 and 1")
        if min(self.noise, self.pan_shift, self.match_jitter, self.crisp_share, 1 - self.crisp_share) < 0:
            raise ValueError("noise, pan_shift and match_jitter must not be negative, crisp_share between 0 and 1")


@dataclass(frozen=True)
class Sample:
    """Network inputs and target, each (bands, patch, patch), in DN / scale; PAN has one channel when not matched."""

    mpan: Float32
    lms: Float32
    lpan: Float32
    truth: Float32


def draw_ratio(rng: np.random.Generator, source: Source, options: SampleOptions) -> float:
    """Mostly the scene's own ratio, else 2 or 4, else anything between the limits."""
    kind = rng.random()
    if kind < 0.5:
        return source.ratio
    if kind < 0.75:
        return float(rng.choice([2.0, 4.0]))
    return float(rng.uniform(*options.ratios))


def draw_sample(source: Source, rng: np.random.Generator, options: SampleOptions) -> Sample:
    """One augmented sample of `source`, which must be at least as large as a patch."""
    patch = options.patch
    ratio = draw_ratio(rng, source, options)
    margin = math.ceil((CUBIC_SUPPORT + 1) * ratio + degrade_reach(ratio, options.ms_gain[0]))
    (top, y0, y1), (left, x0, x1) = (_window(rng, size, patch, margin) for size in source.truth.shape[1:])
    bands = draw_bands(rng, source.truth.shape[0], options.bands)
    truth = source.truth[bands, y0:y1, x0:x1]
    pan = _draw_pan(rng, source, np.s_[y0:y1, x0:x1], options.crisp_share, options.pan_shift * ratio)

    phase_y, phase_x = -rng.random(2) * ratio
    axes = (
        _Axis.of(ratio, float(phase_y), y1 - y0, top - y0, patch),
        _Axis.of(ratio, float(phase_x), x1 - x0, left - x0, patch),
    )
    gains = np.clip(rng.uniform(*options.ms_gain) + rng.normal(0, 0.03, len(bands)), *options.ms_gain)
    noise = np.float32(rng.uniform(0, options.noise))
    low = np.stack([_degrade(axes, band, float(g)) for band, g in zip(truth, gains, strict=True)])
    low += noise * rng.standard_normal(low.shape, dtype=np.float32)
    pan = pan + noise * rng.standard_normal(pan.shape, dtype=np.float32)
    lms = _raise(axes, low)
    lpan = _raise(axes, _degrade(axes, pan, DEFAULT_MS_GAIN))

    a, c = _match(rng, source, bands, ratio, options.match_jitter)
    if not options.matched:
        a, c = np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)
    centre = np.s_[..., top - y0 : top - y0 + patch, left - x0 : left - x0 + patch]
    sample = Sample(a * pan[centre] + c, lms, a * lpan + c, truth[centre])
    return _augment(rng, sample)


def draw_batch(
    sources: Sequence[Source], weights: NDArray[np.float64], rng: np.random.Generator, size: int, options: SampleOptions
) -> Sample:
    """`size` samples of sources drawn by weight, stacked: every array (size, bands, patch, patch)."""
    picks = rng.choice(len(sources), size=size, p=weights)
    samples = [draw_sample(sources[i], rng, options) for i in picks]
    return Sample(
        *(
            np.stack([getattr(s, field) for s in samples]).astype(np.float32, copy=False)
            for field in ("mpan", "lms", "lpan", "truth")
        )
    )


def draw_bands(rng: np.random.Generator, available: int, wanted: int) -> NDArray[np.int64]:
    """Which bands a sample shows, in random order; sometimes few of them repeated, as a last group is."""
    distinct = min(available, wanted)
    if rng.random() < 0.15:
        distinct = int(rng.integers(1, distinct + 1))
    chosen = rng.permutation(available)[:distinct]
    return np.resize(chosen, wanted)


@dataclass(frozen=True)
class _Axis:
    """One axis of a sample: degrading its window to the coarse grid and raising the patch from it."""

    to_fine: AxisMap
    up: NDArray[np.float64]

    @classmethod
    def of(cls, ratio: float, phase: float, window: int, start: int, patch: int) -> _Axis:
        coarse = math.ceil((window - phase) / ratio)
        to_fine = AxisMap(ratio, phase, coarse, window)
        weights = cubic_weights(to_fine.inverse(), start, start + patch)
        up = np.zeros((patch, coarse))
        up[:, weights.first : weights.stop] = weights.matrix
        return cls(to_fine, up)

    def down(self, gain: float) -> NDArray[np.float64]:
        weights = degrade_weights(self.to_fine, 0, self.to_fine.dst_size, gain)
        full = np.zeros((self.to_fine.dst_size, self.to_fine.src_size))
        full[:, weights.first : weights.stop] = weights.matrix
        return full


def _degrade(axes: tuple[_Axis, _Axis], image: Float32, gain: float) -> Float32:
    return apply_weights(axes[0].down(gain), axes[1].down(gain), image)


def _raise(axes: tuple[_Axis, _Axis], low: Float32) -> Float32:
    return apply_weights(axes[0].up, axes[1].up, low)


def _window(rng: np.random.Generator, size: int, patch: int, margin: int) -> tuple[int, int, int]:
    """Start of a random patch, and the window around it that its inputs draw on, cut at the edges."""
    start = int(rng.integers(0, size - patch + 1))
    return start, max(0, start - margin), min(size, start + patch + margin)


def _draw_pan(
    rng: np.random.Generator, source: Source, part: tuple[slice, slice], crisp_share: float, sigma: float
) -> Float32:
    """A mix of the source's PANs, half the time moved by what registration may leave (sigma in pixels)."""
    mix = np.float32(1.0 if rng.random() < crisp_share else rng.random())
    pan = (1 - mix) * source.pans[0][part] + mix * source.pans[1][part]
    if rng.random() < 0.5:
        dy, dx = np.clip(rng.normal(0, sigma, 2), -3 * sigma, 3 * sigma)
        h, w = pan.shape
        rows_w = cubic_weights(AxisMap(1.0, float(dy), h, h), 0, h)
        cols_w = cubic_weights(AxisMap(1.0, float(dx), w, w), 0, w)
        pan = apply_weights(rows_w.matrix, cols_w.matrix, pan[rows_w.first : rows_w.stop, cols_w.first : cols_w.stop])
    moved: Float32 = pan.astype(np.float32, copy=False)
    return moved


def _match(
    rng: np.random.Generator, source: Source, bands: NDArray[np.int64], ratio: float, jitter: float
) -> tuple[Float32, Float32]:
    """Band matching (bands, 1, 1) interpolated to `ratio`, its gain a little off as from a sample of the scene."""
    a = np.array([np.interp(ratio, MATCH_RATIOS, source.gain[:, b]) for b in bands])
    c = np.array([np.interp(ratio, MATCH_RATIOS, source.offset[:, b]) for b in bands])
    mean = float(source.pans[0].mean())
    factor = 1 + rng.normal(0, jitter, len(bands))
    c = c + a * (1 - factor) * mean  # the matched mean stays where it is
    return ((a * factor)[:, None, None].astype(np.float32), c[:, None, None].astype(np.float32))


def _augment(rng: np.random.Generator, sample: Sample) -> Sample:
    """One of the 8 symmetries, and a gain and an offset for every band, the same for inputs and truth."""
    bands = sample.truth.shape[0]
    common, own = rng.uniform(-0.5, 0.5), rng.uniform(-0.4, 0.4, (bands, 1, 1))
    gain = np.exp(np.asarray(common + own, dtype=np.float32))
    offset = np.asarray(rng.uniform(-0.15, 0.15, (bands, 1, 1)), dtype=np.float32)
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))

    def turn(image: Float32) -> Float32:
        turned = np.rot90(image, turns, axes=(1, 2))
        return turned[:, :, ::-1] if mirrored else turned

    # A PAN that is not matched to the bands has no band of its own to follow.
    matched = len(sample.mpan) == bands
    pan_gain, pan_offset = (gain, offset) if matched else (np.exp(np.float32(common)), np.float32(0))
    return Sample(
        pan_gain * turn(sample.mpan) + pan_offset,
        gain * turn(sample.lms) + offset,
        pan_gain * turn(sample.lpan) + pan_offset,
        gain * turn(sample.truth) + offset,
    )
