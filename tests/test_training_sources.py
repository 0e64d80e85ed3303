from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from affine import Affine

from pancrafter_cli import sharpen
from pancrafter_cli.data.batches import SourcePool
from pancrafter_cli.data.config import TrainConfig
from pancrafter_cli.data.deadleaves import dead_leaves
from pancrafter_cli.data.gather import gather_sources
from pancrafter_cli.data.pancollection import open_patches
from pancrafter_cli.data.samples import SampleOptions, draw_ratio, draw_sample
from pancrafter_cli.data.scenes import load_sources
from pancrafter_cli.data.simulate import simulate_scene
from pancrafter_cli.data.sources import make_source, match_bands
from pancrafter_cli.data.synthetic import RATIO, SIZE, synthetic_sources
from pancrafter_cli.errors import GeometryError, RasterError, TrainingError
from pancrafter_cli.geometry.fill import fill_invalid
from pancrafter_cli.tasks.train import train
from pancrafter_cli.zoo import read_spec
from tests.pairs import textured, write_pair
from tests.scene_factory import FileFacts, write_tif
from tests.training_setup import CONFIG, NETWORK, recipe, write_patches, write_scenes


def break_file(path: Path) -> None:
    """Cut a file to its first bytes."""
    path.write_bytes(path.read_bytes()[:100])


def move_away(scene: Path) -> None:
    """Write the MS of a scene 100 km east of its PAN."""
    facts = FileFacts(transform=Affine(2, 0, 600_000, 0, -2, 5_700_000))
    write_tif(scene / "ms.tif", np.full((3, 32, 32), 500, np.uint16), facts)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", ["a", "b", "c", "d", "e"])


def test_scenes_that_cannot_serve_are_left_out_and_named(root: Path) -> None:
    move_away(root / "b")
    write_pair(root / "c", seed=3, pan_size=12, ratio=4, bands=3)
    gathered = gather_sources(recipe(root))
    assert {s.name for s in gathered.sources} == {"a", "d", "e"}
    assert {s.name: s.reason.split(":")[0] for s in gathered.skipped}.keys() == {"b", "c"}
    reasons = {s.name: s.reason for s in gathered.skipped}
    assert "do not overlap" in reasons["b"]
    assert "3 x 3 MS pixels over 12 x 12 PAN pixels are too small for patches of 16" in reasons["c"]


