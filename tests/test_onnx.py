"""Exported models: the same numbers as torch, on the same path to the product, where no torch is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray

from pancrafter_cli import sharpen
from pancrafter_cli.data.config import fine_tuning
from pancrafter_cli.errors import DeviceError, ModelError, OutputError, PancrafterError, UsageError
from pancrafter_cli.geometry.consistency import consistency_reach
from pancrafter_cli.geometry.tiling import Tiling
from pancrafter_cli.networks.config import PanCrafterConfig, receptive_radius
from pancrafter_cli.networks.pancrafter import PanCrafter
from pancrafter_cli.raster.scene import open_scene
from pancrafter_cli.tasks.batch import Job, run_job
from pancrafter_cli.tasks.bench import BenchOptions, bench
from pancrafter_cli.tasks.fusers import DEFAULT_CONSISTENCY, make_fuser, network_runner
from pancrafter_cli.tasks.sharpen_options import SharpenOptions
from pancrafter_cli.tasks.tiles import judged_tiles
from pancrafter_cli.zoo import ModelSpec, file_sha256, list_models, load_model, save_model
from tests.pairs import write_pair
from tests.scene_factory import unjudged

onnx = pytest.importorskip("onnx", reason="exporting needs the package onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="running exported models needs ONNX Runtime")

from pancrafter_cli.runtime.onnx_runner import OnnxSession  # noqa: E402
from pancrafter_cli.tasks import export  # noqa: E402
from pancrafter_cli.tasks.export import ExportOptions, export_model  # noqa: E402

TINY: dict[str, Any] = {"width": 8, "depths": (1, 1, 1), "heads": 2}
SCALE_SHARE = 0.002  # of the scale, at the 99.9th percentile


def write_model(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A model file whose network answers strongly."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    shape = PanCrafterConfig(**TINY | config)
    network = PanCrafter(shape)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_model(folder / "model.safetensors", network.state_dict(), ModelSpec("random", shape))
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, with their exported form beside them."""
    weights = write_model(tmp_path_factory.mktemp("model"))
    export_model(ExportOptions(weights.with_suffix(".onnx"), str(weights)))
    return weights


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    write_pair(folder, seed=3, pan_size=324, ratio=4, bands=4)
    return folder


def product(pair: Path, out: Path, **options: Any) -> NDArray[np.float64]:
    sharpen(pair / "pan.tif", pair / "ms.tif", out, overwrite=True, **options)
    return pixels(out)


def pixels(path: Path) -> NDArray[np.float64]:
    with rasterio.open(path) as file:
        return file.read().astype(np.float64)


def scale_of(path: Path) -> float:
    with rasterio.open(path) as file:
        return float(file.tags()["PANCRAFTER_SCALE"])


