"""Plane geometry for laying out a simulated town: convex polygons (n, 2) in metres, split and warped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2): x to the right, y down


def rectangle(centre: Points, angle: float, length: float, width: float) -> Points:
    """Corners of a rectangle whose length runs along `angle`."""
    u = np.array([math.cos(angle), math.sin(angle)])
    v = np.array([-u[1], u[0]])
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (length / 2, width / 2)
    return np.asarray(centre + half[:, :1] * u + half[:, 1:] * v)


def area(polygon: Points) -> float:
    """Area of a polygon; zero for fewer than three points."""
    if len(polygon) < 3:
        return 0.0
    x, y = polygon[:, 0], polygon[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def clip(polygon: Points, point: Points, normal: Points) -> Points:
    """Keep the part of a convex polygon on the side of a line through `point` that `normal` points to."""
    side = (polygon - point) @ normal
    kept: list[Points] = []
    for i in range(len(polygon)):
        j = (i + 1) % len(polygon)
        if side[i] >= 0:
            kept.append(polygon[i])
        if (side[i] >= 0) != (side[j] >= 0):
            kept.append(polygon[i] + (polygon[j] - polygon[i]) * (side[i] / (side[i] - side[j])))
    return np.array(kept) if kept else np.zeros((0, 2))


def inset(polygon: Points, distance: float) -> Points:
    """Move every edge of a convex polygon inwards; empty when nothing is left."""
    result, middle = polygon, polygon.mean(axis=0)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        edge = b - a
        length = math.hypot(edge[0], edge[1])
        if length < 1e-6:
            continue
        normal = np.array([-edge[1], edge[0]]) / length
        if (middle - a) @ normal < 0:
            normal = -normal
        result = clip(result, a + normal * distance, normal)
        if len(result) < 3:
            return np.zeros((0, 2))
    return result


@dataclass(frozen=True)
class Frame:
    """The tightest upright box of a polygon: centre, long axis u, short axis v, and its size along them."""

    centre: Points
    u: Points
    v: Points
    length: float
    width: float

    def at(self, along: float, across: float) -> Points:
        """Return the point at (along, across) metres from the centre."""
        return np.asarray(self.centre + along * self.u + across * self.v)

    @property
    def angle(self) -> float:
        """Direction of the long axis, radians."""
        return math.atan2(self.u[1], self.u[0])


def frame(polygon: Points) -> Frame:
    """Find the box of least area around a convex polygon, one of its sides along a side of the polygon."""
    best: Frame | None = None
    for edge in np.roll(polygon, -1, axis=0) - polygon:
        size = math.hypot(edge[0], edge[1])
        if size < 1e-6:
            continue
        u = edge / size
        v = np.array([-u[1], u[0]])
        a, b = polygon @ u, polygon @ v
        box = float(np.ptp(a)), float(np.ptp(b))
        if best is None or box[0] * box[1] < best.length * best.width:
            centre = u * (a.max() + a.min()) / 2 + v * (b.max() + b.min()) / 2
            best = Frame(centre, u, v, *box) if box[0] >= box[1] else Frame(centre, v, -u, box[1], box[0])
    if best is None:
        raise ValueError("a polygon needs an edge")
    return best


def chord(polygon: Points, box: Frame, along: float) -> tuple[float, float] | None:
    """Where the line at `along` of a frame crosses the polygon: (least, greatest) across, or None."""
    p = (polygon - box.centre) @ np.stack([box.u, box.v], axis=1)
    hits = []
    for a, b in zip(p, np.roll(p, -1, axis=0), strict=True):
        if (a[0] - along) * (b[0] - along) < 0:
            hits.append(a[1] + (b[1] - a[1]) * (along - a[0]) / (b[0] - a[0]))
    return (min(hits), max(hits)) if len(hits) >= 2 else None


def dense(path: Points, step: float, closed: bool) -> Points:
    """Give a path points no further than `step` apart, so that it can be bent."""
    ends = np.roll(path, -1, axis=0) if closed else path[1:]
    pieces = []
    for a, b in zip(path, ends, strict=closed):
        n = max(1, math.ceil(math.hypot(*(b - a)) / step))
        pieces.append(a + (b - a) * (np.arange(n) / n)[:, None])
    if not closed:
        pieces.append(path[-1:])
    return np.concatenate(pieces)


def ribbon(path: Points, widths: NDArray[np.float64] | float) -> Points:
    """Outline of a band of the given width(s) along a path."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.hypot(tangent[:, 0], tangent[:, 1]), 1e-9)[:, None]
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    half = np.broadcast_to(np.asarray(widths, float) / 2, (len(path),))[:, None]
    return np.concatenate([path + normal * half, (path - normal * half)[::-1]])


def shifted(path: Points, distance: float) -> Points:
    """Move a path sideways."""
    outline = ribbon(path, 2 * distance)
    return outline[: len(path)]


def along(path: Points, spacing: Sequence[float] | NDArray[np.float64]) -> tuple[Points, NDArray[np.float64]]:
    """Points (n, 2) of a path after each of the given distances, and the path's headings there."""
    legs = np.diff(path, axis=0)
    reach = np.concatenate([[0.0], np.cumsum(np.hypot(legs[:, 0], legs[:, 1]))])
    at = np.cumsum(np.asarray(spacing, float))
    at = at[at < reach[-1]]
    points = np.stack([np.interp(at, reach, path[:, i]) for i in (0, 1)], axis=1)
    leg = np.clip(np.searchsorted(reach, at, side="right") - 1, 0, len(legs) - 1)
    return points, np.arctan2(legs[leg, 1], legs[leg, 0])


class Warp:
    """A smooth bend of the plane that turns straight streets into gently curved ones."""

    def __init__(self, rng: np.random.Generator, strength: float) -> None:
        lengths = rng.uniform(260.0, 620.0, 4)
        angles = rng.uniform(0, 2 * math.pi, 4)
        self._waves = np.stack([np.cos(angles), np.sin(angles)]) * (2 * math.pi / lengths)
        self._phases = rng.uniform(0, 2 * math.pi, 4)
        # Long waves may reach further: it is the slope that squeezes a block, not the distance.
        self._shifts = rng.normal(0.0, strength, (4, 2)) * (lengths / 400.0)[:, None]

    def __call__(self, points: Points) -> Points:
        """Where points (..., 2) of the plan come to lie on the ground."""
        return np.asarray(points + np.sin(points @ self._waves + self._phases) @ self._shifts)

    def turn(self, point: Points, angle: float) -> float:
        """Return the direction that `angle` at `point` of the plan has on the ground."""
        step = np.array([math.cos(angle), math.sin(angle)])
        d = self(point + step) - self(point - step)
        return math.atan2(d[1], d[0])
