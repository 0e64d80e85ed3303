"""Classical methods on scenes: fitted to samples of the scene, fused by the window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pancrafter_cli.classical.methods import METHODS
from pancrafter_cli.errors import RasterError, UsageError
from pancrafter_cli.geometry.degrade import degrade_weights, mtf_sigma
from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.geometry.resample import cubic_weights
from pancrafter_cli.raster.scene import Scene, open_scene
from pancrafter_cli.tasks import fusion
from pancrafter_cli.tasks.fusion import fit_classical
from tests.pairs import textured
from tests.scene_factory import FileFacts, ms_transform, write_tif

GAINS = (0.34, 0.32, 0.30, 0.22, 0.36, 0.35, 0.33, 0.31)
PAN_GAIN = 0.15
PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 5_700_000)


def write_scene(
    folder: Path,
    *,
    size: int = 192,
    bands: int = 4,
    ratio: int = 4,
    shift: tuple[float, float] = (0.0, 0.0),
    pan_mask: np.ndarray | None = None,
    ms_mask: np.ndarray | None = None,
    hidden: float = 0,
) -> np.ndarray:
    """Write float32 pan.tif and ms.tif and return the truth (C, H, W); masked pixels hold `hidden` DN."""
    truth = textured(bands, size, 7)
    down = [degrade_weights(AxisMap(ratio, 0.0, size // ratio, size), 0, size // ratio, GAINS[b]) for b in range(bands)]
    ms = np.stack([d.matrix @ band @ d.matrix.T for d, band in zip(down, truth, strict=True)]).astype(np.float32)
    pan = truth.mean(axis=0, keepdims=True).astype(np.float32)
    for image, mask in ((pan, pan_mask), (ms, ms_mask)):
        if mask is not None:
            image[:, ~mask] = hidden
    folder.mkdir(exist_ok=True)
    write_tif(folder / "pan.tif", pan, FileFacts(transform=PLACE, mask=pan_mask))
    write_tif(folder / "ms.tif", ms, FileFacts(transform=ms_transform(ratio, shift, PLACE), mask=ms_mask))
    return truth


def opened(folder: Path) -> Scene:
    return open_scene(folder / "pan.tif", [folder / "ms.tif"])


def fused(scene: Scene, method: str) -> np.ndarray:
    """The whole scene (C, H, W)."""
    height, width = scene.grid.shape
    return fit_classical(scene, method, GAINS[: scene.bands], PAN_GAIN).fuse(scene, (0, height), (0, width))


@pytest.mark.parametrize("bands", range(1, 9))
def test_every_method_sharpens_any_number_of_bands(tmp_path: Path, bands: int) -> None:
    truth = write_scene(tmp_path, bands=bands)
    with opened(tmp_path) as scene:
        errors = {method: np.sqrt(((fused(scene, method) - truth) ** 2).mean()) for method in METHODS}
        assert fused(scene, "gsa").dtype == np.float32
    blurred = errors.pop("exp")
    assert max(errors.values()) < 0.7 * blurred


@pytest.fixture(scope="module")
def odd_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of ratio 3 whose MS lies 1.3, 0.6 PAN pixels off, with holes in both."""
    folder = tmp_path_factory.mktemp("odd")
    pan_mask, ms_mask = np.ones((192, 192), bool), np.ones((64, 64), bool)
    pan_mask[60:75, 100:140] = False
    ms_mask[40:45, 10:30] = False
    write_scene(folder, ratio=3, shift=(1.3, 0.6), pan_mask=pan_mask, ms_mask=ms_mask)
    return folder


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_window_alone_is_that_part_of_the_whole(odd_scene: Path, method: str, data: st.DataObject) -> None:
    with opened(odd_scene) as scene:
        fuser = fit_classical(scene, method, GAINS[:4], PAN_GAIN)
        height, width = scene.grid.shape
        whole = fuser.fuse(scene, (0, height), (0, width))
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        rows = top, data.draw(st.integers(top + 1, height))
        cols = left, data.draw(st.integers(left + 1, width))
        part = fuser.fuse(scene, rows, cols)
    np.testing.assert_allclose(part, whole[:, slice(*rows), slice(*cols)], rtol=2e-5, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_what_lies_in_holes_never_shows(tmp_path: Path, method: str) -> None:
    pan_mask, ms_mask = np.ones((192, 192), bool), np.ones((48, 48), bool)
    pan_mask[30:80, 50:90] = False
    ms_mask[30:40, 20:29] = False
    images = []
    for hidden in (0, -30000, 65000, np.nan):
        write_scene(tmp_path / str(hidden), pan_mask=pan_mask, ms_mask=ms_mask, hidden=hidden)
        with opened(tmp_path / str(hidden)) as scene:
            images.append(fused(scene, method))
    for image in images[1:]:
        np.testing.assert_array_equal(image, images[0])
    # A filled hole is no black or white hole either: the product's range is that of the image.
    assert images[0].min() > -300
    assert images[0].max() < 1500


def test_holes_do_not_bend_the_fit(tmp_path: Path) -> None:
    mask = np.ones((192, 192), bool)
    mask[:, 100:] = False
    write_scene(tmp_path / "half", pan_mask=mask)
    write_scene(tmp_path / "whole")
    found = {}
    for name in ("half", "whole"):
        with opened(tmp_path / name) as scene:
            fine = fusion._sampled(scene, fusion._everywhere(scene), GAINS[:4], PAN_GAIN).result().fine
            width = {"half": 100, "whole": 192}[name]
            assert fine.count == 192 * width
            assert fine.mean[0] == pytest.approx(scene.read_pan(0, 0, 192, width)[0].mean(), rel=1e-6)
            for method in ("gsa", "bdsd-pc"):
                found[name, method] = fit_classical(scene, method, GAINS[:4], PAN_GAIN).fusion
    for method in ("gsa", "bdsd-pc"):
        half, whole = found["half", method], found["whole", method]
        np.testing.assert_allclose(half.pan, whole.pan, atol=0.1)
        np.testing.assert_allclose(half.mix, whole.mix, atol=0.15)


def test_fusion_by_hand(tmp_path: Path) -> None:
    """MTF-GLP-FS, GSA and Brovey computed on whole arrays, with the resampling written out."""
    write_scene(tmp_path, bands=2)
    with opened(tmp_path) as scene:
        pan, ms = scene.read_pan(0, 0, 192, 192)[0][0].astype(float), scene.read_ms(0, 0, 48, 48)[0].astype(float)
        up = cubic_weights(AxisMap(0.25, 0.0, 192, 48), 0, 192).matrix

        def low(gain: float) -> np.ndarray:
            down = degrade_weights(AxisMap(4.0, 0.0, 48, 192), 0, 48, gain).matrix
            return down @ pan @ down.T

        lms = up @ ms @ up.T
        for band in range(2):
            there = up @ low(GAINS[band]) @ up.T
            gain = np.cov(lms[band].ravel(), pan.ravel())[0, 1] / np.cov(there.ravel(), pan.ravel())[0, 1]
            expected = lms[band] + gain * (pan - there)
            np.testing.assert_allclose(fused(scene, "mtf-glp-fs")[band], expected, atol=2e-3)
        design = np.stack([*ms.reshape(2, -1), np.ones(48 * 48)], axis=1)
        weights = np.linalg.lstsq(design, low(0.3).ravel(), rcond=None)[0]
        intensity = np.tensordot(weights[:2], lms, axes=1)
        detail = (pan - pan.mean()) - (intensity - intensity.mean())
        for band in range(2):
            gain = np.cov(intensity.ravel(), lms[band].ravel())[0, 1] / intensity.var(ddof=1)
            np.testing.assert_allclose(fused(scene, "gsa")[band], lms[band] + gain * detail, atol=5e-3)
        there = up @ low(0.3) @ up.T
        weights = np.linalg.lstsq(lms.reshape(2, -1).T, there.ravel(), rcond=None)[0]
        haze = lms.min(axis=(1, 2))[:, None, None]
        intensity = np.tensordot(weights, lms - haze, axes=1)
        matched = (pan - there.mean()) * intensity.std() / there.std() + intensity.mean()
        expected = (lms - haze) * matched / intensity + haze
        clear = intensity > 0.1 * intensity.mean()
        np.testing.assert_allclose(fused(scene, "brovey")[:, clear], expected[:, clear], atol=5e-3)


def test_detail_of_ms_one_scale_up_is_blurred_with_its_own_gain(tmp_path: Path) -> None:
    """BDSD-PC's normal equations hold MS less MS blurred by the MTF Gaussian of the ratio, in MS pixels."""
    write_scene(tmp_path, bands=2)
    with opened(tmp_path) as scene:
        ms = scene.read_ms(0, 0, 48, 48)[0].astype(float)
        moments = fusion._sampled(scene, fusion._everywhere(scene), GAINS[:2], PAN_GAIN).result()
    for band in range(2):
        sigma = mtf_sigma(4, GAINS[band])
        reach = int(3.5 * sigma)
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        padded = np.pad(ms[band], reach, mode="edge")
        rows = np.apply_along_axis(np.convolve, 0, padded, kernel / kernel.sum(), "valid")
        blurred = np.apply_along_axis(np.convolve, 1, rows, kernel / kernel.sum(), "valid")
        assert moments.coarse.mean[moments.blurred][band] == pytest.approx(blurred.mean(), rel=1e-6)
        variance = np.diag(moments.coarse.covariance)[moments.blurred][band]
        assert variance == pytest.approx(blurred.var(ddof=1), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_pan_adds_nothing(tmp_path: Path, method: str) -> None:
    write_scene(tmp_path)
    write_tif(tmp_path / "pan.tif", np.full((1, 192, 192), 500, np.float32), FileFacts(transform=PLACE))
    with opened(tmp_path) as scene:
        np.testing.assert_allclose(fused(scene, method), fused(scene, "exp"), atol=0.01)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "exp"])
