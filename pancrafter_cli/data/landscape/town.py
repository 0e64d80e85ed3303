"""Town blocks of a simulated landscape: which is what, and flats, works and parks."""

from __future__ import annotations

import math

import numpy as np

from pancrafter_cli.data.landscape.country import inside, scatter
from pancrafter_cli.data.landscape.houses import lay_houses, lay_terrace
from pancrafter_cli.data.landscape.objects import Building, Wing
from pancrafter_cli.data.landscape.polygons import Frame, Points, area, chord, frame, inset, rectangle
from pancrafter_cli.data.landscape.site import Site
from pancrafter_cli.data.landscape.sports import lay_court, lay_sports

_KINDS = ("houses", "terrace", "flats", "works", "park")
_SHARES = (0.60, 0.13, 0.10, 0.11, 0.06)
_TO_KERB = 5.0  # from a block's edge (the middle of the street) to its own ground, m


def lay_blocks(site: Site, cells: list[Points]) -> None:
    """One use for every block; works, sports and a park are always among them when there is room."""
    kinds = [str(k) for k in site.rng.choice(_KINDS, len(cells), p=_SHARES)]
    frames = [frame(c) for c in cells]
    size = site.canvas.extent

    def room(i: int) -> float:
        """How much of a pitch's shape fits, less when the block is not in the picture."""
        box = frames[i]
        away = max(0.0, float(np.abs(box.centre - size / 2).max() - 0.42 * size))
        return (
            min(box.length - 10, 118.0) * min(box.width - 10, 80.0) * area(cells[i]) / (box.length * box.width)
            - 200 * away
        )

    wanted = ("sports", "works", "houses", "houses", "park", "flats", "terrace", "works")
    for i, kind in zip(sorted(range(len(cells)), key=room, reverse=True), wanted, strict=False):
        kinds[i] = kind
    # A street of houses has a favourite roof, and so has the whole town.
    favourite = site.rng.dirichlet([2.2, 1.2, 1.0, 0.7])
    build = {
        "houses": lay_houses,
        "terrace": lay_terrace,
        "flats": _flats,
        "works": _works,
        "park": _park,
        "sports": lay_sports,
    }
    for cell, box, drawn in zip(cells, frames, kinds, strict=True):
        # Long roofs and pitches do not go with a corner plot.
        kind = drawn if drawn == "park" or area(cell) > 0.72 * box.length * box.width else "houses"
        inner = inset(cell, _TO_KERB + (1.6 if kind == "works" else 0.0))
        if area(inner) < 400 or frame(inner).width < 14:
            site.paint(inner, site.canvas.palette.add("lawn"))
            continue
        build[kind](site, inner, favourite)


def _flats(site: Site, cell: Points, favourite: np.ndarray) -> None:
    """Slabs with flat roofs on lawns, paths and car parks between them."""
    rng, box, palette = site.rng, frame(cell), site.canvas.palette
    site.paint(cell, palette.add("lawn"))
    name, height = str(rng.choice(["roof gravel", "felt", "grey metal"])), rng.uniform(9, 17)
    upright = rng.random() < 0.5
    pitch = rng.uniform(30, 40)
    at = -box.length / 2 + 12
    k = 0
    while at < box.length / 2 - 8:
        long_side = min(box.width - 14, rng.uniform(30, 52)) if upright else min(pitch * 0.75, 34)
        centre = box.at(at, rng.uniform(-0.06, 0.06) * box.width if upright else -box.width * 0.22)
        angle = box.angle + (math.pi / 2 if upright else 0)
        tall = height * rng.choice([0.8, 1.0, 1.0])
        for middle in (centre,) if upright or box.width < 55 else (centre, box.at(at, box.width * 0.24)):
            wing = Wing(0, 0, long_side, rng.uniform(11, 13))
            turned = site.warp.turn(middle, angle)
            if not all(inside(cell, corner) for corner in rectangle(middle, angle, long_side, wing.width)):
                continue
            site.paint(rectangle(middle, angle, long_side + 3, wing.width + 4), palette.add("drive"), middle)
            site.buildings.append(
                Building(
                    site.warp(middle),
                    turned,
                    (wing,),
                    "flat",
                    tall,
                    0,
                    name,
                    rng.uniform(0.85, 1.1),
                    vents=int(rng.integers(4, 10)),
                )
            )
        if k % 2 == 0 and inside(cell, box.at(at + pitch / 2 + 9, 0)):
            _car_park(site, box.at(at + pitch / 2, 0), box.angle + math.pi / 2, min(box.width - 10, 46.0))
        at, k = at + pitch, k + 1
    for point in scatter(site, cell, 0.006):
        site.plant(point, rng.uniform(1.6, 4.8))


def _car_park(site: Site, middle: Points, angle: float, length: float, full: float = 0.0) -> None:
    """Two rows of bays along a lane."""
    rng, palette = site.rng, site.canvas.palette
    full = full or rng.uniform(0.4, 0.85)
    u, v = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    site.paint(rectangle(middle, angle, length, 16.4), palette.add("yard asphalt"), middle)
    line = palette.add("marking")
    for a in np.arange(-length / 2 + 1.2, length / 2 - 1.0, 2.55):
        for side in (-1.0, 1.0):
            bay = middle + a * u + side * 5.7 * v
            site.paint(rectangle(bay + 1.27 * u, angle + math.pi / 2, 4.8, 0.26), line, middle)
            site.park(bay, angle + math.pi / 2, full, middle)


