"""Sports grounds."""

from __future__ import annotations

import math

import numpy as np

from pancrafter_cli.data.landscape.country import inside, scatter
from pancrafter_cli.data.landscape.materials import Rows
from pancrafter_cli.data.landscape.polygons import Frame, Points, chord, frame, inset, rectangle
from pancrafter_cli.data.landscape.site import Site


def lay_sports(site: Site, cell: Points, favourite: np.ndarray) -> None:
    """Lay a football pitch, with a running track when it fits, courts beside it."""
    rng, box, palette = site.rng, frame(cell), site.canvas.palette
    site.paint(cell, palette.add("lawn"))
    fit = chord(cell, box, 0.0) or (-20.0, 20.0)
    middle = box.at(0, (fit[0] + fit[1]) / 2)
    wide = min(66.0, fit[1] - fit[0] - 8)
    long = min(103.0, box.length - 14, wide * 1.62)
    while wide > 20 and not _fits(site, cell, rectangle(middle, box.angle, long + 4, wide + 4), middle):
        wide, long = 0.94 * wide, 0.94 * long
    straight = long - 16  # of the running track; its bends then clear the corners of the pitch
    ring = rectangle(middle, box.angle, straight + wide + 20, wide + 20)
    track = _fits(site, cell, ring, middle)
    line = palette.add("pitch line")
    if track:
        track_label = palette.add("running track")
        site.paint(_stadium(middle, box, straight, wide + 19), track_label, middle)
        for lane in (17.6, 13.0, 8.4):
            site.paint(_stadium(middle, box, straight, wide + lane), line, middle)
            site.paint(_stadium(middle, box, straight, wide + lane - 0.5), track_label, middle)
        site.paint(_stadium(middle, box, straight, wide + 4), palette.add("lawn"), middle)
    mown = Rows(site.warp.turn(middle, box.angle), 11.0, 0.06)
    grass = palette.add("turf", 1.0, mown)
    _pitch(site, middle, box.angle, (long, wide), (grass, line))
    beside = box.length / 2 - long / 2
    if not track and beside > 26:
        for side in (-1, 1):
            for k in (-1, 1):
                court = box.at(side * (box.length / 2 - beside / 2), k * min(19.0, wide / 4 + 2))
                if _fits(site, cell, rectangle(court, box.angle, 17, 35), court):
                    lay_court(site, court, box.angle)
    for point in scatter(site, cell, 0.003):
        if np.abs((point - middle) @ box.v) > wide / 2 + 6 or np.abs((point - middle) @ box.u) > long / 2 + 24:
            site.plant(point, rng.uniform(1.8, 4.2))


def _fits(site: Site, cell: Points, outline: Points, middle: Points) -> bool:
    """Whether a stiff outline stays in its block, which the warp bends."""
    bend = np.abs(site.moved(outline, middle) - site.warp(outline)).max()
    inner = inset(cell, 1.0 + float(bend))
    return len(inner) >= 3 and all(inside(inner, p) for p in outline)


def _stadium(middle: Points, box: Frame, straight: float, width: float) -> Points:
    """Outline of two straights joined by half circles."""
    turn = np.linspace(-math.pi / 2, math.pi / 2, 24)
    cap = np.stack([np.cos(turn), np.sin(turn)], axis=1) * width / 2 + (straight / 2, 0.0)
    outline = np.concatenate([cap, -cap])
    return np.asarray(middle + outline[:, :1] * box.u + outline[:, 1:] * box.v)


def _pitch(site: Site, middle: Points, angle: float, size: tuple[float, float], labels: tuple[int, int]) -> None:
    """Grass with its lines: border, halfway line, circle, penalty areas."""
    grass, line = labels
    length, width = size
    u = np.array([math.cos(angle), math.sin(angle)])
    site.paint(rectangle(middle, angle, length + 6, width + 6), grass, middle)

    def frame_of(at: Points, a: float, b: float) -> None:
        site.paint(rectangle(at, angle, a, b), line, middle)
        site.paint(rectangle(at, angle, a - 0.6, b - 0.6), grass, middle)

    frame_of(middle, length, width)
    for side in (-1, 1):
        deep = 0.16 * length
        frame_of(middle + side * (length / 2 - deep / 2) * u, deep, 0.6 * width)
        frame_of(middle + side * (length / 2 - deep / 6) * u, deep / 3, 0.27 * width)
    site.paint(rectangle(middle, angle, 0.3, width), line, middle)
    ring = np.linspace(0, 2 * math.pi, 40)
    circle = middle + 0.135 * width * np.stack([np.cos(ring), np.sin(ring)], axis=1)
    site.canvas.band(site.moved(circle, middle), 0.3, line)


def lay_court(site: Site, middle: Points, angle: float) -> None:
    """Lay a tennis court, its length across `angle`."""
    palette = site.canvas.palette
    clay = site.rng.random() < 0.5
    ground = palette.add("running track" if clay else "court")
    line = palette.add("pitch line")
    site.paint(rectangle(middle, angle + math.pi / 2, 35, 17), ground, middle)
    site.paint(rectangle(middle, angle + math.pi / 2, 23.8, 11), line, middle)
    site.paint(rectangle(middle, angle + math.pi / 2, 23.2, 10.4), ground, middle)
    site.paint(rectangle(middle, angle + math.pi / 2, 12.8, 8.2), line, middle)
    site.paint(rectangle(middle, angle + math.pi / 2, 12.2, 7.6), ground, middle)
