"""Recipes: what is no recipe, which patterns match nothing, and what a run says that cannot go on with its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pancrafter_cli.data.config import TrainConfig, fine_tuning, read_config
from pancrafter_cli.data.gather import gather_sources
from pancrafter_cli.errors import TrainingError, UsageError
from pancrafter_cli.networks.pancrafter import PanCrafter
from pancrafter_cli.tasks.train import train
from pancrafter_cli.zoo import ModelSpec, load_model, save_model
from tests.training_setup import CONFIG, NETWORK, recipe, write_patches, write_scenes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", ["a", "b"])


def read(folder: Path, text: str) -> TrainConfig:
    path = folder / "r.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(path)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("steps = true", "steps"),
        ("steps = 3.0", "steps"),
        ("batch = '1'", "batch"),
        ("bf16 = 'off'", "bf16"),
        ("bf16 = 1", "bf16"),
        ("lr = '1e-3'", "lr"),
        ("lr = true", "lr"),
        ("name = 3", "name"),
        ("include = 'a'", "include"),
        ("include = [1]", "include.0"),
        ("nodata = '0'", "nodata"),
        ("weights = { wald = '1' }", "weights.wald"),
        ("[sample]\nrecolour = 'no'", "sample.recolour"),
        ("[sample]\nratios = ['2', 4]", "sample.ratios.0"),
        ("[network]\ndepths = [1.0, 1, 1]", "network.depths.0"),
        ("name = 2026-01-01", "nothing in a recipe is a date"),
        ("steps = 99999999999999999999", "steps must be at most 1000000000"),
        ("seed = 9223372036854775808", "seed at most 9223372036854775807"),
    ],
)
def test_types_are_checked_and_not_converted(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(UsageError, match=where):
        read(tmp_path, text)


def test_whole_numbers_and_lists_stand_for_what_toml_lacks(tmp_path: Path) -> None:
    text = "minutes = 15\nlr = 1\nnodata = 0\ninclude = ['a']\nweights = { wald = 3 }\n[sample]\nratios = [2, 4]\n"
    config = read(tmp_path, text)
    assert (config.minutes, config.lr, config.nodata) == (15.0, 1.0, 0.0)
    assert (config.include, config.weights, config.sample.ratios) == (("a",), {"wald": 3.0}, (2.0, 4.0))
    assert all(isinstance(value, float) for value in (config.minutes, config.nodata, *config.sample.ratios))
    assert read(tmp_path, "seed = 9223372036854775807\nsteps = 1000000000").steps == 10**9


@pytest.mark.parametrize("name", ["", " ", ".", "..", "../../escaped", "a/b", "/abs", "a\\b", "a\0b", "a\nb"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be that of a folder"):
        replace(CONFIG, name=name)
    with pytest.raises(UsageError, match="must be that of a folder"):
        read(tmp_path, f"name = {json.dumps(name)}")


def test_a_model_of_any_name_can_be_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, PanCrafter(NETWORK).state_dict(), ModelSpec("../of/mine", NETWORK))
    assert fine_tuning(str(path)).name == "mine-tuned"


# Patterns


def test_patterns_that_match_nothing_are_told(root: Path, tmp_path: Path) -> None:
    write_scenes(root, ["val-1"], size=256)
    config = recipe(
        root,
        steps=1,
        include=("a", "zz*"),
        exclude=("bb", "b"),
        validate=("val-1", "vall*"),
        wald_only=("y*", "x*"),
        scene_weights={"bbb": 2.0, "b": 3.0},
    )
    told: list[str] = []
    train(config, tmp_path / "run", warn=told.append)
    assert told == [
        f"include: no scene under {root} matches zz*",
        f"exclude: no scene under {root} matches bb",
        f"validate: no scene under {root} matches vall*",
        f"wald_only: no scene under {root} matches y*, x*",
        f"scene_weights: no scene under {root} matches bbb",
    ]


def test_patterns_of_made_up_scenes_and_of_patch_files_match(root: Path) -> None:
    write_patches(root / "train_x.h5")
    config = recipe(root, exclude=("train_x*",), scene_weights={"simulated-*": 2.0}, simulated_scenes=1)
    assert config.idle_patterns(s.name for s in gather_sources(config).sources) == {}
    one = replace(config, scenes=str(root / "train_x.h5"), include=("other",))
    assert one.idle_patterns([]) == {}  # nothing is selected there
    assert one.training_entries() == [root / "train_x.h5"]


def test_scenes_that_are_all_held_out_or_excluded_are_told_as_such(root: Path) -> None:
    with pytest.raises(TrainingError, match=r"could be trained on are held out by `validate`: a, b$"):
        gather_sources(recipe(root, validate=("*",)))
    with pytest.raises(TrainingError, match=r"no scene under .* matches \* and not a, b$"):
        gather_sources(recipe(root, exclude=("a", "b")))


# A loss that is not finite


def test_the_remedy_for_a_loss_that_is_not_finite_can_be_followed(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    broken = recipe(root, lr=1e30, warmup=1, clip=1e30, steps=40)
    with pytest.raises(TrainingError, match="is not finite") as caught:
        train(broken, run)
    assert "lower `lr`" in caught.value.hint
    assert "--from" not in caught.value.hint
    assert train(replace(broken, lr=1e-3, steps=1), run).step == 1  # no checkpoint that forbids it
    other = tmp_path / "other"
    with pytest.raises(TrainingError, match="is not finite") as caught:
        train(replace(broken, checkpoint_minutes=0.0), other)
    model = other / "model.safetensors"
    assert f"a new --run, from nothing or with --from {model}" in caught.value.hint
    assert load_model(str(model)).spec.training["steps"] >= 1