def without(libraries: set[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """The program where some libraries are not installed; says at the end on stderr if torch was loaded."""
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {libraries!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from pancrafter_cli.cli.main import run
try:
    run()
finally:
    if "torch" in sys.modules:
        print("torch was loaded", file=sys.stderr)
"""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"bands": 3, "pan": "raw", "lowpass_inputs": False, "head": "plain"},
        {"bands": 1, "attention": False, "depths": (1, 1, 0)},
    ],
    ids=["matched", "raw", "no attention"],
)
def test_exported_networks_compute_what_torch_does(tmp_path: Path, config: dict[str, Any]) -> None:
    weights = write_model(tmp_path, **config)
    result = export_model(ExportOptions(tmp_path / "x.onnx", str(weights)))
    assert result.difference < 1e-5
    network = load_model(str(weights)).network
    session = OnnxSession(tmp_path / "x.onnx", "cpu")
    rng = np.random.default_rng(1)
    for batch, height, width in ((1, 40, 72), (3, 17, 30), (2, 4, 1), (1, 131, 66)):
        counts = network.config.images.items()
        images = {name: rng.random((batch, count, height, width), dtype=np.float32) for name, count in counts}
        with torch.inference_mode():
            expected = network(*map(torch.from_numpy, images.values()), mode="ms").numpy()
            other_mode = network(*map(torch.from_numpy, images.values()), mode="pan").numpy()
        found = session.run(images)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        assert np.abs(found - other_mode).max() > 1e-2


def test_the_file_says_what_it_is(model: Path) -> None:
    file = model.with_suffix(".onnx")
    session = OnnxSession(file, "cpu")
    assert session.spec == load_model(str(model)).spec
    assert session.weights_sha256 == file_sha256(model)
    assert session.sha256 == file_sha256(file)
    graph = onnx.load(file)
    onnx.checker.check_model(graph, full_check=True)
    assert [d.dim_param for d in graph.graph.input[1].type.tensor_type.shape.dim] == ["batch", "", "height", "width"]


def test_products_are_those_of_torch(model: Path, pair: Path, tmp_path: Path) -> None:
    a = product(pair, tmp_path / "a.tif", model=str(model), device="cpu")
    b = product(pair, tmp_path / "b.tif", model=str(model.with_suffix(".onnx")), device="cpu")
    scale = scale_of(tmp_path / "a.tif")
    assert np.abs(a - b).max() <= 1  # DN: both round
    assert np.percentile(np.abs(a - b), 99.9) < SCALE_SHARE * scale
    other = write_model(tmp_path / "other", seed=1)
    c = product(pair, tmp_path / "c.tif", model=str(other), device="cpu")
    assert np.percentile(np.abs(a - c), 99.9) > 10 * SCALE_SHARE * scale
    with rasterio.open(tmp_path / "a.tif") as of_torch, rasterio.open(tmp_path / "b.tif") as of_onnx:
        said, says = of_torch.tags(), of_onnx.tags()
    assert (said["PANCRAFTER_RUNTIME"], says["PANCRAFTER_RUNTIME"]) == ("torch", "onnx")
    assert said["PANCRAFTER_MODEL_SHA256"] == says["PANCRAFTER_MODEL_SHA256"] == file_sha256(model)
    assert says["PANCRAFTER_ONNX_SHA256"] == file_sha256(model.with_suffix(".onnx"))
    assert "PANCRAFTER_ONNX_SHA256" not in said


def test_a_batch_knows_the_products_of_an_exported_model_again(model: Path, pair: Path, tmp_path: Path) -> None:
    file = model.with_suffix(".onnx")
    options = SharpenOptions(pair / "pan.tif", (pair / "ms.tif",), tmp_path / "o.tif", model=str(file), device="cpu")
    job = Job("o", options, file_sha256(file))
    assert [run_job(job).status for _ in range(2)] == ["done", "skipped"]


def test_any_number_of_bands(model: Path, tmp_path: Path) -> None:
    write_pair(tmp_path, seed=4, pan_size=128, ratio=4, bands=6)
    a = product(tmp_path, tmp_path / "a.tif", model=str(model), device="cpu")
    b = product(tmp_path, tmp_path / "b.tif", model=str(model), device="cpu", runtime="onnx")
    assert a.shape == (6, 128, 128)
    assert np.abs(a - b).max() <= 1


def test_tiles_equal_the_whole_image(model: Path, pair: Path) -> None:
    runner = network_runner(str(model), "cpu", runtime="onnx")
    halo = -(-(receptive_radius(runner.spec.config) + consistency_reach(4, DEFAULT_CONSISTENCY)) // 4) * 4

    def whole(tiling: Tiling) -> NDArray[np.float32]:
        with open_scene(pair / "pan.tif", [pair / "ms.tif"]) as scene:
            fuser = make_fuser(scene, runner=runner)
            assert fuser.reach <= halo
            out = np.full((4, *scene.grid.shape), np.nan, np.float32)
            for found in judged_tiles(scene, fuser, tiling, unjudged(scene)):
                out[:, slice(*found.tile.rows.core), slice(*found.tile.cols.core)] = found.core
            return out / np.float32(scene.statistics.scale)

    one = whole(Tiling(1024, 0, 16))
    np.testing.assert_allclose(whole(Tiling(128, halo, 16)), one, atol=1e-4)
    assert np.abs(whole(Tiling(128, 0, 4)) - one).max() > 1e-3


def test_sharpens_where_no_torch_is_installed(model: Path, pair: Path, tmp_path: Path) -> None:
    arguments = ("sharpen", pair / "pan.tif", pair / "ms.tif", "-o", tmp_path / "b.tif", "--model", model, "--json")
    done = without({"torch"}, *arguments, "--runtime", "onnx")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    facts = json.loads(done.stdout)["fuser"]
    assert (facts["model"], facts["runtime"], facts["precision"]) == ("random", "onnx", "fp32")
    a, b = (
        product(pair, tmp_path / "a.tif", model=str(model), device="cpu", precision="fp32"),
        pixels(tmp_path / "b.tif"),
    )
    assert np.percentile(np.abs(a - b), 99.9) < SCALE_SHARE * scale_of(tmp_path / "a.tif")


def test_what_needs_no_network_needs_no_torch(pair: Path, tmp_path: Path) -> None:
    both = {"torch", "onnxruntime"}
    assert without(both, "models").returncode == 0
    out = tmp_path / "o.tif"
    done = without(both, "sharpen", pair / "pan.tif", pair / "ms.tif", "-o", out, "--method", "gsa")
    assert (done.returncode, done.stderr) == (0, "")


def test_models_loads_no_torch_where_there_is_one() -> None:
    done = without(set(), "models")
    assert done.returncode == 0
    assert "torch was loaded" not in done.stderr


@pytest.mark.parametrize(
    ("absent", "command", "says"),
    [
        ("torch", ("sharpen", "--method", "network"), "pip install 'pancrafter[torch]'; or 'pancrafter[onnx]'"),
        ("onnxruntime", ("sharpen", "--runtime", "onnx"), "pip install 'pancrafter[onnx]'"),
        ("torch", ("train", "--from", "universal-small"), "pip install 'pancrafter[train]'"),
        ("onnx", ("export",), "pip install 'pancrafter[export]'"),
    ],
)
def test_missing_libraries_are_named_with_the_remedy(
    absent: str, command: tuple[str, ...], says: str, model: Path, pair: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments: list[object] = [*command]
    if command[0] == "sharpen":
        arguments += [pair / "pan.tif", pair / "ms.tif", "--model", model, "-o", out.with_suffix(".tif")]
    elif command[0] == "export":
        arguments += ["-o", out.with_suffix(".onnx")]
    done = without({absent}, *arguments)
    assert done.returncode == 1
    assert f"error: this needs {absent}, " in done.stderr
    assert f"hint: {says}" in done.stderr
    assert not list(tmp_path.iterdir())


def edited(model: Path, to: Path, change: Callable[[Any], None]) -> Path:
    """A copy of the exported model with a change to it."""
    graph = onnx.load(model.with_suffix(".onnx"))
    change(graph)
    onnx.save(graph, to)
    return to


def other_bands(graph: Any) -> None:
    for entry in graph.metadata_props:
        entry.value = entry.value.replace('"bands": 4', '"bands": 3')


def no_sense(graph: Any) -> None:
    for entry in graph.metadata_props:
        entry.value = entry.value.replace('"width": 8', '"width": "wide"')


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda graph: setattr(graph, "ir_version", 99), r"is of ONNX IR version 99, .* reads up to \d+$"),
        (lambda graph: setattr(graph.opset_import[0], "version", 99), r"is of ONNX opset 99, .* reads up to \d+$"),
    ],
)
def test_files_for_a_newer_library_are_not_called_damaged(
    change: Callable[[Any], None], says: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=says) as raised:
        network_runner(str(edited(model, tmp_path / "new.onnx", change)), "cpu")
    assert "pip install -U onnxruntime" in raised.value.hint


def test_what_needs_weights_says_so_of_an_exported_model(model: Path, tmp_path: Path) -> None:
    exported = str(model.with_suffix(".onnx"))
    for ask in (
        lambda: bench(BenchOptions(model=exported, size=256)),
        lambda: fine_tuning(exported, tmp_path, None),
        lambda: export_model(ExportOptions(tmp_path / "again.onnx", exported)),
    ):
        with pytest.raises(UsageError, match="is an exported model, and this needs the weights") as raised:
            ask()
        assert ".safetensors" in raised.value.hint


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda model, to: to.write_bytes(b""), "not a readable ONNX model"),
        (lambda model, to: to.write_bytes(b"\x00\xff" * 500), "not a readable ONNX model"),
        (
            lambda model, to: to.write_bytes(model.with_suffix(".onnx").read_bytes()[:20_000]),
            "not a readable ONNX model",
        ),
        (
            lambda model, to: edited(model, to, lambda graph: graph.ClearField("metadata_props")),
            "no PAN-Crafter model in this file's metadata",
        ),
        (
            lambda model, to: edited(model, to, other_bands),
            "lpan 3 bands, its graph takes mpan 4, lms 4, lpan 4",
        ),
        (lambda model, to: edited(model, to, no_sense), "its header says config.width"),
    ],
    ids=["empty", "noise", "cut", "no metadata", "other bands", "no sense"],
)
def test_files_that_are_no_exported_model_are_refused(
    make: Callable[[Path, Path], Any], says: str, model: Path, pair: Path, tmp_path: Path
) -> None:
    make(model, tmp_path / "bad.onnx")
    with pytest.raises(ModelError, match=says) as raised:
        product(pair, tmp_path / "o.tif", model=str(tmp_path / "bad.onnx"), device="cpu")
    assert raised.value.hint
    assert not (tmp_path / "o.tif").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "nowhere.onnx"}, "no model at nowhere.onnx"),
        ({"model": "{onnx}", "runtime": "torch"}, "torch does not run ONNX models"),
        ({"model": "{onnx}", "precision": "bf16"}, "run in fp32"),
        ({"model": "{onnx}", "device": "tpu"}, "unknown device 'tpu'"),
        ({"runtime": "tensorflow"}, "unknown runtime 'tensorflow'"),
    ],
)
def test_wrong_usage_is_refused(options: dict[str, str], says: str, model: Path, pair: Path, tmp_path: Path) -> None:
    given = {name: value.format(onnx=model.with_suffix(".onnx")) for name, value in options.items()}
    with pytest.raises(UsageError, match=says):
        product(pair, tmp_path / "o.tif", **given)


def test_a_model_that_was_not_exported_names_the_command(tmp_path: Path) -> None:
    weights = write_model(tmp_path)
    with pytest.raises(UsageError) as raised:
        network_runner(str(weights), "cpu", runtime="onnx")
    assert f"pancrafter export {weights}" in raised.value.hint


def test_shipped_models_run_with_both_runtimes() -> None:
    for entry in list_models():
        runner = network_runner(entry.path.parent.name, "cpu", runtime="onnx")  # refuses what is stale or damaged
        assert (runner.spec, runner.sha256) == (entry.spec, entry.sha256)


def test_an_export_of_other_weights_is_not_taken_for_these(model: Path, tmp_path: Path) -> None:
    weights = write_model(tmp_path, seed=1)
    stale = weights.with_suffix(".onnx")
    stale.write_bytes(model.with_suffix(".onnx").read_bytes())
    with pytest.raises(ModelError, match="other weights"):
        network_runner(str(weights), "cpu", runtime="onnx")
    assert network_runner(str(stale), "cpu").spec.name == "random"  # asked for by its own name, it runs


def test_cuda_is_not_replaced_by_the_cpu(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="built without it"):
        OnnxSession(model.with_suffix(".onnx"), "cuda")
    assert OnnxSession(model.with_suffix(".onnx"), "auto").device == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the CUDA provider may load here")
def test_cuda_without_its_libraries_is_an_error_and_prints_nothing(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DeviceError, match="CUDA provider does not run here") as raised:
        OnnxSession(model.with_suffix(".onnx"), "cuda:0")
    assert "--device cpu" in raised.value.hint
    assert OnnxSession(model.with_suffix(".onnx"), "auto").device == "cpu"
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_computes_what_the_cpu_does(model: Path, pair: Path, tmp_path: Path) -> None:
    file = str(model.with_suffix(".onnx"))
    a = product(pair, tmp_path / "a.tif", model=file, device="cpu")
    b = product(pair, tmp_path / "b.tif", model=file, device="cuda")
    assert np.percentile(np.abs(a - b), 99.9) < SCALE_SHARE * scale_of(tmp_path / "a.tif")


@pytest.mark.parametrize(("value", "threads"), [("1", 1), ("3", 3), ("", 0), ("many", 0)])
def test_threads_are_those_of_omp_num_threads(
    value: str, threads: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    session: Any = OnnxSession(model.with_suffix(".onnx"), "cpu")._session
    assert session.get_session_options().intra_op_num_threads == threads


def test_export_refuses_what_it_cannot_or_should_not_write(model: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.onnx").write_bytes(b"kept")
    wrong: list[tuple[Path, type[PancrafterError], str]] = [
        (tmp_path / "kept.onnx", OutputError, "exists already"),
        (tmp_path / "x.tif", OutputError, "is an ONNX model"),
        (tmp_path / "none" / "x.onnx", OutputError, "there is no folder"),
    ]
    for output, error, says in wrong:
        with pytest.raises(error, match=says):
            export_model(ExportOptions(output, str(model)))
    with pytest.raises(UsageError, match="unknown model"):
        export_model(ExportOptions(tmp_path / "x.onnx", "nothing"))
    assert [p.name for p in tmp_path.iterdir()] == ["kept.onnx"]
    assert (tmp_path / "kept.onnx").read_bytes() == b"kept"


def test_export_that_computes_something_else_is_not_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an exporter with a mistake would: the graph is that of other weights."""
    right, other = export.write_onnx, load_model(str(write_model(tmp_path / "other", seed=1)))
    monkeypatch.setattr(export, "write_onnx", lambda path, model: right(path, other))
    out = tmp_path / "out"
    out.mkdir()
    (out / "x.onnx").write_bytes(b"kept")
    with pytest.raises(ModelError, match="differs from torch"):
        export_model(ExportOptions(out / "x.onnx", str(model), overwrite=True))
    assert [p.name for p in out.iterdir()] == ["x.onnx"]
    assert (out / "x.onnx").read_bytes() == b"kept"


def test_export_command_prints_json(model: Path, tmp_path: Path) -> None:
    done = without(set(), "export", model, "-o", tmp_path / "x.onnx", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["weights_sha256"] == file_sha256(model)
    assert facts["sha256"] == file_sha256(tmp_path / "x.onnx")
    assert facts["difference"] <= facts["tolerance"]
