from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pancrafter_cli.geometry.fill import FILL_REACH, fill_invalid


def random_scene(seed: int, share: float, bands: int = 2, size: int = 70):
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 1000, (bands, size, size)).astype(np.float32)
    valid = rng.random((bands, size, size)) < share
    image[~valid] = np.nan
    return image, valid


def test_a_valid_image_is_returned_itself():
    image = np.ones((2, 5, 6), np.float32)
    assert fill_invalid(image, np.ones(image.shape, bool), np.zeros(2)) is image


def test_a_hole_takes_the_mean_of_its_eight_neighbours():
    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    valid = np.ones(image.shape, bool)
    valid[0, 1, 3] = False
    image[0, 1, 3] = np.nan
    neighbours = [2, 3, 4, 7, 9, 12, 13, 14]
    assert fill_invalid(image, valid, np.zeros(1))[0, 1, 3] == pytest.approx(np.mean(neighbours))


def test_the_smallest_box_with_a_valid_pixel_counts():
    image = np.zeros((1, 9, 41), np.float32)
    valid = np.zeros(image.shape, bool)
    for col, value in ((20, 7.0), (23, 1000.0)):
        image[0, 4, col], valid[0, 4, col] = value, True
    filled = fill_invalid(image, valid, np.zeros(1))
    assert filled[0, 4, 19] == 7.0  # radius 1 holds the one, radius 4 would hold both
    assert filled[0, 4, 17] == pytest.approx((7.0 + 0) / 1)  # radius 4: only column 20
    assert filled[0, 4, 18] == 7.0


def test_the_reach_is_sixteen_pixels_and_then_the_fallback():
    image = np.full((2, 1, 60), -1, np.float32)
    valid = np.zeros(image.shape, bool)
    image[0, 0, 0], valid[0, 0, 0] = 5.0, True
    filled = fill_invalid(image, valid, np.array([11.0, 22.0]))
    assert FILL_REACH == 16
    assert (filled[0, 0, :17] == 5.0).all()
    assert (filled[0, 0, 17:] == 11.0).all()
    assert (filled[1] == 22.0).all()


def test_a_huge_value_does_not_disturb_a_distant_mean():
    image = np.ones((1, 40, 40), np.float32)
    image[0, 0, 0] = 3e38
    valid = np.ones(image.shape, bool)
    valid[0, 30, 30] = False
    assert fill_invalid(image, valid, np.zeros(1))[0, 30, 30] == 1.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), share=st.sampled_from([0.0005, 0.01, 0.3, 0.98]))
def test_valid_pixels_stay_and_filled_ones_lie_between_them(seed, share):
    image, valid = random_scene(seed, share)
    filled = fill_invalid(image, valid, np.array([500.0, 500.0]))
    assert (filled[valid] == image[valid]).all()
    known = np.append(image[valid], 500.0)
    assert np.isfinite(filled).all()
    assert filled.min() >= known.min() - 1e-3
    assert filled.max() <= known.max() + 1e-3


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0005, 0.005, 0.1, 0.9]),
    row=st.integers(0, 60),
    col=st.integers(0, 60),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_a_window_with_margin_equals_the_whole(seed, share, row, col, height, width):
    image, valid = random_scene(seed, share)
    fallback = np.array([1.0, 2.0])
    whole = fill_invalid(image, valid, fallback)[:, row : row + height, col : col + width]
    top, left = max(0, row - FILL_REACH), max(0, col - FILL_REACH)
    cut = np.s_[:, top : row + height + FILL_REACH, left : col + width + FILL_REACH]
    part = fill_invalid(image[cut], valid[cut], fallback)
    part = part[:, row - top :, col - left :][:, : whole.shape[1], : whole.shape[2]]
    assert np.array_equal(part, whole)
