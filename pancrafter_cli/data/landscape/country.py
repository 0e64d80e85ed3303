"""Fields, woods, meadows and water of a simulated landscape."""

from __future__ import annotations

import math

import numpy as np

from pancrafter_cli.data.landscape.materials import Rows
from pancrafter_cli.data.landscape.objects import Building, Wing
from pancrafter_cli.data.landscape.polygons import Points, area, clip, dense, frame, inset, rectangle
from pancrafter_cli.data.landscape.site import Site

# Crop, spacing of its rows (m), their contrast, and how common it is.
_CROPS = (
    ("ripe wheat", 1.0, 0.025, 0.20),
    ("young crop", 1.0, 0.035, 0.20),
    ("maize", 1.5, 0.10, 0.13),
    ("stubble", 3.1, 0.05, 0.12),
    ("soil", 2.6, 0.06, 0.17),
    ("rapeseed", 1.0, 0.02, 0.06),
    ("dry grass", 3.6, 0.05, 0.12),
)
_KINDS = ("crop", "meadow", "wood", "orchard", "farm", "strips")
_SHARES = (0.60, 0.12, 0.12, 0.05, 0.05, 0.06)


def lay_fields(site: Site, cells: list[Points]) -> None:
    """Find a use for every cell outside the town; a wood and crops are always among them."""
    kinds = list(site.rng.choice(_KINDS, len(cells), p=_SHARES))
    seen = [i for i, c in enumerate(cells) if frame(c).centre.min() > 0 and frame(c).centre.max() < site.canvas.extent]
    for i, kind in zip(site.rng.permutation(seen), ("crop", "wood", "crop"), strict=False):
        kinds[int(i)] = kind
    for cell, kind in zip(cells, kinds, strict=True):
        inner = inset(cell, site.rng.uniform(1.0, 2.5) + 2.0)
        if area(inner) < 300:
            continue
        {
            "crop": _crop,
            "meadow": _meadow,
            "wood": _wood,
            "orchard": _orchard,
            "farm": _farm,
            "strips": _strips,
        }[kind](site, inner)


def _crop(site: Site, cell: Points) -> None:
    rng, box = site.rng, frame(cell)
    name, period, contrast, _ = _CROPS[rng.choice(len(_CROPS), p=[c[3] for c in _CROPS])]
    turned = site.warp.turn(box.centre, box.angle) + rng.normal(0, 0.03)
    tracks = float(rng.choice([18.0, 21.0, 24.0, 27.0])) if name in ("ripe wheat", "young crop", "rapeseed") else 0.0

    def label(angle: float, tint: float) -> int:
        return site.canvas.palette.add(name, tint, Rows(angle, period, contrast, tracks))

    tint = rng.uniform(0.88, 1.12)
    # The headland, where the tractor turns, is worked across.
    site.paint(cell, label(turned, tint * 0.96))
    core = clip(cell, box.at(-box.length / 2 + 9, 0), box.u)
    core = clip(core, box.at(box.length / 2 - 9, 0), -box.u)
    site.paint(core, label(turned + math.pi / 2, tint))
    if name in ("soil", "stubble", "dry grass") and rng.random() < 0.4:
        part = clip(core, box.at(0, box.width * rng.uniform(-0.3, 0.3)), box.v)
        site.paint(part, label(turned + math.pi / 2, tint * rng.choice([0.82, 1.15])))


def _strips(site: Site, cell: Points) -> None:
    """Narrow plots of many crops, or allotments."""
    rng, box = site.rng, frame(cell)
    at = -box.length / 2
    turned = site.warp.turn(box.centre, box.angle)
    while at < box.length / 2:
        step = rng.uniform(7, 22)
        part = clip(clip(cell, box.at(at, 0), box.u), box.at(at + step - 0.6, 0), -box.u)
        name, period, contrast, _ = _CROPS[rng.choice(len(_CROPS), p=[c[3] for c in _CROPS])]
        site.paint(part, site.canvas.palette.add(name, 1.0, Rows(turned, period, contrast)))
        at += step


def _meadow(site: Site, cell: Points) -> None:
    rng, box = site.rng, frame(cell)
    mown = rng.random() < 0.4
    angle = site.warp.turn(box.centre, box.angle) + math.pi / 2
    rows = Rows(angle, rng.uniform(5, 8), 0.05) if mown else None
    site.paint(cell, site.canvas.palette.add(str(rng.choice(["meadow", "lawn", "dry grass"])), 1.0, rows))
    for point in scatter(site, cell, 0.0006):
        site.plant(point, rng.uniform(2.0, 5.5))


def _wood(site: Site, cell: Points) -> None:
    rng = site.rng
    site.paint(cell, site.canvas.palette.add("forest floor"))
    conifers = rng.random() < 0.3
    mixed = [site.species(needles=conifers) for _ in range(7)]
    for point in scatter(site, inset(cell, 1.0), 0.055 if conifers else 0.042):
        site.plant(point, rng.uniform(1.8, 3.0) if conifers else rng.uniform(2.2, 4.8), mixed[rng.integers(7)])


