from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pancrafter_cli.geometry.tiling import Blender, Tiling, fade

tilings = st.builds(Tiling, tile=st.integers(4, 40), halo=st.integers(0, 12), blend=st.integers(1, 4))


@given(tiling=tilings, length=st.integers(1, 150))
def test_cores_partition_and_weights_sum_to_one(tiling: Tiling, length: int) -> None:
    spans = tiling.spans(length)
    assert [p for s in spans for p in range(*s.core)] == list(range(length))
    total = np.zeros(length)
    for s in spans:
        total[slice(*s.keep)] += fade(s, length, tiling.blend)
        assert s.read[0] <= s.keep[0] <= s.core[0] < s.core[1] <= s.keep[1] <= s.read[1]
        assert s.read[0] == max(0, s.keep[0] - tiling.halo)
        assert s.read[1] == min(length, s.keep[1] + tiling.halo)
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


@given(tiling=tilings, height=st.integers(1, 90), width=st.integers(1, 90))
def test_blending_tiles_of_one_image_gives_the_image(tiling: Tiling, height: int, width: int) -> None:
    image = np.random.default_rng(1).random((2, height, width)).astype(np.float32)
    out = np.full_like(image, np.nan)
    blender = Blender(tiling, 2, (height, width))
    for tile in tiling.tiles((height, width)):
        core = blender.add(tile, image[:, slice(*tile.rows.keep), slice(*tile.cols.keep)])
        out[:, slice(*tile.rows.core), slice(*tile.cols.core)] = core
    np.testing.assert_allclose(out, image, atol=1e-6)
    assert tiling.count((height, width)) == len(list(tiling.tiles((height, width))))


def test_tiles_that_disagree_fade_into_each_other() -> None:
    tiling = Tiling(tile=16, halo=0, blend=4)
    blender = Blender(tiling, 1, (16, 32))
    left, right = tiling.tiles((16, 32))
    out = np.concatenate(
        [
            blender.add(left, np.zeros((1, 16, 20), np.float32)),
            blender.add(right, np.ones((1, 16, 16), np.float32)),
        ],
        axis=2,
    )
    assert out[0, 0, 14:22] == pytest.approx([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