def test_nothing_left_is_one_error_with_the_reasons(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", ["a", "b"], size=12)
    with pytest.raises(TrainingError, match=r"none of 2 scenes can be trained on: a: .*too small.*; b: .*too small"):
        gather_sources(recipe(root))


def test_a_few_unreadable_scenes_are_left_out(root: Path) -> None:
    break_file(root / "d" / "ms.tif")
    gathered = gather_sources(recipe(root))
    assert [s.name for s in gathered.skipped] == ["d"]
    assert "ms.tif" in gathered.skipped[0].reason


def test_more_than_a_quarter_unreadable_stops(root: Path) -> None:
    for name in ("d", "e"):
        break_file(root / name / "ms.tif")
    with pytest.raises(TrainingError, match=r"2 of 5 scenes cannot be used: d: .*e: "):
        gather_sources(recipe(root))


@pytest.mark.parametrize("size", [8, 12, 16, 20, 28, 40])
def test_tiny_scenes_give_finite_sources(tmp_path: Path, size: int) -> None:
    write_pair(tmp_path / "s", seed=1, pan_size=size, ratio=4, bands=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sources = load_sources(tmp_path / "s", ("wald", "resynthesised"))
    assert all(np.isfinite(getattr(s, name)).all() for s in sources for name in ("truth", "pans"))
    assert all(np.isfinite(getattr(s.matching, name)).all() for s in sources for name in ("gain", "offset", "likeness"))


def test_a_scene_of_one_ms_pixel_is_too_small(tmp_path: Path) -> None:
    write_pair(tmp_path / "s", seed=1, pan_size=4, ratio=4, bands=2)
    with pytest.raises(TrainingError, match="1 x 1 MS pixels over 4 x 4 PAN pixels are too small"):
        load_sources(tmp_path / "s", ("wald", "resynthesised"))


def test_only_training_files_of_pancollection_are_taken(root: Path) -> None:
    for name in ("train_x.h5", "valid_x.h5", "test_x.h5"):
        write_patches(root / name)
    entries = [path.name for path in recipe(root).training_entries()]
    assert entries == ["a", "b", "c", "d", "e", "train_x.h5"]
    alone = recipe(root / "valid_x.h5").training_entries()
    assert [path.name for path in alone] == ["valid_x.h5"]


def test_patches_come_from_gt_and_pan_whatever_ms_is(tmp_path: Path) -> None:
    """The set ms of the file is NaN here, as good as QuickBird's misplaced one: nothing of it may be seen."""
    path = write_patches(tmp_path / "train_x.h5", count=12, size=32, bands=4)
    patches = open_patches(path)
    assert (patches.count, patches.shape, patches.ratio, patches.pixels) == (12, (4, 32, 32), 4.0, 12 * 32 * 32)
    with h5py.File(path) as file:
        truth, pan = np.asarray(file["gt"][7], np.float32), np.asarray(file["pan"][7], np.float32)
    image = patches.image(7)
    np.testing.assert_allclose(image.truth * patches.scale, truth, rtol=1e-5)
    np.testing.assert_allclose(image.pans[1] * patches.scale, pan[0], rtol=1e-5)
    sample = draw_sample(image, np.random.default_rng(0), SampleOptions(patch=32, bands=4))
    assert all(np.isfinite(a).all() for a in (*sample.images, sample.truth))


def test_the_bands_of_a_patch_file_are_matched_over_many_patches(tmp_path: Path) -> None:
    path = write_patches(tmp_path / "train_x.h5", count=3, size=32, bands=2)
    patches = open_patches(path)
    with h5py.File(path) as file:
        truth = np.asarray(file["gt"][:], np.float32).transpose(1, 0, 2, 3) / patches.scale
        pan = np.asarray(file["pan"][:, 0], np.float32) / patches.scale
    gain, _ = match_bands(truth, pan, 4.0)
    np.testing.assert_allclose(patches.matching.gain[3], gain, rtol=1e-5)
    single = np.stack([match_bands(truth[:, k], pan[k], 4.0)[0] for k in range(3)])
    assert (np.abs(single - gain).max(axis=0) > 0.01).all()


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"gt": (3, 4, 32, 32), "pan": (3, 1, 32, 32)}, "found gt"),
        ({"gt": (3, 4, 32, 32), "pan": (2, 1, 32, 32), "ms": (3, 4, 8, 8)}, "found gt"),
        ({"gt": (3, 32, 32), "pan": (3, 1, 32, 32), "ms": (3, 4, 8, 8)}, "found gt"),
        ({"gt": (0, 4, 32, 32), "pan": (0, 1, 32, 32), "ms": (0, 4, 8, 8)}, "found gt"),
        ({"other": (3,)}, "found none of them"),
        (None, "not a readable h5 file"),
    ],
)
def test_other_h5_files_are_named(tmp_path: Path, sets: dict[str, tuple[int, ...]] | None, message: str) -> None:
    path = tmp_path / "train_x.h5"
    if sets is None:
        path.write_bytes(b"no h5 file")
    else:
        with h5py.File(path, "w") as file:
            for name, shape in sets.items():
                file[name] = np.zeros(shape)
    with pytest.raises(RasterError, match=message):
        open_patches(path)


def pool_of(path: Path, **changes: object) -> SourcePool:
    config = recipe(path, **changes)
    return SourcePool(gather_sources(config).sources, config)


def test_an_unreadable_patch_gives_its_place_to_another(tmp_path: Path) -> None:
    path = write_patches(tmp_path / "train_x.h5", count=40)
    pool, fresh = pool_of(path, batch=24), pool_of(path, batch=24)
    with h5py.File(path, "a") as file:
        file["gt"][4, 0, 3, 3] = np.nan
    batches = [pool.draw(step) for step in range(10)]
    names = {name for batch in batches for name in batch.names}
    assert len(names) == 39
    assert "train_x.h5[4]" not in names
    assert [s.name for batch in batches for s in batch.skipped] == ["train_x.h5[4]"]
    # A resumed run, which has yet to meet the broken patch, must draw the same samples.
    for step in range(10):
        one, other = (p.draw(step) for p in (pool, fresh))
        assert one.names == other.names
        assert np.array_equal(one.images.lms, other.images.lms)


def test_a_file_that_vanishes_stops_the_run(tmp_path: Path) -> None:
    path = write_patches(tmp_path / "train_x.h5", count=12)
    pool = pool_of(path)
    path.unlink()
    with pytest.raises(TrainingError, match=r"train_x\.h5: 4 of 12 images in it cannot be read"):
        [pool.draw(step) for step in range(9)]


