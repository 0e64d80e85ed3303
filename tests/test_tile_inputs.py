"""What networks and classical methods are shown beside holes in MS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from pancrafter_cli.geometry.degrade import degrade_weights
from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.geometry.resample import apply_weights
from pancrafter_cli.raster.scene import Scene, open_scene
from pancrafter_cli.tasks.tile_inputs import read_guided_ms, read_inputs
from tests.pairs import textured
from tests.scene_factory import FileFacts, write_tif

RATIO, LOW, GAIN = 4, 48, 0.3
GAINS, OFFSETS = np.array([0.5, 2.0, -1.0]), np.array([100.0, -50.0, 1500.0])


def write_scene(folder: Path, hole: tuple[int, int] | None) -> tuple[Path, Path]:
    """MS that shows nothing but what PAN shows, made soft, in bands of other gains; in two of them a hole."""
    pan = textured(1, RATIO * LOW, seed=5)
    down = degrade_weights(AxisMap(RATIO, 0.0, LOW, RATIO * LOW), 0, LOW, GAIN).matrix
    ms = GAINS[:, None, None] * apply_weights(down, down, pan) + OFFSETS[:, None, None]
    if hole is not None:
        ms[:2, hole[0] : hole[0] + 6, hole[1] : hole[1] + 9] = np.nan
    return tuple(  # type: ignore[return-value]
        write_tif(folder / name, image.astype(np.float32), FileFacts(transform=Affine(step, 0, 0, 0, -step, 0)))
        for name, image, step in (("pan.tif", pan, 1.0), ("ms.tif", ms, float(RATIO)))
    )


@pytest.fixture(scope="module")
def holed(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    pan, ms = write_scene(tmp_path_factory.mktemp("holed"), (20, 17))
    return open_scene(pan, [ms])


@pytest.mark.parametrize("hole", [(20, 17), (0, 0), (42, 39)])
def test_in_a_hole_of_ms_stands_what_pan_shows_there(tmp_path: Path, hole: tuple[int, int]) -> None:
    span = (0, RATIO * LOW)
    lms = []
    for holes in (None, hole):
        pan, ms = write_scene(tmp_path, holes)
        with open_scene(pan, [ms]) as scene:
            lms.append(scene.statistics.normalisation.undone(read_inputs(scene, span, span).images.lms))
            if holes:
                known = scene.read_ms(0, 0, LOW, LOW)[1]
    assert not known[0, hole[0], hole[1]]
    off = np.abs(lms[1] - lms[0]).max(axis=(1, 2)) / lms[0].std(axis=(1, 2))
    assert off[:2].max() < 0.05
    assert off[2] < 1e-5


@given(start=st.tuples(st.integers(0, 40), st.integers(0, 40)), size=st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_what_fills_a_hole_does_not_depend_on_the_window(
    holed: Scene, start: tuple[int, int], size: tuple[int, int]
) -> None:
    whole, _, known = read_guided_ms(holed, (0, LOW), (0, LOW))
    assert known is None or known.all()
    rows, cols = ((a, a + n) for a, n in zip(start, size, strict=True))
    window, valid, _ = read_guided_ms(holed, rows, cols)
    np.testing.assert_allclose(window, whole[:, slice(*rows), slice(*cols)], rtol=1e-5)
    with rasterio.open(holed.files[1]) as file:
        stored = file.read()[:, slice(*rows), slice(*cols)]
    assert (valid == np.isfinite(stored)).all()
    assert (window[valid] == stored[valid]).all()
