"""One self-contained HTML page: nothing is loaded, every text is escaped, every picture is inside."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pancrafter_cli.errors import OutputError
from pancrafter_cli.report.charts import draw_chart
from pancrafter_cli.report.contents import Column, EvalReport, Row, ScoreReport, Table
from pancrafter_cli.report.pictures import colour_bar, png_data_uri

MISSING = "-"
_ELSEWHERE = "choose another folder"
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Cell:
    """A number as it is printed, its deviation or "", and whether it is the best of its column."""

    text: str
    deviation: str
    best: bool


def render_score(report: ScoreReport) -> str:
    """The page of one product: indices, pictures to compare, maps, statistics and the settings used."""
    return _environment().get_template("score.html.j2").render(report=report)


def render_eval(report: EvalReport) -> str:
    """The page of an evaluation: methods by indices, charts, and every scene with its crops."""
    return _environment().get_template("eval.html.j2").render(report=report)


def check_folder(folder: Path) -> None:
    """Raise OutputError when pages cannot be written into a folder, which `write_pages` makes; nothing is made yet."""
    above = folder.absolute()
    while not os.path.lexists(above):
        above = above.parent
    if not os.path.isdir(above):  # noqa: PTH112 - never raises
        raise OutputError(f"{folder}: {'' if above == folder.absolute() else f'{above} '}is no folder", _ELSEWHERE)
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: {above} may not be written into", _ELSEWHERE)


def write_pages(folder: Path, pages: Mapping[str, str]) -> list[Path]:
    """Write pages by name into a folder, which is made if need be; returns their paths. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror})", _ELSEWHERE) from error
    for name, page in pages.items():
        write_page(folder / name, page)
    return [folder / name for name in pages]


def write_page(path: Path, page: str) -> None:
    """Write a page under a temporary name and rename it into place, over an older page; the folder must exist.

    Raises OutputError when it cannot be written; nothing is left behind then.
    """
    part = path.with_name(f".{path.name[:80]}.{os.getpid()}.{secrets.token_hex(3)}.part")
    try:
        # File names need not be valid text; what cannot be written as UTF-8 becomes a question mark.
        part.write_bytes(page.encode("utf-8", "replace"))
        part.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror})", "choose a folder that exists and has room"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def cells(table: Table) -> tuple[tuple[Cell, ...], ...]:
    """The body of a table, row by row; ties as printed share the mark, and one row alone has none.

    Raises ValueError when a row has not one value (and no or one deviation) per column.
    """
    for row in table.rows:
        if len(row.values) != len(table.columns) or (row.deviations and len(row.deviations) != len(table.columns)):
            raise ValueError(f"table {table.title!r}, row {row.label!r}: not one value per column")
    best = [_best(table, k) for k in range(len(table.columns))]
    return tuple(
        tuple(
            _cell(column, row, k, best[k] is not None and format_number(row.values[k], column.digits) == best[k])
            for k, column in enumerate(table.columns)
        )
        for row in table.rows
    )


def format_number(value: float | None, digits: int) -> str:
    """A number with a fixed count of decimals; what is missing or undefined is a dash."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    # Adding zero turns -0 into 0.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", _MINUS)


def short_number(value: float) -> str:
    """The end of a colour scale: three significant digits, no exponent for the numbers of daily life."""
    if 0 < abs(value) < 1e-4 or abs(value) >= 1e6:
        return f"{value:.2e}".replace("-", _MINUS)
    decimals = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", _MINUS)


def _cell(column: Column, row: Row, k: int, best: bool) -> Cell:
    deviation = row.deviations[k] if row.deviations else None
    shown = "" if deviation is None or row.values[k] is None else format_number(deviation, column.digits)
    return Cell(format_number(row.values[k], column.digits), shown if shown != MISSING else "", best)


def _best(table: Table, k: int) -> str | None:
    """The best value of a column as printed, or None when there is nothing to choose."""
    column = table.columns[k]
    values = [v for v in (row.values[k] for row in table.rows) if v is not None and not math.isnan(v)]
    if not table.mark_best or column.better is None or len(values) < 2:
        return None
    return format_number(min(values) if column.better == "low" else max(values), column.digits)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pancrafter_cli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["png"] = png_data_uri
    environment.filters["short"] = short_number
    environment.globals.update(cells=cells, draw_chart=draw_chart, colour_bar=png_data_uri(colour_bar()))
    return environment
