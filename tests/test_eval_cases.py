"""What an evaluation makes of scenes as people have them: references with gaps, of other bands, of other depths."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio

from pancrafter_cli.data.scenes import load_sources
from pancrafter_cli.data.wald import referenced_pair
from pancrafter_cli.errors import ModelError, PancrafterError, RasterError, TrainingError, UsageError
from pancrafter_cli.geometry.sensors import expected_peak, mtf_of
from pancrafter_cli.raster.align import SceneOptions
from pancrafter_cli.raster.products import scene_in
from pancrafter_cli.tasks import eval_report
from pancrafter_cli.tasks import evaluate as evaluating
from pancrafter_cli.tasks.eval_cases import Case, cases
from pancrafter_cli.tasks.eval_options import EvalOptions, EvalResult, EvalRow, contestants
from pancrafter_cli.tasks.eval_report import curve_tables, to_markdown, write_evaluation
from pancrafter_cli.tasks.evaluate import evaluate
from pancrafter_cli.tasks.score import FUSED, ScoreOptions, score
from pancrafter_cli.tasks.train import train
from tests.pairs import textured, write_pair
from tests.scene_factory import FileFacts, write_tif
from tests.training_setup import recipe, write_scenes

GAINS = (0.3, 0.3)
HOLE = np.s_[..., 40:60, 60:80]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene of two bands with a reference, all uint16: 192 x 192 PAN pixels, ratio 4."""
    folder = tmp_path / "scene"
    truth = write_pair(folder, seed=5, pan_size=192, ratio=4, bands=2)
    write_like(folder / "pan.tif", np.rint(truth).astype(np.uint16), folder / "gt.tif")
    return folder


def write_like(model: Path, image: np.ndarray, path: Path, **facts: object) -> Path:
    with rasterio.open(model) as file:
        place = FileFacts(transform=file.transform)
    return write_tif(path, image, replace(place, **facts))  # type: ignore[arg-type]


def change(path: Path, how: Callable[[np.ndarray], np.ndarray], **facts: object) -> None:
    with rasterio.open(path) as file:
        image = file.read()
    copy = path.with_name("copy.tif")
    shutil.copy(path, copy)
    write_like(copy, how(image), path, **facts)
    copy.unlink()


def with_hole(image: np.ndarray) -> np.ndarray:
    image[HOLE] = 0
    return image


