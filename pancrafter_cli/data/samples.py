"""Drawing training samples: a window of a source, degraded, augmented and turned into network inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pancrafter_cli.data.sources import MATCH_RATIOS, Source
from pancrafter_cli.geometry.degrade import degrade_reach, degrade_weights
from pancrafter_cli.geometry.fill import fill_invalid
from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.geometry.inputs import NetworkInputs
from pancrafter_cli.geometry.resample import CUBIC_SUPPORT, apply_weights, cubic_weights

Float32 = NDArray[np.float32]

_LARGEST_HOLE = 8  # MS pixels a side
_USUAL_RATIOS = 2.0, 4.0
_FIELD_KNOT = 32  # pixels between the knots of a smooth displacement
# How PAN's correlation with itself falls off with distance, as a power: measured on the real scenes.
_LIKENESS_POWER = 1.7


@dataclass(frozen=True)
class SampleOptions:
    """What a sample is and how far it may stray from its source.

    ratios: (low, high) of the degradation where it is random; a sample's MS gain at Nyquist is drawn from `ms_gain`,
    and known up to an error of standard deviation `mtf_error`; noise goes up to `noise` of the scale; `pan_shift` is
    the standard deviation, in MS pixels, of what a registration may have left between PAN and MS; `crisp_share` of the
    samples show the source's crisp PAN as it is. In `moved_share` of the samples PAN lies up to `move` MS pixels off
    MS, as without a registration; in `bent_share` it also lies off by a smooth field of up to `bend` MS pixels, as
    parallax leaves it. In `hole_share` MS lacks a few pixels, which are filled as at inference. `own_ratio_share` of
    the samples have the source's own ratio, half of the others 2 or 4. shuffle_bands: whether bands come in random
    order and sometimes repeated; recolour: whether every band gets a random gain and offset. `matched` False shows PAN
    itself, one channel, in place of PAN matched to every band.
    """

    # Whoever builds this from a file is told of names that do not exist.
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    patch: int = 64
    bands: int = 4
    ratios: tuple[float, float] = (1.7, 6.0)
    ms_gain: tuple[float, float] = (0.15, 0.60)
    mtf_error: float = 0.02
    noise: float = 0.004
    pan_shift: float = 0.03
    crisp_share: float = 0.5
    moved_share: float = 0.0
    move: float = 1.5
    bent_share: float = 0.0
    bend: float = 0.5
    hole_share: float = 0.0
    own_ratio_share: float = 0.5
    shuffle_bands: bool = True
    recolour: bool = True
    match_jitter: float = 0.03
    matched: bool = True

    def __post_init__(self) -> None:
        if self.patch < 8 or self.bands < 1:
            raise ValueError("patch must be at least 8 pixels, bands at least 1")
        if not 1.0 < self.ratios[0] <= self.ratios[1] <= 16.0:
            raise ValueError("ratios must be (low, high) between 1 and 16")
        if not 0.0 < self.ms_gain[0] <= self.ms_gain[1] < 1.0:
            raise ValueError("ms_gain must be (low, high) between 0 and 1")
        if min(self.noise, self.pan_shift, self.match_jitter, self.move, self.bend, self.mtf_error) < 0:
            raise ValueError("noise, pan_shift, match_jitter, move, bend and mtf_error must not be negative")
        shares = {name: value for name, value in vars(self).items() if name.endswith("_share")}
        if not all(0 <= share <= 1 for share in shares.values()):
            raise ValueError(f"{', '.join(shares)} must be between 0 and 1")


@dataclass(frozen=True)
class Sample:
    """Network inputs and target, each (bands, patch, patch), normalised; PAN has one channel when not matched."""

    images: NetworkInputs
    truth: Float32


def draw_ratio(rng: np.random.Generator, source: Source, options: SampleOptions) -> float:
    """Mostly the scene's own ratio, else 2 or 4, else anything between the limits."""
    kind, own = rng.random(), options.own_ratio_share
    if kind < own:
        return source.ratio
    if kind < (1 + own) / 2:
        return float(rng.choice(_USUAL_RATIOS))
    return float(rng.uniform(*options.ratios))


