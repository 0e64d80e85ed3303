"""The shift between PAN and MS: measured against known ones, then applied, ignored or refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pancrafter_cli import sharpen
from pancrafter_cli.data.simulate import MS_GAINS, simulate_scene
from pancrafter_cli.errors import GeometryError, UsageError
from pancrafter_cli.geometry.degrade import degrade_weights
from pancrafter_cli.geometry.grid import AxisMap, GridMap
from pancrafter_cli.geometry.matching import WindowShift
from pancrafter_cli.geometry.registration import Read, Shift, summarise, window_shifts
from pancrafter_cli.geometry.resample import apply_weights
from pancrafter_cli.raster.register import judge, parse_registration, register
from pancrafter_cli.raster.scene import Scene, open_scene
from pancrafter_cli.tasks import memory
from pancrafter_cli.tasks.inspect import inspect_scene
from tests.scene_factory import PAN_TRANSFORM, FileFacts, ms_transform, smooth_image, write_tif

SIZE = 512
MARGIN = 4  # MS pixels by which PAN surrounds MS
SEEDS = (3, 6, 8, 11)
AMOUNTS = (0.0, 0.1, 0.37, 0.5, 1.0, 1.7)  # MS pixels
Image = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class ArrayPair:
    """A pair held in memory: pan (H, W), ms (C, h, w), their validity of the same shapes, and PAN to MS."""

    pan: NDArray[np.float32]
    ms: NDArray[np.float32]
    pan_valid: BoolArray
    ms_valid: BoolArray
    ms_map: GridMap

    @property
    def ratio(self) -> float:
        """MS pixel size over PAN pixel size."""
        return self.ms_map.ratio

    def read_pan(self, row: int, col: int, height: int, width: int) -> Read:
        """PAN (1, h, w) and which of it is valid."""
        part = np.s_[None, row : row + height, col : col + width]
        return self.pan[part], self.pan_valid[part]

    def read_ms(self, row: int, col: int, height: int, width: int) -> Read:
        """MS (C, h, w) and which of it is valid."""
        part = np.s_[:, row : row + height, col : col + width]
        return self.ms[part], self.ms_valid[part]


@cache
def landscape(seed: int) -> tuple[Image, Image]:
    """PAN (H, W) and what MS sees of the same place, sharp (C, H, W), in DN."""
    scene = simulate_scene(seed, SIZE, ratio=1)
    return scene.pan[0].astype(float), scene.reference.astype(float)


def make_pair(
    seed: int = 3,
    shift: tuple[float, float] = (0.0, 0.0),
    *,
    ratio: float = 4.0,
    snr: float | None = None,
    nodata: bool = False,
) -> ArrayPair:
    """A pair whose MS content lies `shift` (dx, dy) MS pixels further along than the relation says.

    snr: of noise in both, in dB of the images' own deviation; nodata: whether a third is invalid in both.
    """
    pan, sharp = landscape(seed)
    size = int(SIZE / ratio) - 2 * MARGIN
    rows, cols = (AxisMap(ratio, (MARGIN - d) * ratio, size, SIZE) for d in (shift[1], shift[0]))
    ms = np.empty((len(sharp), size, size))
    for band, gain in enumerate(MS_GAINS):
        r, c = (degrade_weights(axis, 0, size, gain) for axis in (rows, cols))
        ms[band] = apply_weights(r.matrix, c.matrix, sharp[band, r.first : r.stop, c.first : c.stop])
    if snr is not None:
        rng = np.random.default_rng([seed, round(10 * snr), *(round(100 * abs(d)) for d in shift)])
        level = 10 ** (-snr / 20)
        pan = pan + level * pan.std() * rng.standard_normal(pan.shape)
        ms = ms + level * ms.std(axis=(1, 2), keepdims=True) * rng.standard_normal(ms.shape)
    axis = AxisMap(ratio, MARGIN * ratio, size, SIZE)
    pan_valid, ms_valid = np.ones(pan.shape, bool), np.ones(ms.shape, bool)
    if nodata:
        y, x = np.mgrid[:SIZE, :SIZE] + 0.5
        pan_valid = x + 0.4 * y > 0.53 * SIZE
        centres = axis.centres(0, size)
        ms_valid &= centres + 0.4 * centres[:, None] > 0.53 * SIZE
        assert 0.2 < 1 - ms_valid.mean() < 0.45
    return ArrayPair(
        (pan * pan_valid).astype(np.float32),
        (ms * ms_valid).astype(np.float32),
        pan_valid,
        ms_valid,
        GridMap(axis, axis).inverse(),
    )


def measured(pair: ArrayPair) -> Shift:
    return summarise(window_shifts(pair))


def moved(pair: ArrayPair, dx: float, dy: float) -> ArrayPair:
    """The same pixels with georeferencing that puts MS content (dx, dy) MS pixels off."""
    r = pair.ms_map
    return ArrayPair(
        pair.pan, pair.ms, pair.pan_valid, pair.ms_valid, GridMap(r.rows.shifted(-dy), r.cols.shifted(-dx))
    )


@pytest.mark.parametrize("ratio", [2.0, 4.0, 4.015])
def test_known_shifts_are_measured_within_a_twentieth_of_an_ms_pixel(ratio: float) -> None:
    errors = []
    for k, (seed, amount, nodata) in enumerate((s, a, n) for s in SEEDS for a in AMOUNTS for n in (False, True)):
        if ratio != 4.0 and k % 3:
            continue
        # Both axes, both signs, every amount in x with another one in y.
        shift = (amount, -AMOUNTS[(k // 2 + seed) % len(AMOUNTS)]) if k % 4 < 2 else (-amount, 0.5 * amount)
        snr = (None, 40.0, 30.0, 20.0)[(k + seed) % 4]
        found = measured(make_pair(seed, shift, ratio=ratio, snr=snr, nodata=nodata))
        error = max(abs(found.dx - shift[0]), abs(found.dy - shift[1]))
        assert error <= 0.15 or not found.reliable, (seed, shift, snr, nodata, found)
        errors.append(error)
    assert np.mean(np.array(errors) <= 0.05) >= 0.95, sorted(errors)[-5:]


@settings(max_examples=8)
@given(dx=st.floats(-11, 11), dy=st.floats(-11, 11))
def test_georeferencing_that_is_off_adds_to_the_shift(dx: float, dy: float) -> None:
    found = measured(moved(make_pair(snr=30.0), dx, dy))
    assert found.reliable
    assert (found.dx, found.dy) == pytest.approx((dx, dy), abs=0.05)


def test_contrast_band_order_and_row_order_do_not_matter() -> None:
    pair = make_pair(shift=(0.4, -0.3), snr=30.0)
    ms = pair.ms[::-1].copy()
    ms[0] = 3000 - ms[0]
    r = pair.ms_map
    upside_down = GridMap(
        AxisMap(-r.rows.scale, r.rows.offset + r.rows.scale * r.rows.dst_size, r.rows.dst_size, r.rows.src_size), r.cols
    )
    other = measured(ArrayPair(pair.pan[::-1].copy(), ms, pair.pan_valid, pair.ms_valid[::-1], upside_down))
    found = measured(pair)
    assert (other.dx, other.dy, other.windows) == pytest.approx((found.dx, found.dy, found.windows), abs=1e-3)


def test_a_band_without_data_does_not_hide_the_others() -> None:
    pair = make_pair(shift=(0.37, 0.1))
    ms_valid = pair.ms_valid.copy()
    ms_valid[1] = False
    found = measured(ArrayPair(pair.pan, pair.ms, pair.pan_valid, ms_valid, pair.ms_map))
    assert (found.dx, found.dy) == pytest.approx((0.37, 0.1), abs=0.05)


def unlike_pairs() -> list[ArrayPair]:
    """Pairs in which nothing can be matched: noise, flat images, another place, too small, full of holes."""
    rng = np.random.default_rng(0)
    pair = make_pair()
    other = make_pair(11)
    valid = pair.pan_valid, pair.ms_valid
    noise = rng.normal(500, 50, pair.pan.shape).astype(np.float32)
    sparse = rng.random(pair.ms.shape[1:]) > 0.3
    small = AxisMap(4.0, 0.0, 12, 48)
    return [
        ArrayPair(noise, rng.normal(500, 50, pair.ms.shape).astype(np.float32), *valid, pair.ms_map),
        ArrayPair(np.full_like(pair.pan, 7), pair.ms, *valid, pair.ms_map),
        ArrayPair(pair.pan, np.full_like(pair.ms, 7), *valid, pair.ms_map),
        ArrayPair(pair.pan, other.ms, *valid, pair.ms_map),
        ArrayPair(
            pair.pan[:48, :48],
            pair.ms[:, :12, :12],
            pair.pan_valid[:48, :48],
            pair.ms_valid[:, :12, :12],
            GridMap(small, small).inverse(),
        ),
        ArrayPair(pair.pan, pair.ms, pair.pan_valid, pair.ms_valid & sparse, pair.ms_map),
    ]


def test_where_nothing_can_be_matched_nothing_is_claimed() -> None:
    for pair in unlike_pairs():
        found = measured(pair)
        assert not found.reliable, found
        assert found.windows <= 2, found


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=20))
def test_summary_moves_with_the_windows(points: list[tuple[float, float]]) -> None:
    def shift_of(offset: float) -> Shift:
        return summarise([WindowShift(0, 0, dy + offset, dx - offset, 0.01, 0.9) for dy, dx in points])

    here, there = shift_of(0.0), shift_of(1.25)
    assert (there.dx, there.dy) == pytest.approx((here.dx - 1.25, here.dy + 1.25), abs=1e-9)
    assert there.spread == pytest.approx(here.spread, abs=1e-9)
    xs = [dx for _, dx in points]
    assert min(xs) - 1e-9 <= here.dx <= max(xs) + 1e-9


def test_spread_is_that_of_a_normal_scatter() -> None:
    """The median distance from the shift, times what makes it the deviation of normal distances."""
    found = summarise([WindowShift(0, 0, 0.5, dx, 0.03, 0.9) for dx in (-0.2, -0.1, 0.0, 0.1, 0.2)])
    assert (found.dx, found.dy) == pytest.approx((0.0, 0.5))
    assert found.spread == pytest.approx(0.14826)
    assert found.error == pytest.approx(math.hypot(0.14826, 0.03) / math.sqrt(5))


def test_summary_resists_outliers_and_leaves_out_the_unmatched() -> None:
    good = [WindowShift(0, 0, 0.5 + 0.01 * k, -0.2, 0.01, 0.9) for k in range(-3, 4)]
    wild = [WindowShift(0, 0, 9.0, 9.0, 0.01, 0.9)]
    lost = [WindowShift(0, 0, 3.0, 3.0, 0.01, 0.1), WindowShift(0, 0, 3.0, 3.0, 5.0, 0.9), WindowShift(0, 0)]
    found = summarise(good + wild + lost)
    assert (found.dx, found.dy) == pytest.approx((-0.2, 0.5), abs=0.02)
    assert (found.windows, found.looked) == (8, 11)
    nothing = summarise(lost)
    assert (nothing.windows, nothing.dx, nothing.reliable, nothing.disagrees) == (0, 0.0, False, False)


def write_scene(folder: Path, pair: ArrayPair) -> Scene:
    """The pair as files, opened."""
    folder.mkdir(parents=True, exist_ok=True)
    inverse = pair.ms_map.inverse()
    origin = (inverse.cols.offset, inverse.rows.offset)
    as_ints = [np.rint(image).astype(np.uint16) for image in (pair.pan[None], pair.ms)]
    pan = write_tif(folder / "pan.tif", as_ints[0])
    ms = write_tif(folder / "ms.tif", as_ints[1], FileFacts(transform=ms_transform(pair.ratio, origin)))
    return open_scene(pan, [ms])


def test_a_shift_is_corrected_and_told(tmp_path: Path) -> None:
    with write_scene(tmp_path, make_pair(shift=(0.5, -0.37))) as scene:
        before = scene.statistics.gain
        corrected, told = register(scene)
        assert (told.outcome, told.applied, told.mode) == ("corrected", True, "auto")
        assert corrected.shift == (told.dx, told.dy) == pytest.approx((0.5, -0.37), abs=0.05)
        assert scene.shift == (0.0, 0.0)
        assert tuple(map(float, told.tags["PANCRAFTER_SHIFT"].split(","))) == (told.dx, told.dy)
        assert "corrected" in told.text
        left = summarise(window_shifts(corrected))
        assert math.hypot(left.dx, left.dy) < 0.02
        # PAN explains the bands better where it belongs, so the matching of the bands is another.
        assert (corrected.statistics.gain > 1.02 * before).all()
        same, told = register(scene, "off")
        assert same is scene
        assert (told.mode, told.applied, told.tags["PANCRAFTER_SHIFT"]) == ("off", False, "0,0")
        as_given, told = register(scene, (-1.5, 3.25))
        assert as_given.shift == (told.dx, told.dy) == (-1.5, 3.25)
        assert (told.applied, told.mode) == (True, "given")


def test_no_shift_is_written_as_minus_nothing() -> None:
    told = judge(Shift(-0.004, -0.2, 0.02, 9, 9, 0.01))
    assert told.text.startswith("+0.00, -0.20 MS pixels")


def test_a_negligible_shift_is_left_alone(tmp_path: Path) -> None:
    with write_scene(tmp_path, make_pair(shift=(0.02, 0.0))) as scene:
        same, told = register(scene)
        assert same is scene
        assert (told.outcome, told.applied, told.tags["PANCRAFTER_SHIFT"]) == ("negligible", False, "0,0")


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.1])
def test_dead_pan_pixels_here_and_there_hide_nothing(share: float) -> None:
    pair = make_pair(shift=(0.5, -0.3))
    dead = np.random.default_rng(0).random(pair.pan.shape) < share
    hurt = replace(pair, pan=np.where(dead, 0, pair.pan).astype(np.float32), pan_valid=pair.pan_valid & ~dead)
    found = measured(hurt)
    assert found.reliable
    assert (found.dx, found.dy) == pytest.approx((0.5, -0.3), abs=0.05)


def test_a_shift_too_far_is_refused_with_numbers_and_flags(tmp_path: Path) -> None:
    with (
        write_scene(tmp_path, moved(make_pair(), 2.4, 1.0)) as scene,
        pytest.raises(GeometryError, match=r"\+2\.\d\d, \+[01]\.\d\d MS pixels") as refused,
    ):
        register(scene)
    assert "--registration=2." in refused.value.hint
    assert "--registration off" in refused.value.hint


@pytest.mark.parametrize(("width", "found"), [(100, True), (60, False), (40, False)])
def test_a_pan_that_is_mostly_nodata_is_not_taken_for_another_place(width: int, found: bool) -> None:
    """Windows of which next to nothing lies under it say nothing, neither for nor against."""
    pair = make_pair(shift=(0.5, -0.3))
    rows, cols = np.indices(pair.pan.shape)
    strip = np.abs(rows - cols) < width / 2
    told = judge(measured(replace(pair, pan=np.where(strip, pair.pan, 0), pan_valid=strip)))
    assert told.outcome == ("corrected" if found else "unmeasured")
    if found:
        assert (told.dx, told.dy) == pytest.approx((0.5, -0.3), abs=0.05)


def test_windows_that_disagree_are_refused(tmp_path: Path) -> None:
    pair = make_pair()
    pair.ms[:, 60:] = np.roll(pair.ms, 3, axis=2)[:, 60:]
    with write_scene(tmp_path, pair) as scene, pytest.raises(GeometryError, match=r"elsewhere.*spread") as refused:
        register(scene)
    assert "--registration off" in refused.value.hint
    assert "--local-registration" in refused.value.hint
    facts = inspect_scene(tmp_path / "pan.tif", (tmp_path / "ms.tif",), displacement=True)
    assert facts.shift.outcome == "disagreeing"
    assert facts.displacement is not None
    found = {w.row > 60: w.dx for w in facts.displacement if w.matched and w.row in (30, 90)}
    assert found == pytest.approx({False: 0.0, True: 3.0}, abs=0.1)


def test_inspect_names_the_tile_that_memory_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scene(tmp_path, make_pair()).close()
    found = []
    for free in (1 << 40, 1 << 29):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free)
        found.append(inspect_scene(tmp_path / "pan.tif", (tmp_path / "ms.tif",)))
    assert found[1].tile < found[0].tile
    assert found[1].tiles > found[0].tiles
    assert found[1].memory_bytes < found[0].memory_bytes
    result = sharpen(tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "o.tif")
    assert result.tile == found[1].tile


def test_inspect_looks_at_the_scene_as_it_would_be_sharpened(tmp_path: Path) -> None:
    still, off = (
        inspect_scene(folder / "pan.tif", (folder / "ms.tif",))
        for folder, shift in ((tmp_path / "a", 0.0), (tmp_path / "b", 1.7))
        if write_scene(folder, make_pair(shift=(shift, 0.0))).close() is None
    )
    assert off.shift.applied
    assert off.correlation == pytest.approx(still.correlation, abs=0.03)
    assert off.ms_mtf == pytest.approx(still.ms_mtf, abs=0.03)


def test_what_cannot_be_measured_is_no_error(tmp_path: Path) -> None:
    noise, no_pan, no_ms, elsewhere, small, _ = unlike_pairs()
    with write_scene(tmp_path, elsewhere) as scene, pytest.raises(GeometryError, match="nothing in common"):
        register(scene)
    for k, pair in enumerate((noise, no_pan, no_ms, small)):
        with write_scene(tmp_path / str(k), pair) as scene:
            same, told = register(scene)
            assert same is scene
            assert told.outcome in ("unmeasured", "uncertain")
            assert not told.applied


@pytest.mark.parametrize("text", ["on", "1", "1,2,3", "", "x,1"])
def test_flags_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--registration"):
        parse_registration(text)


def test_flags_and_shifts_that_can_be(tmp_path: Path) -> None:
    assert parse_registration("auto") == "auto"
    assert parse_registration("off") == "off"
    assert parse_registration("-0.5,0.25") == (-0.5, 0.25)
    with write_scene(tmp_path, make_pair()) as scene:
        with pytest.raises(UsageError, match="not possible"):
            register(scene, (math.nan, 0.0))
        with pytest.raises(GeometryError, match="does not lie on PAN"):
            register(scene, (5000.0, 0.0))


@settings(max_examples=15)
@given(dx=st.floats(-2, 2), dy=st.floats(-2, 2))
def test_a_shifted_scene_is_one_with_mended_georeferencing(
    tmp_path_factory: pytest.TempPathFactory, dx: float, dy: float
) -> None:
    """MS reaches 3 MS pixels beyond PAN on all sides, so that both scenes have the grid of PAN."""
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(0)
    pan = write_tif(folder / "pan.tif", rng.integers(1, 900, (1, 40, 48)).astype(np.uint16), FileFacts(nodata=0))
    image = rng.integers(0, 4, (2, 16, 18)).astype(np.uint16)  # a quarter is nodata
    facts = FileFacts(transform=ms_transform(4, (-12, -12)), nodata=0)
    ms = write_tif(folder / "ms.tif", image, facts)
    assert facts.transform is not None
    mended = write_tif(
        folder / "mended.tif", image, FileFacts(transform=facts.transform @ Affine.translation(-dx, -dy), nodata=0)
    )
    with open_scene(pan, [ms]) as scene, open_scene(pan, [mended]) as truth:
        shifted = scene.with_shift(dx, dy)
        assert shifted.grid.shape == truth.grid.shape == (40, 48)
        for axis, other in ((shifted.ms_map.rows, truth.ms_map.rows), (shifted.ms_map.cols, truth.ms_map.cols)):
            assert (axis.scale, axis.offset) == pytest.approx((other.scale, other.offset), abs=1e-6)
        # A centre that falls on the border of two MS pixels may go either way by rounding.
        if min(abs((4 * d + 0.5) - round(4 * d + 0.5)) for d in (dx, dy)) < 1e-4:
            return
        window = (3, 5, 20, 30)
        assert shifted.ms_window_under(*window) == truth.ms_window_under(*window)
        assert shifted.window_over(4, 5, 3, 2) == truth.window_over(4, 5, 3, 2)
        np.testing.assert_array_equal(shifted.valid(*window), truth.valid(*window))
        np.testing.assert_allclose(shifted.statistics.gain, truth.statistics.gain, atol=1e-6)
        assert shifted.statistics.valid_fraction == pytest.approx(truth.statistics.valid_fraction)
        assert shifted.with_shift(0, 0).ms_map == scene.ms_map


def test_edges_that_shifted_ms_does_not_reach_keep_the_nearest_pixel(tmp_path: Path) -> None:
    pan = write_tif(tmp_path / "pan.tif", np.full((1, 16, 16), 9, np.uint16), FileFacts(transform=PAN_TRANSFORM))
    image = np.array([[[0, 5, 5, 5], [5, 5, 5, 5], [5, 5, 5, 5], [5, 5, 5, 5]]], np.uint16)
    ms = write_tif(tmp_path / "ms.tif", image, FileFacts(transform=ms_transform(4), nodata=0))
    with open_scene(pan, [ms]) as scene:
        # MS content lies a pixel further right: the invalid corner covers nothing but what lies left of PAN.
        assert scene.with_shift(1.0, 0.0).valid(0, 0, 16, 16).all()
        invalid = ~scene.with_shift(-1.0, 0.0).valid(0, 0, 16, 16)[0]
    assert invalid[:4, :8].all()
    assert invalid.sum() == 32


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_what_a_registration_puts_beyond_ms_is_not_valid(tmp_path: Path, dtype: str) -> None:
    pan = write_tif(tmp_path / "pan.tif", smooth_image(1, 64, 64).astype(dtype), FileFacts(transform=PAN_TRANSFORM))
    facts = FileFacts(transform=ms_transform(4))
    ms = write_tif(tmp_path / "ms.tif", smooth_image(2, 16, 16).astype(dtype), facts)
    layer = tmp_path / "confidence.tif"
    result = sharpen(pan, ms, tmp_path / "o.tif", method="exp", registration=(5.0, -3.0), confidence=layer)
    with rasterio.open(tmp_path / "o.tif") as file:
        valid = file.read_masks(1) > 0
    # What the last 20 columns show lies right of MS, but for 4 of them farther than a pixel of it.
    expected = np.zeros((64, 64), bool)
    expected[12 - 4 :, : 44 + 4] = True
    np.testing.assert_array_equal(valid, expected)
    assert result.valid == pytest.approx(expected.mean())
    with rasterio.open(layer) as file:
        confidence = file.read(1)
    assert np.isnan(confidence[~expected]).all()
    beside, on_ms = confidence[20:, 44:48], confidence[20:, : 44 - 8]
    assert np.median(beside) <= 0.5 < np.median(on_ms)
    with open_scene(pan, [ms]) as scene:
        assert not scene.output.needs_mask
        assert scene.with_shift(5, -3).output.needs_mask == (dtype == "uint16")
        assert not scene.with_shift(5, -3).with_shift(1, 0).output.needs_mask


@pytest.mark.parametrize(
    ("name", "shift"),
    [
        ("landsat7-01", (0.54, 0.52)),
        ("landsat8-pamplona", (-0.5, 0.42)),
        ("pleiades-shifted-3", (1.08, 0.60)),
        ("qb-shifted-2", (0.72, 0.76)),
        ("vhr-henan", (0.0, 0.0)),
        ("spot6-tiny", (0.0, 0.0)),
    ],
)
def test_real_scenes(scenes: Path, name: str, shift: tuple[float, float]) -> None:
    """Known from phase correlation of every band; spot6-tiny has 32 x 32 MS pixels."""
    with open_scene(scenes / name / "pan.tif", [scenes / name / "ms.tif"]) as scene:
        _, told = register(scene)
        assert (told.dx, told.dy) == pytest.approx(shift, abs=0.06)


def far_off(shift: float, noise: float = 0.0, bands: int = 4) -> ArrayPair:
    """A pair whose PAN and MS show places `shift` MS pixels apart; noise: of MS, in DN."""
    pair = make_pair(3, ratio=2.0)
    cut = round(shift)
    size = pair.ms.shape[2] - cut
    ms = pair.ms[:bands, :, cut:] if cut else pair.ms[:bands]
    rng = np.random.default_rng(7)
    ms = (ms + noise * rng.standard_normal(ms.shape)).astype(np.float32)
    to_pan = pair.ms_map.inverse()
    cols = AxisMap(to_pan.cols.scale, to_pan.cols.offset, size, to_pan.cols.src_size)
    return ArrayPair(pair.pan, ms, pair.pan_valid, np.ones(ms.shape, bool), GridMap(to_pan.rows, cols).inverse())


def cut_out(pair: ArrayPair, first: int, size: int) -> ArrayPair:
    """A square of so many MS pixels with the PAN over it."""
    to_pan = pair.ms_map.inverse().rows
    start = round(to_pan.scale * first + to_pan.offset)
    length = round(to_pan.scale * size)
    axis = AxisMap(to_pan.scale, to_pan.scale * first + to_pan.offset - start, size, length)
    high, low = (np.s_[..., a : a + n, a : a + n] for a, n in ((start, length), (first, size)))
    return ArrayPair(
        pair.pan[high], pair.ms[low], pair.pan_valid[high], pair.ms_valid[low], GridMap(axis, axis).inverse()
    )


@pytest.mark.parametrize("size", [20, 22, 24, 25, 27, 30])
def test_an_overlap_of_some_twenty_ms_pixels_is_enough(size: int) -> None:
    pair = make_pair(shift=(0.5, -0.3))
    found = [measured(cut_out(pair, first, size)) for first in range(3, pair.ms.shape[1] - size, 17)]
    assert sum(shift.reliable for shift in found) >= 0.9 * len(found)
    errors = [math.hypot(shift.dx - 0.5, shift.dy + 0.3) for shift in found if shift.reliable]
    assert np.median(errors) < 0.08


def test_images_of_different_places_are_told_from_images_without_detail() -> None:
    right, wrong = (summarise(window_shifts(far_off(shift))) for shift in (0, 25))
    assert not right.unrelated
    assert right.common > 0.5
    assert wrong.unrelated
    assert judge(wrong).outcome == "unrelated"
    noisy = summarise(window_shifts(far_off(0, noise=3000)))
    assert not noisy.unrelated  # noise hides what they have in common
    assert judge(noisy).outcome in ("unmeasured", "uncertain")
    assert judge(noisy).warnings == ()


def test_what_cannot_be_told_is_a_warning_or_nothing() -> None:
    facts = Shift(0.0, 0.0, math.inf, 0, 9, math.inf, common=0.4, texture=0.8)
    assert judge(facts).outcome == "unmeasured"
    assert "hardly any of it matches" in judge(facts).warnings[0]
    assert judge(replace(facts, common=0.1)).outcome == "unrelated"
    assert judge(replace(facts, common=0.1, looked=2)).warnings == ()
    assert judge(replace(facts, common=0.1, texture=0.1)).warnings == ()


def test_flat_pan_says_nothing() -> None:
    pair = make_pair(3, ratio=2.0)
    flat = summarise(window_shifts(replace(pair, pan=np.full_like(pair.pan, 500))))
    assert (flat.common, flat.texture) == (0, 0)
    assert judge(flat).outcome == "unmeasured"


def test_images_of_different_places_are_refused(tmp_path: Path) -> None:
    pan, ms = landscape(3)
    low = ms.reshape(len(ms), SIZE // 2, 2, SIZE // 2, 2).mean(axis=(2, 4))
    write_tif(tmp_path / "pan.tif", pan[None].astype("uint16"))
    for name, moved in (("ms", 0), ("other", 25)):
        place = PAN_TRANSFORM @ Affine.translation(2 * moved, 0) @ Affine.scale(2)
        write_tif(tmp_path / f"{name}.tif", low.astype("uint16"), FileFacts(place))
    with open_scene(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        assert register(scene)[1].windows > 0
    with open_scene(tmp_path / "pan.tif", [tmp_path / "other.tif"]) as scene:
        with pytest.raises(GeometryError, match="nothing in common within 12 MS pixels") as caught:
            register(scene)
        assert "--registration off" in caught.value.hint
        assert register(scene, "off")[1].outcome == "off"
    assert inspect_scene(tmp_path / "pan.tif", (tmp_path / "other.tif",)).shift.outcome == "unrelated"
