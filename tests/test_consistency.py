from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pancrafter_cli.geometry.consistency import (
    DRIFT_TOLERANCE,
    back_project,
    consistency_reach,
    drift,
    interpolated,
    plan_consistency,
)
from pancrafter_cli.geometry.consistency import degraded as plan_degraded
from pancrafter_cli.geometry.degrade import degrade_weights
from pancrafter_cli.geometry.grid import AxisMap, GridMap

SIZE = 96


def relation(ratio: float, offset: float) -> GridMap:
    axis = AxisMap(1 / ratio, offset, SIZE, int(SIZE / ratio))
    return GridMap(axis, axis)


def degraded(image: np.ndarray, grids: GridMap) -> np.ndarray:
    down = degrade_weights(grids.rows.inverse(), 0, grids.rows.src_size, 0.3)
    part = image[:, down.first : down.stop, down.first : down.stop]
    return (down.matrix @ part @ down.matrix.T).astype(np.float32)


@given(ratio=st.floats(2.0, 6.0), seed=st.integers(0, 100), least=st.sampled_from([0.0, -0.4, -2.0]))
def test_steps_bring_the_image_closer_to_ms(ratio: float, seed: int, least: float) -> None:
    grids = relation(ratio, 0.0)
    rng = np.random.default_rng(seed)
    truth = rng.random((2, SIZE, SIZE), dtype=np.float32) + np.float32(least)
    ms = degraded(truth, grids)
    plan = plan_consistency(grids, (0, SIZE), (0, SIZE))
    ms = ms[:, slice(*plan.rows.ms), slice(*plan.cols.ms)]
    trusted = np.ones(ms.shape, dtype=bool)
    image = np.full_like(truth, 0.5 + least)
    errors = []
    for steps in (0, 2, 6):
        out = back_project(plan, image, ms, trusted, steps)
        errors.append(np.abs(degraded(out, grids)[:, slice(*plan.rows.ms), slice(*plan.cols.ms)] - ms).mean())
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] < 0.7 * errors[1]


def test_untrusted_ms_and_no_steps_change_nothing() -> None:
    grids = relation(4, 0)
    plan = plan_consistency(grids, (0, SIZE), (0, SIZE))
    image = np.random.default_rng(0).random((1, SIZE, SIZE), dtype=np.float32)
    ms = np.full((1, 24, 24), 9, np.float32)
    assert np.array_equal(back_project(plan, image, ms, np.zeros(ms.shape, dtype=bool), 6), image)
    assert back_project(plan, image, ms, np.ones(ms.shape, dtype=bool), 0) is image


def test_images_stay_positive_where_ms_is_and_only_there() -> None:
    grids = relation(4, 0)
    plan = plan_consistency(grids, (0, SIZE), (0, SIZE))
    truth = np.zeros((1, SIZE, SIZE), np.float32)
    truth[:, ::7, ::5] = 4.0
    ms = degraded(truth, grids)
    start = np.full_like(truth, 0.1) + 0.5 * truth
    trusted = np.ones(ms.shape, dtype=bool)
    ms[:, 16:, 16:] = -0.05  # a lake, darker than the haze that was taken off
    start[:, 4 * 16 :, 4 * 16 :] = 0.02
    pulled = back_project(plan, start, ms, trusted, 6)
    assert (ms[:, :14] >= 0).all()
    assert pulled[:, : 4 * 14].min() >= 0
    lake = np.s_[:, 4 * 18 :, 4 * 18 :]  # away from its shore
    np.testing.assert_allclose(pulled[lake], -0.05, atol=0.02)


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize("least", [0.0, 0.02])
def test_a_window_with_the_reach_around_it_equals_the_whole(offset: float, least: float) -> None:
    grids = relation(2, offset)
    rng = np.random.default_rng(1)
    image = rng.random((1, SIZE, SIZE), dtype=np.float32)
    ms = rng.random((1, SIZE // 2, SIZE // 2), dtype=np.float32) - np.float32(least)
    reach = consistency_reach(2, 2)

    def run(start: int, stop: int) -> np.ndarray:
        plan = plan_consistency(grids, (start, stop), (start, stop))
        part = ms[:, slice(*plan.rows.ms), slice(*plan.cols.ms)]
        return back_project(plan, image[:, start:stop, start:stop], part, np.ones(part.shape, dtype=bool), 2)

    start, stop = 40 - reach, 56 + reach
    assert start > 0
    assert stop < SIZE
    whole, window = run(0, SIZE), run(start, stop)
    inner = np.s_[:, 40:56, 40:56]
    np.testing.assert_allclose(window[:, reach : reach + 16, reach : reach + 16], whole[inner], atol=1e-6)


def test_drift_is_relative_to_ms_and_the_worst_trusted_band_counts() -> None:
    ms = np.array([[[0.5, 0.5, 0.01, -0.5]], [[0.2, 0.2, 0.2, 0.2]]], np.float32)
    low = np.array([[[0.5, 0.6, 0.02, -0.55]], [[0.21, 0.2, 0.2, 0.2]]], np.float32)
    trusted = np.ones(ms.shape, dtype=bool)
    # 0.01 of the scale counts as 0.05: a difference of 0.01 is then one fifth.
    np.testing.assert_allclose(drift(low, ms, trusted), [[0.05, 0.2, 0.2, 0.1]], rtol=1e-5)
    trusted[0] = False
    np.testing.assert_allclose(drift(low, ms, trusted), [[0.05, 0, 0, 0]], atol=1e-6)


def test_back_projections_leave_no_drift_where_nothing_keeps_them() -> None:
    grids = relation(4, 0)
    plan = plan_consistency(grids, (0, SIZE), (0, SIZE))
    truth = np.random.default_rng(3).uniform(0.2, 1, (2, SIZE, SIZE)).astype(np.float32)
    ms = plan_degraded(plan, truth)
    trusted = np.ones(ms.shape, dtype=bool)
    start = np.full_like(truth, 0.6)
    assert (drift(plan_degraded(plan, start), ms, trusted) > DRIFT_TOLERANCE).mean() > 0.3
    pulled = back_project(plan, start, ms, trusted, 5)
    assert (drift(plan_degraded(plan, pulled), ms, trusted) > DRIFT_TOLERANCE).mean() == 0


def test_what_is_brought_up_and_degraded_is_almost_what_it_was() -> None:
    plan = plan_consistency(relation(4, 0), (0, SIZE), (0, SIZE))
    y, x = np.mgrid[0:24, 0:24] / 24
    low = (np.sin(3 * y) + np.cos(2 * x))[None].astype(np.float32)
    assert np.abs(plan_degraded(plan, interpolated(plan, low)) - low)[:, 2:-2, 2:-2].max() < 0.01
