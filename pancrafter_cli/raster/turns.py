"""Longitudes that differ by whole turns of the globe are one place: 180.1 degrees is -179.9."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from pancrafter_cli.geometry.grid import Grid


@cache
def full_turn(wkt: str | None) -> float | None:
    """A turn of the globe in the units of a geographic CRS (360 for degrees), None for any other CRS."""
    if wkt is None:
        return None
    crs = CRS.from_wkt(wkt)
    return 2 * math.pi / crs.axis_info[0].unit_conversion_factor if crs.is_geographic else None


def nearest_turn(x: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Coordinates x in the CRS of `grid`, moved by the whole turns that bring them nearest to its middle."""
    turn = full_turn(grid.crs_wkt)
    if turn is None:
        return x
    with np.errstate(invalid="ignore"):
        moved: NDArray[np.float64] = x - turn * np.round((x - _middle(grid)) / turn)
    return moved


def turned_to(grid: Grid, other: Grid) -> Grid:
    """A grid moved by the whole turns that bring its middle nearest to that of another one in the same CRS."""
    middle = _middle(grid)
    move = float(nearest_turn(np.array([middle]), other)[0]) - middle
    return replace(grid, transform=Affine.translation(move, 0) @ grid.transform) if move else grid


def _middle(grid: Grid) -> float:
    """The x coordinate of a grid's middle."""
    return float((grid.transform @ (grid.width / 2, grid.height / 2))[0])
