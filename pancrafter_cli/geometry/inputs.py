"""What a network sees of a window of the PAN grid, made from PAN and MS windows that reach far enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, degrade_weights
from pancrafter_cli.geometry.fill import BESIDE, fill_beside
from pancrafter_cli.geometry.grid import AxisMap, GridMap
from pancrafter_cli.geometry.resample import AxisWeights, apply_weights, cubic_weights

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

COARSE, FINE = 2.0, 0.7  # MS pixels: sigmas of the means that leave two kinds of detail behind
_EXTRAPOLATION, _MOST_EXTRAPOLATED = 4.0, 1.4


class NetworkInputs(NamedTuple):
    """What a network sees of a window: images on the PAN grid, all in one unit.

    mpan: PAN matched to every band (C, H, W), or PAN itself (1, H, W); lms: MS interpolated (C, H, W); lpan: `mpan`
    blurred to MS resolution.
    """

    mpan: Float32
    lms: Float32
    lpan: Float32


@dataclass(frozen=True)
class AxisPlan:
    """One axis: the target window, its weights on MS (`up`), and the weights of MS pixels on PAN (`down`).

    low: the MS pixels, [start, stop), that `down` is for; those needed are among them.
    """

    target: tuple[int, int]
    up: AxisWeights
    down: AxisWeights
    low: tuple[int, int]

    @property
    def ms(self) -> tuple[int, int]:
        """MS pixels needed, [start, stop)."""
        return self.up.first, self.up.stop

    @property
    def within(self) -> slice:
        """Where the MS pixels needed lie among those of `low`."""
        return slice(self.ms[0] - self.low[0], self.ms[1] - self.low[0])

    @property
    def pan(self) -> tuple[int, int]:
        """PAN pixels needed, [start, stop)."""
        return min(self.down.first, self.target[0]), max(self.down.stop, self.target[1])

    @property
    def crop(self) -> slice:
        """Where the target lies within the PAN pixels needed."""
        return slice(self.target[0] - self.pan[0], self.target[1] - self.pan[0])

    @property
    def blur(self) -> slice:
        """Where the pixels that `down` draws on lie within the PAN pixels needed."""
        return slice(self.down.first - self.pan[0], self.down.stop - self.pan[0])


@dataclass(frozen=True)
class InputPlan:
    """What to read for a target window of the PAN grid, and how to make the network's inputs from it."""

    rows: AxisPlan
    cols: AxisPlan


def plan_inputs(
    relation: GridMap,
    rows: tuple[int, int],
    cols: tuple[int, int],
    gain: float = DEFAULT_MS_GAIN,
    *,
    holes: bool = False,
) -> InputPlan:
    """Plan for the PAN-grid window rows x cols, both [start, stop); `relation` maps the PAN grid to MS.

    gain: the MTF at MS Nyquist with which PAN is brought to MS resolution. holes: whether MS has any in the window;
    PAN is then brought to the MS pixels around it too, from which `lowpass` fills them.
    """
    margin = BESIDE if holes else 0
    return InputPlan(_plan_axis(relation.rows, *rows, gain, margin), _plan_axis(relation.cols, *cols, gain, margin))


def network_inputs(
    plan: InputPlan, pan: Float32, ms: Float32, gain: Float32, offset: Float32, known: Mask | None = None
) -> NetworkInputs:
    """The network's inputs of the planned window.

    pan: (1, h, w) of `plan.*.pan`; ms: (C, h, w) of `plan.*.ms`, both without holes, in DN or normalised;
    gain, offset: (C,) or (1,), the matching of PAN to each band in the same unit. known: as of `lowpass`.
    """
    r, c = plan.rows, plan.cols
    lms = apply_weights(r.up.matrix, c.up.matrix, ms)
    lpan = lowpass(plan, pan, known)
    a, b = gain[:, None, None], offset[:, None, None]
    return NetworkInputs(a * pan[:, r.crop, c.crop] + b, lms, a * lpan + b)


def lowpass(plan: InputPlan, pan: Float32, known: Mask | None = None) -> Float32:
    """PAN (1, h, w) of `plan.*.pan` brought to MS resolution and back: (1, H, W) of the planned window.

    known: where MS is not filled with means of what is around, (C or 1, h, w) of `plan.*.low`, None where it nowhere
    is. Beside such pixels MS is interpolated from those means; PAN so too, for otherwise their difference would be
    taken for detail: (C or 1, H, W).
    """
    r, c = plan.rows, plan.cols
    low = apply_weights(r.down.matrix, c.down.matrix, pan[:, r.blur, c.blur])
    if known is not None:
        low = fill_beside(np.broadcast_to(low, known.shape), known)
    return apply_weights(r.up.matrix, c.up.matrix, low[:, r.within, c.within])


def _plan_axis(axis: AxisMap, start: int, stop: int, gain: float, margin: int) -> AxisPlan:
    up = cubic_weights(axis, start, stop)
    low = max(0, up.first - margin), min(axis.src_size, up.stop + margin)
    return AxisPlan((start, stop), up, degrade_weights(axis.inverse(), *low, gain), low)


def detail(image: NDArray[np.float64], use: NDArray[np.bool_], sigma: float) -> NDArray[np.float64]:
    """What of an image (..., h, w) on the MS grid varies within a few pixels: it less its Gaussian mean.

    sigma: of that mean, in pixels, COARSE or FINE. Pixels not in `use` (..., h, w) take no part and give 0. PAN is
    matched to the bands by this: what brightness shares over a scene (NIR dark on water, bright on plants) says little
    of how the detail that is missing is shared.
    """
    axes = (0.0,) * (image.ndim - 2) + (sigma, sigma)
    weight = use.astype(np.float64)
    near = ndimage.gaussian_filter(weight, axes, mode="constant")
    mean = ndimage.gaussian_filter(np.where(use, image, 0.0), axes, mode="constant") / np.where(near > 0, near, 1.0)
    fine: NDArray[np.float64] = np.where(use, image - mean, 0.0)
    return fine


def gain_beyond(coarse: NDArray[np.float64], fine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gain (C,) of PAN's detail for what is finer than MS, from the gains of its COARSE and FINE detail (C,).

    Where one sensor is crisper than the other, their ratio changes steadily with frequency, and so on beyond MS: the
    step from coarse to fine, as a factor, is taken four times from coarse on, up to a factor of 1.4. Gaussian MTFs
    alone would ask for more; four is what MS detail in Wald's protocol did.
    """
    usable = coarse * fine > 0
    step = np.where(usable, fine / np.where(usable, coarse, 1), 1.0)
    return coarse * np.clip(step**_EXTRAPOLATION, 1 / _MOST_EXTRAPOLATED, _MOST_EXTRAPOLATED)


@dataclass(frozen=True)
class BandGroup:
    """One pass of a scene through a network: the bands shown to it, and where those outputs go that count.

    Output channel `channels[i]` of the network is band `bands[i]` of the scene.
    """

    shown: tuple[int, ...]
    channels: tuple[int, ...]
    bands: tuple[int, ...]


def band_groups(bands: int, size: int) -> list[BandGroup]:
    """How a scene of `bands` bands goes through a network that takes `size` at once.

    The last group is completed by repeating bands: those before it when there are enough, else its own.
    """
    groups = []
    for start in range(0, bands, size):
        own = tuple(range(start, min(start + size, bands)))
        missing = size - len(own)
        if bands >= size:
            shown = tuple(range(start - missing, start)) + own
            channels = tuple(range(missing, size))
        else:
            shown = tuple(own[i % len(own)] for i in range(size))
            channels = tuple(range(len(own)))
        groups.append(BandGroup(shown, channels, own))
    return groups
