"""The building site of a simulated landscape: where the town ends, where water lies, what is to be built."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.data.landscape.canvas import Canvas
from pancrafter_cli.data.landscape.materials import Use
from pancrafter_cli.data.landscape.objects import Building, Car, Tree
from pancrafter_cli.data.landscape.polygons import Points, Warp, dense

_TREE_GROUND = (Use.FREE, Use.PAVEMENT, Use.TREE)


class Site:
    """What the parts of a layout share; collects what is put up once the ground is finished."""

    def __init__(self, rng: np.random.Generator, canvas: Canvas) -> None:
        self.rng, self.canvas = rng, canvas
        self.warp = Warp(rng, rng.uniform(5.0, 11.0))
        self.outwards = rng.uniform(0, 2 * math.pi)  # the direction in which the town ends
        self._edge = canvas.extent * rng.uniform(0.06, 0.22)  # how far the town reaches past the middle
        self._wobble = rng.uniform(0, 2 * math.pi, 2)
        self._out = np.array([math.cos(self.outwards), math.sin(self.outwards)])
        self.buildings: list[Building] = []
        self.trees: list[Tree] = []
        self.cars: list[Car] = []
        self.hedges: list[tuple[Points, float, float]] = []
        self._species: list[int] = [
            canvas.palette.add("leaves" if i % 5 else "needles", rng.uniform(0.8, 1.3)) for i in range(40)
        ]
        # Water is where any of these discs reach: middles and radii, m. A river's lie along its path.
        self.water: tuple[Points, NDArray[np.float64]] | None = None
        self.lake: Points | None = None  # rim
        self._plan_water()

    def _plan_water(self) -> None:
        """Draw a river along the town's edge or across it, or a lake; a river runs well past the picture."""
        rng, size = self.rng, self.canvas.extent
        kind = rng.random()
        if kind > 0.75:
            self._plan_lake()
            return
        turned = self.outwards + (math.pi / 2 if kind < 0.6 else 0.2) + rng.normal(0, 0.2)
        offset = self._edge + size * rng.uniform(0.0, 0.17) if kind < 0.6 else 0.0
        t = np.linspace(-0.9, 0.9, 240) * size
        side = np.zeros_like(t)
        for length, share in ((430.0, 0.075), (210.0, 0.045), (95.0, 0.016)):
            side += length * share * rng.uniform(0.5, 1.0) * np.sin(2 * math.pi * t / length + rng.uniform(0, 6.3))
        d = np.array([math.cos(turned), math.sin(turned)])
        middle = np.full(2, size / 2) + (self._out * offset if kind < 0.6 else d[::-1] * (-1, 1) * size * 0.2)
        path = middle + t[:, None] * d + side[:, None] * np.array([-d[1], d[0]])
        width = rng.uniform(9, 26) * (1 + 0.16 * np.sin(t / 31 + 1.0) + 0.1 * np.sin(t / 13))
        self.water = path, width / 2

    def _plan_lake(self) -> None:
        rng, size = self.rng, self.canvas.extent
        across = np.array([-self._out[1], self._out[0]])
        away = rng.uniform(0.3, 0.38), rng.uniform(-0.25, 0.25)
        middle = np.full(2, size / 2) + (self._out * away[0] + across * away[1]) * size
        turn = np.linspace(0, 2 * math.pi, 120, endpoint=False)
        radius = np.full_like(turn, min(rng.uniform(32, 58), 0.16 * size))
        for k in (2, 3, 5):
            radius *= 1 + 0.3 / k * np.clip(rng.normal(), -1.5, 1.5) * np.cos(k * turn + rng.uniform(0, 6.3))
        arm = np.stack([1.35 * np.cos(turn), np.sin(turn)], axis=1) * radius[:, None]
        self.lake = middle + arm
        self.water = middle + 0.5 * arm, 0.5 * np.hypot(*arm.T)

    def in_town(self, point: Points, *, ground: bool = False, margin: float = 0.0) -> bool:
        """Whether a point (of the plan or the ground) lies in town, `margin` metres inside its edge."""
        p = point - self.canvas.extent / 2
        side = float(p @ np.array([-self._out[1], self._out[0]]))
        wobble = 38 * math.sin(side / 57 + self._wobble[0]) + 24 * math.sin(side / 23 + self._wobble[1])
        return float(p @ self._out) < self._edge + (0.0 if ground else wobble) - margin

    def near_water(self, point: Points, distance: float) -> bool:
        """Whether a point of the ground lies in water or closer to it than `distance`."""
        if self.water is None:
            return False
        path, half = self.water
        return bool((np.hypot(*(path - point).T) < half + distance).any())

    def dry(self, path: Points) -> list[Points]:
        """Return the stretches of a path that stay clear of water."""
        wet = np.array([self.near_water(p, 7.0) for p in path])
        if not wet.any():
            return [path]
        pieces = np.split(np.arange(len(path)), np.nonzero(np.diff(wet.astype(int)))[0] + 1)
        return [path[i] for i in pieces if not wet[i[0]] and len(i) > 2]

    def lay_bridges(self, paths: list[tuple[Points, float]]) -> None:
        """Bridge decks where a path crosses water."""
        label = self.canvas.palette.add("bridge")
        for path, width in paths:
            fine = dense(path, 1.0, closed=False)
            wet = np.array([self.near_water(p, 5.0) for p in fine])
            pieces = np.split(np.arange(len(fine)), np.nonzero(np.diff(wet.astype(int)))[0] + 1)
            for i in pieces:
                if wet[i[0]] and len(i) > 2:
                    self.canvas.band(fine[i], width, label)

    def ground(self, polygon: Points) -> Points:
        """Lay a polygon of the plan as it lies on the ground."""
        return self.warp(dense(polygon, 8.0, closed=True))

    def paint(self, polygon: Points, label: int, rigid: Points | None = None) -> None:
        """Fill a polygon of the plan; with `rigid` it keeps its shape, moved and turned as that point is."""
        if len(polygon) >= 3:
            self.canvas.polygon(self.ground(polygon) if rigid is None else self.moved(polygon, rigid), label)

    def moved(self, points: Points, anchor: Points) -> Points:
        """Points of the plan as a stiff body around `anchor` lies on the ground."""
        turn = self.warp.turn(anchor, 0.0)
        c, s = math.cos(turn), math.sin(turn)
        return np.asarray(self.warp(anchor) + (points - anchor) @ np.array([[c, s], [-s, c]]))

    def species(self, needles: bool | None = None) -> int:
        """Return the label of one kind of tree."""
        if needles is None:
            return self._species[int(self.rng.integers(len(self._species)))]
        return self._species[int(self.rng.integers(8)) * 5 + (0 if needles else int(self.rng.integers(1, 5)))]

    def plant(self, point: Points, radius: float, species: int | None = None) -> None:
        """Plant a tree at a point of the plan, if the ground allows it."""
        self.plant_at(self.warp(point), radius, species)

    def plant_at(self, point: Points, radius: float, species: int | None = None) -> None:
        """Plant a tree at a point of the ground, if that allows it."""
        x, y = point
        label = self.species() if species is None else species
        self.trees.append(Tree(float(x), float(y), radius, self.rng.uniform(2.0, 2.7) * radius + 1.0, label))

    def park(self, point: Points, angle: float, chance: float = 1.0, rigid: Points | None = None) -> None:
        """Perhaps a parked car at a point of the plan (see `paint` for `rigid`)."""
        if self.rng.random() < chance:
            x, y = self.warp(point) if rigid is None else self.moved(point, rigid)
            turned = self.warp.turn(point if rigid is None else rigid, angle) + self.rng.normal(0, 0.03)
            length = self.rng.uniform(4.0, 4.8)
            self.cars.append(Car(float(x), float(y), turned + math.pi * (self.rng.random() < 0.5), length))

    def add_lorry(self, x: float, y: float, angle: float) -> None:
        """Park a lorry at a point of the ground."""
        self.cars.append(Car(x, y, angle, 12.0, 2.6, 3.6))

    def raise_objects(self) -> None:
        """Put up everything collected, tallest last."""
        for building in self.buildings:
            if not self.near_water(building.centre, 14.0):
                self.canvas.building(building)
        for path, width, height in self.hedges:
            points = dense(path, 0.45 * width, closed=False)
            self.canvas.hedge(points + self.rng.normal(0, 0.08 * width, points.shape), width, height)
        for tree in self.trees:
            if self.canvas.use_at(tree.x, tree.y) in _TREE_GROUND:
                self.canvas.tree(tree)
        for car in self.cars:
            self.canvas.car(car)
