"""Lays out a town's edge: roads, blocks, fields and water, and builds it on a canvas.

The plan is a square cut again and again by straight lines (streets in town, lanes and hedges outside)
into convex cells, then bent by a smooth warp. Cells on the town's side become blocks, others fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pancrafter_cli.data.landscape import country, town
from pancrafter_cli.data.landscape.canvas import Canvas
from pancrafter_cli.data.landscape.materials import Use
from pancrafter_cli.data.landscape.objects import Car, Sun, Tree
from pancrafter_cli.data.landscape.polygons import Points, along, area, clip, dense, frame, shifted
from pancrafter_cli.data.landscape.site import Site

_WIDTHS = {"main": 9.0, "street": 6.0, "lane": 4.6, "track": 3.0}
_PAVEMENT = {"main": 2.2, "street": 1.7}


@dataclass(frozen=True)
class _Road:
    path: Points  # on the ground, m
    kind: str


def build_landscape(rng: np.random.Generator, size: int, pixel: float) -> Canvas:
    """Build a finished canvas of `size` pixels of `pixel` metres."""
    sun = Sun.at(rng.uniform(128, 172), rng.uniform(46, 62))
    canvas = Canvas(rng, size, pixel, sun)
    site = Site(rng, canvas)
    cells, roads = _cut(site)
    blocks = [cell for cell, in_town in cells if in_town]
    fields = [cell for cell, in_town in cells if not in_town]
    country.lay_fields(site, fields)
    town.lay_blocks(site, blocks)
    country.lay_water(site)
    _lay_roads(site, roads)
    canvas.raise_ground()
    site.raise_objects()
    _traffic(site, [r for r in roads if r.kind in ("main", "street")])
    canvas.shade_trees()
    return canvas


def _cut(site: Site) -> tuple[list[tuple[Points, bool]], list[_Road]]:
    """Cells (polygon of the plan, whether in town) and the roads between them."""
    rng, size = site.rng, site.canvas.extent
    roads: list[_Road] = []
    reach = 0.16 * size + 20
    square = np.array([[-reach, -reach], [size + reach, -reach], [size + reach, size + reach], [-reach, size + reach]])
    # The main road leads out of the town through the middle of the picture, more or less.
    heading = site.outwards + rng.normal(0, 0.35)
    through = size * (0.5 + rng.uniform(-0.17, 0.17, 2))
    open_cells = _split(site, square, through, heading, "main", roads)
    done: list[tuple[Points, bool]] = []
    while open_cells:
        cell = open_cells.pop()
        box = frame(cell)
        in_town = site.in_town(box.centre)
        whole = area(cell)
        wanted = rng.uniform(6000, 10500) if in_town else rng.uniform(9000, 30000)
        if whole < wanted or min(box.width, box.length / 2) < 38:
            done.append((cell, in_town))
            continue
        at = box.at(box.length * rng.uniform(-0.12, 0.12), 0)
        turned = box.angle + math.pi / 2 + rng.normal(0, 0.05 if in_town else 0.12)
        if in_town:
            kind = "street"
        elif whole > 60_000:
            kind = "lane"
        else:
            kind = str(rng.choice(["lane", "track", "hedge", "none"], p=[0.1, 0.25, 0.3, 0.35]))
        open_cells.extend(_split(site, cell, at, turned, kind, roads))
    return done, roads


def _split(site: Site, cell: Points, at: Points, angle: float, kind: str, roads: list[_Road]) -> list[Points]:
    normal = np.array([-math.sin(angle), math.cos(angle)])
    direction = np.array([normal[1], -normal[0]])
    parts = [p for p in (clip(cell, at, normal), clip(cell, at, -normal)) if area(p) > 1]
    ends = parts[0][np.abs((parts[0] - at) @ normal) < 1e-6] @ direction
    base = at - direction * (at @ direction)
    line = base + np.array([[ends.min()], [ends.max()]]) * direction
    path = site.warp(dense(line, 6.0, closed=False))
    if kind == "hedge":
        site.hedges.append((path, site.rng.uniform(2.0, 4.5), site.rng.uniform(1.8, 4.0)))
        country.line_of_trees(site, path, 0.25)
    elif kind != "none":
        roads.append(_Road(path, kind))
    return parts


def _lay_roads(site: Site, roads: list[_Road]) -> None:
    """Verges and pavements first, then carriageways, then markings, so that junctions merge."""
    canvas, palette = site.canvas, site.canvas.palette
    verge, pavement = palette.add("meadow"), palette.add("pavement")
    for road in roads:
        if road.kind in _PAVEMENT:
            inner = road.path[[site.in_town(p, ground=True, margin=-15.0) for p in road.path]]
            canvas.band(road.path if road.kind == "main" else road.path[:0], _WIDTHS["main"] + 7.0, verge)
            for path in site.dry(inner):
                canvas.band(path, _WIDTHS[road.kind] + 2 * _PAVEMENT[road.kind], pavement)
        else:
            for path in site.dry(road.path):
                canvas.band(path, _WIDTHS[road.kind] + 3.0, verge)
    site.lay_bridges([(r.path, _WIDTHS[r.kind] + 4) for r in roads if r.kind == "main"])
    for kind, material in (
        ("track", "gravel"),
        ("lane", "asphalt"),
        ("street", "asphalt"),
        ("main", "asphalt"),
    ):
        for road in (r for r in roads if r.kind == kind):
            stretches = site.dry(road.path) if kind != "main" else [road.path]
            label = palette.add(material, site.rng.uniform(0.92, 1.12))
            for path in stretches:
                canvas.band(path, _WIDTHS[kind], label)
                _repairs(site, path, _WIDTHS[kind], kind)
    marking = palette.add("marking")
    for road in (r for r in roads if r.kind == "main"):
        for side in (-1, 1):
            canvas.band(shifted(road.path, side * (_WIDTHS["main"] / 2 - 0.6)), 0.27, marking)
    for road in (r for r in roads if r.kind in ("main", "street")):
        if road.kind == "main" or site.rng.random() < 0.15:
            points, headings = along(road.path, np.full(400, 9.0))
            for point, heading in zip(points, headings, strict=True):
                if not site.near_water(point, 0.0) or road.kind == "main":
                    step = 2.0 * np.array([math.cos(heading), math.sin(heading)])
                    canvas.band(np.stack([point - step, point + step]), 0.27, marking)


def _repairs(site: Site, path: Points, width: float, kind: str) -> None:
    """Patches and stretches of newer or older surface."""
    if kind == "track":
        return
    rng = site.rng
    for _ in range(rng.poisson(len(path) / 12)):
        start = int(rng.integers(0, len(path)))
        piece = (
            dense(path[start : start + int(rng.integers(2, 9))], 1.0, closed=False)
            if start < len(path) - 2
            else path[:0]
        )
        if len(piece) < 4:
            continue
        label = site.canvas.palette.add("asphalt", rng.choice([0.84, 0.92, 1.1, 1.16]))
        if rng.random() < 0.4:
            site.canvas.band(piece, width, label)
        else:
            lane = shifted(piece[: int(rng.integers(4, 14))], rng.uniform(-0.3, 0.3) * width)
            site.canvas.band(lane, rng.uniform(0.8, 2.2), label)


def _traffic(site: Site, roads: list[_Road]) -> None:
    """Put moving cars on the right-hand lane, parked ones along the kerb, trees along the pavement."""
    rng, canvas = site.rng, site.canvas
    for road in roads:
        width = _WIDTHS[road.kind]
        gaps = rng.exponential(26.0 if road.kind == "main" else 75.0, 60) + 9.0
        for side in (-1, 1):
            for point, heading in zip(*along(shifted(road.path, side * width / 4), rng.permutation(gaps)), strict=True):
                lorry = road.kind == "main" and rng.random() < 0.08
                sizes = (10.5, 2.5, 3.4) if lorry else (rng.uniform(4.0, 4.8), 1.8, rng.uniform(1.4, 1.7))
                if canvas.use_at(*point) == Use.ROAD and not site.near_water(point, -2.0):
                    canvas.car(
                        Car(float(point[0]), float(point[1]), heading + (0 if side > 0 else math.pi), *sizes),
                        "white paint" if lorry else None,
                    )
            if road.kind == "street":
                kerb = shifted(road.path, side * (width / 2 - 1.0))
                for point, heading in zip(*along(kerb, rng.exponential(24.0, 60) + 6.0), strict=True):
                    if canvas.use_at(*point) == Use.ROAD:
                        canvas.car(
                            Car(
                                float(point[0]),
                                float(point[1]),
                                heading + rng.normal(0, 0.02),
                                rng.uniform(4.0, 4.7),
                            )
                        )
            if rng.random() < 0.5:
                path = shifted(road.path, side * (width / 2 + (1.4 if road.kind == "street" else 3.6)))
                species = site.species()
                for point, _ in zip(*along(path, rng.uniform(9, 15, 80)), strict=True):
                    if rng.random() < 0.75 and canvas.use_at(*point) in (Use.FREE, Use.PAVEMENT):
                        r = rng.uniform(1.6, 3.0)
                        canvas.tree(Tree(float(point[0]), float(point[1]), r, 2.2 * r + 1.5, species))
