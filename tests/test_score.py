"""Scoring products, and comparing methods, on made-up scenes."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
from affine import Affine
from typer.testing import CliRunner

from pancrafter_cli import sharpen
from pancrafter_cli.cli import main
from pancrafter_cli.errors import GeometryError, MetricError, OutputError, PancrafterError, RasterError, UsageError
from pancrafter_cli.geometry.sensors import mtf_of
from pancrafter_cli.geometry.toolbox import decimate, mtf_lowpass, upsample23
from pancrafter_cli.metrics.streaming import reduced_scores
from pancrafter_cli.raster.scene import SceneOptions
from pancrafter_cli.tasks import eval_cases
from pancrafter_cli.tasks.eval_cases import Scoring, cases
from pancrafter_cli.tasks.eval_options import (
    Contestant,
    EvalOptions,
    EvalResult,
    EvalRow,
    contestants,
    means,
    settings,
)
from pancrafter_cli.tasks.eval_report import to_csv, to_markdown, write_evaluation
from pancrafter_cli.tasks.evaluate import evaluate
from pancrafter_cli.tasks.score import EXP, FUSED, ScoreOptions, score
from pancrafter_cli.tasks.score_report import write_score_report
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions
from tests.pairs import textured, write_pair
from tests.scene_factory import FileFacts, write_tif
from tests.test_cli import pancrafter

CLASSICAL = contestants(["exp", "gsa", "mtf-glp-fs"])


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A folder with pan.tif, ms.tif and truth.tif, 256 x 256, ratio 4, 4 bands."""
    truth = write_pair(tmp_path / "scene", seed=5, pan_size=256, ratio=4, bands=4)
    with rasterio.open(tmp_path / "scene" / "pan.tif") as file:
        facts = FileFacts(transform=file.transform)
    write_tif(tmp_path / "scene" / "truth.tif", np.rint(truth).astype(np.uint16), facts)
    return tmp_path / "scene"


def scored(options: ScoreOptions) -> dict[str, dict[str, float]]:
    with ExitStack() as stack:
        return {k: dict(v) for k, v in score(options, stack).result.scores.items()}


def test_a_perfect_product_scores_perfectly_and_exp_does_not(scene: Path) -> None:
    scores = scored(ScoreOptions(scene / "truth.tif", reference=scene / "truth.tif"))
    assert scores[FUSED]["ergas"] == 0
    assert scores[FUSED]["q2n"] == pytest.approx(1)
    assert scores[EXP]["ergas"] > 1


def test_scores_of_files_are_those_of_their_arrays(scene: Path) -> None:
    product = scene / "gsa.tif"
    sharpen(scene / "pan.tif", scene / "ms.tif", product, method="gsa")
    scores = scored(ScoreOptions(product, reference=scene / "truth.tif", peak=1000, cut=21))
    with rasterio.open(scene / "truth.tif") as truth, rasterio.open(product) as fused:
        own = reduced_scores(truth.read(), fused.read(), 4, peak=1000, cut=21)
    for name, value in scores[FUSED].items():
        assert value == pytest.approx(getattr(own, name), abs=1e-9), name


@pytest.mark.parametrize(
    ("cut", "told"), [(0, "0 pixels above and left, 0 below"), (21, "20 pixels above and left, 21")]
)
def test_the_border_left_out_is_the_one_that_is_told(scene: Path, cut: int, told: str) -> None:
    """The research toolboxes leave out one pixel less above and left."""
    with rasterio.open(scene / "truth.tif") as file:
        truth, facts = file.read(), FileFacts(transform=file.transform)
    above, below = max(0, cut - 1), cut
    for row, col, counts in (
        (above - 1, 99, False), (above, 99, True), (99, above, True), (255 - below, 99, True), (256 - below, 99, False),
    ):  # fmt: skip
        if 0 <= row < 256:
            changed = truth.copy()
            changed[:, row, col] += 300
            write_tif(scene / "changed.tif", changed, facts)
            with ExitStack() as stack:
                options = ScoreOptions(scene / "changed.tif", reference=scene / "truth.tif", cut=cut)
                found = score(options, stack).result
            assert found.settings["border left out"].startswith(told)
            assert (found.scores[FUSED]["ergas"] > 0) == counts, (row, col)


