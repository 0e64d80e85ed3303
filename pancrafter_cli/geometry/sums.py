"""Sums over neighbouring pixels that come out the same wherever an image was cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def line_sum(image: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Sums over `size` neighbours along the last axis, a power of two of them: (..., w - size + 1).

    By doubling (2, 4, 8, ... neighbours), not by differences of a cumulative sum: the terms of every sum are added in
    the same order wherever the image starts, and a huge value far away cannot cost digits here.
    """
    step = 1
    while step < size:
        image = image[..., :-step] + image[..., step:]
        step *= 2
    return image