def range_of_ratios(own: Iterable[float], options: SampleOptions) -> tuple[float, float]:
    """The least and greatest ratio that `draw_ratio` can draw from sources of these ratios."""
    others = (*_USUAL_RATIOS, *options.ratios) if options.own_ratio_share < 1 else ()
    found = [*others, *(own if options.own_ratio_share > 0 else ())]
    return min(found), max(found)


def draw_sample(source: Source, rng: np.random.Generator, options: SampleOptions) -> Sample:
    """One augmented sample of `source`, which must be at least as large as a patch.

    Unless bands are shuffled, the source must have `options.bands` bands.
    """
    patch = options.patch
    ratio = draw_ratio(rng, source, options)
    reach = options.move + options.bend
    margin = math.ceil((CUBIC_SUPPORT + 1 + reach) * ratio + degrade_reach(ratio, options.ms_gain[0]))
    top, left = _corner(rng, source, patch)
    (y0, y1), (x0, x1) = (
        (max(0, start - margin), min(size, start + patch + margin))
        for start, size in zip((top, left), source.truth.shape[1:], strict=True)
    )
    bands = draw_bands(rng, len(source.truth), options.bands) if options.shuffle_bands else np.arange(options.bands)
    truth = source.truth[bands, y0:y1, x0:x1]
    pan = _draw_pan(rng, source, np.s_[y0:y1, x0:x1], options.crisp_share)
    pan, off = _misregister(rng, pan, ratio, options)

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
    # A share of 0 draws nothing, so that recipes without holes see the samples they always saw.
    if options.hole_share and rng.random() < options.hole_share:
        low = _with_hole(rng, axes, low)
    lms = _raise(axes, low)
    known = float(np.clip(gains.mean() + rng.normal(0, options.mtf_error), *options.ms_gain))
    lpan = _raise(axes, _degrade(axes, pan, known))

    a, c = _match(rng, source, bands, ratio, off, options.match_jitter)
    if not options.matched:
        a, c = np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)
    centre = np.s_[..., top - y0 : top - y0 + patch, left - x0 : left - x0 + patch]
    sample = Sample(NetworkInputs(a * pan[centre] + c, lms, a * lpan + c), truth[centre])
    return _augment(rng, sample, options.recolour)


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