@pytest.mark.parametrize(
    ("own_share", "limits", "ratios"), [(1.0, (1.7, 6.0), (3.0, 5.0)), (0.5, (2.5, 4.5), (2, 5)), (0, (3, 3), (2, 4))]
)
def test_a_model_is_for_the_ratios_it_was_trained_on(
    own_share: float, limits: tuple[float, float], ratios: tuple[float, float]
) -> None:
    options = SampleOptions(own_ratio_share=own_share, ratios=limits)
    config = replace(CONFIG, sample=options, weights={"wald": 1.0, "dead-leaves": 0.0})
    truth = textured(2, 64, 1) / 500
    kinds = {3.0: "wald", 5.0: "wald", 9.0: "dead-leaves"}
    sources = [make_source("s", kind, truth, truth[:1].repeat(2, axis=0), ratio) for ratio, kind in kinds.items()]
    pool = SourcePool(sources, config)
    assert pool.ratios == ratios
    rng = np.random.default_rng(0)
    drawn = {draw_ratio(rng, source, options) for source in sources[:2] for _ in range(200)}
    assert (round(min(drawn)), round(max(drawn))) == ratios


def test_fine_tuning_says_which_ratio_its_model_is_for(root: Path, tmp_path: Path) -> None:
    config = recipe(root, sample=replace(CONFIG.sample, own_ratio_share=1.0))
    model = train(config, tmp_path / "run").model
    assert read_spec(model).ratios == (4.0, 4.0)
    write_pair(tmp_path / "other", seed=3, pan_size=96, ratio=2, bands=2)
    with pytest.raises(GeometryError, match=r"2\.00 times as large .* trained for ratios 4 to 4"):
        sharpen(tmp_path / "other" / "pan.tif", tmp_path / "other" / "ms.tif", tmp_path / "out.tif", model=str(model))


def test_weights_of_zero_everywhere_are_refused(root: Path) -> None:
    config = recipe(root, weights={"wald": 0.0, "resynthesised": 0.0})
    with pytest.raises(TrainingError, match="weight 0"):
        SourcePool(gather_sources(config).sources, config)


def test_fixed_band_order_keeps_bands_and_refuses_other_counts(root: Path) -> None:
    kept = replace(CONFIG.sample, shuffle_bands=False, recolour=False, bands=3)
    config = recipe(root, sample=kept, network=replace(NETWORK, bands=3))
    source = gather_sources(config).sources[0].image(0)
    means = [draw_sample(source, np.random.default_rng(s), kept).truth.mean(axis=(1, 2)) for s in range(60)]
    np.testing.assert_allclose(np.mean(means, axis=0), source.truth.mean(axis=(1, 2)), rtol=0.1)
    with pytest.raises(TrainingError, match="has 3 bands, but the recipe keeps the order of 2"):
        gather_sources(recipe(root, sample=replace(CONFIG.sample, shuffle_bands=False)))


def test_the_own_ratio_can_be_the_only_one(root: Path) -> None:
    source = gather_sources(recipe(root)).sources[0].image(0)
    rng = np.random.default_rng(0)
    own, mixed = (
        {draw_ratio(rng, source, replace(CONFIG.sample, own_ratio_share=share)) for _ in range(50)}
        for share in (1, 0.5)
    )
    assert own == {4.0}
    assert len(mixed) > 5


def test_holes_are_filled_as_inference_fills_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = gather_sources(recipe(root)).sources[1].image(0)
    seen: list[np.ndarray] = []

    def watched(image: np.ndarray, valid: np.ndarray, fallback: np.ndarray) -> np.ndarray:
        seen.append(valid)
        return fill_invalid(image, valid, fallback)

    monkeypatch.setattr("pancrafter_cli.data.samples.fill_invalid", watched)
    options = replace(CONFIG.sample, patch=64, hole_share=0.5)
    samples = [draw_sample(source, np.random.default_rng(seed), options) for seed in range(60)]
    assert 15 < len(seen) < 45
    assert all(0 < (~valid).sum() <= 64 * len(valid) for valid in seen)
    assert all((valid == valid[0]).all() for valid in seen)
    assert all(np.isfinite(s.images.lms).all() for s in samples)
    # A hole reaches what the network sees: MS says less of the truth there.
    errors = []
    for share in (0.0, 1.0):
        drawn = [
            draw_sample(source, np.random.default_rng(s), replace(options, hole_share=share, recolour=False))
            for s in range(30)
        ]
        errors.append(np.mean([np.abs(s.images.lms - s.truth).mean() for s in drawn]))
    assert errors[1] > 1.02 * errors[0]