def test_a_large_scene_is_fitted_to_a_part_of_it(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scene(tmp_path, size=384)
    with opened(tmp_path) as scene:
        whole = fused(scene, method)
        monkeypatch.setattr(fusion, "_WINDOW", 8)
        monkeypatch.setattr(fusion, "_MOST_SAMPLES", 384 * 384 // 3)
        sampler = fusion._sampled(scene, fusion._spread(scene), GAINS[:4], PAN_GAIN)
        assert 384 * 384 // 4 < sampler.counts[0] <= 384 * 384 // 3
        part = fused(scene, method)
        change = np.sqrt(((part - whole) ** 2).mean())
        assert 0 < change < 0.1 * np.sqrt(((whole - fused(scene, "exp")) ** 2).mean())


def test_what_is_valid_is_found_between_the_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((96, 96), bool)
    mask[40:56, 40:56] = True
    write_scene(tmp_path, size=384, ms_mask=mask)
    monkeypatch.setattr(fusion, "_WINDOW", 8)
    monkeypatch.setattr(fusion, "_MOST_SAMPLES", 4 * 32 * 32)  # four windows, in the corners
    with opened(tmp_path) as scene:
        assert fusion._sampled(scene, fusion._spread(scene), GAINS[:4], PAN_GAIN).counts == (0, 0)
        inside = np.s_[:, 170:210, 170:210]
        assert np.abs(fused(scene, "gsa") - fused(scene, "exp"))[inside].mean() > 5


@pytest.mark.parametrize("method", [m for m in METHODS if m != "exp"])
def test_too_little_to_fit_to(tmp_path: Path, method: str) -> None:
    mask = np.zeros((48, 48), bool)
    mask[20:24, 20:25] = True
    write_scene(tmp_path, ms_mask=mask)
    with opened(tmp_path) as scene:
        with pytest.raises(RasterError, match=rf"only 20 pixels of MS are valid .* '{method}' is fitted to 24 or more"):
            fused(scene, method)
        assert np.isfinite(fused(scene, "exp")).all()


def test_unknown_method(tmp_path: Path) -> None:
    write_scene(tmp_path)
    with opened(tmp_path) as scene, pytest.raises(UsageError, match="no classical method 'ihs'"):
        fused(scene, "ihs")
