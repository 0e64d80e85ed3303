"""The confidence layer: each of its factors, its files, and that it tells where a product is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import spearmanr

from pancrafter_cli import sharpen
from pancrafter_cli.data.simulate import simulate_scene
from pancrafter_cli.data.wald import reduce_scene, referenced_pair
from pancrafter_cli.data.wald import write_pair as write_made_pair
from pancrafter_cli.errors import OutputError
from pancrafter_cli.geometry.confidence import (
    Evidence,
    Relation,
    Tops,
    confidence,
    disagreement,
    drifted,
    estimated_error,
    fit_relation,
    saturation_level,
)
from pancrafter_cli.geometry.consistency import plan_consistency
from pancrafter_cli.geometry.grid import AxisMap, GridMap
from pancrafter_cli.geometry.normalisation import Normalisation
from pancrafter_cli.raster.products import scene_in
from pancrafter_cli.raster.register import register
from pancrafter_cli.raster.scene import open_scene
from pancrafter_cli.raster.writer import SceneWriter
from pancrafter_cli.tasks.confidence import Judge
from pancrafter_cli.tasks.fusers import make_fuser
from tests.pairs import write_pair
from tests.scene_factory import FileFacts, write_tif

RATIO, SIZE, SCALE = 4, 96, 1000.0
LOW = SIZE // RATIO
PLAN = plan_consistency(GridMap(*(AxisMap(1 / RATIO, 0.0, SIZE, LOW),) * 2), (0, SIZE), (0, SIZE))
NEVER = Tops(np.inf, np.full(2, np.inf))
UNIT = Normalisation(np.zeros(2), np.full(2, SCALE), np.zeros(2, bool))
EVEN = Relation(np.array([0.5, 0.5]), 0.0, 0.3, 500.0)  # PAN is the mean of two bands


def flat(level: float = 500.0) -> Evidence:
    """A scene without any structure."""
    return Evidence(
        plan=PLAN,
        ms=np.full((2, LOW, LOW), level / SCALE, np.float32),
        trusted=np.ones((2, LOW, LOW), bool),
        pan=np.full((1, SIZE, SIZE), level, np.float32),
        valid=np.ones((SIZE, SIZE), bool),
        normalisation=UNIT,
        ratio=RATIO,
    )


def product(level: float = 500.0) -> np.ndarray:
    return np.full((2, SIZE, SIZE), level, np.float32)


# --- the factors


def test_where_nothing_speaks_against_it_confidence_is_one() -> None:
    np.testing.assert_allclose(confidence(flat(), product(), EVEN, NEVER, 0.2), 1, atol=1e-4)


@pytest.mark.parametrize(("off", "expected"), [(0.05, 0.5), (0.15, 0.1)])
def test_drift_halves_at_the_tolerance(off: float, expected: float) -> None:
    sharp = product() * np.float32(1 + off)
    assert drifted(flat(), sharp) == pytest.approx(off, rel=1e-3)
    # The product differs from MS by as much, which counts as injected detail: 2^-(off / 0.3).
    np.testing.assert_allclose(confidence(flat(), sharp, EVEN, NEVER, 0), expected * 2 ** (-off / 0.3), rtol=0.01)


def test_pan_that_ms_cannot_explain_has_at_most_half() -> None:
    cloudy = flat()
    cloudy.pan[0, :48] = 1500
    assert disagreement(cloudy, EVEN)[2, 2] == pytest.approx(2 / 3, rel=1e-3)
    layer = confidence(cloudy, product(), EVEN, NEVER, 0)
    assert layer[:40].max() < 0.5 * 0.4
    assert layer[60:].min() > 0.99


def test_injected_detail_and_what_pan_does_not_explain_add_up() -> None:
    rng = np.random.default_rng(0)
    plain = estimated_error(flat(), product(), 500.0, 0.0)
    np.testing.assert_allclose(plain, 0, atol=1e-5)
    # 10 % of detail of either sign, in a checkerboard.
    board = np.where(np.indices((SIZE, SIZE)).sum(axis=0) % 2, 50, -50).astype(np.float32)
    np.testing.assert_allclose(estimated_error(flat(), product() + board, 500.0, 0.0), 0.1, rtol=0.01)
    varied = flat()
    varied.ms[:] += rng.normal(0, 0.05, (LOW, LOW)).astype(np.float32)  # both bands alike, PAN flat: unexplained
    sharp = np.kron(varied.ms, np.ones((RATIO, RATIO))).astype(np.float32) * SCALE
    alone = estimated_error(varied, sharp, 500.0, 0.0).mean()
    explained = replace(varied, pan=sharp[:1])
    assert 0.05 < alone < 0.2
    assert estimated_error(explained, sharp, 500.0, 0.0).mean() < 0.6 * alone


def test_a_shift_that_may_be_left_counts_where_ms_has_a_slope() -> None:
    sloped = flat()
    sloped.ms[:] += np.linspace(-0.2, 0.2, LOW, dtype=np.float32)
    sharp = product()
    more = estimated_error(sloped, sharp, 500.0, 0.5) - estimated_error(sloped, sharp, 500.0, 0.0)
    np.testing.assert_allclose(more, 0.5 * (0.4 / (LOW - 1)) / sloped.ms.mean(axis=0), rtol=1e-3)


def test_saturation_reaches_half_an_ms_pixel() -> None:
    bright = flat()
    bright.pan[0, 40, 40] = 2047
    layer = confidence(bright, product(), EVEN, Tops(2047, np.full(2, np.inf)), 0)
    without = confidence(bright, product(), EVEN, NEVER, 0)
    factor = layer / without
    np.testing.assert_allclose(factor[38:43, 38:43], 0.25, rtol=1e-3)
    factor[38:43, 38:43] = 1
    np.testing.assert_allclose(factor, 1, rtol=1e-5)
    # MS: its pixel, and around it as MS is interpolated.
    ms = confidence(flat(), product(), EVEN, Tops(np.inf, np.array([500.0, np.inf])), 0)
    np.testing.assert_allclose(ms, 0.25, rtol=1e-3)


def test_nodata_reaches_two_ms_pixels() -> None:
    holed = flat()
    holed.valid[:, :10] = False
    row = confidence(holed, product(), EVEN, NEVER, 0)[50]
    assert row[10] == pytest.approx(0.5, abs=1e-3)
    assert np.all(np.diff(row[10:18]) > 0)
    assert row[17] == pytest.approx(1, abs=1e-3)


def test_evidence_is_judged_in_dn_whatever_its_normalisation() -> None:
    """Bands counted from other bases, by other scales: the same DN of product, PAN and tops say the same."""
    unit = Normalisation(np.array([400.0, -100.0]), np.array([500.0, 3000.0]), np.zeros(2, bool))
    levels = np.stack([np.full((LOW, LOW), level, np.float32) for level in (500, 700)])
    plain, other = (replace(flat(), ms=norm.of(levels), normalisation=norm) for norm in (UNIT, unit))
    for evidence in (plain, other):
        evidence.pan[:] = 900
    np.testing.assert_allclose(disagreement(other, EVEN), disagreement(plain, EVEN), rtol=1e-5)
    assert disagreement(other, EVEN).max() > EVEN.tolerance
    sharp = np.stack([np.full((SIZE, SIZE), level, np.float32) for level in (500, 700)])
    np.testing.assert_allclose(drifted(other, sharp), 0, atol=1e-4)
    assert drifted(other, sharp + 100).min() > 0.05
    for tops, saturated in (
        (Tops(np.inf, np.array([500.0, np.inf])), True),
        (Tops(np.inf, np.array([501.0, 701.0])), False),
    ):
        layer = confidence(replace(other, pan=np.full_like(other.pan, 600)), sharp, EVEN, tops, 0.0)
        assert (layer.max() <= 0.25) == saturated


@given(seed=st.integers(0, 1000), low=st.sampled_from([-500.0, 0.0, 1.0]), spread=st.sampled_from([0.0, 0.5]))
def test_confidence_lies_between_0_and_1_whatever_comes(seed: int, low: float, spread: float) -> None:
    rng = np.random.default_rng(seed)
    evidence = Evidence(
        plan=PLAN,
        ms=rng.uniform(low, 1500, (2, LOW, LOW)).astype(np.float32) / np.float32(SCALE),
        trusted=rng.random((2, LOW, LOW)) > 0.2,
        pan=rng.uniform(low, 3000, (1, SIZE, SIZE)).astype(np.float32),
        valid=rng.random((SIZE, SIZE)) > 0.01,
        normalisation=UNIT,
        ratio=RATIO,
    )
    sharp = rng.uniform(low, 2000, (2, SIZE, SIZE)).astype(np.float32)
    layer = confidence(evidence, sharp, EVEN, Tops(2900, np.array([1400.0, np.inf])), spread)
    assert layer.shape == (SIZE, SIZE)
    assert np.isfinite(layer).all()
    assert layer.min() >= 0
    assert layer.max() <= 1


# --- what is measured on the scene


def test_the_relation_of_pan_and_ms_ignores_clouds() -> None:
    rng = np.random.default_rng(1)
    ms = rng.uniform(100, 900, (3, 5000))
    pan = 0.2 * ms[0] + 0.5 * ms[1] + 0.1 * ms[2] + 30 + rng.normal(0, 3, 5000)
    pan[:1000] = 2000
    relation = fit_relation(pan, ms)
    np.testing.assert_allclose(relation.weights, [0.2, 0.5, 0.1], atol=0.005)
    assert relation.offset == pytest.approx(30, abs=3)
    assert relation.tolerance == pytest.approx(0.3)
    # A PAN that is no sum of the bands: what is usual there is no disagreement.
    assert fit_relation(rng.uniform(100, 900, 5000), ms).tolerance > 0.9


def test_too_few_samples_disagree_with_nothing() -> None:
    relation = fit_relation(np.arange(5.0), np.ones((3, 5)))
    assert disagreement(flat(), replace(relation, weights=np.zeros(2))).max() < relation.tolerance
    assert fit_relation(np.zeros(0), np.zeros((3, 0))).tolerance == np.inf


def test_saturation_shows_in_values_that_pile_up() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(1500, 300, 100_000)
    assert saturation_level(np.minimum(values, 2047), "uint16") == 2047
    assert saturation_level(values, "uint16") == 65535
    assert saturation_level(values, "float32") == np.inf
    assert saturation_level(np.minimum(values, 2047), "float32") == 2047
    assert saturation_level(np.zeros(0), "uint8") == 255
    # Neither a band of one value nor a mask among the bands is saturated.
    assert saturation_level(np.full(100, 7), "uint16") == 65535
    assert saturation_level(np.arange(100) % 2, "float32") == np.inf
    assert saturation_level(np.full(100, 255), "uint8") == 255


def test_metadata_tell_where_values_end() -> None:
    values = np.random.default_rng(2).normal(1500, 300, 100_000)
    assert saturation_level(np.clip(values, 0, 2047), "uint16", 4095) == 2047  # what piles up comes first
    assert saturation_level(values, "uint16", 4095) == 4095
    assert saturation_level(values, "uint16", 2047) == 65535  # 3 % are above: the metadata are of another image
    few = np.concatenate([np.minimum(values, 2047), np.full(50, 2100.0)])
    assert saturation_level(few, "uint16", 2047) == 2047  # interpolation overshoots
    assert saturation_level(values, "uint8", 4095) == 255


# --- on scenes


def painted_pair(folder: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """A simulated scene in whose PAN a cloud and a flood were painted; where, and a pixel's width away from both."""
    size = 384
    scene = simulate_scene(6, size, RATIO, 0.5)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    opaque = np.clip((1.15 - np.hypot(y - 110, x - 120) / 50) / 0.3, 0, 1)
    texture = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), 6)
    pan = scene.pan[0] * (1 - opaque) + opaque * (1700 + 120 * texture / texture.std())
    flood = np.hypot(y - 270, x - 265) < 45
    pan[flood] = 60 + rng.normal(0, 3, flood.sum())
    painted = (opaque > 0.02) | flood
    for name, image, step in (("pan", pan[None], 0.5), ("ms", scene.ms, 0.5 * RATIO)):
        facts = FileFacts(transform=Affine(step, 0, 450_000, 0, -step, 5_411_000))
        write_tif(folder / f"{name}.tif", np.clip(np.rint(image), 0, 2047).astype(np.uint16), facts)
    solid = ndimage.binary_erosion(painted, iterations=RATIO)
    away = ~ndimage.binary_dilation(painted, iterations=2 * RATIO)
    return solid, away, float(painted.mean())


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def test_painted_clouds_and_floods_are_flagged_and_little_else(tmp_path: Path) -> None:
    solid, away, share = painted_pair(tmp_path)
    files = tmp_path / "pan.tif", tmp_path / "ms.tif"
    result = sharpen(*files, tmp_path / "o.tif", confidence=tmp_path / "c.tif", registration="off")
    # Back-projection brings the network's product onto MS even there; that PAN shows something else is seen.
    assert result.drifting < 0.001
    assert share - 0.03 < result.disagreeing < share + 0.02
    layer = read(tmp_path / "c.tif")[0]
    assert (layer[solid] <= 0.5).mean() > 0.99
    assert (layer[away] <= 0.5).mean() < 0.1
    assert np.median(layer[away]) > 0.7
    assert np.median(layer[solid]) < 0.2
    # A classical method takes PAN as it is, and cannot be pulled back from there.
    gsa = sharpen(*files, tmp_path / "g.tif", method="gsa", consistency=5, registration="off")
    assert share - 0.03 < gsa.drifting < share + 0.03