def test_dead_leaves_have_edges_of_all_sizes_and_bands_that_differ() -> None:
    pan, bands = dead_leaves(np.random.default_rng(3), 96, 5)
    again, _ = dead_leaves(np.random.default_rng(3), 96, 5)
    assert pan.shape == (1, 96, 96)
    assert bands.shape == (5, 96, 96)
    assert np.array_equal(pan, again)
    assert 0 < bands.min() < bands.max() < 2
    likeness = [np.corrcoef(pan.ravel(), band.ravel())[0, 1] for band in bands]
    # PAN sees 450 to 800 nm: it is most like the middle band, and much less like blue and the near infrared.
    assert max(likeness) == likeness[2] > 0.9
    assert likeness[0] < 0.9 > likeness[4]
    # Contrast at every scale: averaging over 2, 4 and 8 pixels each takes some of it away.
    spread = [pan[0].reshape(96 // n, n, 96 // n, n).mean(axis=(1, 3)).std() for n in (1, 2, 4, 8)]
    assert all(0.5 * a < b < 0.97 * a for a, b in itertools.pairwise(spread))


def test_made_up_sources_follow_from_the_seed() -> None:
    config = replace(CONFIG, simulated_scenes=1, dead_leaves=1, seed=3)
    town, leaves = synthetic_sources(config)
    assert (town.kind, leaves.kind) == ("simulated", "dead-leaves")
    assert town.truth.shape == (4, SIZE, SIZE)
    assert leaves.truth.shape == (2, SIZE, SIZE)
    scene = simulate_scene(3000, SIZE)
    np.testing.assert_allclose(town.truth / town.truth.max(), scene.reference / scene.reference.max(), rtol=1e-5)
    assert town.ratio == leaves.ratio == RATIO


def test_training_needs_no_scene_but_made_up_ones(tmp_path: Path) -> None:
    config = replace(CONFIG, simulated_scenes=1, steps=2)
    result = train(config, tmp_path / "run")
    assert result.step == 2


def test_training_on_patches_lowers_the_loss(tmp_path: Path) -> None:
    write_patches(tmp_path / "scenes" / "train_x.h5", count=20, size=32, bands=4)
    config = recipe(tmp_path / "scenes", steps=100, batch=4, lr=5e-3, sample=replace(CONFIG.sample, patch=32))
    losses: list[float] = []
    train(config, tmp_path / "run", progress=lambda step, steps, loss: losses.append(loss))
    assert len(losses) == 2
    assert losses[-1] < 0.85 * losses[0]


def test_left_out_scenes_are_counted_in_the_result_and_warned_of(root: Path, tmp_path: Path) -> None:
    move_away(root / "b")
    told: list[str] = []
    result = train(recipe(root, steps=1), tmp_path / "run", warn=told.append)
    assert [s.name for s in result.skipped] == ["b"]
    assert told
    assert told[0].startswith("b is left out: PAN and MS do not overlap")


def test_a_broken_patch_met_on_the_way_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_patches(tmp_path / "train_x.h5", count=70)
    with h5py.File(path, "a") as file:
        for k in range(1, 12):  # the first and last are measured when the file is opened, and few others
            file["pan"][k] = np.nan
    monkeypatch.setattr("pancrafter_cli.data.pancollection._MEASURED", 2)
    told: list[str] = []
    result = train(recipe(path, steps=50), tmp_path / "run", warn=told.append)
    assert len(result.skipped) == len(told) > 3
    assert all(name.startswith("train_x.h5[") for name in told)


def test_configs_of_sources_are_checked() -> None:
    with pytest.raises(ValueError, match="simulated_scenes"):
        TrainConfig(simulated_scenes=-1)
    with pytest.raises(ValueError, match="hole_share"):
        SampleOptions(hole_share=1.5)


def test_patterns_choose_what_is_trained_on_and_what_is_held_out(root: Path) -> None:
    config = recipe(root, include=("a", "b", "c", "d"), exclude=("b*",), validate=("d", "e"))
    assert [path.name for path in config.training_entries()] == ["a", "c"]
    assert [path.name for path in config.validation_folders()] == ["d", "e"]
