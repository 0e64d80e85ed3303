"""Blocks of houses with their gardens."""

from __future__ import annotations

import math

import numpy as np

from pancrafter_cli.data.landscape.country import inside, scatter
from pancrafter_cli.data.landscape.objects import Building, Wing
from pancrafter_cli.data.landscape.polygons import Frame, Points, chord, clip, frame, inset, rectangle
from pancrafter_cli.data.landscape.site import Site


def _roof(site: Site, favourite: np.ndarray) -> str:
    return str(site.rng.choice(["red clay", "brown tile", "grey tile", "dark slate"], p=favourite))


def lay_houses(site: Site, cell: Points, favourite: np.ndarray) -> None:
    """Detached houses in gardens along both long sides of the block."""
    rng, box = site.rng, frame(cell)
    mix = rng.dirichlet(8 * favourite + 0.3)
    green = rng.uniform(0.5, 1.3)
    ridge_along = rng.random() < 0.6
    site.paint(cell, site.canvas.palette.add("lawn"))
    rows = (1.0, -1.0) if box.width > 42 else (float(rng.choice([-1.0, 1.0])),)
    for side in rows:
        row = clip(cell, box.at(0, 0), box.v * side) if len(rows) == 2 else cell
        at = -box.length / 2
        while at < box.length / 2 - 8:
            step = rng.uniform(13, 19.5)
            lot = clip(clip(row, box.at(at, 0), box.u), box.at(at + step, 0), -box.u)
            ends = chord(lot, box, at + step / 2) if len(lot) >= 3 else None
            if ends is not None and ends[1] - ends[0] > 14:
                street = ends[1] if side > 0 else ends[0]
                _lot(
                    site,
                    lot,
                    box,
                    (at + step / 2, street, side, step, ends[1] - ends[0]),
                    mix,
                    green,
                    ridge_along,
                )
            at += step


def _lot(
    site: Site,
    lot: Points,
    box: Frame,
    place: tuple[float, float, float, float, float],
    mix: np.ndarray,
    green: float,
    ridge_along: bool,
) -> None:
    """One garden with a house; `place` is middle along, street across, side, width, depth."""
    rng, palette = site.rng, site.canvas.palette
    along, street, side, width, depth = place
    kind = rng.random()
    site.paint(lot, palette.add("lawn" if kind < 0.82 else "dry grass" if kind < 0.94 else "gravel"))
    setback = rng.uniform(3.5, 6.5)
    front, deep = min(rng.uniform(9.5, 14.5), width - 3.5), min(rng.uniform(8.5, 12.0), depth - 8)
    shift = rng.uniform(-0.5, 0.5) * (width - front - 3)
    across = street - side * (setback + deep / 2)
    centre = box.at(along + shift, across)
    drive_at = along + (width / 2 - 1.9) * (-1.0 if shift > 0 else 1.0)
    drive = rng.uniform(4.0, setback + deep)
    drive_middle = box.at(drive_at, street + side * 0.6 - side * drive / 2)
    site.paint(rectangle(drive_middle, box.angle + math.pi / 2, drive + 1.5, 3.0), palette.add("drive"))
    site.paint(
        rectangle(box.at(along + shift, street - side * setback / 2), box.angle + math.pi / 2, setback + 1, 1.3),
        palette.add("drive"),
    )
    back = street - side * (setback + deep + 1.8)
    site.paint(
        rectangle(box.at(along + shift, back), box.angle, front * rng.uniform(0.4, 0.9), 3.6),
        palette.add("drive"),
    )
    site.buildings.append(_house(site, centre, box.angle, (front, deep), side, mix, ridge_along))
    site.park(box.at(drive_at, street - side * 2.8), box.angle + math.pi / 2, 0.5)
    if depth > 24 and rng.random() < 0.12:
        pool = box.at(along + rng.uniform(-0.2, 0.2) * width, street - side * (setback + deep + rng.uniform(7, 9)))
        turned = box.angle + (math.pi / 2 if rng.random() < 0.3 else 0)
        site.paint(rectangle(pool, turned, 10.4, 6.4), palette.add("concrete"))
        site.paint(rectangle(pool, turned, 8.0, 4.0), palette.add("pool"))
    if rng.random() < 0.5:
        shed = box.at(along + rng.choice([-1, 1]) * (width / 2 - 2.6), street - side * (depth - rng.uniform(2.5, 4)))
        wing = Wing(0, 0, rng.uniform(2.5, 4.5), rng.uniform(2.2, 3.2))
        name = str(rng.choice(["felt", "brown tile", "grey metal"]))
        turned = site.warp.turn(shed, box.angle)
        site.buildings.append(Building(site.warp(shed), turned, (wing,), "gable", 2.1, 0.3, name))
    _garden(site, box, place, green)


