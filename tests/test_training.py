from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from pancrafter_cli import sharpen
from pancrafter_cli.data.config import read_config
from pancrafter_cli.data.gather import gather_sources
from pancrafter_cli.data.samples import SampleOptions, draw_bands, draw_sample
from pancrafter_cli.data.scenes import load_sources
from pancrafter_cli.data.sources import MATCH_RATIOS, Matching, Source, match_bands
from pancrafter_cli.errors import GeometryError, TrainingError, UsageError
from pancrafter_cli.geometry.degrade import degrade_weights
from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.networks.pancrafter import PanCrafter
from pancrafter_cli.tasks.learner import mars_loss, pan_samples, start_learner, take_step
from pancrafter_cli.tasks.train import train
from pancrafter_cli.zoo import ModelSpec, load_model, save_model
from tests.pairs import write_pair
from tests.training_setup import ALONE, CONFIG, NETWORK, random_batch, write_scenes


@pytest.fixture
def scene_folder(tmp_path: Path) -> Path:
    """Two small scenes of three bands."""
    return write_scenes(tmp_path / "scenes", ["s1", "s2"])


def linear_source(size: int = 96) -> Source:
    """A source whose bands are exact linear functions of PAN, so that matching is exact."""
    rng = np.random.default_rng(0)
    pan = rng.random((size, size), dtype=np.float32) + 1
    truth = np.stack([2 * pan + 0.5, 0.25 * pan])
    gain = np.repeat(np.array([[2.0, 0.25]], np.float32), len(MATCH_RATIOS), axis=0)
    offset = np.repeat(np.array([[0.5, 0.0]], np.float32), len(MATCH_RATIOS), axis=0)
    matching = Matching(gain, offset, np.full(len(MATCH_RATIOS), 0.8, np.float32), float(pan.mean()))
    return Source("linear", "wald", truth, np.stack([pan, pan]), matching, 4.0)


def test_matching_finds_the_regression() -> None:
    source = linear_source()
    gain, offset = match_bands(source.truth, source.pans[0], 4.0)
    assert gain == pytest.approx([2.0, 0.25], rel=1e-4)
    assert offset == pytest.approx([0.5, 0.0], abs=1e-3)


@pytest.mark.parametrize("gain", [0.2, 0.3, 0.5])
def test_inputs_of_a_linear_scene_are_consistent(gain: float) -> None:
    """Without noise, shift and jitter, mpan is the truth and lpan is lms wherever the MTFs agree."""
    options = SampleOptions(
        patch=32, bands=2, noise=0.0, pan_shift=0.0, match_jitter=0.0, mtf_error=0.0, ms_gain=(gain, gain)
    )
    for seed in range(20):
        sample = draw_sample(linear_source(), np.random.default_rng(seed), options)
        np.testing.assert_allclose(sample.images.mpan, sample.truth, atol=2e-4)
        np.testing.assert_allclose(sample.images.lpan, sample.images.lms, atol=2e-4)
        assert np.abs(sample.images.lms - sample.truth).mean() > 0.01


def test_samples_depend_on_the_seed_alone() -> None:
    one, same, other = (
        draw_sample(linear_source(), np.random.default_rng(seed), SampleOptions(patch=32, bands=2))
        for seed in (5, 5, 6)
    )
    assert np.array_equal(one.images.lms, same.images.lms)
    assert not np.array_equal(one.images.lms, other.images.lms)


def test_band_draws_are_valid_and_vary() -> None:
    rng = np.random.default_rng(0)
    draws = [tuple(draw_bands(rng, 8, 4)) for _ in range(200)]
    assert all(len(d) == 4 and set(d) <= set(range(8)) for d in draws)
    assert len(set(draws)) > 100
    assert any(len(set(d)) < 4 for d in draws)


def test_both_kinds_of_sources_come_out_of_a_scene(scene_folder: Path) -> None:
    wald, full = load_sources(scene_folder / "s1", ("wald", "resynthesised"))
    assert wald.truth.shape == (3, 32, 32)
    assert full.truth.shape == (3, 128, 128)
    # The fusion keeps the spectra: degraded to the MS grid it is close to MS, and PAN close to its regression.
    down = degrade_weights(AxisMap(4, 0.0, 32, 128), 0, 32, 0.3).matrix.astype(np.float32)
    assert np.abs(down @ full.truth @ down.T - wald.truth).mean() < 0.3 * wald.truth.std(axis=(1, 2)).mean()
    assert np.corrcoef(full.pans[0].ravel(), full.pans[1].ravel())[0, 1] > 0.9