def test_full_resolution_scores_exp_as_the_interpolation(scene: Path) -> None:
    product = scene / "exp.tif"
    sharpen(scene / "pan.tif", scene / "ms.tif", product, method="exp")
    scores = scored(ScoreOptions(product, pan=scene / "pan.tif", ms=(scene / "ms.tif",)))
    # Rounded to whole DN, the interpolation scores as the interpolation does.
    for name, value in scores[EXP].items():
        assert scores[FUSED][name] == pytest.approx(value, abs=2e-3), name
    assert 0 < scores[EXP]["hqnr"] < 1


def cut_away_a_third(path: Path) -> Path:
    """The file with nodata in its lower third."""
    with rasterio.open(path) as file:
        image, facts = file.read(), FileFacts(transform=file.transform, nodata=0)
    image[:, image.shape[1] * 5 // 8 :] = 0
    out = path.with_name(f"cut-{path.name}")
    write_tif(out, image, facts)
    return out


def test_a_product_with_nodata_is_scored_where_it_is_valid(scene: Path) -> None:
    whole = scored(ScoreOptions(scene / "truth.tif", reference=scene / "truth.tif"))
    with ExitStack() as stack:
        part = score(ScoreOptions(cut_away_a_third(scene / "truth.tif"), reference=scene / "truth.tif"), stack).result
    assert part.valid == pytest.approx(0.625, abs=0.01)
    assert part.scores[FUSED]["ergas"] == 0
    assert part.scores[EXP]["ergas"] != whole[EXP]["ergas"]


def test_the_share_that_is_valid_counts_every_pixel_once(scene: Path) -> None:
    """Blocks at the far edges are smaller than the others."""
    with rasterio.open(scene / "truth.tif") as file:
        image, facts = file.read()[:, :244, :210], FileFacts(transform=file.transform, nodata=0)
    image[:, 241:] = 0
    write_tif(scene / "edge.tif", image, facts)
    with ExitStack() as stack:
        found = score(ScoreOptions(scene / "edge.tif", reference=scene / "edge.tif"), stack).result
    assert found.valid == pytest.approx(241 / 244, abs=1e-6)


def written(path: Path, image: np.ndarray, like: Path, **facts: object) -> Path:
    with rasterio.open(like) as file:
        write_tif(path, image, FileFacts(transform=facts.get("transform", file.transform)))
    return path


def bad_scores(scene: Path) -> dict[str, tuple[ScoreOptions, type[PancrafterError], str]]:
    truth = scene / "truth.tif"
    with rasterio.open(truth) as file:
        image, transform = file.read(), file.transform
    small = written(scene / "small.tif", image[:, :128], truth)
    bands = written(scene / "bands.tif", image[:3], truth)
    moved = written(scene / "moved.tif", image, truth, transform=transform @ transform.translation(3, 0))
    tiny = written(scene / "tiny.tif", image[:, :20, :20], truth)
    empty = scene / "empty.tif"
    write_tif(empty, np.zeros_like(image), FileFacts(transform=transform, nodata=0))
    pair = {"pan": scene / "pan.tif", "ms": (scene / "ms.tif",)}

    def tagged(tag: str, value: str) -> Path:
        path = written(scene / f"{tag}-{value}.tif", image, truth)
        with rasterio.open(path, "r+") as file:
            file.update_tags(**{f"PANCRAFTER_{tag}": value})
        return path

    return {
        "another size": (ScoreOptions(small, reference=truth), MetricError, "128 x 256"),
        "another band count": (ScoreOptions(bands, reference=truth), MetricError, "3 bands"),
        "another place": (ScoreOptions(moved, reference=truth), MetricError, "3.00 pixels"),
        "smaller than a block": (ScoreOptions(tiny, reference=tiny), MetricError, "20 x 20"),
        "nothing valid": (ScoreOptions(empty, reference=truth), MetricError, "no pixel is valid"),
        "unknown sensor": (ScoreOptions(truth, reference=truth, sensor="hubble"), UsageError, "hubble"),
        "no ratio": (ScoreOptions(truth, reference=truth, ratio=1), UsageError, "ratio"),
        "no number": (ScoreOptions(truth, reference=truth, ratio=math.nan), UsageError, "ratio"),
        "no peak": (ScoreOptions(truth, reference=truth, peak=0), UsageError, "peak"),
        "no border": (ScoreOptions(truth, reference=truth, cut=-1), UsageError, "cut"),
        "a border without reference": (ScoreOptions(truth, cut=3, **pair), UsageError, "--cut and --peak"),
        "nothing to score against": (ScoreOptions(truth), UsageError, "nothing to score"),
        "both": (ScoreOptions(truth, reference=truth, **pair), UsageError, "reference and PAN"),
        "not of this scene": (ScoreOptions(small, **pair), MetricError, "overlap of PAN and MS"),
        "missing": (ScoreOptions(scene / "no.tif", reference=truth), RasterError, "no such file"),
        "no ratio in its tag": (
            ScoreOptions(tagged("RATIO", "four"), reference=truth),
            RasterError,
            "is 'four'",
        ),
        "ratio 0 in its tag": (ScoreOptions(tagged("RATIO", "0"), reference=truth), RasterError, "is 0, expected"),
        "half a shift": (ScoreOptions(tagged("SHIFT", "0.5"), **pair), RasterError, "_SHIFT is '0.5', expected 2"),
        "no shift": (ScoreOptions(tagged("SHIFT", "nan,0"), **pair), RasterError, "_SHIFT is 'nan,0'"),
    }


NAMES = [
    "another size", "another band count", "another place", "smaller than a block", "nothing valid", "unknown sensor",
    "no ratio", "no number", "no peak", "no border", "a border without reference", "nothing to score against", "both",
    "not of this scene", "missing", "no ratio in its tag", "ratio 0 in its tag", "half a shift", "no shift",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_gets_one_clear_error(scene: Path, name: str) -> None:
    options, kind, found = bad_scores(scene)[name]
    with pytest.raises(kind, match=found) as caught:
        scored(options)
    assert caught.value.hint


def test_the_ratio_is_what_the_product_says(scene: Path) -> None:
    write_pair(scene / "two", seed=6, pan_size=256, ratio=2, bands=4)
    product = scene / "o.tif"
    sharpen(scene / "two/pan.tif", scene / "two/ms.tif", product, method="gsa", registration="off")
    said = scored(ScoreOptions(product, reference=scene / "truth.tif"))
    assert said == scored(ScoreOptions(product, reference=scene / "truth.tif", ratio=2))
    assert (
        said["fused"]["ergas"]
        != scored(ScoreOptions(product, reference=scene / "truth.tif", ratio=4))["fused"]["ergas"]
    )


def test_the_sensor_is_not_guessed_from_paths_in_our_own_tags(scene: Path) -> None:
    folder = scene / "ikonos"
    write_pair(folder, seed=5, pan_size=128, ratio=4, bands=4)
    command = ("pancrafter", "sharpen", str(folder / "pan.tif"))
    for sensor in (None, "WV2"):
        product = folder / f"{sensor}.tif"
        asked = SharpenOptions(folder / "pan.tif", (folder / "ms.tif",), product, "gsa", sensor=sensor, command=command)
        sharpen_scene(asked)
        with ExitStack() as stack:
            result = score(ScoreOptions(product, reference=product), stack).result
        assert result.settings["MTF at MS Nyquist"].startswith("generic" if sensor is None else "WorldView-2")


def test_what_is_nodata_can_be_told(scene: Path) -> None:
    with rasterio.open(scene / "ms.tif", "r+") as file:
        image = file.read()
        image[:, :, :23] = 0  # a block begins 4 PAN pixels further
        file.write(image)
    files = {"pan": scene / "pan.tif", "ms": (scene / "ms.tif",)}
    asked = SharpenOptions(files["pan"], files["ms"], scene / "o.tif", "gsa", nodata=0.0, score=True)
    found = sharpen_scene(asked).scores
    told = scored(ScoreOptions(asked.output, **files, scene=SceneOptions(nodata=0.0)))
    assert found == {name: told["fused"][name] for name in found}
    assert told["exp"] != scored(ScoreOptions(asked.output, **files))["exp"]


def test_scaled_data_are_warned_about(scene: Path) -> None:
    with rasterio.open(scene / "truth.tif") as file:
        image, facts = file.read().astype(np.float32) / 1000, FileFacts(transform=file.transform)
    write_tif(scene / "scaled.tif", image, facts)
    with ExitStack() as stack:
        result = score(ScoreOptions(scene / "scaled.tif", reference=scene / "scaled.tif"), stack).result
    assert any("fractions" in warning for warning in result.warnings)


@pytest.mark.parametrize("crs", [True, False])
@pytest.mark.parametrize("over", [(True, False), (False, True), (True, True)])
def test_a_product_whose_rows_run_the_other_way_scores_as_it_lies(
    scene: Path, over: tuple[bool, bool], crs: bool
) -> None:
    product = cut_away_a_third(scene / "truth.tif")
    if not crs:
        for name in ("pan.tif", "ms.tif", "truth.tif"):
            with rasterio.open(scene / name) as file:
                facts = FileFacts(transform=file.transform, nodata=file.nodata, crs=None)
                image = file.read()
            write_tif(scene / name, image, facts)
    pair = {"pan": scene / "pan.tif", "ms": (scene / "ms.tif",)}
    with rasterio.open(product, "r+") as file:
        image, transform = file.read(), file.transform
        image[:, :100] += 7
        file.write(image)
    rows, cols = over
    image = image[:, :: -1 if rows else 1, :: -1 if cols else 1]
    transform = transform @ Affine.translation(256 * cols, 256 * rows)
    transform = transform @ Affine.scale(-1 if cols else 1, -1 if rows else 1)
    place = FileFacts(transform=transform, nodata=0) if crs else FileFacts(transform=transform, nodata=0, crs=None)
    turned = write_tif(scene / "turned.tif", image, place)
    for given in ({"reference": scene / "truth.tif"}, pair):
        assert scored(ScoreOptions(turned, **given)) == scored(ScoreOptions(product, **given))


def stating(scene: Path, name: str, **facts: Any) -> Path:
    with rasterio.open(scene / "truth.tif") as file:
        image, transform = file.read(), file.transform
    return write_tif(scene / name, image, FileFacts(transform=transform, **facts))


BANDS = ["blue", "green", "red", "nir"]


def doubts(product: Path, **given: Any) -> tuple[str, ...]:
    with ExitStack() as stack:
        return score(ScoreOptions(product, **given), stack).result.warnings


def test_bands_of_the_same_names_in_another_order_are_refused(scene: Path) -> None:
    product = stating(scene, "product.tif", descriptions=["NIR", "Blue", "green", "red"])
    reference = stating(scene, "reference.tif", descriptions=BANDS)
    with pytest.raises(MetricError, match=r"product\.tif: band 1 is called NIR, .* blue: .* another order") as raised:
        doubts(product, reference=reference)
    assert "gdal_translate -b 2 -b 3 -b 4 -b 1 IN OUT" in raised.value.hint
    with rasterio.open(scene / "ms.tif", "r+") as file:
        file.descriptions = BANDS
    with pytest.raises(MetricError, match="that of MS blue"):
        doubts(product, pan=scene / "pan.tif", ms=(scene / "ms.tif",))
    assert doubts(reference, pan=scene / "pan.tif", ms=(scene / "ms.tif",)) == ()


def test_bands_of_other_names_are_told(scene: Path) -> None:
    reference = stating(scene, "reference.tif", descriptions=BANDS)
    (told,) = doubts(stating(scene, "product.tif", descriptions=["B2", "B3", "B4", "B8"]), reference=reference)
    assert told.startswith("band 1 is called B2, that of the reference")
    assert told.endswith("bands are compared in their order")
    some = stating(scene, "some.tif", descriptions=["nir", "", "", ""])
    for product in (scene / "truth.tif", some, stating(scene, "same.tif", descriptions=["Blue ", *BANDS[1:]])):
        assert doubts(product, reference=reference) == ()


def test_dn_of_two_scales_are_refused_and_those_of_one_are_told(scene: Path) -> None:
    scaled = stating(scene, "scaled.tif", scales=[1.0, 0.1, 0.1, 0.1], offsets=[0.0, -100.0, -100.0, -100.0])
    nearly = stating(scene, "nearly.tif", scales=[1.0, *[float(np.float32(0.1))] * 3], offsets=[0.0, *[-100.0] * 3])
    other = stating(scene, "other.tif", scales=[0.5] * 4)
    with pytest.raises(MetricError, match=r"all\.tif: band 2 has scale 0\.1 and offset -100, .* scale 0\.5 and"):
        doubts(stating(scene, "all.tif", scales=[0.5, 0.1, 0.1, 0.1], offsets=[0.0, *[-100.0] * 3]), reference=other)
    for product, reference in ((scaled, scene / "truth.tif"), (scene / "truth.tif", scaled)):
        (told,) = doubts(product, reference=reference)
        assert told.startswith("band 2 has scale ")
        assert told.endswith("DN are compared as they are stored")
    assert doubts(scaled, reference=nearly) == ()


def test_the_score_report_is_one_page_with_everything(scene: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for number, options in enumerate(
            (
                ScoreOptions(scene / "truth.tif", reference=scene / "truth.tif"),
                ScoreOptions(scene / "truth.tif", pan=scene / "pan.tif", ms=(scene / "ms.tif",)),
            )
        ):
            page = write_score_report(score(options, stack), tmp_path / f"report{number}")
            text = page.read_text()
            assert [p.name for p in page.parent.iterdir()] == ["index.html"]
            for wanted in ("truth.tif", "exp", "data:image/png;base64", "MS upsampled", "Fused"):
                assert wanted in text, wanted
            assert ("ERGAS" in text) == (number == 0)
            assert ("HQNR" in text) == (number == 1)


def test_the_command_prints_a_table_or_json(scene: Path) -> None:
    done = pancrafter("score", scene / "truth.tif", "--reference", scene / "truth.tif", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scores"]["fused"]["ergas"] == 0
    full = pancrafter(
        "score", "--full-res", scene / "truth.tif", "--pan", scene / "pan.tif", "--ms", scene / "ms.tif",
        "--report", scene / "report",
    )  # fmt: skip
    assert full.returncode == 0, full.stderr
    assert "HQNR" in full.stdout
    assert (scene / "report" / "index.html").exists()
    for wrong in (
        ("--full-res", "--reference", scene / "truth.tif"),
        (),
        ("--full-res",),
        ("--full-res", "--bands", "1,2,3"),
    ):
        done = pancrafter("score", scene / "truth.tif", *wrong)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), wrong


def test_eval_compares_methods_in_both_protocols(scene: Path, tmp_path: Path) -> None:
    same = Path(shutil.copytree(scene, tmp_path / "same"))
    result = evaluate(EvalOptions((scene, same), CLASSICAL))
    assert len(result.rows) == 2 * 2 * 3
    found = means(result.rows, "reduced")
    assert found["mtf-glp-fs"]["ergas"][0] < found["exp"]["ergas"][0]
    assert found["exp"]["ergas"][1] == pytest.approx(0, abs=1e-12)
    files = write_evaluation(result, tmp_path / "out")
    assert sorted(f.name for f in files) == ["eval.csv", "eval.json", "eval.md", "index.html"]
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["rows"]
    assert "**" in to_markdown(result)
    assert to_csv(result).count("\n") == 1 + 2 * 3 * (7 + 5)


def test_deviation_divides_by_n_less_one() -> None:
    rows = [EvalRow(f"s{k}", "reduced", "exp", {"ergas": value}, 0.0) for k, value in enumerate((1.0, 2.0, 4.0))]
    assert means(rows, "reduced")["exp"]["ergas"] == pytest.approx((7 / 3, 1.5275252316519468))


def h5_of(path: Path, gt: np.ndarray, pan: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Write a PanCollection-like file of float64 DN; returns ms and lms."""
    gains = mtf_of("QuickBird", gt.shape[1]).ms
    ms = np.stack([decimate(mtf_lowpass(image.astype(np.float64), 4, gains), 4) for image in gt])
    lms = np.stack([upsample23(image, 4) for image in ms])
    with h5py.File(path, "w") as file:
        for name, values in {"gt": gt, "pan": pan, "ms": ms, "lms": lms}.items():
            file[name] = values
    return ms, lms


def test_an_h5_file_scores_as_the_same_data_in_geotiffs(tmp_path: Path) -> None:
    gt = np.stack([np.rint(textured(4, 128, seed)) for seed in (1, 2)])
    pan = np.rint(gt.mean(axis=1, keepdims=True))
    ms, _ = h5_of(tmp_path / "test_qb.h5", gt, pan)
    for k in range(2):
        folder = tmp_path / f"test_qb-{k:03d}"
        folder.mkdir()
        for name, image in {"gt": gt[k], "pan": pan[k], "ms": ms[k]}.items():
            write_tif(folder / f"{name}.tif", image.astype(np.float32), FileFacts())
    folders = tuple(tmp_path / f"test_qb-{k:03d}" for k in range(2))
    methods = (*CLASSICAL, Contestant("network", "network"))
    options = EvalOptions((tmp_path / "test_qb.h5",), methods, sensor="QB", cut=21, geometry="toolbox")
    one = evaluate(options)
    other = evaluate(EvalOptions(folders, methods, sensor="QB", cut=21, geometry="toolbox"))
    assert len(one.rows) == 2 * 2 * 4
    for a, b in zip(
        sorted(one.rows, key=lambda r: (r.scene, r.protocol, r.method)),
        sorted(other.rows, key=lambda r: (r.scene, r.protocol, r.method)),
        strict=True,
    ):
        assert (a.scene, a.protocol, a.method) == (b.scene, b.protocol, b.method)
        assert dict(a.scores) == dict(b.scores)


def test_the_settings_say_how_published_patches_lie(tmp_path: Path) -> None:
    def said(*names: str, **given: Any) -> dict[str, str]:
        return settings(EvalOptions(tuple(map(Path, names)), CLASSICAL, **given))

    lying = ("registration", "local registration", "geometry", "h5 files")
    assert [said("a").get(name) for name in lying] == ["auto", "of all methods", "pixels are areas", None]
    published = ["none", "none", "MS samples at 4k + 2", None]
    assert [said("a.h5").get(name) for name in lying] == published
    assert [said("a", geometry="toolbox").get(name) for name in lying] == published
    mixed = ["off", "none", "pixels are areas", "not registered, MS samples at 4k + 2"]
    assert [said("a", "b.h5", registration="off").get(name) for name in lying] == mixed


def test_fractions_are_recognised_in_the_middle_of_a_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The corner may hold nothing at all."""
    monkeypatch.setattr(eval_cases, "_LOOK", 16)
    folder = tmp_path / "scene"
    write_pair(folder, seed=5, pan_size=256, ratio=4, bands=3)
    for name in ("pan", "ms"):
        with rasterio.open(folder / f"{name}.tif") as file:
            image, facts = file.read().astype(np.float32) / 1000, FileFacts(transform=file.transform)
        edge = image.shape[1] // 4
        image[:, :edge] = image[:, :, :edge] = 300
        write_tif(folder / f"{name}.tif", image, facts)
    (case,) = cases(folder, EvalOptions((folder,), CLASSICAL, protocols=("full",), registration="off"))
    assert case.factor == 10_000
    assert "holds fractions" in case.warnings[0]


def test_the_network_takes_part_once_with_each_number_of_back_projections(tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    write_pair(scene, seed=5, pan_size=256, ratio=4, bands=4)
    networks = contestants(["exp", "network"], consistency=(0, 5))
    assert [c.label for c in networks] == ["exp", "network/0", "network/5"]
    rows = evaluate(EvalOptions((scene,), networks, protocols=("reduced",), registration="off")).rows
    assert len({row.scores["ergas"] for row in rows}) == 3


def test_models_of_one_file_name_stay_apart(tmp_path: Path) -> None:
    runs = [f"runs/{name}/model.safetensors" for name in "ab"]
    assert [c.label for c in contestants(["network"], runs)] == runs
    assert [c.label for c in contestants(["network"], runs[:1])] == ["model.safetensors"]


def test_what_a_scene_raises_names_it(tmp_path: Path) -> None:
    write_pair(tmp_path / "small", seed=5, pan_size=16, ratio=4, bands=3)
    with pytest.raises(PancrafterError, match=r"^small: only 4 MS pixels"):
        evaluate(EvalOptions((tmp_path / "small",), CLASSICAL, registration="off"))


def test_of_pairs_without_truth_the_mtf_is_measured(tmp_path: Path) -> None:
    """Nobody made them by degrading anything."""
    scene = tmp_path / "scene"
    write_pair(scene, seed=5, pan_size=256, ratio=4, bands=4)
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            eval_cases, "sharpen_scene", lambda options: (told.append(options.ms_mtf), sharpen_scene(options))
        )
        evaluate(EvalOptions((scene,), contestants(["network"]), geometry="toolbox"))
    assert told == [None]


def test_the_products_own_mask_counts(scene: Path, tmp_path: Path) -> None:
    """A hole in MS is a hole in every product, and must not be scored as DN 0."""
    with rasterio.open(scene / "ms.tif", "r+") as file:
        image = file.read()
        file.nodata = 0
        image[:, 20:24, 20:24] = 0
        file.write(image)
    with rasterio.open(scene / "ms.tif") as file:
        assert not file.dataset_mask().all()
    case = next(iter(cases(scene, EvalOptions((scene,), CLASSICAL, protocols=("full",), registration="off"))))
    options = EvalOptions((scene,), CLASSICAL, protocols=("full",), registration="off")
    with ExitStack() as stack:
        scoring = Scoring(case, options, (scene / "pan.tif", (scene / "ms.tif",), None), stack)

        def product(rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
            with rasterio.open(scene / "truth.tif") as file:
                return np.array(file.read()[:, slice(*rows), slice(*cols)])

        def broken(rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
            found = product(rows, cols)
            found[:, : max(0, 64 - rows[0])] = 0
            return found

        def mask(rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
            known = np.ones((256, 256), bool)
            known[:64] = False
            return known[slice(*rows), slice(*cols)]

        assert scoring.score(broken, mask) == scoring.score(product, mask)
        assert scoring.score(broken, None) != scoring.score(product, None)


def test_an_h5_without_its_sets_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["ms"] = np.zeros((1, 4, 8, 8))
    with pytest.raises(RasterError, match="lms and pan"):
        evaluate(EvalOptions((tmp_path / "x.h5",), CLASSICAL))
    (tmp_path / "y.h5").write_bytes(b"no h5")
    with pytest.raises(RasterError, match="not a readable h5"):
        evaluate(EvalOptions((tmp_path / "y.h5",), CLASSICAL))


def curve_of(result: EvalResult, method: str, registration: str) -> list[float]:
    rows = [r for r in result.curve if (r.method, r.registration) == (method, registration)]
    return [r.scores["ergas"] for r in sorted(rows, key=lambda r: r.shift)]


def test_moving_ms_costs_and_registration_gives_it_back(tmp_path: Path) -> None:
    scene = tmp_path / "large"
    write_pair(scene, seed=5, pan_size=768, ratio=4, bands=4)
    result = evaluate(EvalOptions((scene,), CLASSICAL, protocols=("reduced",), shifts=(0.0, 1.0)))
    still, moved = curve_of(result, "mtf-glp-fs", "off")
    assert moved > 1.1 * still
    still, moved = curve_of(result, "mtf-glp-fs", "auto")
    assert moved < 1.1 * still


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"scenes": ()}, "no scene"),
        ({"contestants": (Contestant("x", "magic"),)}, "magic"),
        ({"protocols": ("half",)}, "half"),
        ({"shifts": (99.0,)}, "shift"),
        ({"contestants": ()}, "no method"),
        ({"contestants": CLASSICAL + CLASSICAL[:1]}, "exp: given twice"),
        ({"local_registration": True, "geometry": "toolbox"}, "local-registration"),
        ({"local_registration": True, "scenes": (Path("x.h5"),)}, "local-registration"),
        ({"shifts": (0.0,), "geometry": "toolbox"}, "shift: not for published patches"),
        ({"shifts": (0.0,), "scenes": (Path("x.h5"),)}, "shift: not for published patches"),
        ({"shifts": (0.0,), "scenes": (Path("X.HDF5"),)}, "shift: not for published patches"),
        ({"shifts": (0.0,), "protocols": ("full",)}, "shift needs the reduced protocol"),
        ({"cut": -1}, "cut"),
        ({"peak": math.nan}, "peak"),
        ({"size": 8}, "size"),
        ({"scenes": (Path("nowhere"),)}, "nowhere: is not a folder"),
        ({"scenes": (Path("nowhere"),), "geometry": "toolbox"}, "nowhere: is not a folder"),
    ],
)
def test_bad_evaluations_are_refused(scene: Path, options: dict[str, object], found: str) -> None:
    given = {"scenes": (scene,), "contestants": CLASSICAL} | options
    with pytest.raises(UsageError, match=found):
        evaluate(EvalOptions(**given))  # type: ignore[arg-type]


def test_the_toolbox_geometry_refuses_scenes_with_their_own_grid(scene: Path) -> None:
    for name, part in (("pan", "pan"), ("truth", "product")):
        with rasterio.open(scene / f"{name}.tif") as file:
            image, facts = file.read(), FileFacts(transform=file.transform)
        write_tif(scene / f"{part}.tif", image[:, :-6], facts)
    options = ScoreOptions(scene / "product.tif", pan=scene / "pan.tif", ms=(scene / "ms.tif",), geometry="toolbox")
    with pytest.raises(GeometryError, match="toolbox geometry needs"):
        scored(options)


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"geometry": "toolbox"}, "--geometry"),
        ({"registration": "off"}, "--registration"),
        ({"scene": SceneOptions(nodata=0.0)}, "--nodata"),
        ({"scene": SceneOptions(ms_origin=(0.0, 0.0))}, "--ms-origin"),
    ],
)
def test_a_reference_needs_nothing_that_says_how_ms_lies(scene: Path, given: dict[str, Any], flag: str) -> None:
    with pytest.raises(UsageError, match=f"{flag}: nothing to do beside a reference"):
        scored(ScoreOptions(scene / "truth.tif", reference=scene / "truth.tif", **given))


