"""A large scene cut into parts, and where patches of a part may begin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Span = tuple[int, int]

_CORE, _APRON = 192, 48  # pixels: where the patches of a part begin, and what their inputs see around them


@dataclass(frozen=True)
class Part:
    """A window of a truth, rows x cols; patches of it begin in `corners`, rows and columns counted alike."""

    rows: Span
    cols: Span
    corners: tuple[Span, Span]

    @classmethod
    def whole(cls, rows: Span, cols: Span) -> Part:
        """All of a truth in one part."""
        return cls(rows, cols, (rows, cols))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]

    def places(self, valid: Mask, patch: int) -> NDArray[np.int32] | None:
        """Where valid patches begin, as `Source.places` counts; valid: (H, W), of the window."""
        (top, bottom), (left, right) = self.corners
        if valid.all() and self.corners == (self.rows, self.cols):
            return None
        here = np.zeros_like(valid)
        here[top - self.rows[0] : bottom - self.rows[0], left - self.cols[0] : right - self.cols[0]] = True
        return np.argwhere(valid_patches(valid, patch) & here).astype(np.int32)


def valid_patches(valid: Mask, patch: int) -> Mask:
    """Which pixels (H, W) are the upper left corner of `patch` x `patch` valid ones."""
    height, width = valid.shape
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = valid.cumsum(axis=0).cumsum(axis=1)
    within = sums[patch:, patch:] - sums[:-patch, patch:] - sums[patch:, :-patch] + sums[:-patch, :-patch]
    found = np.zeros_like(valid)
    found[: within.shape[0], : within.shape[1]] = within == patch * patch
    return found


def parts_of(rows: Span, cols: Span, patch: int) -> list[Part]:
    """Parts of one shape in which every patch of a truth that covers rows x cols, [start, stop), begins just once."""
    core = max(_CORE, patch)
    return [Part(y, x, (top, left)) for y, top in _spans(*rows, patch, core) for x, left in _spans(*cols, patch, core)]


def _spans(start: int, stop: int, patch: int, core: int) -> list[tuple[Span, Span]]:
    """Along one axis: what is read for a part, and where its patches begin."""
    begins = stop - start - patch + 1
    count = math.ceil(begins / core)
    length = min(stop - start, math.ceil(begins / count) + patch - 1 + 2 * _APRON)
    spans = []
    for k in range(count):
        first, last = (start + begins * i // count for i in (k, k + 1))
        read = min(max(start, first - _APRON), stop - length)
        spans.append(((read, read + length), (first, last)))
    return spans


def spread_over(count: int, first: int) -> list[int]:
    """All of `count` numbers, to begin with some `first` that are spread evenly over them."""
    chosen: list[int] = np.unique(np.linspace(0, count - 1, min(count, first)).round().astype(int)).tolist()
    return [*chosen, *sorted(set(range(count)) - set(chosen))]