def test_tiles_are_judged_as_the_whole_image(tmp_path: Path) -> None:
    painted_pair(tmp_path)
    files = tmp_path / "pan.tif", tmp_path / "ms.tif"
    options = {"method": "brovey", "registration": "off", "halo": "full"}
    whole = sharpen(*files, tmp_path / "1.tif", tile=1024, confidence=tmp_path / "c1.tif", **options)
    tiled = sharpen(*files, tmp_path / "2.tif", tile=256, confidence=tmp_path / "c2.tif", **options)
    assert tiled.drifting == pytest.approx(whole.drifting, abs=1e-9)
    assert whole.drifting > 0.1
    assert tiled.disagreeing == pytest.approx(whole.disagreeing, abs=1e-9)
    np.testing.assert_allclose(read(tmp_path / "c2.tif"), read(tmp_path / "c1.tif"), atol=1e-5)


def test_what_is_not_pulled_onto_ms_drifts(tmp_path: Path) -> None:
    """Brovey takes its brightness from PAN, also where PAN shows something else."""
    painted_pair(tmp_path)
    files = tmp_path / "pan.tif", tmp_path / "ms.tif"

    def drifting(steps: int) -> float:
        options = {"method": "brovey", "registration": "off", "overwrite": True}
        return sharpen(*files, tmp_path / "o.tif", consistency=steps, **options).drifting

    assert drifting(0) > 0.5
    assert drifting(5) < 0.1