def collared(image: np.ndarray) -> np.ndarray:
    image[..., : image.shape[-1] // 4] = 0
    return image


def exp_scores(folder: Path, nodata: float | str | None = None) -> dict[str, float]:
    options = SceneOptions(nodata=nodata)  # type: ignore[arg-type]
    (row,) = evaluate(EvalOptions((folder,), contestants(["exp"]), ("reduced",), scene=options)).rows
    return dict(row.scores)


@pytest.mark.parametrize("nodata", [0.0, "auto"])
def test_what_is_said_of_nodata_is_for_the_reference_too(scene: Path, nodata: float | str) -> None:
    whole = exp_scores(scene)
    for name in ("pan.tif", "ms.tif", "gt.tif"):
        change(scene / name, collared)
    counted, left_out = exp_scores(scene), exp_scores(scene, nodata)
    # The collar's edge, sharp in the reference and blurred in the product, is no part of the scene.
    assert counted["ergas"] > 1.15 * whole["ergas"]
    assert left_out["ergas"] == pytest.approx(whole["ergas"], rel=0.1)


def test_a_hole_in_the_reference_leaves_the_ms_around_it_alone(scene: Path) -> None:
    whole = referenced_pair("scene", scene_in(scene), GAINS)
    change(scene / "gt.tif", with_hole, nodata=0)
    found = referenced_pair("scene", scene_in(scene), GAINS)
    assert not found.valid[HOLE].any()
    assert found.valid.sum() == whole.valid.size - 20 * 20
    off = np.abs(found.ms - whole.ms)[:, found.ms_valid] / whole.ms[:, found.ms_valid]
    assert off.max() < 0.08


def test_a_reference_that_is_nowhere_valid_is_named(scene: Path) -> None:
    change(scene / "gt.tif", np.zeros_like, nodata=0)
    with pytest.raises(RasterError, match=r"gt\.tif: no pixel is valid"):
        referenced_pair("scene", scene_in(scene), GAINS)


def test_alpha_is_no_band_of_a_reference(scene: Path) -> None:
    opaque = {"colours": ["gray", "undefined", "alpha"]}
    change(scene / "gt.tif", lambda i: np.concatenate([i, np.full_like(i[:1], 65535)]), **opaque)
    assert exp_scores(scene)["ergas"] > 0
    (source,) = load_sources(scene, ("wald",))
    assert source.shape[0] == 2


def test_a_reference_of_other_bands_is_named(scene: Path, tmp_path: Path) -> None:
    change(scene / "gt.tif", lambda i: np.concatenate([i, i[:1]]))
    with pytest.raises(RasterError, match=r"gt\.tif: has 3 bands, but MS has 2"):
        exp_scores(scene)
    with pytest.raises(TrainingError, match=r"gt\.tif: has 3 bands, but MS has 2"):
        load_sources(scene, ("wald",))
    write_scenes(tmp_path, ["other"])
    with pytest.raises(TrainingError, match=r"validate on can be used; scene: .* has 3 bands"):
        train(recipe(tmp_path, validate=("scene",)), tmp_path / "run")


@pytest.mark.parametrize(("name", "what"), [("pan.tif", "PAN"), ("ms.tif", "MS"), ("gt.tif", "the reference")])
def test_the_toolbox_geometry_refuses_gaps(scene: Path, name: str, what: str) -> None:
    change(scene / name, collared, nodata=0)
    options = EvalOptions((scene,), contestants(["exp"]), ("reduced",), geometry="toolbox")
    with pytest.raises(RasterError, match=f"scene: there are pixels without data in {what}"):
        evaluate(options)


def test_the_toolbox_geometry_has_no_reduced_protocol_without_a_reference(scene: Path) -> None:
    (scene / "gt.tif").unlink()
    options = EvalOptions((scene,), contestants(["exp"]), ("reduced",), geometry="toolbox")
    with pytest.raises(UsageError, match="scene: has no reference") as raised:
        evaluate(options)
    assert "full" in raised.value.hint
    assert [row.protocol for row in evaluate(replace(options, protocols=("reduced", "full"))).rows] == ["full"]


def test_a_shift_that_registration_refuses_has_no_point_and_ends_nothing(scene: Path, tmp_path: Path) -> None:
    (scene / "gt.tif").unlink()
    write_pair(scene, seed=6, pan_size=512, ratio=4, bands=2)
    options = EvalOptions((scene,), contestants(["exp", "gsa"]), ("reduced",), shifts=(0.0, 4.0))
    result = evaluate(options)
    points = [(row.method, row.shift, row.registration) for row in result.curve]
    assert ("gsa", 4.0, "off") in points
    assert ("gsa", 0.0, "auto") in points
    assert not any(shift and registration == "auto" for _, shift, registration in points)
    (warning,) = result.warnings
    assert warning.startswith("scene, MS moved by 4 pixels: MS lies")
    assert [table.title for table in curve_tables(result)] == [
        "Shifted MS, registration off",
        "Shifted MS, registration on",
    ]
    assert len(write_evaluation(result, tmp_path / "report")) == 4


def two_scenes(tmp_path: Path, sizes: tuple[int, int], names: tuple[str, str] = ("one", "two")) -> tuple[Path, Path]:
    """Two scenes without a reference, of so many PAN pixels a side."""
    for seed, (name, size) in enumerate(zip(names, sizes, strict=True)):
        write_pair(tmp_path / name, seed=seed, pan_size=size, ratio=4, bands=2)
    return tmp_path / names[0], tmp_path / names[1]


def test_a_scene_that_fails_leaves_the_others_and_what_came_before(tmp_path: Path) -> None:
    one, two = two_scenes(tmp_path, (192, 64))
    options = EvalOptions((one, two), contestants(["exp"]), ("full", "reduced"))
    result = evaluate(options)
    assert {(row.scene, row.protocol) for row in result.rows} == {("one", "reduced"), ("one", "full")}
    (failure,) = result.failed
    assert (failure.scene, failure.error, failure.traceback) == ("two", "RasterError", "")
    assert failure.message.startswith("two: only 16 MS pixels")
    write_evaluation(result, tmp_path / "report")
    assert json.loads((tmp_path / "report/eval.json").read_text())["failed"][0]["scene"] == "two"
    for name in ("eval.md", "index.html"):
        assert "two: only 16 MS pixels" in (tmp_path / "report" / name).read_text()


def test_what_nobody_expected_is_told_with_its_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = two_scenes(tmp_path, (192, 192))
    run_case = evaluating._run_case

    def failing(case: Case, options: EvalOptions) -> Any:
        if case.name == "two" and case.protocol == "full":
            raise ZeroDivisionError("of ours")
        return run_case(case, options)

    monkeypatch.setattr(evaluating, "_run_case", failing)
    result = evaluate(EvalOptions((one, two), contestants(["exp"])))
    assert [(row.scene, row.protocol) for row in result.rows] == [
        ("one", "reduced"),
        ("one", "full"),
        ("two", "reduced"),
    ]
    (failure,) = result.failed
    assert failure.message == "two: ZeroDivisionError: of ours"
    assert "Traceback" in failure.traceback
    with pytest.raises(ZeroDivisionError):
        evaluate(EvalOptions((two,), contestants(["exp"]), ("full",)))


def test_memory_that_is_not_enough_for_one_scene_may_be_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = two_scenes(tmp_path, (192, 192))
    run_case = evaluating._run_case

    def failing(case: Case, options: EvalOptions) -> Any:
        if case.name == "one":
            raise MemoryError
        return run_case(case, options)

    monkeypatch.setattr(evaluating, "_run_case", failing)
    options = EvalOptions((one, two), contestants(["exp"]), ("full",))
    result = evaluate(options)
    assert [row.scene for row in result.rows] == ["two"]
    (failure,) = result.failed
    assert (failure.message, failure.error, failure.traceback) == (
        "one: there is not enough memory",
        "MemoryError",
        "",
    )
    with pytest.raises(PancrafterError, match="one: there is not enough memory"):
        evaluate(replace(options, scenes=(one,)))


def test_where_nothing_could_be_scored_all_scenes_say_why(tmp_path: Path) -> None:
    scenes = two_scenes(tmp_path, (64, 32))
    with pytest.raises(RasterError, match=r"one: only 16 MS pixels.*; two: only 8 MS pixels") as raised:
        evaluate(EvalOptions(scenes, contestants(["exp"]), ("reduced",)))
    assert raised.value.hint.count("evaluate a larger scene") == 1


@pytest.mark.parametrize("wrong", ["nowhere", "nowhere.h5", "empty"])
def test_what_is_no_scene_is_told_before_anything_is_run(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(evaluating, "_run_case", lambda case, options: pytest.fail("ran"))
    with pytest.raises(PancrafterError, match=wrong):
        evaluate(EvalOptions((scene, tmp_path / wrong), contestants(["exp"])))


@pytest.mark.parametrize("given", [{"contestants": contestants(["exp", "network"], ["nothing"])}, {"sensor": "hubble"}])
def test_what_no_scene_can_have_is_told_before_anything_is_run(
    scene: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    monkeypatch.setattr(evaluating, "_run_case", lambda case, options: pytest.fail("ran"))
    with pytest.raises(UsageError, match=r"^unknown"):
        evaluate(replace(EvalOptions((scene,), contestants(["exp"])), **given))


def test_an_error_names_its_scene_whatever_its_words_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, other = two_scenes(tmp_path, (16, 16), ("a", "only"))
    options = EvalOptions((small,), contestants(["exp"]), ("reduced",))
    with pytest.raises(PancrafterError, match=r"^a: only 4 MS pixels"):
        evaluate(options)
    with pytest.raises(PancrafterError, match=r"^only: only 4 MS pixels"):
        evaluate(replace(options, scenes=(other,)))
    monkeypatch.chdir(small)
    with pytest.raises(PancrafterError, match=r"^a: only 4 MS pixels"):
        evaluate(replace(options, scenes=(Path(),)))


def test_a_scene_is_called_as_its_folder_however_that_is_named(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = EvalOptions((Path(),), contestants(["exp"]), ("reduced",))
    monkeypatch.chdir(scene)
    assert [row.scene for row in evaluate(options).rows] == ["scene"]
    (scene / "below").mkdir()
    monkeypatch.chdir(scene / "below")
    assert [row.scene for row in evaluate(replace(options, scenes=(Path(".."),))).rows] == ["scene"]


def h5_of_one(path: Path, count: int = 1) -> Path:
    gt = np.stack([np.rint(textured(2, 128, seed)) for seed in range(count)]) if count else np.zeros((0, 2, 128, 128))
    with h5py.File(path, "w") as file:
        file["gt"], file["lms"], file["ms"] = gt, gt, gt[..., 2::4, 2::4]
        file["pan"] = gt.mean(axis=1, keepdims=True)
    return path


def test_patches_of_files_that_differ_in_their_suffix_are_not_one_scene(scene: Path, tmp_path: Path) -> None:
    files = h5_of_one(tmp_path / "t.h5"), h5_of_one(tmp_path / "t.hdf5")
    with pytest.raises(UsageError, match="another scene is called t too"):
        evaluate(EvalOptions(files, contestants(["exp"])))
    patch = scene.rename(tmp_path / "t-000")
    with pytest.raises(UsageError, match="another scene is called t-000 too"):
        evaluate(EvalOptions((files[0], patch), contestants(["exp"])))


def test_suffixes_of_h5_files_may_be_in_capitals(tmp_path: Path) -> None:
    result = evaluate(EvalOptions((h5_of_one(tmp_path / "T2.H5"),), contestants(["exp"])))
    assert [row.scene for row in result.rows] == ["T2-000", "T2-000"]


def test_an_h5_file_without_patches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match="its sets have shapes"):
        evaluate(EvalOptions((h5_of_one(tmp_path / "none.h5", 0),), contestants(["exp"])))


def test_a_shift_that_leaves_nothing_to_score_has_no_point_and_ends_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    truth = write_pair(small, seed=5, pan_size=80, ratio=4, bands=2)
    write_like(small / "pan.tif", np.rint(truth).astype(np.uint16), small / "gt.tif")
    result = evaluate(EvalOptions((small,), contestants(["exp"]), ("reduced",), shifts=(0.0, 8.0)))
    assert {row.shift for row in result.curve if row.registration == "off"} == {0.0}
    assert any(warning.startswith("small, MS moved by 8 pixels: ") for warning in result.warnings)
    assert result.failed == ()


def test_other_errors_of_the_curve_name_the_shift(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fused(case: Case, contestant: Any, files: Any, options: Any, registration: Any, *rest: Any) -> Any:
        if registration == "auto":
            raise ModelError("does not fit")
        return was(case, contestant, files, options, registration, *rest)

    was = evaluating.fused
    monkeypatch.setattr(evaluating, "fused", fused)
    options = EvalOptions((scene,), contestants(["exp"]), ("reduced",), shifts=(0.5,), registration="off")
    result = evaluate(options)
    assert [failure.message for failure in result.failed] == ["scene: MS moved by 0.5 pixels: does not fit"]
    assert len(result.rows) == 1
    assert result.curve == ()


def test_the_curve_has_means_only_where_all_scenes_have_a_value(tmp_path: Path) -> None:
    def rows(scene: str, values: dict[float, float], registration: str) -> list[EvalRow]:
        return [
            EvalRow(scene, "reduced", "gsa", {"ergas": value}, 0.0, shift, registration)
            for shift, value in values.items()
        ]

    curve = [
        *rows("one", {0.0: 1.0, 1.0: 2.0, 2.0: 3.0}, "off"),
        *rows("two", {0.0: 3.0, 1.0: 4.0, 2.0: 5.0}, "off"),
        *rows("one", {0.0: 1.0, 1.0: 1.1}, "auto"),
        *rows("two", {0.0: 3.0, 2.0: 3.5}, "auto"),
    ]
    scored = (EvalRow("one", "reduced", "gsa", {"ergas": 1.0}, 0.0),)
    result = EvalResult(scored, tuple(curve), {}, ())
    off, on = curve_tables(result)
    assert off.rows[0].values == (2.0, 3.0, 4.0)
    assert on.rows[0].values == (2.0, None, None)
    assert [column.name for column in on.columns] == ["0", "1", "2"]
    assert on.caption == "Mean ERGAS over 2 scenes, where all of them have one. Shifts are in MS pixels."
    _, chart = eval_report._charts(result)
    assert chart.series[0].y == (2.0, None, None)
    assert "| gsa | 2.000 | - | - |" in to_markdown(result)
    assert len(write_evaluation(result, tmp_path)) == 4


def test_a_scene_counts_once(scene: Path, tmp_path: Path) -> None:
    def over(*scenes: Path) -> EvalResult:
        return evaluate(EvalOptions(scenes, contestants(["exp"]), ("reduced",)))

    (tmp_path / "elsewhere").mkdir()
    other = Path(shutil.copytree(scene, tmp_path / "elsewhere" / "scene"))
    with pytest.raises(UsageError, match="given twice"):
        over(scene, tmp_path / "elsewhere" / ".." / "scene")
    with pytest.raises(UsageError, match="another scene is called scene too"):
        over(scene, other)
    links = tmp_path / "one", tmp_path / "two"
    for link, folder in zip(links, (scene, other), strict=True):
        link.symlink_to(folder)
    assert [row.scene for row in over(*links).rows] == ["one", "two"]


@pytest.mark.parametrize(("ratio", "size", "length"), [(3, 32, 33), (5, 32, 35), (4, 32, 32), (3, 1024, 63)])
def test_the_part_that_is_reduced_is_whole_blocks(tmp_path: Path, ratio: int, size: int, length: int) -> None:
    write_pair(tmp_path / "s", seed=1, pan_size=64 * ratio, ratio=ratio, bands=2)
    options = EvalOptions((tmp_path / "s",), contestants(["exp"]), ("reduced",), size=size)
    (case,) = cases(tmp_path / "s", options)
    assert case.pair is not None
    assert np.shape(case.pair.truth) == (2, length, length)


def test_a_scene_too_small_for_whole_blocks_is_told_in_these(tmp_path: Path) -> None:
    write_pair(tmp_path / "s", seed=1, pan_size=5 * 34, ratio=5, bands=2)
    with pytest.raises(PancrafterError, match=r"only 30 MS pixels .* in whole blocks of 5"):
        evaluate(EvalOptions((tmp_path / "s",), contestants(["exp"]), ("reduced",)))


def test_the_peak_is_what_metadata_state_and_the_format_holds() -> None:
    ikonos = mtf_of("IKONOS", 4)
    assert expected_peak(ikonos, None, "uint16") == 2047
    assert expected_peak(ikonos, 4095, "uint16") == 4095
    assert expected_peak(ikonos, None, "uint8") == 255
    assert expected_peak(ikonos, None, "float32") == 2047
    assert expected_peak(mtf_of(None, 4), None, "uint16") is None


@pytest.mark.parametrize(("brightest", "peak"), [(1500, "2047 DN"), (9000, "9000 DN (the greatest of the reference)")])
def test_a_reference_brighter_than_its_sensor_tells_the_peak_itself(tmp_path: Path, brightest: int, peak: str) -> None:
    image = np.random.default_rng(0).integers(200, 1000, (4, 64, 64)).astype(np.uint16)
    image[0, 0, 0] = brightest
    path = write_tif(tmp_path / "gt.tif", image)
    with ExitStack() as stack:
        result = score(ScoreOptions(path, reference=path, sensor="IKONOS", ratio=4), stack).result
    assert result.settings["peak"] == peak
    assert result.scores[FUSED]["ergas"] == 0