def test_mars_loss_adds_both_modes() -> None:
    def network(mpan: torch.Tensor, lms: torch.Tensor, lpan: torch.Tensor, mode: str) -> torch.Tensor:
        return lms if mode == "ms" else lpan

    batch = tuple(torch.full((4, 2, 3, 3), v) for v in (1.0, 2.0, 3.0, 2.5))
    assert float(mars_loss(network, batch, 0.5, 4)) == pytest.approx(0.5 + 0.5 * 2.0)
    assert float(mars_loss(network, batch, 0.0, 4)) == pytest.approx(0.5)


def test_the_root_mean_square_loss_is_taken_per_band_of_a_sample() -> None:
    lms = torch.zeros(2, 2, 4, 4)
    truth = torch.zeros(2, 2, 4, 4)
    truth[0, 1, :2] = 2.0  # one of four bands of samples: root of half of 4
    found = mars_loss(lambda *images_and_mode: lms, (lms, lms, lms, truth), 0.0, 0, "rmse")
    assert float(found) == pytest.approx(2**0.5 / 4, abs=1e-3)


PLAIN = SampleOptions(
    bands=2, noise=0.0, pan_shift=0.0, match_jitter=0.0, mtf_error=0.0, shuffle_bands=False, recolour=False
)


def test_a_matching_that_is_off_keeps_the_mean() -> None:
    """PAN's contrast is matched too high or too low; where PAN has its mean, the matched PAN is as it should be."""
    source = linear_source()
    for seed in range(5):
        sample = draw_sample(source, np.random.default_rng(seed), replace(PLAIN, match_jitter=0.3))
        for mpan, truth, gain, offset in zip(sample.images.mpan, sample.truth, (2.0, 0.25), (0.5, 0.0), strict=True):
            factor, rest = np.polyfit(truth.ravel(), mpan.ravel(), 1)
            mean = gain * source.matching.pan_mean + offset
            assert abs(factor - 1) > 0.01
            assert factor * mean + rest == pytest.approx(mean, rel=1e-3)