def _with_hole(rng: np.random.Generator, axes: tuple[_Axis, _Axis], low: Float32) -> Float32:
    """Degraded MS (C, h, w) that lacks a rectangle of pixels near the patch, filled as inference fills it."""
    valid = np.ones(low.shape, bool)
    part = []
    for axis in axes:
        used = np.flatnonzero(axis.up.any(axis=0))
        centre, size = rng.choice(used), int(rng.integers(1, _LARGEST_HOLE + 1))
        part.append(slice(max(0, centre - size // 2), centre - size // 2 + size))
    valid[:, *part] = False
    return fill_invalid(low, valid, low.mean(axis=(1, 2)))


def _corner(rng: np.random.Generator, source: Source, patch: int) -> tuple[int, int]:
    """Row and column where a random patch begins."""
    if source.places is not None:
        row, col = source.places[rng.integers(len(source.places))]
    else:
        row, col = (rng.integers(0, size - patch + 1) for size in source.truth.shape[1:])
    return int(row), int(col)


def _draw_pan(rng: np.random.Generator, source: Source, part: tuple[slice, slice], crisp_share: float) -> Float32:
    """A mix of the source's softer and crisper PAN, (h, w)."""
    mix = np.float32(1.0 if rng.random() < crisp_share else rng.random())
    pan: Float32 = (1 - mix) * source.pans[0][part] + mix * source.pans[1][part]
    return pan.astype(np.float32, copy=False)


def _misregister(rng: np.random.Generator, pan: Float32, ratio: float, options: SampleOptions) -> tuple[Float32, float]:
    """PAN (h, w) seen off its place, and by how many MS pixels it lies off as a whole."""
    kind = rng.random()
    if kind < options.moved_share:
        off = _in_disc(rng, options.move)
    elif rng.random() < 0.5:
        off = np.clip(rng.normal(0, options.pan_shift, 2), -3 * options.pan_shift, 3 * options.pan_shift)
    else:
        off = np.zeros(2)
    field = np.broadcast_to((off * ratio)[:, None, None], (2, *pan.shape))
    if rng.random() < options.bent_share:
        field = field + ratio * _smooth_field(rng, pan.shape, options.bend)
    if not field.any():
        return pan, 0.0
    places = np.indices(pan.shape) + field
    # A spline keeps PAN as crisp as it was, which softer interpolation would give away.
    moved: Float32 = ndimage.map_coordinates(pan, places, order=3, mode="nearest")
    return moved, float(np.hypot(*off))


def _in_disc(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """A vector of any direction, its length uniform up to `radius`."""
    angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(0, radius)
    return length * np.array([math.sin(angle), math.cos(angle)])


def _smooth_field(rng: np.random.Generator, shape: tuple[int, ...], amplitude: float) -> NDArray[np.float64]:
    """Displacements (2, h, w), of zero mean and at most `amplitude`, that change over some 30 pixels."""
    knots = [math.ceil(size / _FIELD_KNOT) + 1 for size in shape]
    coarse = rng.uniform(-amplitude, amplitude, (2, *knots))
    rows, cols = (
        cubic_weights(AxisMap(count / size, 0.0, size, count), 0, size)
        for count, size in zip(knots, shape, strict=True)
    )
    field = apply_weights(rows.matrix, cols.matrix, coarse[:, rows.first : rows.stop, cols.first : cols.stop])
    centred: NDArray[np.float64] = field - field.mean(axis=(1, 2), keepdims=True)
    return centred


def _match(
    rng: np.random.Generator, source: Source, bands: NDArray[np.int64], ratio: float, off: float, jitter: float
) -> tuple[Float32, Float32]:
    """Band matching (bands, 1, 1) interpolated to `ratio`, its gain a little off as from a sample of the scene.

    Measured on a scene whose PAN lies `off` MS pixels off, gains are smaller: PAN explains less of the bands.
    """
    of = source.matching
    a = np.array([np.interp(ratio, MATCH_RATIOS, of.gain[:, b]) for b in bands])
    c = np.array([np.interp(ratio, MATCH_RATIOS, of.offset[:, b]) for b in bands])
    likeness = float(np.interp(ratio, MATCH_RATIOS, of.likeness))
    factor = (1 + rng.normal(0, jitter, len(bands))) * likeness ** (off**_LIKENESS_POWER)
    c = c + a * (1 - factor) * of.pan_mean  # the matched mean stays where it is
    return ((a * factor)[:, None, None].astype(np.float32), c[:, None, None].astype(np.float32))


def _augment(rng: np.random.Generator, sample: Sample, recolour: bool) -> Sample:
    """One of the 8 symmetries, and a gain and an offset for every band, the same for inputs and truth."""
    bands = sample.truth.shape[0]
    common, own = rng.uniform(-0.5, 0.5), rng.uniform(-0.4, 0.4, (bands, 1, 1))
    gain = np.exp(np.asarray(common + own, dtype=np.float32))
    offset = np.asarray(rng.uniform(-0.15, 0.15, (bands, 1, 1)), dtype=np.float32)
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))

    def turn(image: Float32) -> Float32:
        turned = np.rot90(image, turns, axes=(1, 2))
        return turned[:, :, ::-1] if mirrored else turned

    images, truth = NetworkInputs(*map(turn, sample.images)), turn(sample.truth)
    if not recolour:
        return Sample(images, truth)
    # A PAN that is not matched to the bands has no band of its own to follow.
    matched = len(images.mpan) == bands
    pan_gain, pan_offset = (gain, offset) if matched else (np.exp(np.float32(common)), np.float32(0))
    mpan, lms, lpan = images
    recoloured = NetworkInputs(pan_gain * mpan + pan_offset, gain * lms + offset, pan_gain * lpan + pan_offset)
    return Sample(recoloured, gain * truth + offset)
