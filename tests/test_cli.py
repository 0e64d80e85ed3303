from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import rasterio
from typer.models import OptionInfo
from typer.testing import CliRunner

from pancrafter_cli import zoo
from pancrafter_cli.classical.methods import METHODS
from pancrafter_cli.cli import main, options
from pancrafter_cli.errors import ModelError
from pancrafter_cli.tasks.fusers import NETWORK
from pancrafter_cli.tasks.tiles import DEFAULT_HALO
from pancrafter_cli.zoo import DEFAULT_MODEL, SUMS_FILE, list_models, load_model, models_dir
from tests.pairs import write_pair

COMMANDS = ["sharpen", "batch", "inspect", "score", "eval", "models", "train", "export", "bench", "demo"]


def pancrafter(*args: object) -> subprocess.CompletedProcess[str]:
    code = "from pancrafter_cli.cli.main import run; run()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=300, check=False
    )


def test_these_are_the_commands() -> None:
    assert {command.name for command in main.app.registered_commands} == set(COMMANDS)


def test_help_names_every_classical_method() -> None:
    (told,) = (item for item in get_args(options.Method) if isinstance(item, OptionInfo))
    assert f"classical: {', '.join(METHODS)}." in str(told.help)


def test_help_names_every_command_and_loads_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['pancrafter', '--help']\n"
        "from pancrafter_cli.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: print('loaded', sorted({'torch', 'rasterio', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f" {name} " in out for name in COMMANDS)
    assert out.strip().endswith("loaded []")


def test_defaults_shown_are_those_that_apply() -> None:
    shown = options.DEFAULT_METHOD, options.DEFAULT_MODEL, options.parse_halo(options.DEFAULT_HALO)
    assert shown == (NETWORK, DEFAULT_MODEL, DEFAULT_HALO)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples(name: str) -> None:
    assert f"pancrafter {name}" in pancrafter(name, "--help").stdout


