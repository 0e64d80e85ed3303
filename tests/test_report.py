"""Reports without a browser: pictures, numbers as printed, charts, escaping, and writing the file."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pancrafter_cli.errors import OutputError
from pancrafter_cli.report.charts import draw_chart, nice_ticks
from pancrafter_cli.report.contents import (
    Chart,
    Column,
    Comparison,
    EvalReport,
    Layer,
    Map,
    Row,
    SceneReport,
    ScoreReport,
    Series,
    Table,
)
from pancrafter_cli.report.page import (
    cells,
    format_number,
    render_eval,
    render_score,
    short_number,
    write_page,
)
from pancrafter_cli.report.pictures import NO_DATA, colour_bar, heatmap, png_data_uri, stretch

NASTY = "<script>alert(1)</script>\"'&<img src=http://x.example/a onerror=y>{{ 7*7 }}"
VOID = {"meta", "img", "input", "br", "hr", "link"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every element is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data


def picture(value: int = 9) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((6, 8, 3), value, dtype=np.uint8)


def table(text: str = "t", **changes: Any) -> Table:
    made = Table(
        title=text,
        columns=(Column(text, "low", 2, text), Column(text, "high", 3), Column(text)),
        rows=(Row(text, (1.0, 2.0, None), (0.1, None, None)), Row(text, (2.0, float("nan"), float("inf")))),
        caption=text,
        row_header=text,
    )
    return dataclasses.replace(made, **changes)


def score(text: str = "t") -> ScoreReport:
    layers = tuple(Layer(text, picture(n)) for n in range(3))
    return ScoreReport(
        title=text,
        version=text,
        facts=((text, text),),
        indices=table(text),
        tables=(table(text),),
        comparisons=(Comparison(text, layers, text), Comparison(text, layers[:1], text)),
        maps=(Map(text, picture(), 0.0, 1.0, text, text),),
        settings=((text, text),),
        notes=(text,),
    )


def evaluation(text: str = "t") -> EvalReport:
    line = Series(text, (0.0, 1.0, 2.0), (1.0, None, 3.0))
    return EvalReport(
        title=text,
        version=text,
        facts=((text, text),),
        means=table(text),
        scenes=tuple(SceneReport(text, table(text), (Layer(text, picture()),)) for _ in range(2)),
        charts=(Chart(text, text, text, (line,) * 9, text),),
        settings=((text, text),),
        notes=(text,),
    )


RENDERED = [(render_score, score), (render_eval, evaluation)]


@pytest.mark.parametrize(("render", "report"), RENDERED)
def test_no_text_becomes_markup(render: Any, report: Any) -> None:
    plain, nasty = Page(render(report("t"))), Page(render(report(NASTY)))
    assert nasty.tags == plain.tags
    assert [name for name, _ in nasty.attributes] == [name for name, _ in plain.attributes]
    assert NASTY in nasty.text
    assert "49" not in nasty.text


@pytest.mark.parametrize(("render", "report"), RENDERED)
def test_the_page_needs_nothing_from_outside(render: Any, report: Any) -> None:
    text = render(report())
    page = Page(text)
    addresses = [value for name, value in page.attributes if name in ("src", "href", "data", "action", "srcset")]
    assert addresses
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in addresses)
    assert "link" not in page.tags
    assert "@import" not in text
    assert "url(" not in text
    assert any("default-src 'none'" in value for _, value in page.attributes)


@pytest.mark.parametrize(("render", "report"), RENDERED)
def test_missing_and_undefined_numbers_are_dashes(render: Any, report: Any) -> None:
    words = Page(render(report())).text.split()
    assert "-" in words
    assert not {"nan", "None", "inf"} & {w.strip("±") for w in words}
    assert render(report()) == render(report())


def test_reports_may_lack_everything_optional() -> None:
    bare = Table("t", (Column("a", "low"),), (Row("x", (1.0,)),))
    assert "1.0000" in Page(render_score(ScoreReport("t", "1", (), bare))).text
    assert "1.0000" in Page(render_eval(EvalReport("t", "1", (), bare))).text


def test_the_best_of_each_column_is_marked_by_its_direction() -> None:
    columns = (Column("a", "low", 2), Column("b", "high", 2), Column("c", None, 2), Column("d", "low", 2))
    rows = (Row("x", (1.0, 1.0, 1.0, None)), Row("y", (2.0, 2.0, 2.0, 5.0)), Row("z", (1.001, math.nan, 0.0, None)))
    marks = [[cell.best for cell in line] for line in cells(Table("t", columns, rows))]
    # z ties with x as printed; a single value has no rival; a column without direction has no best
    assert marks == [[True, False, False, False], [False, True, False, False], [True, False, False, False]]
    assert not any(cell.best for line in cells(Table("t", columns, rows, mark_best=False)) for cell in line)


def test_deviations_stand_beside_their_values_only() -> None:
    line = cells(table())[0]
    assert [(c.text, c.deviation) for c in line] == [("1.00", "0.10"), ("2.000", ""), ("-", "")]


@pytest.mark.parametrize("row", [Row("x", (1.0,)), Row("x", (1.0, 2.0, 3.0), (0.1,))])
def test_a_row_of_another_length_is_a_bug_that_speaks(row: Row) -> None:
    with pytest.raises(ValueError, match="not one value per column"):
        cells(table(rows=(row,)))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (2.17049, 3, "2.170"),
        (-0.00001, 2, "0.00"),
        (-1.5, 1, "\N{MINUS SIGN}1.5"),
        (None, 2, "-"),
        (math.nan, 2, "-"),
        (math.inf, 2, "∞"),
        (2047.0, 0, "2047"),
    ],
)
def test_numbers_as_printed(value: float | None, digits: int, text: str) -> None:
    assert format_number(value, digits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (120, "120"), (0.05, "0.05"), (0.12345, "0.123"), (2047.6, "2048"), (-3.5, "\N{MINUS SIGN}3.5")],
)
def test_ends_of_scales_as_printed(value: float, text: str) -> None:
    assert short_number(value) == text


def test_the_stretch_takes_its_limits_from_valid_pixels() -> None:
    rng = np.random.default_rng(1)
    image = rng.uniform(100, 900, (4, 40, 50)).astype(np.float32)
    valid = np.ones((40, 50), dtype=bool)
    valid[:10] = False
    image[:, :10] = 60000
    image[2, 20, 20] = np.nan
    rgb, limits = stretch(image, valid, (2, 1, 0))
    known = valid.copy()
    known[20, 20] = False
    expected = [np.percentile(image[b][known].astype(np.float64), (2, 98)) for b in (2, 1, 0)]
    assert limits == pytest.approx(np.array(expected))
    assert rgb.shape == (40, 50, 3)
    assert (rgb[~known] == NO_DATA).all()
    red = image[2]
    assert (rgb[known & (red <= limits[0, 0])][:, 0] == 0).all()
    assert (rgb[known & (red >= limits[0, 1])][:, 0] == 255).all()
    middle = np.clip((red[known] - limits[0, 0]) / (limits[0, 1] - limits[0, 0]), 0, 1) * 255
    assert np.abs(rgb[known][:, 0] - middle).max() <= 0.51


def test_two_layers_with_the_same_limits_show_the_same_dn_alike() -> None:
    first = np.linspace(0, 1000, 60, dtype=np.float32).reshape(1, 6, 10).repeat(3, axis=0)
    valid = np.ones((6, 10), dtype=bool)
    rgb, limits = stretch(first, valid, (0, 1, 2))
    again, same = stretch(first[:, ::-1] * np.float32(1), valid, (0, 1, 2), limits)
    assert (again[::-1] == rgb).all()
    assert same is limits
    assert (stretch(first * 10, valid, (0, 1, 2), limits)[0][1:] == 255).all()


def test_a_stretch_of_nothing_or_of_one_value_does_not_fail() -> None:
    image = np.full((1, 4, 4), 7, dtype=np.float32)
    assert (stretch(image, np.zeros((4, 4), dtype=bool), (0, 0, 0))[0] == NO_DATA).all()
    assert np.unique(stretch(image, np.ones((4, 4), dtype=bool), (0, 0, 0))[0]).size == 1


def lightness(rgb: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """CIE L* (CIE 15) of sRGB colours (..., 3)."""
    c = rgb / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def test_heat_colours_rise_evenly_in_lightness_so_that_hue_is_never_needed() -> None:
    steps = np.diff(lightness(colour_bar(9)[0]))
    assert steps.min() > 0.7 * steps.mean()
    assert steps.max() < 1.3 * steps.mean()
    assert lightness(colour_bar(256)[0])[[0, -1]] == pytest.approx([8, 95], abs=3)


@given(
    st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=30),
    st.floats(-100, 100),
    st.floats(0, 1000),
)
def test_hotter_is_never_darker(values: list[float], vmin: float, span: float) -> None:
    ordered = np.sort(np.array(values))[None, :]
    rgb = heatmap(ordered, vmin, vmin + span)
    # rounding to whole numbers may move lightness by less than one step of a channel
    assert (np.diff(lightness(rgb)[0]) > -0.5).all()
    assert (rgb[ordered <= vmin] == colour_bar()[0, 0]).all()


def test_the_heat_map_keeps_ends_and_holes() -> None:
    rgb = heatmap(np.array([[-5.0, 0.0, 10.0, 99.0, np.nan]]), 0, 10)
    bar = colour_bar()[0]
    assert rgb[0].tolist() == [*(bar[k].tolist() for k in (0, 0, -1, -1)), list(NO_DATA)]


def test_pictures_go_into_the_page_unchanged() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    head, data = png_data_uri(rgb).split(",")
    assert head == "data:image/png;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) == rgb).all()


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(3, 9))
def test_ticks_are_few_even_and_around_the_range(low: float, span: float, most: int) -> None:
    ticks = nice_ticks(low, low + span, most)
    step = ticks[1] - ticks[0]
    assert 2 <= len(ticks) <= most
    assert np.diff(ticks) == pytest.approx(step, rel=1e-6)
    assert ticks[0] <= low + 1e-6 * step
    assert ticks[-1] >= low + span - 1e-6 * step


def test_a_chart_puts_its_points_in_the_frame_and_leaves_gaps() -> None:
    series = Series("s", (0.0, 0.25, 0.5, 0.75, 1.0), (4.0, 6.0, None, math.nan, 8.0))
    drawing = draw_chart(Chart("t", "x", "y", (series,)))
    assert [tick.label for tick in drawing.x_ticks] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert [tick.label for tick in drawing.y_ticks] == ["4", "5", "6", "7", "8"]
    (line,) = drawing.lines
    assert line.path.count("M") == 2
    assert line.points[0] == (drawing.left, drawing.bottom)
    assert line.points[-1] == (drawing.right, drawing.top)
    assert line.points[1] == (drawing.x_ticks[1].at, drawing.y_ticks[2].at)


def test_a_chart_of_nothing_has_a_frame() -> None:
    drawing = draw_chart(Chart("t", "x", "y", (Series("s", (), ()),)))
    assert drawing.lines[0].path == ""
    assert len(drawing.x_ticks) >= 2


def test_series_beyond_the_colours_are_dashed() -> None:
    lines = draw_chart(Chart("t", "x", "y", tuple(Series(str(n), (0.0,), (1.0,)) for n in range(9)))).lines
    assert len({(line.colour, line.dashed) for line in lines}) == 9


def test_writing_replaces_an_older_page_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_page(path, "new \udce9 é")  # a file name that is not text arrives as a lone surrogate
    assert path.read_bytes() == "new ? é".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_page_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere.*cannot be written") as caught:
        write_page(tmp_path / "nowhere" / "report.html", "x")
    assert caught.value.hint
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OutputError):
        write_page(tmp_path / "report.html", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
