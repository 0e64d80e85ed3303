from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import safetensors.torch
import torch
from affine import Affine
from typer.testing import CliRunner

from pancrafter_cli.cli.main import app
from pancrafter_cli.data.config import TrainConfig, fine_tuning, read_config, recipe_text
from pancrafter_cli.errors import ModelError, OutputError, PancrafterError, TrainingError, UsageError
from pancrafter_cli.networks.pancrafter import PanCrafter
from pancrafter_cli.runtime.torch_runner import TorchRunner
from pancrafter_cli.tasks import train as training
from pancrafter_cli.tasks.checkpoint import restore_checkpoint, write_model, written_whole
from pancrafter_cli.tasks.course import Course
from pancrafter_cli.tasks.eval_options import EvalOptions, contestants
from pancrafter_cli.tasks.evaluate import evaluate
from pancrafter_cli.tasks.learner import is_finished, learning_rate, start_learner, take_step
from pancrafter_cli.tasks.train import train
from pancrafter_cli.tasks.validation import examine, prepare_exams
from pancrafter_cli.zoo import Model, ModelSpec, load_model
from tests.pairs import write_pair
from tests.training_setup import ALONE, CONFIG, NETWORK, random_batch, recipe, write_scenes

CPU = torch.device("cpu")
RECIPES = Path(__file__).parents[1] / "examples" / "recipes"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", ["a", "b"])


@pytest.fixture
def held_out(root: Path) -> Path:
    """The scenes with two more to validate on, 64 MS pixels a side."""
    for seed, name in enumerate(["val-1", "val-2"], start=7):
        write_pair(root / name, seed=seed, pan_size=256, ratio=4, bands=3)
    return root


