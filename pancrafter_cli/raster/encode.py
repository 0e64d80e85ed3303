"""From the network's floats to the numbers of the file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import OutputError


def encode(block: NDArray[np.floating], valid: NDArray[np.bool_], dtype: str, nodata: float | None) -> NDArray[Any]:
    """Block (C, h, w) in DN as `dtype`: integers rounded (half to even) and clipped, nodata where invalid.

    Invalid pixels are 0 when there is no nodata value. A valid pixel that comes out as nodata is moved to the
    neighbouring number on the side it came from. Raises OutputError when a valid pixel is not finite.
    """
    if not np.isfinite(block[valid]).all():
        raise OutputError(
            "the sharpened image holds numbers that are not finite",
            "they overflowed: use single precision (fp32), or where that was in use divide both files by a constant",
        )
    target = np.dtype(dtype)
    values = np.where(valid, block, 0.0).astype(np.float64)
    limits: Any = np.iinfo(target) if target.kind in "iu" else np.finfo(target)
    stored = np.clip(np.rint(values) if target.kind in "iu" else values, limits.min, limits.max).astype(target)
    if nodata is None:
        return stored
    fill = target.type(nodata)
    collision = valid & (stored == fill)
    if collision.any():
        lower, upper = _neighbours(fill, target, limits)
        stored[collision] = np.where(values[collision] < float(fill), lower, upper)
    stored[~valid] = fill
    return stored


def _neighbours(fill: Any, target: np.dtype[Any], limits: Any) -> tuple[Any, Any]:
    """Find the numbers next below and above `fill`; at an end of the range both are the one there is."""
    lower: float
    upper: float
    if target.kind in "iu":
        lower, upper = int(fill) - 1, int(fill) + 1
    elif fill == 0:  # not the denormal next to it, which much software flushes to zero
        lower, upper = -float(limits.tiny), float(limits.tiny)
    else:
        lower, upper = (float(np.nextafter(fill, target.type(end))) for end in (limits.min, limits.max))
    below, above = fill > limits.min, fill < limits.max
    return target.type(lower if below else upper), target.type(upper if above else lower)
