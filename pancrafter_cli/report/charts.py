"""Where the lines, ticks and markers of a chart lie, in the units of its SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pancrafter_cli.report.contents import Chart, Series

WIDTH, HEIGHT = 640.0, 360.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 76.0, 30.0, 14.0, 64.0
_STEPS = (1.0, 2.0, 2.5, 5.0)
_COLOURS = 7  # in page.css; further series repeat them with a dashed line


@dataclass(frozen=True)
class Tick:
    """A place on an axis in SVG units, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A series in SVG units: the path, its points, and which colour, dash and marker it has."""

    name: str
    path: str
    points: tuple[tuple[float, float], ...]
    colour: int
    dashed: bool


@dataclass(frozen=True)
class Drawing:
    """A chart ready to be written as SVG, with the frame's four sides."""

    chart: Chart
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM
    width: float = WIDTH
    height: float = HEIGHT


def nice_ticks(low: float, high: float, most: int = 7) -> tuple[float, ...]:
    """At most `most` (3 or more) round, evenly spaced numbers that reach from `low` or below to `high` or above."""
    if high - low <= 1e-9 * max(abs(low), abs(high)) + 1e-12:  # one value, but for rounding
        low, high = low - max(abs(low), 1.0) / 2, high + max(abs(high), 1.0) / 2
    magnitude = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (s * magnitude * decade for decade in (1, 10, 100) for s in _STEPS):
        # A hair of slack, or rounding in low / step makes a tick that is not needed.
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first + 1 <= most:
            return tuple(step * n for n in range(first, last + 1))
    raise AssertionError("unreachable: the widest step leaves at most three ticks")


def draw_chart(chart: Chart) -> Drawing:
    """Lay out a chart: round ticks around all finite values, every series a line with gaps where it has none."""
    x_values = nice_ticks(*_range(v for s in chart.series for v in s.x), most=5)
    y_values = nice_ticks(*_range(v for s in chart.series for v in s.y))
    frame = Drawing(chart, (), (), ())

    def x_at(value: float) -> float:
        return _place(value, x_values, frame.left, frame.right)

    def y_at(value: float) -> float:
        return _place(value, y_values, frame.bottom, frame.top)

    lines = []
    for number, series in enumerate(chart.series):
        runs = [[(x_at(x), y_at(y)) for x, y in run] for run in _runs(series)]
        path = " ".join("M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in run) for run in runs)
        points = tuple(point for run in runs for point in run)
        lines.append(Line(series.name, path, points, number % _COLOURS, number >= _COLOURS))
    return Drawing(
        chart,
        tuple(Tick(x_at(v), label) for v, label in zip(x_values, _labels(x_values), strict=True)),
        tuple(Tick(y_at(v), label) for v, label in zip(y_values, _labels(y_values), strict=True)),
        tuple(lines),
    )


def _runs(series: Series) -> list[list[tuple[float, float]]]:
    """The stretches of a series without gaps."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(series.x, series.y, strict=True):
        if y is None or not math.isfinite(y):
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _range(values: Iterable[float | None]) -> tuple[float, float]:
    finite = [v for v in values if v is not None and math.isfinite(v)]
    return (min(finite), max(finite)) if finite else (0.0, 1.0)


def _place(value: float, ticks: tuple[float, ...], start: float, end: float) -> float:
    return start + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (end - start)


def _labels(ticks: tuple[float, ...]) -> tuple[str, ...]:
    """The ticks with just as many decimals as tell them apart."""
    for digits in range(12):
        if all(abs(round(t, digits) - t) < 1e-9 * (ticks[-1] - ticks[0]) for t in ticks):
            # Adding zero turns -0 into 0.
            return tuple(f"{round(t, digits) + 0.0:.{digits}f}" for t in ticks)
    return tuple(f"{t:.6g}" for t in ticks)