def _orchard(site: Site, cell: Points) -> None:
    rng, box = site.rng, frame(cell)
    site.paint(cell, site.canvas.palette.add("lawn"))
    inner, species = inset(cell, 3.0), site.species(needles=False)
    if len(inner) < 3:
        return
    for a in np.arange(-box.length / 2, box.length / 2, rng.uniform(5.0, 7.0)):
        for b in np.arange(-box.width / 2, box.width / 2, 4.5):
            point = box.at(float(a), float(b)) + rng.normal(0, 0.25, 2)
            if rng.random() < 0.93 and inside(inner, point):
                site.plant(point, rng.uniform(1.3, 2.0), species)


def _farm(site: Site, cell: Points) -> None:
    """Barns around a yard, a paddock around them."""
    rng, box, palette = site.rng, frame(cell), site.canvas.palette
    site.paint(cell, palette.add("meadow"))
    middle = box.at(rng.uniform(-0.15, 0.15) * box.length, rng.uniform(-0.1, 0.1) * box.width)
    site.paint(rectangle(middle, box.angle, 44, 34), palette.add(str(rng.choice(["concrete", "gravel"]))))
    spots = ((-13, -11, 26, 12), (15, 0, 14, 26), (-8, 12, 30, 11), (30, -14, 10, 9))
    for a, b, length, width in spots:
        centre = middle + a * box.u + b * box.v
        name = str(rng.choice(["red clay", "brown tile", "grey metal", "felt", "grey tile"]))
        wing = Wing(0, 0, length * rng.uniform(0.8, 1.1), width * rng.uniform(0.8, 1.1))
        turned = site.warp.turn(centre, box.angle)
        site.buildings.append(
            Building(site.warp(centre), turned, (wing,), "gable", rng.uniform(4, 6), rng.uniform(0.3, 0.5), name)
        )
    for point in scatter(site, cell, 0.0022):
        site.plant(point, rng.uniform(2.0, 5.0))


def scatter(site: Site, cell: Points, density: float) -> list[Points]:
    """Draw random points of a cell, `density` per square metre."""
    if len(cell) < 3:
        return []
    low, high = cell.min(axis=0), cell.max(axis=0)
    n = site.rng.poisson(density * float(np.prod(high - low)))
    return [p for p in site.rng.uniform(low, high, (n, 2)) if inside(cell, p)]


def inside(cell: Points, point: Points) -> bool:
    """Whether a point lies in a convex polygon."""
    edge, to = np.roll(cell, -1, axis=0) - cell, point - cell
    turn = edge[:, 0] * to[:, 1] - edge[:, 1] * to[:, 0]
    return bool((turn >= 0).all() or (turn <= 0).all())


def line_of_trees(site: Site, path: Points, chance: float) -> None:
    """Trees that outgrew a hedge."""
    for x, y in dense(path, 5.0, closed=False):
        if site.rng.random() < chance:
            radius = site.rng.uniform(2.2, 5.0)
            site.plant_at(np.array([x, y]), radius)


def lay_water(site: Site) -> None:
    """Lay the river or a lake, with rough banks, reed and trees."""
    rng, palette = site.rng, site.canvas.palette
    bank, shallow, deep = palette.add("meadow", 0.92), palette.add("shallow"), palette.add("water")
    if site.water is None:
        return
    path, half = site.water
    if site.lake is not None:
        _lake(site, site.lake, (bank, shallow, deep))
        return
    site.canvas.band(path, 2 * half + rng.uniform(14, 22), bank)
    site.canvas.band(path, 2 * half + 1.2, palette.add("soil", 1.1))
    site.canvas.band(path, 2 * half, shallow)
    site.canvas.band(path, 2 * half - 3.0, deep)
    _bank_trees(site, path, half)


def _bank_trees(site: Site, path: Points, half: np.ndarray) -> None:
    rng = site.rng
    normal = np.gradient(path, axis=0)
    normal = np.stack([-normal[:, 1], normal[:, 0]], axis=1) / np.hypot(*normal.T)[:, None]
    dense_here = np.sin(np.arange(len(path)) / rng.uniform(8, 14) + rng.uniform(0, 6))
    for side in (-1, 1):
        for i in range(len(path)):
            for _ in range(rng.poisson(0.5 * max(0.15, dense_here[i] * side + 0.3))):
                radius = rng.uniform(1.8, 4.6)
                point = path[i] + side * normal[i] * (half[i] + radius * 0.5 + rng.exponential(2.5))
                site.plant_at(point, radius)


def _lake(site: Site, rim: Points, labels: tuple[int, int, int]) -> None:
    rng = site.rng
    bank, shallow, deep = labels
    middle = rim.mean(axis=0)
    out = (rim - middle) / np.hypot(*(rim - middle).T)[:, None]
    beach = site.canvas.palette.add("sand")
    for extra, label in ((9.0, bank), (0.8, beach), (0.0, shallow), (-2.5, deep)):
        site.canvas.polygon(rim + out * extra, label)
    for i in np.nonzero(rng.random(len(rim)) < 0.5)[0]:
        grown = rng.uniform(1.8, 4.4)
        site.plant_at(rim[i] + out[i] * (grown * 0.6 + rng.exponential(3.0)), grown)