def test_windows_that_scatter_cost_confidence(tmp_path: Path) -> None:
    painted_pair(tmp_path)
    whole = (0, 64), (0, 64)
    with open_scene(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        off = register(scene, "off")[1]

        def mean(spread: float) -> float:
            judge = Judge(scene, replace(off, spread=spread), layer=True).read(*whole)[1]
            found = judge(make_fuser(scene, "brovey").read(*whole)(), *whole).confidence
            assert found is not None
            return float(np.nanmean(found))

        assert mean(0.4) < mean(0.1) - 0.01
        assert mean(np.inf) == mean(0.0)  # not measured


@pytest.mark.parametrize(("dtype", "expected"), [("uint8", 1.0), ("float32", 0.0)])
def test_clipping_is_drift(tmp_path: Path, dtype: str, expected: float) -> None:
    """The product is compared with MS as it is written: what a number format cannot hold is lost."""
    for name, size, step in (("pan", 64, 1.0), ("ms", 16, 4.0)):
        facts = FileFacts(transform=Affine(step, 0, 0, 0, -step, 0))
        write_tif(tmp_path / f"{name}.tif", np.full((1 if name == "pan" else 3, size, size), 250, dtype), facts)
    whole = (0, 64), (0, 64)
    with open_scene(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        _, judge = Judge(scene, register(scene, "off")[1], layer=False).read(*whole)
        stripes = np.where(np.arange(64) % 2, 350, 150).astype(np.float32)  # 250 on the mean, 202 once clipped
        found = judge(np.broadcast_to(stripes, (3, 64, 64)), (8, 56), (8, 56))
    assert found.counted == 144
    assert found.drifting / found.counted == expected


@pytest.mark.parametrize("name", ["vhr-henan", "gf2-rr-val", "pleiades-rr-val"])
def test_confidence_falls_where_the_true_error_grows(scenes: Path, tmp_path: Path, name: str) -> None:
    gains = (0.3,) * 4
    product = scene_in(scenes / name)
    if product.reference is not None:
        pair = referenced_pair(name, product, gains)
    else:
        with open_scene(product.pan, product.ms) as scene:
            pair = reduce_scene(scene, name, gains, 256)
    pan, ms, _ = write_made_pair(pair, tmp_path)
    sharpen(pan, ms, tmp_path / "o.tif", confidence=tmp_path / "c.tif", registration="off")
    assert pair.truth is not None
    error = np.abs(read(tmp_path / "o.tif") - pair.truth).mean(axis=0)

    def blocks(image: np.ndarray) -> np.ndarray:
        h, w = (n // 8 for n in image.shape)
        return image[: 8 * h, : 8 * w].reshape(h, 8, w, 8).mean(axis=(1, 3)).ravel()

    relative = blocks(error) / blocks(pair.truth.mean(axis=0))
    assert spearmanr(1 - blocks(read(tmp_path / "c.tif")[0]), relative).statistic > 0.5


# --- files


def test_the_layer_lies_on_the_product_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=1, pan_size=320, ratio=4, bands=3)
    with rasterio.open(tmp_path / "ms.tif", "r+") as file:
        ms = file.read()
        ms[:, 10:20, 10:20] = 0
        ms[0, 40:50, 40:50] = 0
        file.write(ms)
        file.nodata = 0
    files = tmp_path / "pan.tif", tmp_path / "ms.tif"
    sharpen(*files, tmp_path / "alone.tif", tile=256)
    result = sharpen(*files, tmp_path / "o.tif", tile=256, confidence=str(tmp_path / "c.tif"))
    assert np.array_equal(read(tmp_path / "alone.tif"), read(tmp_path / "o.tif"))
    with rasterio.open(tmp_path / "c.tif") as layer, rasterio.open(tmp_path / "o.tif") as out:
        assert (layer.transform, layer.crs, layer.shape) == (out.transform, out.crs, out.shape)
        assert (layer.count, layer.dtypes, layer.descriptions) == (1, ("float32",), ("confidence",))
        assert np.isnan(layer.nodata)
        assert layer.tags()["PANCRAFTER_MODEL"] == out.tags()["PANCRAFTER_MODEL"]
        image, valid = layer.read(1), (out.read() != 0).all(axis=0)
    assert np.array_equal(np.isfinite(image), valid)  # a pixel without one of its bands has no confidence
    assert 0 < image[valid].min() <= image[valid].max() <= 1
    assert str(result.confidence) == str(tmp_path / "c.tif")


def fails(self: SceneWriter) -> None:
    self.discard()
    raise OutputError("the disk is full", "make room")


@pytest.mark.parametrize("name", ["o.tif", "c.tif"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_both_files_appear_or_none(tmp_path: Path, monkeypatch, name: str, overwrite: bool) -> None:
    write_pair(tmp_path, seed=1, pan_size=64, ratio=4, bands=3)
    finish = SceneWriter.finish
    monkeypatch.setattr(SceneWriter, "finish", lambda self: (fails if self.target.name == name else finish)(self))
    with pytest.raises(OutputError, match="disk is full"):
        sharpen(
            tmp_path / "pan.tif",
            tmp_path / "ms.tif",
            tmp_path / "o.tif",
            method="exp",
            confidence=tmp_path / "c.tif",
            overwrite=overwrite,
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ms.tif", "pan.tif"]


def test_a_failing_run_keeps_the_layer_of_the_last_one(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=1, pan_size=64, ratio=4, bands=3)
    files = tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "o.tif"
    sharpen(*files, method="exp", confidence=tmp_path / "c.tif")
    before = (tmp_path / "c.tif").read_bytes()
    for options, match in (
        ({"confidence": tmp_path / "c.tif"}, "exists already"),
        ({"confidence": tmp_path / "o.tif", "overwrite": True}, "the product itself"),
        ({"confidence": tmp_path / "pan.tif", "overwrite": True}, "one of the inputs"),
        ({"confidence": tmp_path / "c.png", "overwrite": True}, "GeoTIFF"),
    ):
        target = tmp_path / "other.tif" if "exists" in match else files[2]
        with pytest.raises(OutputError, match=match):
            sharpen(*files[:2], target, method="exp", **options)
    assert (tmp_path / "c.tif").read_bytes() == before
    assert not (tmp_path / "other.tif").exists()