def test_the_eval_command_writes_its_report(scene: Path) -> None:
    done = pancrafter(
        "eval", scene, "--methods", "exp,gsa", "--protocol", "reduced", "--report", scene / "out", "--no-progress"
    )
    assert done.returncode == 0, done.stderr
    assert "ERGAS" in done.stdout
    assert (scene / "out" / "index.html").exists()
    assert pancrafter("eval", scene, "--methods", "magic").returncode == 2


EVAL = "--methods", "exp", "--protocol", "reduced", "--no-progress"


def measuring(command: str, scene: Path) -> list[str]:
    """Arguments of `eval` or `score` for a scene."""
    if command == "eval":
        return ["eval", str(scene), *EVAL]
    return ["score", str(scene / "truth.tif"), "--reference", str(scene / "truth.tif")]


def test_the_eval_command_tells_failed_scenes_and_keeps_the_others(scene: Path, tmp_path: Path) -> None:
    write_pair(tmp_path / "small", seed=5, pan_size=64, ratio=4, bands=3)
    done = pancrafter("eval", scene, tmp_path / "small", *EVAL, "--report", tmp_path / "out")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "scene: reduced resolution" in done.stdout
    assert "failed: small: only 16 MS pixels" in done.stdout
    assert "hint: evaluate a larger scene" in done.stdout
    assert (tmp_path / "out" / "index.html").exists()


@pytest.mark.parametrize("command", ["eval", "score"])
def test_a_report_that_cannot_be_written_is_told_first(
    scene: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tasks.evaluate.evaluate", "tasks.score.score"):
        monkeypatch.setattr(f"pancrafter_cli.{name}", lambda *given: pytest.fail("ran"))
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        found = CliRunner().invoke(main.app, [*measuring(command, scene), "--report", str(folder)])
        assert isinstance(found.exception, OutputError), found.output
        assert "is no folder" in found.exception.message


@pytest.mark.parametrize("json_too", [(), ("--json",)])
@pytest.mark.parametrize("command", ["eval", "score"])
def test_the_numbers_are_told_also_where_the_report_fails(
    scene: Path, tmp_path: Path, command: str, json_too: tuple[str, ...]
) -> None:
    (tmp_path / "out" / "index.html").mkdir(parents=True)
    done = pancrafter(*measuring(command, scene), "--report", tmp_path / "out", *json_too)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    if json_too:
        assert "ergas" in str(json.loads(done.stdout))
    else:
        assert "ERGAS" in done.stdout