def _works(site: Site, cell: Points, favourite: np.ndarray) -> None:
    """Halls with large roofs on a yard, lorries, a car park."""
    rng, box, palette = site.rng, frame(cell), site.canvas.palette
    site.paint(cell, palette.add("lawn"))
    site.paint(inset(cell, 3.0), palette.add(str(rng.choice(["yard asphalt", "concrete"]))))
    yard = inset(cell, 5.0)
    at = -box.length / 2 + 7
    while at < box.length / 2 - 22:
        step = min(rng.uniform(26, 58), box.length / 2 - 6 - at)
        ends = chord(yard, box, at + step / 2)
        if ends is not None and ends[1] - ends[0] > 18:
            _bay(site, yard, box, (at, step), ends)
        at += step + rng.uniform(7, 12)
    for corner in cell:
        for _ in range(3):
            inwards = (box.centre - corner) * rng.uniform(0.02, 0.08)
            site.plant(corner + inwards + rng.normal(0, 2, 2), rng.uniform(1.5, 3.5))


def _bay(site: Site, yard: Points, box: Frame, span: tuple[float, float], ends: tuple[float, float]) -> None:
    """One stretch of a yard: a hall where it fits, cars or lorries on what is left."""
    rng, (at, step), room = site.rng, span, ends[1] - ends[0]
    side = float(rng.choice([-1.0, 1.0]))  # where the hall stands
    deep = min(room, rng.uniform(26, 60))
    for shrink in (1.0, 0.82, 0.66, 0.5):
        size = (step - 2) * shrink, deep * shrink
        centre = box.at(at + step / 2, (ends[1] if side > 0 else ends[0]) - side * (size[1] / 2 + 0.5))
        if min(size) > 9 and all(inside(yard, p) for p in rectangle(centre, box.angle, *size)):
            _hall(site, centre, box.angle, size)
            room -= size[1]
            break
    far = ends[0] if side > 0 else ends[1]  # the yard's edge away from the hall
    while room > 19:
        middle = box.at(at + step / 2, far + side * 9.5)
        if all(inside(yard, p) for p in rectangle(middle, box.angle, step - 4, 16)):
            _car_park(site, middle, box.angle, step - 4)
        far, room = far + side * 19, room - 19
    for _ in range(rng.integers(0, 5) if room > 7 else 0):
        spot = box.at(at + step * rng.uniform(0.1, 0.9), far + side * 3.5)
        x, y = site.warp(spot)
        angle = box.angle + (math.pi / 2 if room > 14 else 0) + rng.normal(0, 0.03)
        site.add_lorry(float(x), float(y), site.warp.turn(spot, angle))


def _hall(site: Site, centre: Points, angle: float, size: tuple[float, float]) -> None:
    rng = site.rng
    length, deep = size
    name = str(
        rng.choice(
            ["white metal", "grey metal", "blue metal", "roof gravel", "felt"],
            p=[0.22, 0.28, 0.14, 0.18, 0.18],
        )
    )
    flat = name in ("roof gravel", "felt") or rng.random() < 0.4
    wings = [Wing(0, 0, length, deep)]
    if rng.random() < 0.4:
        wings.append(Wing(length * 0.3, deep * 0.42, length * 0.38, deep * 0.3))
    site.buildings.append(
        Building(
            site.warp(centre),
            site.warp.turn(centre, angle),
            tuple(wings),
            "flat" if flat else "gable",
            rng.uniform(6, 11),
            rng.uniform(0.06, 0.14),
            name,
            skylights=rng.uniform(6, 11) if rng.random() < 0.65 else 0.0,
            vents=int(rng.integers(2, 14)) if flat else 0,
        )
    )


def _park(site: Site, cell: Points, favourite: np.ndarray) -> None:
    """Lawns, winding paths, groups of trees and a playground."""
    rng, box, palette = site.rng, frame(cell), site.canvas.palette
    site.paint(cell, palette.add("lawn"))
    for point in scatter(site, cell, 0.0008):
        site.paint(rectangle(point, rng.uniform(0, 3), rng.uniform(8, 25), rng.uniform(6, 15)), palette.add("meadow"))
    path = palette.add("gravel")
    for angle in (box.angle + rng.uniform(-0.3, 0.3), box.angle + rng.uniform(1.0, 2.0)):
        t = np.linspace(-0.5, 0.5, 40) * box.length
        d = np.array([math.cos(angle), math.sin(angle)])
        bend = rng.uniform(3, 9) * np.sin(t / rng.uniform(9, 16))
        line = box.centre + t[:, None] * d + bend[:, None] * np.array([-d[1], d[0]])
        line = line[[inside(cell, p) for p in line]]
        site.canvas.band(site.warp(line), 2.4, path)
    site.canvas.disc(site.warp(box.centre), 5.0, path)
    spot = box.at(box.length * 0.2, box.width * 0.18)
    site.paint(rectangle(spot, box.angle, 13, 10), palette.add("sand"))
    for across in (-0.13, 0.13):
        court = box.at(-0.3 * box.length, across * box.width)
        if box.width > 60 and all(inside(cell, p) for p in rectangle(court, box.angle, 19, 37)):
            lay_court(site, court, box.angle + math.pi / 2)
    clumps = scatter(site, cell, 0.0015)
    for clump in clumps:
        for _ in range(rng.poisson(4)):
            point = clump + rng.normal(0, 6, 2)
            if inside(cell, point):
                site.plant(point, rng.uniform(2.0, 5.2))
