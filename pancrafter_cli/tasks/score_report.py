"""The HTML report of a scored product: numbers, pictures to compare, maps, band statistics and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import UsageError
from pancrafter_cli.metrics.windows import BLOCK, Read, Shape, parts
from pancrafter_cli.raster.windows import spread_windows
from pancrafter_cli.report.contents import Column, Comparison, Layer, Map, Row, ScoreReport, Table
from pancrafter_cli.report.page import render_score, write_pages
from pancrafter_cli.report.pictures import heatmap, stretch
from pancrafter_cli.tasks.readers import block_means
from pancrafter_cli.tasks.score import EXP, FUSED, Measured
from pancrafter_cli.version import __version__

PAGE = "index.html"
COLUMNS: Mapping[str, Column] = {
    "q2n": Column("Q2n", "high"),
    "q": Column("Q", "high"),
    "sam": Column("SAM", "low", 3, "degrees"),
    "ergas": Column("ERGAS", "low", 3),
    "scc": Column("SCC", "high"),
    "ssim": Column("SSIM", "high"),
    "psnr": Column("PSNR", "high", 2, "dB"),
    "d_lambda_k": Column("D_lambda,K", "low"),
    "d_s": Column("D_S", "low"),
    "hqnr": Column("HQNR", "high"),
    "d_lambda": Column("D_lambda", "low"),
    "qnr": Column("QNR", "high"),
}
_OVERVIEW = 640  # pixels of the longer side
_DETAIL = 320
_CANDIDATES = 36
_NOTE = (
    "HQNR and QNR can be raised without sharpening anything: compare with exp, MS that was only interpolated, before "
    "reading them as quality."
)


def write_score_report(measured: Measured, folder: Path, bands: Sequence[int] | None = None) -> Path:
    """Write `folder`/index.html, one self-contained page; `bands` are shown as red, green, blue, counted from 0.

    Raises UsageError for bands that do not exist and OutputError when the page cannot be written.
    """
    shown = display_bands(measured.names, bands)
    result = measured.result
    report = ScoreReport(
        title=f"{'Full resolution' if result.full else 'Against a reference'}: {result.fused.name}",
        version=__version__,
        facts=(
            ("product", str(result.fused)),
            ("size", f"{result.shape[1]} x {result.shape[0]} pixels, {result.bands} bands"),
            ("scored", f"{100 * result.valid:.1f} % of the pixels"),
            ("shown as red, green, blue", ", ".join(_band_name(measured.names, b) for b in shown)),
        ),
        indices=score_table(measured),
        tables=tuple(_tables(measured)),
        comparisons=tuple(_comparisons(measured, shown)),
        maps=tuple(_maps(measured)),
        settings=tuple(result.settings.items()),
        notes=(*result.warnings, *((_NOTE,) if result.full else ())),
    )
    (page,) = write_pages(folder, {PAGE: render_score(report)})
    return page


def score_table(measured: Measured) -> Table:
    """All indices of the product, and of `exp` beside it."""
    scores = measured.result.scores
    names = tuple(scores[FUSED])
    rows = tuple(Row(label, tuple(values[name] for name in names)) for label, values in scores.items())
    return Table("Indices", tuple(COLUMNS[name] for name in names), rows, row_header="image")


def display_bands(names: Sequence[str | None], wanted: Sequence[int] | None) -> tuple[int, int, int]:
    """Bands shown as red, green, blue: those wanted, those of these names, else the third to the first."""
    if wanted is not None:
        if len(wanted) != 3 or not all(0 <= b < len(names) for b in wanted):
            asked = ",".join(str(b + 1) for b in wanted)
            raise UsageError(f"--bands {asked}: expected three of the bands 1 to {len(names)}", "for example 3,2,1")
        return wanted[0], wanted[1], wanted[2]
    known = {name.lower(): k for k, name in enumerate(names) if name}
    if {"red", "green", "blue"} <= known.keys():
        return known["red"], known["green"], known["blue"]
    return (2, 1, 0) if len(names) >= 3 else (0, 0, 0)


def _band_name(names: Sequence[str | None], band: int) -> str:
    return names[band] or f"band {band + 1}"


def _comparisons(measured: Measured, shown: tuple[int, int, int]) -> list[Comparison]:
    shape = measured.result.shape
    step = max(1, -(-max(shape) // _OVERVIEW))
    overview = {name: block_means(read, measured.mask, shape, step) for name, read in measured.layers.items()}
    detail = {}
    rows, cols = _busiest(measured)
    mask = measured.mask(rows, cols)
    for name, read in measured.layers.items():
        detail[name] = np.where(mask, read(rows, cols), np.nan)
    order = [name for name in (EXP, FUSED, "reference", "PAN") if name in measured.layers]
    pictures = []
    if step > 1:
        whole = f"{step} x {step} pixels are averaged into one."
        pictures.append(Comparison("Whole product", tuple(_layers(overview, order, shown)), whole))
    place = f"Rows {rows[0]} to {rows[1]}, columns {cols[0]} to {cols[1]}, at full size."
    return [*pictures, Comparison("Detail", tuple(_layers(detail, order, shown)), place)]


def _layers(images: Mapping[str, NDArray[np.floating]], order: Sequence[str], shown: Sequence[int]) -> list[Layer]:
    """Pictures of one place; all colour layers share the stretch of the first."""
    limits, layers = None, []
    titles = {EXP: "MS upsampled", FUSED: "Fused"}
    for name in order:
        image = images[name]
        known = np.isfinite(image).all(axis=0)
        if len(image) == 1 and name == "PAN":
            rgb, _ = stretch(image, known, (0, 0, 0))
        else:
            rgb, limits = stretch(image, known, shown, limits)
        layers.append(Layer(titles.get(name, name), rgb))
    return layers


def _busiest(measured: Measured) -> tuple[tuple[int, int], tuple[int, int]]:
    """The place with the most structure among some spread over the product."""
    height, width = measured.result.shape
    best, place = -1.0, ((0, min(height, _DETAIL)), (0, min(width, _DETAIL)))
    for row, col, tall, wide in spread_windows(height, width, _DETAIL, _CANDIDATES):
        rows, cols = (row, row + tall), (col, col + wide)
        mask = measured.mask(rows, cols)
        image = measured.layers[FUSED](rows, cols)[0]
        spread = float(image[mask].std()) * float(mask.mean()) ** 2 if mask.any() else 0.0
        if spread * tall * wide > best:
            best, place = spread * tall * wide, (rows, cols)
    return place


def _maps(measured: Measured) -> list[Map]:
    maps = [
        _map(f"{COLUMNS[name].name} of each block", values, f"{BLOCK} x {BLOCK} pixels a block, 0 is perfect.", "")
        for name, values in measured.maps.items()
    ]
    if not measured.result.full:
        truth, fused = measured.layers["reference"], measured.layers[FUSED]

        def error(rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.float64]:
            wrong = fused(rows, cols).astype(np.float64) - truth(rows, cols)
            return np.asarray(np.abs(wrong).mean(axis=0, keepdims=True))

        step = max(1, -(-max(measured.result.shape) // _OVERVIEW))
        values = block_means(error, measured.mask, measured.result.shape, step)[0]
        maps.append(_map("Absolute error", values, "Mean over the bands.", "DN"))
    return maps


def _map(title: str, values: NDArray[np.floating], caption: str, unit: str) -> Map:
    known = values[np.isfinite(values)]
    top = float(np.percentile(known, 98)) if known.size else 1.0
    top = max(top, 1e-6)
    return Map(title, heatmap(values, 0.0, top), 0.0, top, unit, caption)


def _tables(measured: Measured) -> list[Table]:
    """Statistics of every band of every layer, and with a reference the error of every band."""
    rows, errors = [], []
    layers = {name: read for name, read in measured.layers.items() if name != "PAN"}
    stats = {name: _statistics(read, measured.mask, measured.result.shape) for name, read in layers.items()}
    for band in range(measured.result.bands):
        for name, values in stats.items():
            label = f"{_band_name(measured.names, band)}, {'MS upsampled' if name == EXP else name}"
            rows.append(Row(label, tuple(float(v[band]) for v in values)))
    columns = tuple(Column(name, None, 1, "DN") for name in ("min", "max", "mean", "std"))
    tables = [Table("Bands", columns, tuple(rows), "Of the pixels that are scored.", "band", mark_best=False)]
    if not measured.result.full:
        truth = measured.layers["reference"]
        for name in (FUSED, EXP):
            bias, rms = _errors(measured.layers[name], truth, measured.mask, measured.result.shape)
            for band in range(measured.result.bands):
                label = f"{_band_name(measured.names, band)}, {'MS upsampled' if name == EXP else name}"
                errors.append(Row(label, (float(bias[band]), float(rms[band]))))
        columns = (Column("mean error", None, 2, "DN"), Column("RMSE", None, 2, "DN"))
        tables.append(Table("Error of each band", columns, tuple(errors), row_header="band", mark_best=False))
    return tables


def _statistics(read: Read, mask: Read, shape: Shape) -> tuple[NDArray[np.float64], ...]:
    """(min, max, mean, std), each (C,), of the valid pixels."""
    count = 0
    low = high = total = squares = reference = None
    for part in parts(shape, 1024, 0):
        valid = mask(part.rows, part.cols)
        if not valid.any():
            continue
        values = read(part.rows, part.cols)[:, valid].astype(np.float64)
        if reference is None or total is None or squares is None or low is None or high is None:
            reference = values.mean(axis=1, keepdims=True)
            total = squares = np.zeros(len(values))
            low, high = values.min(axis=1), values.max(axis=1)
        count += values.shape[1]
        low, high = np.minimum(low, values.min(axis=1)), np.maximum(high, values.max(axis=1))
        centred = values - reference
        total, squares = total + centred.sum(axis=1), squares + (centred**2).sum(axis=1)
    if reference is None or total is None or squares is None or low is None or high is None:
        raise ValueError("no valid pixel; scoring should have said so")
    mean = total / count
    return low, high, reference[:, 0] + mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def _errors(read: Read, truth: Read, mask: Read, shape: Shape) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean error, root mean square error), each (C,), of the valid pixels."""
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for part in parts(shape, 1024, 0):
        valid = mask(part.rows, part.cols)
        error = read(part.rows, part.cols)[:, valid].astype(np.float64) - truth(part.rows, part.cols)[:, valid]
        count += error.shape[1]
        total, squares = total + error.sum(axis=1), squares + (error**2).sum(axis=1)
    return total / count, np.sqrt(squares / count)