def _garden(site: Site, box: Frame, place: tuple[float, float, float, float, float], green: float) -> None:
    """Trees and bushes of a garden, hedges on its borders, a bed or two."""
    rng = site.rng
    along, street, side, width, depth = place
    for _ in range(rng.poisson(2.2 * green * depth / 24)):
        spot = box.at(along + rng.uniform(-0.45, 0.45) * width, street - side * rng.uniform(0.5, 0.97) * depth)
        site.plant(spot, min(rng.gamma(6.0, 0.42), 5.0))
    for _ in range(rng.poisson(3.5 * green)):
        site.plant(
            box.at(along + rng.uniform(-0.48, 0.48) * width, street - side * rng.uniform(0.05, 0.98) * depth),
            rng.uniform(0.6, 1.3),
        )
    if rng.random() < 0.45:
        spot = box.at(along + rng.uniform(-0.3, 0.3) * width, street - side * rng.uniform(0.7, 0.9) * depth)
        site.paint(
            rectangle(spot, box.angle, rng.uniform(2, 5), rng.uniform(1.5, 3)),
            site.canvas.palette.add("soil", 0.8),
        )
    if rng.random() < 0.6:
        end = rng.choice([-1.0, 1.0]) * (width / 2 - 0.5)
        fence = np.stack(
            [box.at(along + end, street - side * 0.35 * depth), box.at(along + end, street - side * depth)]
        )
        site.hedges.append((site.warp(fence), 1.3, 1.9))
    if rng.random() < 0.35:
        fence = np.stack(
            [
                box.at(along - width / 2 + 4, street - side * 0.9),
                box.at(along + width / 2 - 1, street - side * 0.9),
            ]
        )
        site.hedges.append((site.warp(fence), 1.1, 1.3))


def _house(
    site: Site,
    centre: Points,
    angle: float,
    size: tuple[float, float],
    side: float,
    mix: np.ndarray,
    ridge_along: bool,
) -> Building:
    rng = site.rng
    front, deep = size
    ridge = ridge_along if rng.random() < 0.85 else not ridge_along
    main = Wing(0, 0, front, deep) if ridge else Wing(0, 0, min(front, deep * 0.92), deep)
    wings = [main]
    if rng.random() < 0.42:  # an L: a lower wing into the garden or towards the street
        width, length = 0.52 * front, rng.uniform(3.0, 5.0)
        out = float(rng.choice([-1, 1], p=[0.7, 0.3])) * side
        wings.append(
            Wing(
                rng.choice([-1, 1]) * (front - width) * 0.42,
                out * (deep / 2 + length / 2 - 1.6),
                width,
                length + 3.2,
            )
        )
    if rng.random() < 0.3:  # a garage at the flank
        wings.append(Wing(rng.choice([-1, 1]) * (front / 2 + 1.2), 0.6 * side, 3.4, 6.0))
    kind = rng.random()
    roof = "flat" if kind < 0.07 else "hip" if kind < 0.3 else "gable"
    name = _roof(site, mix) if roof != "flat" else str(rng.choice(["roof gravel", "felt"]))
    return Building(
        site.warp(centre),
        site.warp.turn(centre, angle) + rng.normal(0, 0.02),
        tuple(wings),
        roof,
        rng.uniform(3.2, 5.8),
        rng.uniform(0.45, 0.72),
        name,
        vents=int(rng.integers(1, 3)) if roof != "flat" else 1,
        solar=bool(roof == "gable" and rng.random() < 0.16 and front > deep),
    )


def lay_terrace(site: Site, cell: Points, favourite: np.ndarray) -> None:
    """Rows of joined houses with narrow gardens."""
    rng, box, palette = site.rng, frame(cell), site.canvas.palette
    site.paint(cell, palette.add("lawn"))
    name, roof_tint = _roof(site, favourite), rng.uniform(0.9, 1.1)
    roofs = [palette.add(name, roof_tint) for _ in range(3)]
    unit, deep = rng.uniform(6.0, 7.5), rng.uniform(9.0, 10.5)
    count = max(1, round((box.width - 6) / 30))
    for k in range(count):
        across = -box.width / 2 + (k + 0.5) * box.width / count
        if count == 2:
            across = (-1, 1)[k] * (box.width / 2 - deep / 2 - 5.5)
        site.paint(
            rectangle(
                box.at(0, across + (deep / 2 + 2.6) * (1 if across >= 0 else -1)),
                box.angle,
                box.length - 8,
                1.5,
            ),
            palette.add("drive"),
        )
        at, run = -box.length / 2 + 5, 0
        while at < box.length / 2 - unit - 4:
            middle = box.at(at + unit / 2, across + 0.5 * (run % 2))
            if run < int(rng.integers(5, 9)) and inside(inset(cell, deep / 2), middle):
                garden = middle - box.v * (1 if across >= 0 else -1) * (deep / 2 + 5)
                site.paint(rectangle(garden, box.angle, unit - 0.4, 10.0), palette.add("lawn"))
                site.paint(
                    rectangle(garden + box.v * (1 if across >= 0 else -1) * 3.6, box.angle, unit - 0.6, 2.8),
                    palette.add("drive"),
                )
                fence = np.stack([garden + box.u * unit / 2 - box.v * 5, garden + box.u * unit / 2 + box.v * 5])
                site.hedges.append((site.warp(fence), 0.9, 1.6))
                if rng.random() < 0.6:
                    site.plant(garden + rng.uniform(-2.5, 2.5, 2), rng.uniform(0.9, 2.4))
                site.buildings.append(
                    Building(
                        site.warp(middle),
                        site.warp.turn(middle, box.angle),
                        (Wing(0, 0, unit - 0.1, deep),),
                        "row",
                        5.6,
                        0.6,
                        name,
                        label=roofs[int(rng.choice(3, p=[0.7, 0.2, 0.1]))],
                        vents=1,
                    )
                )
                run += 1
            else:
                run = 0
                at -= unit * 0.4
            at += unit
    for point in scatter(site, cell, 0.005):
        site.plant(point, rng.uniform(1.5, 3.5))
