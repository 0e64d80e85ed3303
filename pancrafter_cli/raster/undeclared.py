"""Fill values that nothing declares: they would be taken for the brightest or darkest ground there is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import RasterError
from pancrafter_cli.raster.measurable import Measurable, measuring_windows

# What files are filled with: round numbers below all data, and the ends of the number formats.
_USUAL = (-99.0, -999.0, -9999.0, -99999.0, -32767.0, -32768.0, 255.0, 32767.0, 65535.0)
_HUGE = 1e9
_LEAST_PIXELS, _LEAST_SHARE = 16, 1e-3
_TAILS = (0.05, 99.95)  # percent: what lies between is the image
_PAN_STEP = 4  # of the PAN pixels, one in so many rows and columns is looked at


@dataclass(frozen=True)
class Fill:
    """A value (DN), the share of the pixels that have it, and the range of nearly all others."""

    value: float
    share: float
    others: tuple[float, float]


class Fillable(Measurable, Protocol):
    """A scene that knows whether the user has said which pixels hold no data."""

    nodata_told: bool


def check_fill(scene: Fillable) -> None:
    """Raise RasterError when PAN or MS hold what looks like a fill value, and the user has not said what is none.

    A part of a large scene is looked at.
    """
    if scene.nodata_told:
        return
    ms, pan = [], []
    for window in measuring_windows(scene)[0]:
        image, valid = scene.read_ms(*window)
        ms.append(image[:, valid.all(axis=0)])
        over = scene.window_over(*window)
        if min(over[2:]) > 0:
            image, valid = scene.read_pan(*over)
            thin = np.s_[:, ::_PAN_STEP, ::_PAN_STEP]
            pan.append(image[thin][:, valid[thin][0]])
    for name, samples in (("MS", ms), ("PAN", pan)):
        found = find_fill(samples)
        if found is not None:
            low, high = found.others
            raise RasterError(
                f"{name}: {100 * found.share:.2g} % of the pixels are {found.value:g}, far from all others "
                f"({low:.4g} to {high:.4g}), and nothing declares that as nodata",
                f"if they hold no data, give --nodata={found.value:g} for PAN and MS, or declare it in the file alone "
                f"(gdal_edit.py -a_nodata {found.value:g} FILE); if they do, --nodata declared takes the files at "
                "their word",
            )


def find_fill(samples: Iterable[NDArray[np.float32]]) -> Fill | None:
    """The fill value in samples (C, n) of an image in DN: the least or the greatest, of all bands alike.

    It is one of the usual ones, some pixels must have exactly it, and all others must lie closer together than the
    nearest of them lies to it: sun glint and clouds, which saturate, have neighbours in brightness. 0, which is usual
    too, counts as dark ground.
    """
    values = np.concatenate([*samples], axis=1)
    if not values.size:
        return None
    for value in (values.min(), values.max()):
        filled = (values == value).all(axis=0)
        share = float(filled.mean())
        usual = value in _USUAL or abs(value) >= _HUGE
        if not usual or filled.all() or filled.sum() < _LEAST_PIXELS or share < _LEAST_SHARE:
            continue
        low, high = (float(v) for v in np.percentile(values[:, ~filled], _TAILS))
        apart = max(low - float(value), float(value) - high)
        if apart > high - low:
            return Fill(float(value), share, (low, high))
    return None