def weights(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Failures


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(root: Path, tmp_path: Path) -> None:
    config = recipe(root, lr=1e30, warmup=1, clip=1e30, steps=40, checkpoint_minutes=0.0)
    with pytest.raises(TrainingError, match=r"is not finite at step \d+, in samples of (a|b|a, b);") as caught:
        train(config, tmp_path / "run")
    learner = start_learner(config, ALONE)
    assert restore_checkpoint(tmp_path / "run", config, learner)
    assert f"at step {learner.step + 1}," in caught.value.message
    assert all(torch.isfinite(v).all() for v in learner.network.state_dict().values())


def test_a_broken_sample_leaves_the_learner_as_it_was() -> None:
    learner = start_learner(CONFIG, ALONE)
    batch = random_batch(CONFIG)
    batch.truth[1, 0, 3, 3] = np.nan
    before = {k: v.clone() for k, v in learner.network.state_dict().items()}
    with pytest.raises(TrainingError, match="loss is not finite at step 1, in samples of s0, s1"):
        take_step(learner, batch, CONFIG)
    assert learner.step == 0
    assert same(before, learner.network.state_dict())


FULL_DISK = """
import resource, sys
from pancrafter_cli.data.config import read_config
from pancrafter_cli.errors import OutputError
from pancrafter_cli.tasks.train import train
from pathlib import Path
run = Path(sys.argv[1])
config = read_config(run / "recipe.toml")
# No file may grow beyond this: what a full disk does to a checkpoint, and not yet to a line of a log.
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    train(config, run)
except OutputError as error:
    print(error.message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits file sizes by POSIX means")
def test_a_full_disk_leaves_the_previous_checkpoint(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = recipe(root)
    train(config, run, stop_at=2)
    before = {name: (run / name).read_bytes() for name in ("checkpoint.safetensors", "model.safetensors")}
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(run)], capture_output=True, text=True, check=False)
    assert "checkpoint.safetensors: cannot be written" in done.stdout, done.stderr
    assert {name: (run / name).read_bytes() for name in before} == before
    assert not list(run.glob("*.part*")) + list(run.glob(".*.part*"))
    assert train(config, run).step == 6


def test_a_file_that_cannot_be_finished_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with written_whole(path) as part:
            part.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_model_that_cannot_be_finished_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    learner, spec = start_learner(CONFIG, ALONE), ModelSpec("tiny", NETWORK)
    write_model(path, learner, spec)
    before = path.read_bytes()

    def full(tensors: object, name: Path, metadata: object) -> None:
        name.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OutputError, match=r"model\.safetensors: cannot be written"):
        write_model(path, learner, spec)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_bytes() == before


def test_a_model_of_another_form_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    eight = replace(CONFIG, network=replace(NETWORK, bands=8), sample=replace(CONFIG.sample, bands=8))
    model = train(replace(eight, scenes=str(root), steps=1), tmp_path / "eight").model
    with pytest.raises(TrainingError, match="it has bands = 8, not 2") as caught:
        train(recipe(root, start_from=str(model)), tmp_path / "two")
    assert "width" not in caught.value.message


def test_other_scenes_on_resuming_are_refused_by_name(root: Path, tmp_path: Path) -> None:
    train(recipe(root), tmp_path / "run", stop_at=1)
    (root / "b").rename(root / "c")
    write_pair(root / "a", seed=9, pan_size=128, ratio=4, bands=3)
    with pytest.raises(TrainingError, match="c is new, b is gone, a has changed"):
        train(recipe(root), tmp_path / "run")


def test_what_may_change_on_resuming(root: Path, tmp_path: Path) -> None:
    config = recipe(root)
    assert config.differences(json.loads(json.dumps(asdict(config)))) == []
    free = replace(config, scenes="elsewhere", steps=9, minutes=3.0, checkpoint_minutes=1.0, validate_minutes=1.0)
    assert config.differences(asdict(free)) == []
    # What an older version did not know is taken to have been at its default.
    old = {name: value for name, value in asdict(config).items() if name != "accumulate"}
    assert config.differences(old) == []
    assert replace(config, accumulate=2).differences(old) == ["accumulate: 1, now 2"]


# Validation


def test_validation_agrees_with_evaluate(held_out: Path, tmp_path: Path) -> None:
    """What `exp` scores in training is what `eval` says it scores, on the same pixels."""
    model = train(recipe(held_out, exclude=("val-*",), steps=3), tmp_path / "run").model
    folders = [held_out / "val-1", held_out / "val-2"]
    with rasterio.open(folders[1] / "ms.tif", "r+") as file:  # 1.5 MS pixels off, which both must correct
        file.transform = file.transform @ Affine.translation(1.5, 0)
    exams, skipped = prepare_exams(folders, matched=True)
    report = examine(exams, TorchRunner(load_model(str(model)), CPU))
    assert not skipped
    options = EvalOptions(tuple(folders), contestants(["exp"]), ("reduced",))
    for row in evaluate(options).rows:
        exp = report.scenes[row.scene][1]
        assert exp.ergas == pytest.approx(row.scores["ergas"], rel=1e-4)
        assert exp.sam == pytest.approx(row.scores["sam"], rel=1e-4)
        assert exp.q2n == pytest.approx(row.scores["q2n"], rel=1e-3)
    relative = np.mean([own.ergas / exp.ergas for own, exp in report.scenes.values()])
    assert report.relative_ergas == pytest.approx(relative)


def test_an_untrained_network_scores_as_interpolation(held_out: Path) -> None:
    """Its last convolution is zero: what it adds to `lms` is nothing."""
    exams, _ = prepare_exams([held_out / "val-1"], matched=True)
    learner = start_learner(CONFIG, ALONE)
    report = examine(exams, TorchRunner(Model(learner.network, ModelSpec("x", NETWORK), ""), CPU))
    assert report.relative_ergas == pytest.approx(1.0, abs=1e-6)


def test_the_best_weights_become_the_model(held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is made to spoil the network after its third step; the model must be that of step 3."""

    def rate(config: TrainConfig, learner: object) -> float:
        return 1e-3 if learner.step < 3 else 3.0  # type: ignore[attr-defined]

    monkeypatch.setattr("pancrafter_cli.tasks.learner.learning_rate", rate)
    config = recipe(held_out, validate=("val-*",), validate_minutes=0.0, ema=0.0)
    result = train(config, tmp_path / "run")
    assert result.best_step is not None
    assert result.best_step <= 3 < result.step == 6
    model = load_model(str(result.model))
    assert model.spec.training["steps"] == result.best_step
    assert model.spec.training["scenes"] == ["a", "b"]
    assert model.spec.training["validation_scenes"] == ["val-1", "val-2"]
    assert same(weights(result.model), weights(tmp_path / "run" / "best.safetensors"))
    rows = list(csv.DictReader((tmp_path / "run" / "validation.csv").open()))
    assert [row["scene"] for row in rows[:3]] == ["val-1", "val-2", "mean"]
    assert {int(row["step"]) for row in rows} == set(range(7))
    by_step: dict[int, list[float]] = {}
    for row in rows:
        if row["scene"] != "mean":
            by_step.setdefault(int(row["step"]), []).append(float(row["ergas"]) / float(row["exp_ergas"]))
    means = {step: np.mean(values) for step, values in by_step.items()}
    assert min(means, key=means.__getitem__) == result.best_step
    assert result.relative_ergas == pytest.approx(min(means.values()), abs=1e-3)


def test_training_that_only_spoils_gives_back_what_it_started_from(
    held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = train(recipe(held_out, exclude=("val-*",)), tmp_path / "first").model
    monkeypatch.setattr("pancrafter_cli.tasks.learner.learning_rate", lambda config, learner: 3.0)
    config = recipe(held_out, validate=("val-*",), validate_minutes=0.0, ema=0.0, start_from=str(start))
    result = train(config, tmp_path / "second")
    assert result.best_step == 0
    assert same(weights(result.model), weights(start))


def test_a_resumed_run_remembers_its_best(held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe(held_out, validate=("val-*",), validate_minutes=0.0, ema=0.0)
    first = train(config, tmp_path / "run", stop_at=2)
    monkeypatch.setattr("pancrafter_cli.tasks.learner.learning_rate", lambda config, learner: 3.0)
    second = train(config, tmp_path / "run")
    assert second.step == 6
    assert second.best_step == first.best_step
    assert second.relative_ergas == first.relative_ergas


def test_patterns_that_match_nothing_and_scenes_that_cannot_be_examined(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"validate: no scene folder .* matches val-\*"):
        train(recipe(root, validate=("val-*",)), tmp_path / "run")
    write_pair(root / "val-1", seed=1, pan_size=64, ratio=4, bands=3)
    with pytest.raises(TrainingError, match=r"none of the scenes to validate on can be used; val-1: .*at least 32"):
        train(recipe(root, validate=("val-*",)), tmp_path / "run")
    write_pair(root / "val-2", seed=1, pan_size=256, ratio=4, bands=3)
    result = train(recipe(root, validate=("val-*",), steps=1), tmp_path / "run")
    assert [s.name for s in result.skipped] == ["val-1"]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_gets_the_course_of_the_run(held_out: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(recipe(held_out, validate=("val-*",)), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "loss",
        "learning_rate",
        *(f"validation/{name}" for name in ("ergas", "sam", "q2n", "relative_ergas")),
    }
    assert events.Scalars("loss")[-1].step == 6


def test_without_tensorboard_there_are_csv_files(
    held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    train(recipe(held_out, validate=("val-*",)), tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert (tmp_path / "run" / "log.csv").exists()
    assert (tmp_path / "run" / "validation.csv").exists()


def test_a_log_is_cut_back_to_the_step_a_run_goes_on_from(tmp_path: Path) -> None:
    with Course(tmp_path, 0) as course:
        for step in (50, 100, 150):
            course.log(step, 0.1, 1e-3, 1.0)
    with Course(tmp_path, 100) as course:
        course.log(150, 0.2, 1e-3, 1.0)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [(row["step"], row["loss"]) for row in rows] == [
        ("50", "0.100000"),
        ("100", "0.100000"),
        ("150", "0.200000"),
    ]
    with Course(tmp_path, 0) as course:
        course.log(50, 0.3, 1e-3, 1.0)
    assert [row["loss"] for row in csv.DictReader((tmp_path / "log.csv").open())] == ["0.300000"]


@pytest.mark.parametrize("step", [0, 100])
def test_a_log_of_which_a_kill_left_nothing_is_begun_again(tmp_path: Path, step: int) -> None:
    (tmp_path / "log.csv").touch()
    with Course(tmp_path, step) as course:
        course.log(150, 0.2, 1e-3, 1.0)
    assert [row["step"] for row in csv.DictReader((tmp_path / "log.csv").open())] == ["150"]


COURSE = """
import locale, sys
from pathlib import Path
from pancrafter_cli.tasks.course import Course
from pancrafter_cli.tasks.validation import Report, Scores
assert locale.getencoding() != "UTF-8"
report = Report({"M\\u00e1laga": (scores := Scores(1.0, 1.0, 1.0), scores)}, 1.0)
with Course(Path(sys.argv[1]), 0) as course:
    course.validated(50, 1.0, report)
with Course(Path(sys.argv[1]), 50):
    pass
"""


def test_names_of_scenes_are_written_alike_everywhere(tmp_path: Path) -> None:
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", COURSE, str(tmp_path)], env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "50,1,Málaga" in (tmp_path / "validation.csv").read_text(encoding="utf-8")


def test_a_log_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("name,value\nsomebody,else\n")
    with pytest.raises(OutputError, match="not a log that training wrote"):
        Course(tmp_path, 100)
    assert (tmp_path / "log.csv").read_text() == "name,value\nsomebody,else\n"


def test_a_run_begun_anew_forgets_the_best_of_one_without_a_checkpoint(held_out: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = recipe(held_out, validate=("val-*",))
    train(config, run)
    (run / "checkpoint.safetensors").unlink()
    (run / "best.safetensors").write_bytes(b"stale")
    assert train(config, run).relative_ergas is not None
    assert len(list(csv.DictReader((run / "validation.csv").open()))) == 6


# The run folder


def test_a_run_that_cannot_begin_leaves_no_folder(root: Path, tmp_path: Path) -> None:
    for wrong in ({"scenes": str(tmp_path / "nowhere")}, {"include": ("nothing*",)}, {"validate": ("nothing*",)}):
        with pytest.raises(PancrafterError):
            train(replace(recipe(root), **wrong), tmp_path / "runs" / "x")  # type: ignore[arg-type]
        assert not (tmp_path / "runs").exists()


def test_the_first_validation_takes_of_the_time_of_a_run(
    held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a run would end later the larger its held-out scenes are."""
    passed = [0.0]
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: passed[0]))
    looked = training.examine

    def slowly(*given: Any) -> Any:
        passed[0] += 3600
        return looked(*given)

    monkeypatch.setattr(training, "examine", slowly)
    config = recipe(held_out, validate=("val-*",), steps=1000, minutes=30.0)
    assert train(config, tmp_path / "run").step == 1


def test_a_run_folder_that_is_a_file_is_refused_before_scenes_are_read(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for run in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(OutputError, match="file is not a folder"):
            train(recipe(tmp_path / "nowhere"), run)


def test_the_run_folder_says_what_it_was_made_from(held_out: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = recipe(held_out, validate=("val-*",), weights={"wald": 2.0}, scene_weights={"b*": 0.5})
    train(config, run, stop_at=3)
    record = json.loads((run / "run.json").read_text())
    assert [scene["name"] for scene in record["scenes"]] == ["a", "b"]
    assert [scene["name"] for scene in record["validation"]] == ["val-1", "val-2"]
    pan = next(f for f in record["scenes"][0]["files"] if f["name"] == "pan.tif")
    assert pan["bytes"] == (held_out / "a" / "pan.tif").stat().st_size
    assert len(pan["sha256"]) == 64
    assert [s["kind"] for s in record["scenes"][0]["sources"]] == ["wald", "resynthesised"]
    train(config, run)
    record = json.loads((run / "run.json").read_text())
    assert [start["step"] for start in record["starts"]] == [0, 3]
    assert {"pancrafter", "python", "torch"} <= record["starts"][0]["versions"].keys()


def test_the_recipe_of_a_run_gives_the_same_run(root: Path, tmp_path: Path) -> None:
    one = train(recipe(root, name='quo"ted é', scene_weights={"b*": 0.5}), tmp_path / "one")
    again = read_config(tmp_path / "one" / "recipe.toml")
    assert again == recipe(root, name='quo"ted é', scene_weights={"b*": 0.5})
    other = train(again, tmp_path / "other")
    assert same(weights(one.model), weights(other.model))


def test_nodata_of_the_scenes_is_of_the_recipe(held_out: Path, tmp_path: Path) -> None:
    """A fill value that nothing declares: refused, told on the command line, kept by the run, checked on resuming."""
    for scene in held_out.iterdir():
        for name in ("pan.tif", "ms.tif"):
            with rasterio.open(scene / name, "r+") as file:
                image = file.read()
                image[:, : image.shape[1] // 4] = 65535
                file.write(image)
    path = tmp_path / "r.toml"
    path.write_text(recipe_text(recipe(held_out, steps=2, validate=("val-*",))))
    command = ["train", str(path), "--run", str(tmp_path / "run")]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert "65535, far from all others" in str(refused.exception)
    told = CliRunner().invoke(app, [*command, "--nodata", "65535"])
    assert told.exit_code == 0, told.output
    assert read_config(tmp_path / "run" / "recipe.toml").nodata == 65535.0
    rows = list(csv.DictReader((tmp_path / "run" / "validation.csv").open()))
    assert max(float(row["exp_ergas"]) for row in rows if row["exp_ergas"]) < 30
    changed = CliRunner().invoke(app, [*command, "--nodata", "auto"])
    assert changed.exit_code == 1
    assert "nodata: 65535.0, now auto" in str(changed.exception)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_no_number_is_no_nodata_of_a_recipe(tmp_path: Path, value: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(recipe_text(CONFIG))
    with pytest.raises(UsageError, match=f"--nodata {value}: NaN and infinity"):
        read_config(path, nodata=float(value))
    path.write_text(f"nodata = {value}\n" + recipe_text(CONFIG))
    with pytest.raises(UsageError, match="nodata: NaN and infinity"):
        read_config(path)


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.toml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_shipped_recipe_reads_and_survives_being_written(path: Path, tmp_path: Path) -> None:
    config = read_config(path)
    (tmp_path / "recipe.toml").write_text(recipe_text(config), encoding="utf-8")
    assert read_config(tmp_path / "recipe.toml") == config


def test_the_papers_recipe_says_what_the_paper_says() -> None:
    config = read_config(RECIPES / "paper.toml")
    assert (config.steps, config.samples_per_step, config.pan_share) == (50_000, 48, 1.0)
    assert (config.lr, config.weight_decay, config.warmup, config.lam, config.seed) == (1e-4, 0.01, 100, 1.0, 2025)
    assert (config.network.bands, config.network.width, config.network.pan) == (8, 128, "raw")
    assert not config.sample.matched
    size = sum(p.numel() for p in PanCrafter(config.network).parameters())
    assert 7.16e6 <= size <= 7.22e6


def test_the_ablations_differ_in_one_thing_each() -> None:
    both, no_mars, no_cm3a = (read_config(RECIPES / f"ablation/{name}.toml") for name in ("both", "no-mars", "no-cm3a"))
    assert replace(no_mars, name=both.name, lam=both.lam) == both
    assert replace(no_cm3a, name=both.name, network=both.network) == both
    assert no_mars.lam == 0 < both.lam
    assert not no_cm3a.network.attention
    assert both.network.attention


# Fine-tuning and the ways of stepping


@pytest.fixture
def shipped() -> str:
    try:
        load_model("universal-small")
    except (ModelError, UsageError) as error:
        pytest.skip(f"the shipped model is not here: {error}")
    return "universal-small"


def test_fine_tuning_takes_network_and_bands_from_the_model(root: Path, tmp_path: Path) -> None:
    raw = replace(CONFIG, network=replace(NETWORK, pan="raw"), sample=replace(CONFIG.sample, matched=False))
    model = train(replace(raw, scenes=str(root), steps=1), tmp_path / "first").model
    config = fine_tuning(str(model), str(root), 0.5)
    assert (config.network, config.sample.bands, config.sample.matched) == (raw.network, 2, False)
    assert (config.name, config.minutes, config.start_from) == ("tiny-tuned", 0.5, str(model))
    assert config.lr < 1e-3


def test_fine_tuning_from_the_command_line(root: Path, tmp_path: Path, shipped: str) -> None:
    write_pair(root / "large", seed=4, pan_size=320, ratio=4, bands=4)
    run = tmp_path / "run"
    arguments = ["train", "--from", shipped, "--scenes", str(root), "--minutes", "0.03", "--run", str(run), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["step"] >= 1
    assert [s["name"] for s in result["skipped"]] == []
    tuned = load_model(str(run / "model.safetensors"))
    assert tuned.spec.name == "universal-small-tuned"
    assert tuned.spec.training["started_from_sha256"] == load_model(shipped).sha256
    assert not same(dict(tuned.network.state_dict()), dict(load_model(shipped).network.state_dict()))


def test_a_recipe_or_a_model_is_needed(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", "--scenes", str(tmp_path)])
    assert isinstance(done.exception, UsageError)
    assert "neither a recipe nor a model" in done.exception.message


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_impossible_times_are_refused(tmp_path: Path, minutes: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_text(CONFIG))
    done = CliRunner().invoke(app, ["train", str(path), "--minutes", minutes])
    assert isinstance(done.exception, UsageError)
    assert "--minutes" in done.exception.message


def test_the_learning_rate_rises_from_the_first_step_on() -> None:
    config = replace(CONFIG, lr=0.1, warmup=4, steps=14)
    learner = start_learner(config, ALONE)
    rates = []
    for learner.step in range(15):
        rates.append(learning_rate(config, learner))
    assert rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert rates[9] == pytest.approx(0.05)
    assert rates[14] == pytest.approx(0)


def test_the_learning_rate_follows_the_clock_where_time_is_given() -> None:
    config = replace(CONFIG, minutes=2.0, steps=10_000, warmup=10)
    learner = start_learner(config, ALONE)
    learner.step = 20
    rates = []
    for learner.seconds in (0.0, 60.0, 119.0, 120.0):
        rates.append(learning_rate(config, learner))
    assert rates[0] == pytest.approx(config.lr, rel=1e-3)
    assert rates[1] == pytest.approx(config.lr / 2, rel=1e-3)
    assert rates[2] < 0.001 * config.lr
    assert is_finished(config, learner)
    learner.seconds = 119.0
    assert not is_finished(config, learner)
    assert not is_finished(replace(config, minutes=0.0), learner)
    learner.step = 10_000
    assert is_finished(config, learner)


def test_time_ends_a_run(root: Path, tmp_path: Path) -> None:
    config = recipe(root, steps=10**6, minutes=0.02)
    result = train(config, tmp_path / "run")
    assert 1 <= result.step < 10**6
    again = train(config, tmp_path / "run")
    assert again.step == result.step


@pytest.mark.parametrize("pan_share", [1.0, 0.5, 0.2, 0.0])
def test_accumulating_is_a_larger_batch_in_parts(pan_share: float) -> None:
    whole = replace(CONFIG, batch=6, pan_share=pan_share, lam=0.7)
    parts = replace(whole, batch=2, accumulate=3)
    one, other = start_learner(whole, ALONE), start_learner(parts, ALONE)
    for seed in range(3):
        take_step(one, random_batch(whole, seed), whole)
        take_step(other, random_batch(parts, seed), parts)
        assert one.losses[-1] == pytest.approx(other.losses[-1], rel=1e-5)
    gradients = [
        torch.cat([p.grad.ravel() for p in x.network.parameters() if p.grad is not None]) for x in (one, other)
    ]
    assert gradients[0].norm() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


def test_compiling_is_a_switch_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    def compile_(network: torch.nn.Module) -> torch.nn.Module:
        compiled.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compile_)
    start_learner(CONFIG, ALONE)
    assert not compiled
    learner = start_learner(replace(CONFIG, compile=True), ALONE)
    assert compiled == [learner.network]


def test_a_network_without_cm3a_trains_and_loads(root: Path, tmp_path: Path) -> None:
    config = recipe(root, network=replace(NETWORK, attention=False))
    model = load_model(str(train(config, tmp_path / "run").model))
    assert model.spec.config.attention is False
    assert not [name for name in model.network.state_dict() if "attention" in name or "alpha" in name]
