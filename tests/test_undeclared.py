"""Fill values that files hold and do not declare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from pancrafter_cli import sharpen
from pancrafter_cli.errors import PancrafterError, RasterError
from pancrafter_cli.raster.undeclared import find_fill
from pancrafter_cli.tasks.inspect import inspect_scene
from tests.pairs import write_pair


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """400 x 400 PAN pixels over two bands of uint16."""
    write_pair(tmp_path, seed=3, pan_size=400, ratio=4, bands=2)
    return tmp_path / "pan.tif", tmp_path / "ms.tif"


def fill(path: Path, value: float, share: float, bands: slice = slice(None)) -> None:
    """Put a value into the upper left corner."""
    with rasterio.open(path, "r+") as file:
        image = file.read()
        side = round(image.shape[1] * share**0.5)
        image[bands, :side, :side] = value
        file.write(image)


@pytest.mark.parametrize("which", [0, 1])
def test_a_fill_value_is_named_with_what_to_do(tmp_path: Path, pair: tuple[Path, Path], which: int) -> None:
    fill(pair[which], 65535, 0.04)
    out = tmp_path / "o.tif"
    with pytest.raises(RasterError, match=f"{('PAN', 'MS')[which]}: 4 % of the pixels are 65535, far from") as raised:
        sharpen(*pair, out, method="exp")
    assert not out.exists()
    assert "--nodata=65535" in raised.value.hint
    with pytest.raises(RasterError, match="65535"):
        inspect_scene(pair[0], [pair[1]])
    assert inspect_scene(pair[0], [pair[1]], nodata=65535).valid == pytest.approx(0.96)
    assert sharpen(*pair, out, method="exp", nodata=65535).valid == pytest.approx(0.96)
    assert sharpen(*pair, out, method="exp", nodata="declared", overwrite=True).valid == 1
    with pytest.raises(PancrafterError, match="65535"):  # no collar, for white ones may be clouds
        sharpen(*pair, out, method="exp", nodata="auto", overwrite=True)


def test_what_saturates_is_no_fill(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with rasterio.open(pair[1]) as file:
        brightest = int(file.read().max())
    fill(pair[1], brightest + 40, 0.04)
    assert sharpen(*pair, tmp_path / "o.tif", method="exp").valid == 1


def test_a_band_of_its_own_range_is_no_fill(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    fill(pair[1], 40_000, 0.04, slice(0, 1))
    assert sharpen(*pair, tmp_path / "o.tif", method="exp").valid == 1


@given(
    value=st.sampled_from([-9999.0, -99.0, 0.0, 100_000.0, 255.0, 65535.0, 3e38]),
    low=st.floats(0.01, 4000),
    span=st.floats(0.1, 3000),
    filled=st.integers(0, 400),
    seed=st.integers(0, 99),
)
def test_what_lies_far_from_all_else_is_found(value: float, low: float, span: float, filled: int, seed: int) -> None:
    image = np.random.default_rng(seed).uniform(low, low + span, (3, 4000)).astype(np.float32)
    image[:, :filled] = value
    found = find_fill([image[:, ::2], image[:, 1::2]])
    usual = value not in (0, 100_000)
    far = usual and max(low - value, value - low - span) > 1.01 * span
    near = not usual or max(low - value, value - low - span) < 0.99 * span
    if filled >= 16 and far:
        assert found is not None
        assert found.value == pytest.approx(value)
        assert found.share == pytest.approx(filled / 4000)
        assert low - 0.01 * span <= found.others[0] < found.others[1] <= low + 1.01 * span
    if filled < 16 or near:
        assert found is None


def test_nothing_and_images_of_one_value_have_no_fill() -> None:
    assert find_fill([np.zeros((3, 0), np.float32)]) is None
    assert find_fill([np.full((3, 500), 7, np.float32)]) is None
