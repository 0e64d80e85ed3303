from __future__ import annotations

import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from pancrafter_cli.errors import GeometryError
from pancrafter_cli.geometry.degrade import degrade_weights, mtf_sigma
from pancrafter_cli.geometry.grid import AxisMap, Grid, GridMap, grid_map, overlap
from pancrafter_cli.geometry.inputs import band_groups, gain_beyond, network_inputs, plan_inputs
from pancrafter_cli.geometry.resample import cubic_weights

ratios = st.floats(1.2, 8.0)
offsets = st.floats(-3.0, 3.0)


def pan_grid(size: int = 64) -> Grid:
    return Grid(Affine(0.5, 0, 1000.0, 0, -0.5, 2000.0), size, size)


def test_common_corner_puts_ms_sample_k_at_4k_plus_1_5() -> None:
    pan = pan_grid()
    ms = Grid(Affine(2.0, 0, 1000.0, 0, -2.0, 2000.0), 16, 16)
    to_pan = grid_map(ms, pan)
    # Coordinates count from the pixel's edge, so a 0-based pixel centre p is p + 0.5.
    assert list(to_pan.cols.centres(0, 3) - 0.5) == [1.5, 5.5, 9.5]
    assert grid_map(pan, ms).ratio == pytest.approx(4.0)


def test_south_up_source_has_negative_scale_and_the_same_places() -> None:
    pan = pan_grid()
    ms = Grid(Affine(2.0, 0, 1000.0, 0, 2.0, 2000.0 - 32.0), 16, 16)
    rows = grid_map(pan, ms).rows
    assert rows.scale == pytest.approx(-0.25)
    assert rows.centres(0, 1)[0] == pytest.approx(16 - 0.125)


def test_rotated_grids_have_no_axis_map() -> None:
    rotated = Grid(Affine.translation(1000, 2000) @ Affine.rotation(10) @ Affine.scale(2, -2), 16, 16)
    with pytest.raises(GeometryError, match="rotated"):
        grid_map(pan_grid(), rotated)


@given(scale=st.floats(0.1, 1.0), offset=st.floats(-20, 20), flip=st.booleans())
def test_overlap_is_exactly_the_pixels_whose_centres_lie_inside(scale: float, offset: float, flip: bool) -> None:
    axis = AxisMap(-scale if flip else scale, offset, 40, 10)
    start, stop = overlap(axis)
    centres = axis.centres(0, 40)
    inside = [k for k in range(40) if 0 <= centres[k] <= 10]
    # Centres that fall on the very edge may go either way by rounding.
    doubtful = [k for k in range(40) if min(abs(centres[k]), abs(centres[k] - 10)) < 1e-6]
    assert set(range(start, stop)) ^ set(inside) <= set(doubtful)


def test_a_centre_on_the_very_edge_lies_inside_whatever_rounding_makes_of_it() -> None:
    pan = Grid(Affine(0.3, 0, 300_000.3, 0, -0.3, 5_000_000.0), 2000, 100)
    for first in range(3, 9):  # MS begins in the middle of this PAN pixel and ends, 1600 on, in that of another
        west = pan.transform.c + (first + 0.5) * 0.3
        ms = Grid(Affine(1.2, 0, west, 0, -1.2, 5_000_000.0), 400, 25)
        assert overlap(grid_map(pan, ms).cols) == (first, first + 1601)


@given(scale=st.floats(-2, 2).filter(lambda s: abs(s) > 0.1), offset=offsets)
def test_inverse_map_is_its_inverse(scale: float, offset: float) -> None:
    axis = AxisMap(scale, offset, 30, 20)
    there = axis.inverse()
    assert there.scale * (axis.scale * 7.25 + axis.offset) + there.offset == pytest.approx(7.25)


@given(ratio=ratios, offset=offsets)
def test_cubic_rows_sum_to_one_and_keep_quadratics(ratio: float, offset: float) -> None:
    axis = AxisMap(1 / ratio, offset, 60, 40)
    weights = cubic_weights(axis, 0, 60)
    np.testing.assert_allclose(weights.matrix.sum(axis=1), 1.0, atol=1e-12)
    centres = np.arange(weights.first, weights.stop) + 0.5
    target = axis.scale * (np.arange(60) + 0.5) + axis.offset
    inner = (target > 3) & (target < 37)
    for power in (1, 2):  # Keys' kernel reproduces polynomials up to the second degree
        np.testing.assert_allclose((weights.matrix @ centres**power)[inner], (target**power)[inner], rtol=1e-9)


