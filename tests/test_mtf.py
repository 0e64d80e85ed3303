"""How much softer MS is than PAN, measured on scenes whose MTF is known."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from scipy import ndimage

from pancrafter_cli import sharpen
from pancrafter_cli.data.deadleaves import dead_leaves
from pancrafter_cli.errors import UsageError
from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, degrade_weights
from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.geometry.resample import apply_weights
from pancrafter_cli.raster.scene import SceneOptions, open_scene
from tests.scene_factory import FileFacts, write_tif

SIZE = 480  # PAN pixels


def write_scene(
    folder: Path,
    gain: float,
    ratio: int = 4,
    noise: float = 0.01,
    hole: bool = False,
    bands: int = 4,
    seed: int = 7,
) -> list[Path]:
    """PAN and MS of one place, MS with the MTF `gain` at its Nyquist frequency, its noise that of PAN."""
    rng = np.random.default_rng(seed)
    pan, truth = dead_leaves(rng, SIZE, bands)
    # As soft as any PAN: edges that are one pixel wide would alias in it.
    pan, truth = (ndimage.gaussian_filter(image, (0, 0.7, 0.7)) for image in (pan, truth))
    axis = AxisMap(ratio, 0.0, SIZE // ratio, SIZE)
    weights = degrade_weights(axis, 0, SIZE // ratio, gain).matrix
    low = apply_weights(weights, weights, truth)
    low = low + noise * rng.standard_normal(low.shape)
    pan = pan + noise * rng.standard_normal(pan.shape)
    if hole:
        pan[:, : SIZE // 3] = np.nan
        low[:, :, : SIZE // ratio // 3] = np.nan
    return [
        write_tif(
            folder / f"{name}.tif", image.astype(np.float32), FileFacts(transform=Affine(step, 0, 0, 0, -step, 0))
        )
        for name, image, step in (("pan", pan, 1.0), ("ms", low, float(ratio)))
    ]


def measured(pan: Path, ms: Path) -> float:
    with open_scene(pan, [ms]) as scene:
        return scene.statistics.ms_mtf


@pytest.mark.parametrize(
    ("gain", "ratio"), [*((gain, ratio) for gain in (0.2, 0.3, 0.45) for ratio in (2, 3, 4)), (0.7, 3), (0.7, 4)]
)
def test_the_mtf_of_a_scene_is_found(tmp_path: Path, gain: float, ratio: int) -> None:
    assert measured(*write_scene(tmp_path, gain, ratio)) == pytest.approx(gain, abs=0.04)


@pytest.mark.parametrize(("size", "told"), [((2, 3), False), ((4, 4), False), ((8, 8), True)])
def test_a_handful_of_pixels_does_not_tell_it(tmp_path: Path, size: tuple[int, int], told: bool) -> None:
    pan, ms = write_scene(tmp_path, 0.6)
    for path, step in ((pan, 1), (ms, 4)):
        with rasterio.open(path) as file:
            image = file.read()[:, : size[0] * 4 // step, : size[1] * 4 // step]
        write_tif(path, image, FileFacts(transform=Affine(step, 0, 0, 0, -step, 0)))
    with open_scene(pan, [ms]) as scene:
        assert (scene.statistics.ms_mtf_source == "measured") == told
        assert told or scene.statistics.ms_mtf == DEFAULT_MS_GAIN


def test_nodata_and_noise_do_not_move_it(tmp_path: Path) -> None:
    assert measured(*write_scene(tmp_path, 0.4, noise=0.03, hole=True)) == pytest.approx(0.4, abs=0.04)


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_dead_pan_pixels_here_and_there_move_neither_it_nor_the_matching(tmp_path: Path, share: float) -> None:
    pan, ms = write_scene(tmp_path, 0.4)
    with open_scene(pan, [ms]) as scene:
        whole = scene.statistics
    with rasterio.open(pan, "r+") as file:
        image = file.read()
        image[np.random.default_rng(0).random(image.shape) < share] = np.nan
        file.write(image)
    with open_scene(pan, [ms]) as scene:
        hurt = scene.statistics
    assert hurt.ms_mtf == pytest.approx(whole.ms_mtf, abs=0.05)
    assert hurt.gain == pytest.approx(whole.gain, rel=0.1)
    assert hurt.pan_mean == pytest.approx(whole.pan_mean, rel=0.01)


def test_noise_of_ms_does_not_make_it_look_crisp(tmp_path: Path) -> None:
    """The noise of the bands has as much energy as their detail, but PAN does not have it."""
    assert measured(*write_scene(tmp_path, 0.25, noise=0.03)) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("gain", [0.25, 0.4])
def test_bands_need_nothing_in_common_with_each_other(tmp_path: Path, gain: float) -> None:
    """PAN sees half of each of two images; what little these share by chance says nothing."""
    pan, ms = write_scene(tmp_path, gain)
    (tmp_path / "other").mkdir()
    other_pan, other_ms = write_scene(tmp_path / "other", gain, seed=8)
    images = [rasterio.open(path).read() for path in (pan, other_pan, ms, other_ms)]
    geo = [FileFacts(transform=Affine(step, 0, 0, 0, -step, 0)) for step in (1.0, 4.0)]
    write_tif(pan, (images[0] + images[1]) / 2, geo[0])
    write_tif(ms, np.stack([images[2][0], images[3][0]]), geo[1])
    assert measured(pan, ms) == pytest.approx(gain, abs=0.04)


@pytest.mark.parametrize("odd", ["constant", "empty", "copies"])
def test_bands_that_cannot_tell_it_do_not_hide_it(tmp_path: Path, odd: str) -> None:
    pan, ms = write_scene(tmp_path, 0.25, noise=0.03)
    with rasterio.open(ms) as file:
        bands = file.read()
    if odd == "copies":  # grey stored as RGB: its noise is the same in all bands
        bands = bands[[0, 0, 0]]
    elif odd == "constant":
        bands[1:] = 3.0
    else:
        bands[3] = np.nan
    write_tif(ms, bands, FileFacts(transform=Affine(4.0, 0, 0, 0, -4.0, 0)))
    assert measured(pan, ms) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("kind", ["relief", "shift"])
def test_a_displaced_pan_does_not_make_ms_look_softer(tmp_path: Path, kind: str) -> None:
    """By up to an MS pixel, smoothly from place to place, or by 3/4 everywhere and not corrected."""
    pan, ms = write_scene(tmp_path, 0.4)
    with rasterio.open(pan, "r+") as file:
        image = file.read(1)
        rows, cols = np.mgrid[:SIZE, :SIZE].astype(float)
        off = 4.0 * np.sin(2 * np.pi * (rows + cols) / 600) if kind == "relief" else np.full_like(rows, 3.0)
        file.write(ndimage.map_coordinates(image, [rows + off, cols - off], order=5, mode="reflect"), 1)
    assert measured(pan, ms) == pytest.approx(0.4, abs=0.04)


def test_of_a_single_band_pan_tells_it(tmp_path: Path) -> None:
    assert measured(*write_scene(tmp_path, 0.4, bands=1, noise=0.03)) == pytest.approx(0.4, abs=0.04)


def test_it_is_found_in_the_only_part_that_is_valid(tmp_path: Path) -> None:
    """None of the windows spread over the scene holds a valid pixel; no warning is printed of means of nothing."""
    pan, ms = write_scene(tmp_path, 0.45)
    for path, step in ((pan, 4), (ms, 1)):
        with rasterio.open(path) as file:
            image = file.read()
        wide = np.full((len(image), 1600 * step, 1600 * step), np.nan, np.float32)
        wide[:, 238 * step : 338 * step, 238 * step : 338 * step] = image[:, : 100 * step, : 100 * step]
        write_tif(path, wide, FileFacts(transform=Affine(4 / step, 0, 0, 0, -4 / step, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measured(pan, ms) == pytest.approx(0.45, abs=0.04)


@pytest.mark.parametrize(("gain", "bound"), [(0.07, 0.15), (0.97, 0.9)])
def test_it_stays_where_sensors_are(tmp_path: Path, gain: float, bound: float) -> None:
    assert measured(*write_scene(tmp_path, gain)) == bound


def test_where_pan_says_nothing_of_ms_it_is_the_generic_one(tmp_path: Path) -> None:
    pan, ms = write_scene(tmp_path, 0.45)
    with rasterio.open(pan) as file:
        image = file.read(1)
    noise = image.std() * np.random.default_rng(1).standard_normal(image.shape)
    # Of a PAN that is nine parts noise, the fine detail correlates with that of MS by 0.2 still.
    for nothing in (noise, 0.9 * noise + 0.1 * image, np.full_like(image, 0.5)):
        with rasterio.open(pan, "r+") as file:
            file.write(nothing.astype(np.float32), 1)
        with open_scene(pan, [ms]) as scene:
            assert (scene.statistics.ms_mtf, scene.statistics.ms_mtf_source) == (DEFAULT_MS_GAIN, "assumed")


def test_it_says_where_it_is_from(tmp_path: Path) -> None:
    pan, ms = write_scene(tmp_path, 0.4)
    for given, source in ((None, "measured"), (0.3, "given")):
        with open_scene(pan, [ms], SceneOptions(ms_mtf=given)) as scene:
            assert scene.statistics.ms_mtf_source == source
    with rasterio.open(pan, "r+") as file:
        file.write(np.full((1, SIZE, SIZE), 5, np.float32))
    result = sharpen(pan, ms, tmp_path / "o.tif", method="exp")
    assert (result.ms_mtf, result.ms_mtf_source) == (0.3, "assumed")


def test_what_is_known_is_not_measured(tmp_path: Path) -> None:
    pan, ms = write_scene(tmp_path, 0.45)
    with open_scene(pan, [ms], SceneOptions(ms_mtf=0.2)) as scene:
        assert scene.statistics.ms_mtf == 0.2
    result = sharpen(pan, ms, tmp_path / "o.tif", ms_mtf=0.25, registration="off")
    assert result.ms_mtf == 0.25
    with rasterio.open(tmp_path / "o.tif") as file:
        assert file.tags()["PANCRAFTER_MS_MTF"] == "0.250"


@pytest.mark.parametrize("gain", [0.0, 1.0, -0.3, float("nan")])
def test_impossible_gains_are_refused(gain: float) -> None:
    with pytest.raises(UsageError, match="--ms-mtf"):
        SceneOptions(ms_mtf=gain)


def test_a_product_agrees_with_ms_at_the_mtf_that_ms_has(tmp_path: Path) -> None:
    """Taken for softer than it is, MS asks for detail that nobody saw, and the product shows it."""
    pan, ms = write_scene(tmp_path, 0.45)
    axis = AxisMap(4, 0.0, SIZE // 4, SIZE)
    weights = degrade_weights(axis, 0, SIZE // 4, 0.45).matrix
    with rasterio.open(ms) as file:
        seen = file.read()
    off = {}
    for known in (None, 0.25):
        sharpen(pan, ms, tmp_path / "o.tif", ms_mtf=known, registration="off", overwrite=True)
        with rasterio.open(tmp_path / "o.tif") as file:
            off[known] = np.abs(apply_weights(weights, weights, file.read()) - seen)[:, 4:-4, 4:-4].mean()
    assert off[None] < 0.4 * off[0.25]
