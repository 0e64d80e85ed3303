"""An evaluation written down: Markdown, CSV, JSON, and an HTML page with pictures."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pancrafter_cli.report.contents import Chart, Column, EvalReport, Layer, Row, SceneReport, Series, Table
from pancrafter_cli.report.page import cells, render_eval, write_pages
from pancrafter_cli.report.pictures import stretch
from pancrafter_cli.tasks.eval_options import FULL, REDUCED, EvalResult, EvalRow, FloatArray, means
from pancrafter_cli.tasks.score import EXP
from pancrafter_cli.tasks.score_report import COLUMNS, display_bands
from pancrafter_cli.version import __version__

_TITLES = {REDUCED: "Reduced resolution (Wald's protocol)", FULL: "Full resolution"}


def mean_tables(result: EvalResult) -> list[Table]:
    """One table a protocol: methods by indices, mean and deviation over the scenes."""
    tables = []
    for protocol in (REDUCED, FULL):
        found = means(result.rows, protocol)
        if not found:
            continue
        names = tuple(next(iter(found.values())))
        count = len({row.scene for row in result.rows if row.protocol == protocol})
        rows = tuple(
            Row(method, tuple(values[n][0] for n in names), tuple(values[n][1] for n in names))
            for method, values in found.items()
        )
        caption = f"Mean over {count} scenes, \u00b1 standard deviation (N - 1)." if count > 1 else "One scene."
        tables.append(Table(_TITLES[protocol], tuple(COLUMNS[n] for n in names), rows, caption, "method"))
    return tables


def scene_tables(result: EvalResult) -> list[tuple[str, str, Table]]:
    """(scene, protocol, table of methods by indices) of every scene."""
    tables = []
    for scene, protocol in dict.fromkeys((row.scene, row.protocol) for row in result.rows):
        own = [row for row in result.rows if (row.scene, row.protocol) == (scene, protocol)]
        names = tuple(own[0].scores)
        rows = tuple(Row(row.method, tuple(row.scores[n] for n in names)) for row in own)
        title = f"{scene}: {_TITLES[protocol][0].lower()}{_TITLES[protocol][1:]}"
        tables.append((scene, protocol, Table(title, tuple(COLUMNS[n] for n in names), rows, row_header="method")))
    return tables


def curve_tables(result: EvalResult) -> list[Table]:
    """Mean ERGAS over the scenes by method and shift, without registration and with it."""
    tables = []
    for registration, title in (("off", "Shifted MS, registration off"), ("auto", "Shifted MS, registration on")):
        points = _curve_points(result.curve, registration)
        if points:
            columns = tuple(Column(f"{shift:g}", "low", 3) for shift in next(iter(points.values())))
            rows = tuple(Row(method, tuple(values.values())) for method, values in points.items())
            caption = f"{_curve_caption(result.curve)} Shifts are in MS pixels."
            tables.append(Table(title, columns, rows, caption, "method"))
    return tables


def to_markdown(result: EvalResult) -> str:
    """All tables as Markdown, the best of each column in bold."""
    parts = [_markdown(t) for t in (*mean_tables(result), *curve_tables(result))]
    parts += [_markdown(table) for _, _, table in scene_tables(result)]
    lists = {
        "Settings": [f"{name}: {value}" for name, value in result.settings.items()],
        "Warnings": result.warnings,
        "Failed": [failure.message for failure in result.failed],
    }
    parts += ["\n".join([f"{title}\n", *(f"- {item}" for item in items)]) for title, items in lists.items() if items]
    return "\n\n".join(parts) + "\n"


def to_csv(result: EvalResult) -> str:
    """One line per scene, protocol, method, shift and index."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["scene", "protocol", "method", "shift", "registration", "index", "value", "seconds"])
    for row in (*result.rows, *result.curve):
        for name, value in row.scores.items():
            facts = [row.scene, row.protocol, row.method, row.shift, row.registration]
            writer.writerow([*facts, name, repr(value), f"{row.seconds:.3f}"])
    return out.getvalue()


def to_json(result: EvalResult) -> str:
    """Rows, means, settings, and the scenes that failed."""
    document = {
        "rows": [asdict(row) for row in result.rows],
        "curve": [asdict(row) for row in result.curve],
        "means": {p: means(result.rows, p) for p in (REDUCED, FULL)},
        "settings": dict(result.settings),
        "warnings": list(result.warnings),
        "failed": [asdict(failure) for failure in result.failed],
    }
    return json.dumps(document, indent=2)