# A Gaussian narrower than 0.6 pixel is sampled too coarsely to be centred this well.
@given(ratio=st.floats(1.6, 8.0), offset=offsets, gain=st.floats(0.1, 0.45))
def test_degraded_pixel_is_centred_on_its_own_area(ratio: float, offset: float, gain: float) -> None:
    axis = AxisMap(ratio, offset, 20, 200)
    weights = degrade_weights(axis, 0, 20, gain)
    centres = np.arange(weights.first, weights.stop) + 0.5
    target = axis.centres(0, 20)
    reach = 4 * mtf_sigma(ratio, gain) + 1
    inner = (target > reach) & (target < 200 - reach)
    np.testing.assert_allclose((weights.matrix @ centres)[inner], target[inner], atol=0.02)


@given(ratio=st.floats(2.0, 8.0), gain=st.floats(0.15, 0.45))
def test_degrading_has_the_asked_gain_at_nyquist(ratio: float, gain: float) -> None:
    axis = AxisMap(ratio, 100.5 - ratio / 2, 1, 201)
    weights = degrade_weights(axis, 0, 1, gain)
    x = np.arange(weights.first, weights.stop) + 0.5 - 100.5
    response = float(weights.matrix[0] @ np.cos(2 * np.pi * x / (2 * ratio)))
    assert response == pytest.approx(gain, abs=0.01)


@given(
    ratio=st.floats(1.5, 6.0),
    offset=offsets,
    start=st.integers(0, 30),
    length=st.integers(1, 40),
)
def test_inputs_of_a_window_equal_the_window_of_the_inputs(
    ratio: float, offset: float, start: int, length: int
) -> None:
    rng = np.random.default_rng(0)
    size = 80
    axis = AxisMap(1 / ratio, offset, size, math.ceil(size / ratio) + 3)
    relation = GridMap(axis, axis)
    pan = rng.random((1, size, size)).astype(np.float32)
    ms = rng.random((2, axis.src_size, axis.src_size)).astype(np.float32)
    gain, shift = np.array([2.0, 0.5], np.float32), np.array([0.1, -0.2], np.float32)

    def inputs(rows: tuple[int, int], cols: tuple[int, int]) -> list[np.ndarray]:
        plan = plan_inputs(relation, rows, cols)
        part_pan = pan[:, slice(*plan.rows.pan), slice(*plan.cols.pan)]
        part_ms = ms[:, slice(*plan.rows.ms), slice(*plan.cols.ms)]
        return list(network_inputs(plan, part_pan, part_ms, gain, shift))

    stop = min(start + length, size)
    whole = inputs((0, size), (0, size))
    window = inputs((start, stop), (0, stop))
    for one, all_of_it in zip(window, whole, strict=True):
        np.testing.assert_allclose(one, all_of_it[:, start:stop, 0:stop], atol=2e-6)


@given(bands=st.integers(1, 40), size=st.integers(1, 8))
def test_band_groups_cover_every_band_once(bands: int, size: int) -> None:
    groups = band_groups(bands, size)
    assert [b for g in groups for b in g.bands] == list(range(bands))
    for g in groups:
        assert len(g.shown) == size
        assert [g.shown[c] for c in g.channels] == list(g.bands)


@given(crispness=st.floats(0.75, 1.35), gain=st.floats(-3.0, 3.0))
def test_the_gain_beyond_ms_goes_on_four_times_as_far(crispness: float, gain: float) -> None:
    """As exp(c f^2) goes from f^2 = 0.15 by 0.4 to 1.15."""
    c = math.log(crispness)
    coarse, fine, missing = (np.array([gain * math.exp(c * f2)]) for f2 in (0.15, 0.4, 1.15))
    assert gain_beyond(coarse, fine)[0] == pytest.approx(missing[0], rel=1e-6)


def test_the_gain_beyond_ms_is_bounded() -> None:
    coarse, fine = np.array([1.0, 1.0, -2.0, 0.5, 0.0, 1.0]), np.array([2.0, 0.1, -2.0, -0.5, 1.0, 0.0])
    np.testing.assert_allclose(gain_beyond(coarse, fine), [1.4, 1 / 1.4, -2.0, 0.5, 0.0, 1.0])