def test_noise_goes_up_to_what_was_allowed() -> None:
    flat = np.ones((2, 96, 96), np.float32)
    source = replace(linear_source(), truth=flat, pans=flat)
    options = replace(PLAIN, matched=False, noise=0.004)
    drawn = [draw_sample(source, np.random.default_rng(seed), options).images for seed in range(30)]
    in_pan, in_ms = (max(float(getattr(images, name).std()) for images in drawn) for name in ("mpan", "lms"))
    assert 0.003 < in_pan < 0.0042
    assert 0.0005 < in_ms < 0.0042


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("units", [True, False])
def test_bf16_is_for_devices_that_have_units_for_it(wanted: bool, units: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pancrafter_cli.runtime.torch_runner.multiplies_bf16", lambda: units)
    config = replace(CONFIG, bf16=wanted)
    learner = start_learner(config, ALONE)
    assert learner.bf16 is (wanted and units)
    seen: list[bool] = []
    forward = learner.forward
    learner.forward = lambda *given: (seen.append(torch.is_autocast_enabled("cpu")), forward(*given))[1]
    take_step(learner, random_batch(config), config)
    assert set(seen) == {wanted and units}


@pytest.mark.parametrize("share", [1.0, 0.5, 0.125, 0.3])
def test_pan_mode_gets_its_share_of_the_samples(share: float) -> None:
    config = replace(CONFIG, batch=4, pan_share=share)
    counts = [pan_samples(config, step) for step in range(100)]
    assert sum(counts) == pytest.approx(100 * 4 * share, abs=1)
    assert max(counts) - min(counts) <= 1


def test_early_weights_are_soon_forgotten_by_their_average() -> None:
    config = replace(CONFIG, ema=0.999, warmup=0, lr=0.01)
    learner = start_learner(config, ALONE)
    first = {name: value.clone() for name, value in learner.ema.items()}
    for step in range(8):
        take_step(learner, random_batch(config, step), config)
    now = learner.network.state_dict()
    left, way = (sum(float((now[name] - old[name]).norm()) for name in first) for old in (learner.ema, first))
    assert left < 0.5 * way


def test_only_matrices_decay() -> None:
    learner = start_learner(replace(CONFIG, weight_decay=0.1), ALONE)
    decays = {id(p): group["weight_decay"] for group in learner.optimizer.param_groups for p in group["params"]}
    for name, value in learner.network.named_parameters():
        assert decays[id(value)] == (0.1 if value.ndim > 1 else 0.0), name


def test_weights_of_scenes_and_kinds_multiply() -> None:
    config = replace(CONFIG, weights={"wald": 20.0}, scene_weights={"wv*": 4.0, "wv2": 9.0})
    sources = ("wv2", "wald"), ("wv2", "resynthesised"), ("ikonos", "wald")
    assert [config.weight_of(*source) for source in sources] == [80, 4, 20]


def test_what_sharpen_refuses_is_not_trained_on(scene_folder: Path) -> None:
    for name, seed in (("s2", 5), ("other", 6)):
        write_pair(scene_folder / name, seed=seed, pan_size=512, ratio=4, bands=3)
    (scene_folder / "other" / "ms.tif").replace(scene_folder / "s2" / "ms.tif")
    (scene_folder / "other" / "pan.tif").unlink()
    with pytest.raises(GeometryError, match="nothing in common"):
        load_sources(scene_folder / "s2", ("wald",))
    found = gather_sources(replace(CONFIG, scenes=str(scene_folder)))
    assert {source.name for source in found.sources} == {"s1"}
    assert [skipped.name for skipped in found.skipped] == ["s2"]


def test_training_writes_a_model_that_loads(scene_folder: Path, tmp_path: Path) -> None:
    result = train(replace(CONFIG, scenes=str(scene_folder)), tmp_path / "run")
    model = load_model(str(result.model))
    assert result.step == 6
    assert model.spec.config == NETWORK
    assert model.spec.training["scenes"] == ["s1", "s2"]
    # Six steps must have moved the zero-initialised head.
    assert model.network.head.weight.abs().sum() > 0


def test_a_model_is_not_for_its_owner_alone(tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", PanCrafter(NETWORK).state_dict(), ModelSpec("tiny", NETWORK))
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o444 == 0o444
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_resumed_run_ends_with_the_same_weights(scene_folder: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, scenes=str(scene_folder))
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop_at=2)
    parts = train(config, tmp_path / "parts")
    one, other = (safetensors.torch.load_file(r.model) for r in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_of_another_recipe_is_refused(scene_folder: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, scenes=str(scene_folder))
    train(config, tmp_path / "run", stop_at=1)
    other = replace(config, lr=5e-4, sample=replace(config.sample, noise=0.25), steps=9)
    with pytest.raises(TrainingError, match=r"another configuration: lr: 0.001, now 0.0005; sample.noise: 0.004, now"):
        train(other, tmp_path / "run")


def test_a_broken_checkpoint_is_named(scene_folder: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, scenes=str(scene_folder))
    train(config, tmp_path / "run", stop_at=1)
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        train(config, tmp_path / "run")


def test_no_scene_is_an_error_that_says_what_was_sought(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="no scene"):
        train(replace(CONFIG, scenes=str(tmp_path / "empty")), tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", "stepz: Unexpected"),
        ("steps = 'many'", "steps: Input should be"),
        ("steps = ", "not TOML"),
        ("[network]\nbands = 3", "bands"),
    ],
)
def test_config_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config(path)


def test_the_shipped_recipe_reads() -> None:
    config = read_config(Path(__file__).parents[1] / "examples" / "recipes" / "universal-small" / "1.toml", "somewhere")
    assert config.network.bands == config.sample.bands == 4
    assert config.scenes == "somewhere"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch = 0", "must be positive"),
        ("ema = 7", "ema below 1"),
        ("lr = nan", "lr must be"),
        ("[weights]\nwalt = 3", "kinds"),
        ("[network]\npan = 'banana'", "network.pan"),
        ("[network]\ndepths = [1, 1]", "network.depths"),
        ("network = 3", "network"),
        ("[network]\nwidht = 3", "network.widht"),
        ("[sample]\nratios = [4]", "sample.ratios"),
        ("[network]\nwidth = 8\nheads = 3", "heads"),
    ],
)
def test_impossible_recipes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config(path)


def test_a_recipe_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes("name = 'Málaga'".encode("latin-1"))
    with pytest.raises(UsageError, match="not TOML"):
        read_config(path)


def test_the_papers_form_trains_on_raw_pan(scene_folder: Path, tmp_path: Path) -> None:
    config = replace(
        CONFIG,
        scenes=str(scene_folder),
        network=replace(NETWORK, pan="raw", lowpass_inputs=False),
        sample=replace(CONFIG.sample, matched=False),
    )
    result = train(config, tmp_path / "run")
    assert load_model(str(result.model)).spec.config.pan == "raw"
    scene = scene_folder / "s1"
    sharpen(scene / "pan.tif", scene / "ms.tif", tmp_path / "out.tif", model=str(result.model))
    assert (tmp_path / "out.tif").is_file()


@pytest.mark.parametrize("stop_at", [0, -1])
def test_stopping_before_the_first_step_is_refused(scene_folder: Path, tmp_path: Path, stop_at: int) -> None:
    with pytest.raises(UsageError, match="stop-at"):
        train(replace(CONFIG, scenes=str(scene_folder)), tmp_path / "run", stop_at=stop_at)
    assert not (tmp_path / "run").exists()
