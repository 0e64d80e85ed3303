"""The pages in a real browser: nothing overflows, nothing overlaps, and the slider obeys mouse, finger and keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pancrafter_cli.data.simulate import SimulatedScene, simulate_scene
from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.geometry.resample import apply_weights, cubic_weights
from pancrafter_cli.metrics.reduced import ergas, sam
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
from pancrafter_cli.report.page import render_eval, render_score, write_page
from pancrafter_cli.report.pictures import heatmap, stretch

SIZE, RATIO = 384, 4
BANDS = ("blue", "green", "red", "nir")
INDICES = (Column("ERGAS", "low", 3), Column("SAM", "low", 3, unit="degrees"))
WIDTHS = (1280, 390)
Image = np.ndarray[Any, np.dtype[np.float32]]


def upsampled(scene: SimulatedScene) -> Image:
    size = scene.pan.shape[1]
    w = cubic_weights(AxisMap(1 / RATIO, 0, size, size // RATIO), 0, size).matrix
    return apply_weights(w, w, scene.ms)


def products(scene: SimulatedScene) -> dict[str, Image]:
    """MS upsampled, and two simple injections of PAN detail in different strengths."""
    lms = upsampled(scene)
    coarse = scene.pan.reshape(1, SIZE // RATIO, RATIO, SIZE // RATIO, RATIO).mean(axis=(2, 4))
    low = upsampled(SimulatedScene(scene.pan, coarse, scene.reference, ("pan",)))
    gain = lms.std(axis=(1, 2), keepdims=True) / low.std()
    detail = (scene.pan - low) * gain
    return {"exp": lms, "injection, half": lms + 0.5 * detail, "injection, full": lms + detail}


def score_row(name: str, scene: SimulatedScene, image: Image) -> Row:
    return Row(name, (ergas(scene.reference, image, RATIO), sam(scene.reference, image)))


def band_tables(scene: SimulatedScene, lms: Image, fused: Image) -> tuple[Table, ...]:
    errors = [(fused[b] - scene.reference[b]).astype(np.float64) for b in range(len(BANDS))]
    per_band = Table(
        "Per band",
        (Column("RMSE", "low", 2, "DN"), Column("bias", None, 2, "DN"), Column("correlation", "high", 4)),
        tuple(
            Row(
                name,
                (
                    float(np.sqrt((e**2).mean())),
                    float(e.mean()),
                    float(np.corrcoef(fused[b].ravel(), scene.reference[b].ravel())[0, 1]),
                ),
            )
            for b, (name, e) in enumerate(zip(BANDS, errors, strict=True))
        ),
        row_header="band",
        mark_best=False,
    )
    statistics = Table(
        "Band statistics",
        tuple(
            Column(f"{g} {n}", None, 1, "DN") for g in ("MS upsampled", "fused") for n in ("min", "max", "mean", "std")
        ),
        tuple(
            Row(name, tuple(float(f(image[b])) for image in (lms, fused) for f in (np.min, np.max, np.mean, np.std)))
            for b, name in enumerate(BANDS)
        ),
        row_header="band",
    )
    return per_band, statistics


def score_report() -> ScoreReport:
    scene = simulate_scene(6, SIZE, RATIO)
    images = products(scene)
    lms, fused = images["exp"], images["injection, full"]
    valid = np.ones((SIZE, SIZE), dtype=bool)
    valid[:40, :60] = False
    ms_rgb, limits = stretch(lms, valid, (2, 1, 0))
    layers = (
        Layer("MS upsampled", ms_rgb),
        Layer("fused", stretch(fused, valid, (2, 1, 0), limits)[0]),
        Layer("PAN", stretch(scene.pan, valid, (0, 0, 0))[0]),
        Layer("reference", stretch(scene.reference, valid, (2, 1, 0), limits)[0]),
    )
    error = np.sqrt(((fused - scene.reference) ** 2).mean(axis=0))
    blocks = error.reshape(SIZE // 32, 32, SIZE // 32, 32).mean(axis=(1, 3))
    blocks[0, 0] = np.nan
    error[~valid] = np.nan
    return ScoreReport(
        title="delivery <2024> & sons/a-very-long-product-name_056078305010_01_P001_MUL_sharpened_by_injection.tif",
        version="0.1.0",
        facts=(
            ("PAN", "pan.tif, 1 band, 384 x 384, 0.5 m, uint16"),
            ("MS", "ms.tif, 4 bands (blue, green, red, nir), 96 x 96, 2 m, uint16"),
            ("fused", "sharpened.tif, 4 bands, 384 x 384, 0.5 m, uint16"),
            ("reference", "reference.tif, 4 bands, 384 x 384, 0.5 m, uint16"),
        ),
        indices=Table(
            "Indices",
            (*INDICES, Column("HQNR", "high", 4), Column("PSNR", "high", 2, "dB")),
            (
                Row("fused", (*score_row("", scene, fused).values, 0.9023, None)),
                Row("exp", (*score_row("", scene, lms).values, 0.8871, float("nan"))),
            ),
            caption="exp is MS brought to the PAN grid and not sharpened: what sharpening is worth shows against it.",
        ),
        tables=band_tables(scene, lms, fused),
        comparisons=(Comparison("Before and after", layers, "One stretch for all colour pictures: 2 to 98 % of MS."),),
        maps=(
            Map("Error", heatmap(error, 0, 120), 0, 120, "RMSE over the bands, DN"),
            Map("Error by block", heatmap(blocks, 0, 60), 0, 60, "RMSE over the bands, DN", "Blocks of 32 pixels."),
        ),
        settings=(
            ("geometry", "area (MS pixel k at PAN coordinate 4k + 1.5)"),
            ("MTF gains", "0.34, 0.32, 0.30, 0.22; PAN 0.15"),
            ("block", "32 x 32"),
            ("valid pixels", "98.4 %"),
            ("ratio", "4"),
            ("peak", "2047"),
        ),
        notes=("HQNR rewards pictures that are not sharpened: read it beside exp.",),
    )


def eval_report() -> EvalReport:
    scenes, values = [], []
    for number, seed in enumerate((6, 7, 11), start=1):
        scene = simulate_scene(seed, SIZE, RATIO)
        images = products(scene)
        rows = tuple(score_row(name, scene, image) for name, image in images.items())
        values.append([row.values for row in rows])
        valid = np.ones((SIZE, SIZE), dtype=bool)
        limits = stretch(images["exp"], valid, (2, 1, 0))[1]
        part = np.s_[:, 100:220, 100:220]
        images = images | {"reference": scene.reference}
        crops = [Layer(n, stretch(i[part], valid[100:220, 100:220], (2, 1, 0), limits)[0]) for n, i in images.items()]
        table = Table(f"Scene {number}", INDICES, rows, row_header="method")
        scenes.append(SceneReport(f"Scene {number}", table, tuple(crops)))
    numbers = np.array(values, dtype=np.float64)
    shifts = (0.0, 0.25, 0.5, 0.75, 1.0)
    return EvalReport(
        title="Three synthetic scenes",
        version="0.1.0",
        facts=(("scenes", "3"), ("ratio", "4"), ("level", "reduced resolution")),
        means=Table(
            "Methods",
            INDICES,
            tuple(
                Row(n, tuple(m), tuple(d))
                for n, m, d in zip(images, numbers.mean(axis=0), numbers.std(axis=0, ddof=1), strict=False)
            ),
            caption="Mean ± standard deviation over the scenes (N - 1).",
            row_header="method",
        ),
        scenes=tuple(scenes),
        charts=(
            Chart(
                "ERGAS when PAN and MS are shifted",
                "shift in MS pixels",
                "ERGAS",
                tuple(
                    Series(n, shifts, tuple(base + slope * s**2 for s in shifts))
                    for n, base, slope in (("exp", 8.1, 0.2), ("injection, half", 6.0, 3.0), ("model", 3.9, 2.2))
                ),
            ),
        ),
        settings=(("block", "32 x 32"),),
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    api = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("report")
    made = {"score": render_score(score_report()), "eval": render_eval(eval_report())}
    for name, page in made.items():
        write_page(folder / f"{name}.html", page)
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """Opens a page by name and width; complaints and requests of the browser fail the test at its end."""
    contexts, complaints = [], []

    def visit(name: str, width: int, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else complaints.append(r.url))
        page.goto(pages[name].as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


# Boxes that hold text or pictures of their own; those with the same parent must not cover one another.
OVERLAPS = """() => {
  const found = [];
  const parents = document.querySelectorAll("body, header, main, section, figure, figure > .scale, .ends, " +
    ".facts, .facts > div, .controls, .maps, .crops, .legend, tr");
  for (const parent of parents) {
    const boxes = [...parent.children].filter((c) => getComputedStyle(c).position !== "absolute")
      .map((c) => [c, c.getBoundingClientRect()]).filter(([, r]) => r.width && r.height);
    boxes.forEach(([a, r], i) => boxes.slice(i + 1).forEach(([b, s]) => {
      if (a.matches(".label") || b.matches(".label")) return;  // sticks to the left edge while its table scrolls
      const wide = Math.min(r.right, s.right) - Math.max(r.left, s.left);
      const high = Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top);
      if (wide > 1 && high > 1) found.push(`${a.tagName}.${a.className} over ${b.tagName}.${b.className}`);
    }));
  }
  return found;
}"""
# Elements that reach beyond the window and are not inside a box that scrolls or hides what is too wide.
OUTSIDE = """() => [...document.querySelectorAll("body *")].filter((e) =>
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 && !e.closest(".scroll > *, .pane")
).map((e) => `${e.tagName}.${e.className}`)"""
# Labels of a chart that cover one another or are cut by its frame.
CHART_TEXT = """() => {
  const frame = document.querySelector(".chart > svg").getBoundingClientRect();
  const texts = [...document.querySelectorAll(".chart > svg text")]
    .map((t) => [t.textContent, t.getBoundingClientRect()]);
  const cut = texts.filter(([, r]) =>
    r.left < frame.left - 1 || r.right > frame.right + 1 || r.bottom > frame.bottom + 1);
  // Boxes of text reach above and below its digits: a few pixels of height in common are no overlap.
  const covered = texts.filter(([, r], i) => texts.slice(i + 1).some(([, s]) =>
    Math.min(r.right, s.right) - Math.max(r.left, s.left) > 1 &&
    Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top) > 3));
  return [...cut, ...covered].map(([text]) => text);
}"""
CLIP = "() => getComputedStyle(document.querySelector('.pane.right')).clipPath"


def clip(page: Any) -> float:
    """Share of the box, in percent, that the right picture leaves to the left one, as the browser computed it."""
    text = page.evaluate(CLIP)
    assert text.startswith("inset(")
    return float(text.rstrip(")").split()[-1].removesuffix("%"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["score", "eval"])
def test_the_page_fits_its_window(opened: Any, name: str, width: int, scheme: str) -> None:
    page = opened(name, width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(OVERLAPS) == []
    assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = int(background.removeprefix("rgb(").split(",")[0])
    assert (lightness < 64) == (scheme == "dark")


def test_the_script_of_the_page_catches_overlaps_and_overflow(opened: Any) -> None:
    page = opened("score", 390)
    page.evaluate("document.querySelectorAll('section')[1].style.marginTop = '-80px'")
    page.evaluate("document.querySelector('h1').style.width = '600px'")
    assert page.evaluate(OVERLAPS) != []
    assert page.evaluate(OUTSIDE) != []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_text_of_a_chart_is_legible(opened: Any, width: int) -> None:
    page = opened("eval", width)
    assert page.evaluate(CHART_TEXT) == []
    size = "parseFloat(getComputedStyle(document.querySelector('.chart text')).fontSize)"
    scale = "document.querySelector('.chart > svg').clientWidth / 640"
    assert page.evaluate(f"{size} * {scale}") >= 10


def test_wide_tables_scroll_in_their_own_box(opened: Any) -> None:
    page = opened("score", 390)
    widths = page.evaluate("[...document.querySelectorAll('.scroll')].map((e) => [e.scrollWidth, e.clientWidth])")
    assert any(inner > outer for inner, outer in widths)
    assert all(outer <= 390 for _, outer in widths)


def test_the_mouse_drags_the_divider(opened: Any) -> None:
    page = opened("score", 1280)
    box = page.locator(".box")
    box.scroll_into_view_if_needed()
    place = box.bounding_box()
    assert clip(page) == 50
    middle = place["y"] + place["height"] / 2
    page.mouse.move(place["x"] + place["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] * 0.8, middle, steps=4)
    page.mouse.up()
    assert clip(page) == pytest.approx(80, abs=0.3)
    page.mouse.move(place["x"] + 5, middle)
    assert clip(page) == pytest.approx(80, abs=0.3)  # let go
    divider = page.locator(".divider").bounding_box()
    assert divider["x"] + divider["width"] / 2 == pytest.approx(place["x"] + place["width"] * 0.8, abs=1.5)


def test_a_finger_moves_the_divider(opened: Any) -> None:
    page = opened("score", 390, has_touch=True, is_mobile=True)
    box = page.locator(".box")
    box.scroll_into_view_if_needed()
    place = box.bounding_box()
    page.touchscreen.tap(place["x"] + place["width"] * 0.25, place["y"] + place["height"] * 0.3)
    assert clip(page) == pytest.approx(25, abs=0.5)


def test_keys_move_the_divider_and_swap_the_sides(opened: Any) -> None:
    page = opened("score", 1280)
    page.locator(".box input").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert clip(page) == 52
    page.keyboard.press("ArrowLeft")
    assert clip(page) == 51
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    assert clip(page) == 100
    page.keyboard.press("f")
    assert page.locator(".tag.left").inner_text() == "fused"


def test_flip_swaps_the_two_pictures(opened: Any) -> None:
    page = opened("score", 1280)
    shown = [page.locator(f".pane.{side} img").get_attribute("src") for side in ("left", "right")]
    page.get_by_role("button", name="Flip").click()
    assert [page.locator(f".pane.{side} img").get_attribute("alt") for side in ("left", "right")] == [
        "fused",
        "MS upsampled",
    ]
    flipped = [page.locator(f".pane.{side} img").get_attribute("src") for side in ("left", "right")]
    assert flipped == shown[::-1]
    page.get_by_role("button", name="Flip").click()
    assert page.locator(".tag.left").inner_text() == "MS upsampled"


def test_any_two_layers_can_be_chosen_but_never_one_twice(opened: Any) -> None:
    page = opened("score", 1280)
    page.get_by_role("combobox", name="Right").select_option(label="PAN")
    assert page.locator(".pane.right img").get_attribute("alt") == "PAN"
    page.get_by_role("combobox", name="Left").select_option(label="PAN")
    assert page.locator(".pane.left img").get_attribute("alt") == "PAN"
    assert page.locator(".pane.right img").get_attribute("alt") == "MS upsampled"
    assert page.locator(".pane.left, .pane.right").count() == 2


def test_a_zoomed_picture_is_moved_by_dragging_and_never_leaves_its_box(opened: Any) -> None:
    page = opened("score", 1280)
    page.get_by_label("Zoom").select_option("4")
    page.locator(".box").scroll_into_view_if_needed()
    place = page.locator(".box").bounding_box()
    corner = page.locator(".pane.left img").bounding_box()
    assert corner["width"] == pytest.approx(4 * place["width"], abs=1)
    start = (place["x"] + place["width"] * 0.2, place["y"] + place["height"] * 0.5)
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + 60, start[1] + 40, steps=3)
    page.mouse.up()
    moved = page.locator(".pane.left img").bounding_box()
    assert (moved["x"] - corner["x"], moved["y"] - corner["y"]) == pytest.approx((60, 40), abs=1)
    assert clip(page) == 50
    for _ in range(40):
        page.keyboard.press("Shift+ArrowRight")
    edge = page.locator(".pane.left img").bounding_box()
    assert edge["x"] + edge["width"] == pytest.approx(place["x"] + place["width"], abs=1)