def write_evaluation(result: EvalResult, folder: Path) -> list[Path]:
    """Write eval.md, eval.csv, eval.json and index.html into a folder. Raises OutputError."""
    pages = {
        "eval.md": to_markdown(result),
        "eval.csv": to_csv(result),
        "eval.json": to_json(result),
        "index.html": render_eval(_report(result)),
    }
    return write_pages(folder, pages)


def _report(result: EvalResult) -> EvalReport:
    tables = mean_tables(result)
    scenes = []
    for scene, protocol, table in scene_tables(result):
        crops = result.pictures.get((scene, protocol), {})
        scenes.append(SceneReport(f"{scene}, {protocol}", table, tuple(_crops(crops))))
    return EvalReport(
        title="Pansharpening methods compared",
        version=__version__,
        facts=tuple((t.title, t.caption) for t in tables),
        means=tables[0],
        more=(*tables[1:], *curve_tables(result)),
        scenes=tuple(scenes),
        charts=tuple(_charts(result)),
        settings=tuple(result.settings.items()),
        notes=(*(f"Failed: {failure.message}" for failure in result.failed), *result.warnings),
    )


def _crops(images: Mapping[str, FloatArray]) -> list[Layer]:
    """The same place as every method made it, all with the stretch of `exp` or of the first."""
    limits = None
    order = sorted(images, key=lambda name: name != EXP)
    pictures = {}
    for name in order:
        image = images[name]
        bands = (0, 0, 0) if len(image) < 3 else display_bands([None] * len(image), None)
        valid = np.asarray(np.isfinite(image).all(axis=0))
        if name == "PAN":
            pictures[name], _ = stretch(image, valid, (0, 0, 0))
        else:
            pictures[name], limits = stretch(image, valid, bands, limits)
    return [Layer(name, pictures[name]) for name in images]


def _charts(result: EvalResult) -> list[Chart]:
    charts = []
    for registration, title in (("off", "registration off"), ("auto", "registration on")):
        points = _curve_points(result.curve, registration)
        if points:
            series = tuple(Series(method, tuple(values), tuple(values.values())) for method, values in points.items())
            title = f"ERGAS with MS moved, {title}"
            charts.append(Chart(title, "shift in MS pixels", "mean ERGAS", series, _curve_caption(result.curve)))
    return charts


def _curve_points(rows: Sequence[EvalRow], registration: str) -> dict[str, dict[float, float | None]]:
    """Mean ERGAS by method and shift, None where not all scenes of the curve have one: means of others say nothing."""
    scenes, shifts = {row.scene for row in rows}, sorted({row.shift for row in rows})
    own = [row for row in rows if row.registration == registration]
    points: dict[str, dict[float, float | None]] = {}
    for method in dict.fromkeys(row.method for row in own):
        points[method] = {}
        for shift in shifts:
            found = {row.scene: row.scores["ergas"] for row in own if (row.method, row.shift) == (method, shift)}
            points[method][shift] = statistics.fmean(found.values()) if found.keys() == scenes else None
    return points


def _curve_caption(rows: Sequence[EvalRow]) -> str:
    """Over what scenes the curve goes."""
    count = len({row.scene for row in rows})
    return f"Mean ERGAS over {count} scenes, where all of them have one." if count > 1 else "ERGAS of one scene."


def _markdown(table: Table) -> str:
    """A table in Markdown."""
    arrows = {"low": " \u2193", "high": " \u2191", None: ""}
    lines = [
        f"**{table.title}.** {table.caption}".rstrip(),
        "",
        f"| {table.row_header} | " + " | ".join(c.name + arrows[c.better] for c in table.columns) + " |",
        "|---|" + "---:|" * len(table.columns),
    ]
    for row, line in zip(table.rows, cells(table), strict=True):
        texts = [f"{c.text} \u00b1 {c.deviation}" if c.deviation else c.text for c in line]
        shown = [f"**{text}**" if c.best else text for text, c in zip(texts, line, strict=True)]
        lines.append(f"| {row.label} | " + " | ".join(shown) + " |")
    return "\n".join(lines)