def test_sharpen_prints_json_and_stays_silent_otherwise(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=1, pan_size=64, ratio=4, bands=3)
    done = pancrafter("sharpen", tmp_path / "pan.tif", tmp_path / "ms.tif", "-o", tmp_path / "o.tif", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    facts = json.loads(done.stdout)
    assert (facts["width"], facts["height"], facts["bands"]) == (64, 64, 3)
    assert facts["valid"] == 1.0


def test_data_errors_exit_1_and_usage_errors_exit_2(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=1, pan_size=64, ratio=4, bands=3)
    out = tmp_path / "o.tif"
    missing = pancrafter("sharpen", tmp_path / "no.tif", tmp_path / "ms.tif", "-o", out)
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: ")
    assert "\nhint: " in missing.stderr
    classical = "--method", "gsa"
    for wrong in (
        ("--model", "x"), ("--tile", "7"), ("--nonsense",), ("--sensor", "hubble"), (*classical, "--device", "cuda"),
        (*classical, "--runtime", "onnx"), (*classical, "--precision", "bf16"), (*classical, "--model", "x"),
    ):  # fmt: skip
        done = pancrafter("sharpen", tmp_path / "pan.tif", tmp_path / "ms.tif", "-o", out, *wrong)
        assert done.returncode == 2, wrong
        assert "Traceback" not in done.stderr
    assert not out.exists()


def test_inspect_says_what_the_tool_sees(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=1, pan_size=256, ratio=4, bands=4)
    done = pancrafter("inspect", tmp_path / "pan.tif", tmp_path / "ms.tif", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["ratio"] == pytest.approx(4)
    assert facts["output_shape"] == [256, 256]
    assert abs(facts["shift"]["dx"]) < 0.1
    assert abs(facts["shift"]["dy"]) < 0.1
    shown = pancrafter("inspect", tmp_path / "pan.tif", tmp_path / "ms.tif").stdout
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in shown.splitlines() if not line.startswith("notice: "))
    expected = {
        "PAN": "256 x 256 pixels, uint16",
        "MS": "64 x 64 pixels, 4 bands, uint16",
        "pixel size": "PAN 0.5 x 0.5, MS 2 x 2",
        "ratio": "4",
        "output": "256 x 256 pixels (100.0 % of PAN)",
        "nodata": "none",
        "valid": "100.0 % of the sampled pixels, in some band",
        "scale": f"{facts['scale']:g} DN",
        "tiles": f"{facts['tiles']} of {facts['tile']} pixels",
    }
    assert {name: rows[name] for name in expected} == expected


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the shipped models that may be harmed."""
    shutil.copytree(models_dir(), tmp_path / "models")
    monkeypatch.setattr(zoo, "models_dir", lambda: tmp_path / "models")
    return tmp_path / "models"


def change_weights(models: Path) -> None:
    weights = models / DEFAULT_MODEL / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def lose_weights(models: Path) -> None:
    (models / DEFAULT_MODEL / "model.safetensors").unlink()


@pytest.mark.parametrize("harm", [change_weights, lose_weights])
def test_verifying_names_models_that_were_changed_or_lost(own_models: Path, harm: Callable[[Path], None]) -> None:
    verify = ["models", "--verify"]
    assert CliRunner().invoke(main.app, verify).exit_code == 0
    harm(own_models)
    assert zoo.damaged_models() == [DEFAULT_MODEL]
    done = CliRunner().invoke(main.app, verify)
    assert done.exit_code == 1
    assert isinstance(done.exception, ModelError)
    assert done.exception.message == f"not the published weights: {DEFAULT_MODEL}"
    assert "intact" not in done.stdout
    assert CliRunner().invoke(main.app, ["models"]).exit_code == 0


@pytest.mark.parametrize("where", ["models/universal-small", "./models/universal-small/model.safetensors"])
def test_a_shipped_model_that_was_changed_is_refused_by_any_name(
    own_models: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.chdir(own_models.parent)
    assert load_model(where).sha256
    change_weights(own_models)
    for name in (where, DEFAULT_MODEL):
        with pytest.raises(ModelError, match="not the published ones"):
            load_model(name)


def test_shipped_models_are_intact_and_have_cards() -> None:
    entries = list_models()
    assert entries
    for entry in entries:
        assert entry.intact
        assert entry.path.with_name("README.md").is_file()
    listed = (models_dir() / SUMS_FILE).read_text().split()[1::2]
    shipped = [path.relative_to(models_dir()) for path in models_dir().glob("*/model.*")]
    assert sorted(listed) == sorted(path.as_posix() for path in shipped)
    assert pancrafter("models", "--verify").returncode == 0
    assert pancrafter("models", "nothing").returncode == 2


def test_demo_scene_is_sharpened_better_than_it_came(tmp_path: Path) -> None:
    """The quickstart's three commands on a small demo scene."""
    assert pancrafter("demo", tmp_path, "--size", 256).returncode == 0
    with rasterio.open(tmp_path / "ms.tif") as ms, rasterio.open(tmp_path / "pan.tif") as pan:
        assert ms.shape == (64, 64)
        assert pan.shape == (256, 256)
        assert ms.crs == pan.crs
    sharp = tmp_path / "sharp.tif"
    assert pancrafter("sharpen", tmp_path / "pan.tif", tmp_path / "ms.tif", "-o", sharp).returncode == 0
    done = pancrafter("demo", tmp_path, "--sharpened", sharp, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (tmp_path / "before-after.png").stat().st_size > 1000
    before, after = facts["scores"]["MS as delivered"], facts["scores"]["sharpened"]
    assert after[0] < 0.7 * before[0]
    kept = (tmp_path / "before-after.png").read_bytes()
    again = pancrafter("demo", tmp_path, "--sharpened", sharp)
    assert (again.returncode, "exists already" in again.stderr) == (1, True)
    for flag in ("--seed", "--size"):
        unused = pancrafter("demo", tmp_path, "--sharpened", sharp, "--overwrite", flag, 256)
        assert unused.returncode == 2
        assert unused.stderr.startswith(f"error: {flag}: ")
    assert (tmp_path / "before-after.png").read_bytes() == kept
    assert pancrafter("demo", tmp_path, "--sharpened", sharp, "--overwrite").returncode == 0
    (tmp_path / "before-after.png").unlink()
    (tmp_path / "before-after.png").mkdir()
    files = sorted(tmp_path.iterdir())
    in_the_way = pancrafter("demo", tmp_path, "--sharpened", sharp)
    assert in_the_way.returncode == 1
    assert in_the_way.stderr.startswith(f"error: {tmp_path / 'before-after.png'}: is a folder")
    assert sorted(tmp_path.iterdir()) == files
    again = pancrafter("demo", tmp_path, "--size", 256)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
