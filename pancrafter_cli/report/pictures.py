"""Pictures for a report: display stretch, heat maps, and PNG as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pancrafter_cli.report.contents import Rgb

Limits = NDArray[np.float64]  # (3, 2): low and high of red, green, blue in DN

NO_DATA = (128, 128, 128)
_PERCENTILES = (2.0, 98.0)
# Dark blue to pale yellow: lightness rises in equal steps and hue goes from blue to yellow only, so that the
# order survives every colour vision deficiency and a black-and-white print.
_COLOURS = (
    (10, 20, 70),
    (34, 49, 95),
    (56, 76, 114),
    (80, 104, 126),
    (108, 132, 133),
    (140, 160, 133),
    (178, 188, 128),
    (218, 215, 125),
    (255, 243, 140),
)


def stretch(
    image: NDArray[np.floating],
    valid: NDArray[np.bool_],
    bands: Sequence[int],
    limits: Limits | None = None,
) -> tuple[Rgb, Limits]:
    """Colour picture (H, W, 3) of an image (C, H, W) in DN, linear between the 2nd and 98th percentile of each band.

    `bands` are the indices shown as red, green, blue (PAN: 0, 0, 0); `valid` (H, W), pixels outside it or not
    finite are grey. Limits (3, 2) in DN returned for one layer and given for the next make both comparable.
    """
    shown = np.asarray(image[list(bands)], dtype=np.float64)
    known = valid & np.isfinite(shown).all(axis=0)
    if limits is None:
        limits = np.tile([0.0, 1.0], (3, 1))
        if known.any():
            limits = np.percentile(shown[:, known], _PERCENTILES, axis=1).T
    low, high = limits[:, 0, None, None], limits[:, 1, None, None]
    # A band of one value has no range to stretch: it is shown black below and white above that value.
    scaled = (np.where(known, shown, 0.0) - low) / np.maximum(high - low, 1e-9)
    rgb = np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8).transpose(1, 2, 0)
    rgb[~known] = NO_DATA
    return np.ascontiguousarray(rgb), limits


def heatmap(values: NDArray[np.floating], vmin: float, vmax: float) -> Rgb:
    """Colours (H, W, 3) of values (H, W) from vmin (dark blue) to vmax (pale yellow); NaN is grey.

    Values outside the range take the colour of its end.
    """
    known = ~np.isnan(values)
    place = (np.where(known, values, vmin) - vmin) / max(vmax - vmin, 1e-12)
    place = np.clip(place, 0, 1) * (len(_COLOURS) - 1)
    table = np.array(_COLOURS, dtype=np.float64)
    channels = [np.interp(place, np.arange(len(_COLOURS)), table[:, c]) for c in range(3)]
    rgb = np.round(np.stack(channels, axis=-1)).astype(np.uint8)
    rgb[~known] = NO_DATA
    return rgb


def colour_bar(length: int = 256) -> Rgb:
    """The colours of `heatmap` from low to high, as a strip (1, length, 3)."""
    return heatmap(np.linspace(0.0, 1.0, length)[None, :], 0.0, 1.0)


def png_data_uri(rgb: Rgb) -> str:
    """A picture (H, W, 3) as a PNG in a data URI."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
