"""Paints the objects of a simulated landscape: labels, heights above ground and slope shading."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pancrafter_cli.data.landscape.materials import Palette, Use, noise
from pancrafter_cli.data.landscape.objects import Building, Car, Sun, Tree, Wing
from pancrafter_cli.data.landscape.polygons import Points, ribbon

_CAR_PAINTS = ("white paint", "silver paint", "black paint", "red paint", "blue paint")
_CAR_SHARES = (0.30, 0.28, 0.24, 0.09, 0.09)


@dataclass(frozen=True)
class _Patch:
    """A window of the canvas and the coordinates (m) of its pixels in an object's own frame."""

    rows: slice
    cols: slice
    u: NDArray[np.float32]
    v: NDArray[np.float32]

    @property
    def window(self) -> tuple[slice, slice]:
        return self.rows, self.cols


class Canvas:
    """Square ground of `size` pixels: first painted flat with polygons, then built on.

    After `raise_ground`: `label` (size, size) into the palette, `height` (m), `shade` (light on the
    slope relative to level ground), `use`.
    """

    def __init__(self, rng: np.random.Generator, size: int, pixel: float, sun: Sun) -> None:
        self.size, self.pixel, self.sun = size, pixel, sun
        self.palette = Palette(rng)
        self._rng = rng
        self._ground = Image.new("I", (size, size), self.palette.add("meadow"))
        self._draw = ImageDraw.Draw(self._ground)
        self.bumps = noise(rng, size, (2, 5, 9))

    @property
    def extent(self) -> float:
        """Length of a side, m."""
        return self.size * self.pixel

    def polygon(self, points: Points, label: int) -> None:
        """Fill a polygon (m) of the ground."""
        if len(points) >= 3:
            self._draw.polygon([(float(x), float(y)) for x, y in points / self.pixel - 0.5], fill=label)

    def band(self, path: Points, width: NDArray[np.float64] | float, label: int) -> None:
        """Fill a band of the ground along a path (m)."""
        if len(path) >= 2:
            self.polygon(ribbon(path, width), label)

    def disc(self, centre: Points, radius: float, label: int) -> None:
        """Fill a circle of the ground."""
        turn = np.linspace(0, 2 * math.pi, 24, endpoint=False)
        self.polygon(centre + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1), label)

    def raise_ground(self) -> None:
        """Finish the flat painting; buildings, trees and cars come after this."""
        self.label = np.array(self._ground, dtype=np.int32)
        self.use = self.palette.arrays().use[self.label]
        self.height = np.zeros((self.size, self.size), np.float32)
        self.shade = np.ones((self.size, self.size), np.float32)

    def use_at(self, x: float, y: float) -> int:
        """Return the `Use` of the ground at a point (m); WATER outside, so that nothing is put there."""
        i, j = math.floor(y / self.pixel), math.floor(x / self.pixel)
        return int(self.use[i, j]) if 0 <= i < self.size and 0 <= j < self.size else int(Use.WATER)

    def _patch(self, x: float, y: float, angle: float, half: tuple[float, float]) -> _Patch | None:
        c, s = math.cos(angle), math.sin(angle)
        spans = []
        for at, reach in (
            (y, abs(s) * half[0] + abs(c) * half[1]),
            (x, abs(c) * half[0] + abs(s) * half[1]),
        ):
            start = max(0, math.floor((at - reach) / self.pixel) - 1)
            stop = min(self.size, math.ceil((at + reach) / self.pixel) + 1)
            if stop - start < 2:
                return None
            spans.append((start, stop))
        dy = (np.arange(*spans[0], dtype=np.float32)[:, None] + 0.5) * self.pixel - y
        dx = (np.arange(*spans[1], dtype=np.float32)[None, :] + 0.5) * self.pixel - x
        return _Patch(slice(*spans[0]), slice(*spans[1]), dx * c + dy * s, dy * c - dx * s)

    def _put(
        self,
        patch: _Patch,
        mask: NDArray[np.bool_],
        label: int,
        use: Use,
        height: NDArray[np.float32] | float,
        shade: NDArray[np.float32] | float = 1.0,
    ) -> None:
        w = patch.window
        self.label[w][mask] = label
        self.use[w][mask] = use
        for target, value in ((self.height[w], height), (self.shade[w], shade)):
            target[mask] = value[mask] if isinstance(value, np.ndarray) else value

    def _slope(self, fall_u: float, fall_v: float, angle: float) -> float:
        """Light on a roof that falls by (fall_u, fall_v) m per m, relative to level ground."""
        c, s = math.cos(angle), math.sin(angle)
        nx, ny = fall_u * c - fall_v * s, fall_u * s + fall_v * c
        light = (nx * self.sun.x + ny * self.sun.y + self.sun.z) / math.sqrt(nx * nx + ny * ny + 1)
        return max(light, 0.0) / self.sun.z

    def building(self, b: Building) -> bool:
        """Build where nothing stands yet and neither road nor water lies; says whether it was built."""
        reach = max(math.hypot(abs(w.along) + w.length / 2, abs(w.across) + w.width / 2) for w in b.wings)
        patch = self._patch(float(b.centre[0]), float(b.centre[1]), b.angle, (reach, reach))
        if patch is None:
            return False
        top = np.zeros(patch.u.shape, np.float32)
        shade = np.ones(patch.u.shape, np.float32)
        for wing in b.wings:
            self._wing(b, wing, patch, top, shade)
        mask = top > 0
        used = self.use[patch.window][mask]
        if used.size == 0 or np.isin(used, (Use.ROAD, Use.PAVEMENT, Use.WATER, Use.BUILDING)).any():
            return False
        label = self.palette.add(b.material, b.tint) if b.label is None else b.label
        self._put(patch, mask, label, Use.BUILDING, top, shade)
        self._roof_details(b, patch, top)
        return True

    def _wing(self, b: Building, w: Wing, patch: _Patch, top: NDArray[np.float32], shade: NDArray[np.float32]) -> None:
        """Merge one wing into a building: the higher roof wins."""
        u, v = patch.u - np.float32(w.along), patch.v - np.float32(w.across)
        to_u, to_v = w.length / 2 - np.abs(u), w.width / 2 - np.abs(v)
        inside = (to_u > 0) & (to_v > 0)
        edge = np.minimum(to_u, to_v)
        if b.roof == "flat":
            light = np.where(edge < 0.45, 1.22, 1.0)  # the parapet, with cleaner and brighter flashing
            z = np.where(edge < 0.45, b.eaves + 0.5, b.eaves)
        else:
            tan = math.tan(b.pitch)
            along = b.roof == "row" or w.length >= w.width  # the ridge runs along the longer side
            gable, end = (to_v, to_u) if along else (to_u, to_v)
            rise = np.minimum(gable, end) if b.roof == "hip" else gable
            z = b.eaves + rise * tan
            across = v if along else u
            sides = [self._slope(0, t, b.angle) if along else self._slope(t, 0, b.angle) for t in (-tan, tan)]
            light = np.where(across < 0, sides[0], sides[1])
            if b.roof == "hip":
                ends = [self._slope(t, 0, b.angle) if along else self._slope(0, t, b.angle) for t in (-tan, tan)]
                other = np.where((u if along else v) < 0, ends[0], ends[1])
                light = np.where(end < gable, other, light)
            light = light * (1 + 0.05 * np.sin(across * (2 * math.pi / 0.95)))  # courses of tiles
            light = np.where(np.abs(across) < 0.22, light * 0.5 + 0.68, light)
            light = np.where(edge < 0.25, light * 0.82, light)  # gutters
        if b.material.endswith("metal"):
            light = light * (1 + 0.045 * np.sin(u * (2 * math.pi / 1.9)))  # seams between sheets
        better = inside & (z > top)
        top[better] = z[better]
        shade[better] = light[better]

    def _roof_details(self, b: Building, patch: _Patch, top: NDArray[np.float32]) -> None:
        rng = self._rng
        w = b.wings[0]
        u, v = patch.u - np.float32(w.along), patch.v - np.float32(w.across)
        inside = (np.abs(u) < w.length / 2 - 1.0) & (np.abs(v) < w.width / 2 - 0.8)
        if b.skylights > 0:
            strip = (np.abs(np.mod(u + 0.37 * b.skylights, b.skylights) - b.skylights / 2) < 0.6) & (
                np.abs(np.abs(v) - w.width / 4) < w.width * 0.16
            )
            self._put(patch, inside & strip, self.palette.add("skylight"), Use.BUILDING, top)
        if b.solar:
            side = 1.0 if self._slope(0, 1, b.angle) > self._slope(0, -1, b.angle) else -1.0
            near = np.abs(v * side - w.width / 4) < w.width * 0.15
            panel = inside & near & (np.abs(u) < w.length * rng.uniform(0.2, 0.36))
            light = self._slope(0, side * math.tan(b.pitch), b.angle)
            gaps = np.where(np.mod(u, 1.1) < 0.2, 1.5, 1.0).astype(np.float32) * np.float32(light)
            self._put(patch, panel, self.palette.add("solar panel"), Use.BUILDING, top, gaps)
        for _ in range(b.vents):
            a, c = rng.uniform(-0.42, 0.42) * w.length, rng.uniform(-0.38, 0.38) * w.width
            big = b.roof == "flat"
            half = (rng.uniform(0.6, 1.9), rng.uniform(0.5, 1.3)) if big else (0.45, 0.4)
            box = inside & (np.abs(u - np.float32(a)) < half[0]) & (np.abs(v - np.float32(c)) < half[1])
            self._put(patch, box, self.palette.add("vent"), Use.BUILDING, top + np.float32(1.3))

    def tree(self, t: Tree) -> None:
        """Put up a crown; it may hang over what is lower than itself."""
        r = t.radius
        patch = self._patch(t.x, t.y, 0.0, (1.15 * r, 1.15 * r))
        if patch is None:
            return
        w = patch.window
        far = (patch.u**2 + patch.v**2) / np.float32(r * r) + np.float32(0.22) * self.bumps[w]
        crown = np.float32(t.height) * (0.3 + 0.7 * np.sqrt(np.clip(1 - far, 0, 1)))
        crown += np.float32(0.22 * min(r, 3.0)) * self.bumps[w]
        mask = (far < 1) & (crown > self.height[w])
        self._put(patch, mask, t.label, Use.TREE, crown)

    def hedge(self, path: Points, width: float, height: float) -> None:
        """Grow a clipped or wild hedge along a path, as a row of small crowns."""
        label = self.palette.add("hedge")
        for x, y in path:
            if self.use_at(x, y) in (Use.FREE, Use.TREE):
                grow = self._rng.uniform(0.8, 1.25)
                self.tree(Tree(float(x), float(y), width / 2 * grow, height * grow, label))

    def car(self, c: Car, paint: str | None = None) -> None:
        """Put a vehicle with windscreens, where neither building nor another vehicle stands."""
        patch = self._patch(c.x, c.y, c.angle, (c.length / 2, c.width / 2))
        if patch is None:
            return
        mask = (np.abs(patch.u) < c.length / 2) & (np.abs(patch.v) < c.width / 2)
        if (self.use[patch.window][mask] >= Use.WATER).any():
            return
        name = paint or _CAR_PAINTS[self._rng.choice(len(_CAR_PAINTS), p=_CAR_SHARES)]
        cabin = np.where(np.abs(patch.u + 0.3) < 0.33 * c.length, c.height, 0.65 * c.height)
        self._put(patch, mask, self.palette.add(name), Use.CAR, cabin.astype(np.float32))
        if c.length < 6:
            screens = (np.abs(patch.u - 0.75) < 0.33) | (np.abs(patch.u + 1.65) < 0.25)
            self._put(patch, mask & screens, self.palette.add("glass"), Use.CAR, c.height)

    def shade_trees(self) -> None:
        """Light the crowns from the slope of the height map; call once, when all trees stand."""
        gy, gx = np.gradient(self.height, np.float32(self.pixel))
        light = (self.sun.z - gx * np.float32(self.sun.x) - gy * np.float32(self.sun.y)) / np.sqrt(
            gx * gx + gy * gy + 1
        )
        crowns = self.use == Use.TREE
        # Leaves scatter and let light through: half the light does not care about the slope.
        self.shade[crowns] = 0.52 + 0.55 * np.clip(light[crowns] / np.float32(self.sun.z), 0.0, 1.7)

    def shadow(self) -> NDArray[np.float32]:
        """How much of the sun is hidden, 0..1, from what stands between a pixel and the sun."""
        run = math.hypot(self.sun.x, self.sun.y)
        step = np.array([self.sun.y, self.sun.x]) / run
        drop = self.pixel * self.sun.z / run
        reach = float(self.height.max()) / drop
        stages: list[int] = []
        while sum(stages) < reach:
            stages.append(2 ** len(stages))
        # `ray` is the height of the highest line of sight to the sun that is blocked; each stage doubles
        # the distance looked at.
        ray = self.height.copy()
        for k in stages:
            dy, dx = (round(float(s) * k) for s in step)
            to, source = _shifted_windows(dy, dx, self.size)
            ray[to] = np.maximum(ray[to], ray[source].copy() - np.float32(k * drop))
        hidden: NDArray[np.float32] = np.clip((ray - self.height) * np.float32(3.0), 0.0, 1.0)
        return hidden


def _shifted_windows(dy: int, dx: int, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    def pair(d: int) -> tuple[slice, slice]:
        return slice(max(0, -d), size - max(0, d)), slice(max(0, d), size - max(0, -d))

    (ty, sy), (tx, sx) = pair(dy), pair(dx)
    return (ty, tx), (sy, sx)
