"""What a report shows: plain records, filled by the tasks and drawn by `page`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]  # (H, W, 3)
Better = Literal["low", "high"]
Fact = tuple[str, str]  # name, value


@dataclass(frozen=True)
class Column:
    """A column of numbers: `better` says which way is better, None where neither is."""

    name: str
    better: Better | None = None
    digits: int = 4
    unit: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table: one value per column, None where there is none; `deviations` add "± d" to each value."""

    label: str
    values: tuple[float | None, ...]
    deviations: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Table:
    """Numbers by row and column; the best value of every column that has a better direction is marked."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str = ""
    row_header: str = ""
    mark_best: bool = True


@dataclass(frozen=True)
class Layer:
    """A named picture (H, W, 3)."""

    name: str
    rgb: Rgb


@dataclass(frozen=True)
class Comparison:
    """Pictures of one place and one size, to be laid over each other; the first two are shown first."""

    title: str
    layers: tuple[Layer, ...]
    caption: str = ""


@dataclass(frozen=True)
class Map:
    """A picture (H, W, 3) of one quantity, made by `pictures.heatmap` with the same vmin and vmax."""

    title: str
    rgb: Rgb
    vmin: float
    vmax: float
    unit: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Series:
    """One line of a chart; None in `y` leaves a gap."""

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]


@dataclass(frozen=True)
class Chart:
    """Lines over a common x axis."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    caption: str = ""


@dataclass(frozen=True)
class ScoreReport:
    """One product and its numbers: `indices` has the fused product and `exp`, `tables` bands and statistics."""

    title: str
    version: str
    facts: tuple[Fact, ...]
    indices: Table
    tables: tuple[Table, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    maps: tuple[Map, ...] = ()
    settings: tuple[Fact, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SceneReport:
    """One scene of an evaluation: methods by indices, and the same crop of every method."""

    name: str
    table: Table
    crops: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class EvalReport:
    """Methods over several scenes: `means` has the mean and deviation of every index, `more` what belongs beside it."""

    title: str
    version: str
    facts: tuple[Fact, ...]
    means: Table
    more: tuple[Table, ...] = ()
    scenes: tuple[SceneReport, ...] = ()
    charts: tuple[Chart, ...] = ()
    settings: tuple[Fact, ...] = ()
    notes: tuple[str, ...] = ()
