"""What is said by the flags of a command reaches the task that it calls, and what that answers reaches people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from pancrafter_cli.cli import main
from pancrafter_cli.raster.register import Registration
from pancrafter_cli.raster.scene import SceneOptions
from pancrafter_cli.tasks.batch import Job, Outcome, Plan
from pancrafter_cli.tasks.eval_options import EvalOptions, EvalResult, contestants
from pancrafter_cli.tasks.fusers import FuserFacts
from pancrafter_cli.tasks.inspect import SceneFacts, inspect_scene
from pancrafter_cli.tasks.score import Measured, ScoreOptions, ScoreResult
from pancrafter_cli.tasks.sharpen_options import SharpenOptions, SharpenResult

Flags = Mapping[str, Sequence[str]]
Run = Callable[[list[str]], tuple[str, str]]

# By the name of the command's parameter: how it is given.
PLACING: Flags = {"ratio": ["--ratio", "3"], "ms_origin": ["--ms-origin", "1.5,2"], "nodata": ["--nodata", "7"]}
SHARPENING: Flags = PLACING | {
    "method": ["--method", "gsa"],
    "model": ["--model", "other"],
    "device": ["--device", "cuda:1"],
    "precision": ["--precision", "bf16"],
    "runtime": ["--runtime", "onnx"],
    "tile": ["--tile", "256"],
    "max_memory": ["--max-memory", "2G"],
    "halo": ["--halo", "64"],
    "consistency": ["--consistency", "3"],
    "sensor": ["--sensor", "QB"],
    "ms_mtf": ["--ms-mtf", "0.2"],
    "registration": ["--registration=0.5,-1"],
    "local_registration": ["--local-registration"],
    "dem": ["--dem", "dem.tif"],
    "stac": ["--stac"],
    "overwrite": ["--overwrite"],
    "progress": ["--progress"],
    "as_json": ["--json"],
}
SHARPENED = SharpenOptions(
    pan=Path(),
    ms=(),
    output=Path(),
    ratio=3.0,
    ms_origin=(1.5, 2.0),
    nodata=7.0,
    method="gsa",
    model="other",
    device="cuda:1",
    precision="bf16",
    runtime="onnx",
    tile=256,
    max_memory=2 << 30,
    halo=64,
    consistency=3,
    sensor="QB",
    ms_mtf=0.2,
    registration=(0.5, -1.0),
    local_registration=True,
    dem=Path("dem.tif"),
    stac=True,
    overwrite=True,
)
SHIFT = Registration(0.25, -0.5, 0.1, 9, 9, True, "auto", "corrected")


def words(command: str, flags: Flags, *, but: Collection[str] = ()) -> list[str]:
    """A command with every flag but those, none of them given as it is by default; fails for a flag that it misses."""
    declared = get_command(main.app).commands[command]
    assert flags.keys() == {param.name for param in declared.params} - {"help"}
    line = list(chain.from_iterable(given for name, given in flags.items() if name not in but))
    context = declared.make_context(command, list(line))
    said = {param.name for param in declared.params if context.params.get(param.name) != param.get_default(context)}
    assert said == flags.keys() - set(but)
    return [command, *line]


def by_default(options: Any, default: Any) -> set[str]:
    """The fields that say the same in both."""
    return {field.name for field in fields(options) if getattr(options, field.name) == getattr(default, field.name)}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; what it prints, on stdout and on stderr."""

    def run(line: list[str]) -> tuple[str, str]:
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the program puts its own in
        monkeypatch.setattr(sys, "argv", ["pancrafter", *line])
        assert not main.app(standalone_mode=False)
        return capsys.readouterr()

    return run


# --- sharpen


SHARPEN: Flags = SHARPENING | {
    "pan": ["p.tif"],
    "ms": ["m1.tif", "m2.tif"],
    "output": ["-o", "o.tif"],
    "confidence": ["--confidence", "c.tif"],
    "score": ["--score"],
    "resume": ["--no-resume"],
    "no_consistency": ["--no-consistency"],
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[SharpenOptions]:
    """What `sharpen` is asked for, in place of its being done."""
    seen: list[SharpenOptions] = []

    def sharpen_scene(options: SharpenOptions, progress: Callable[[int, int], None], **_: object) -> SharpenResult:
        seen.append(options)
        progress(2, 4)
        return SharpenResult(
            output=options.output,
            layout="pair",
            width=64,
            height=32,
            bands=4,
            dtype="uint16",
            nodata=None,
            ratio=4.0,
            registration=SHIFT,
            ms_mtf=0.3,
            ms_mtf_source="measured",
            fuser=FuserFacts("gsa"),
            tile=512,
            halo=32,
            seconds=1.0,
            valid=1.0,
            drifting=0.25,
            disagreeing=0.125,
            confidence=None,
            stac=None,
            scores={},
            notices=(),
            warnings=(),
        )

    monkeypatch.setattr("pancrafter_cli.tasks.sharpen.sharpen_scene", sharpen_scene)
    return seen


def test_sharpen_is_asked_for_what_its_flags_say(asked: list[SharpenOptions], run: Run) -> None:
    line = words("sharpen", SHARPEN, but=["no_consistency"])
    stdout, stderr = run(line)
    given = {"pan": Path("p.tif"), "ms": (Path("m1.tif"), Path("m2.tif")), "output": Path("o.tif")}
    expected = replace(
        SHARPENED, **given, confidence=Path("c.tif"), score=True, resume=False, command=("pancrafter", *line)
    )
    assert asked == [expected]
    assert by_default(expected, SharpenOptions(Path(), (), Path())) == {"blend", "band_names"}  # which have no flag
    assert "sharpen:  50%" in stderr
    assert json.loads(stdout)["registration"]["dx"] == 0.25


def test_no_consistency_is_none_whatever_the_default(asked: list[SharpenOptions], run: Run) -> None:
    line = words("sharpen", SHARPEN, but=["consistency"])
    run(line)
    run(["sharpen", "p.tif", "m.tif", "-o", "o.tif"])
    assert [options.consistency for options in asked] == [0, None]


def test_sharpen_tells_people_how_much_drifts_and_how_much_disagrees(asked: list[SharpenOptions], run: Run) -> None:
    stdout, stderr = run(["sharpen", "p.tif", "m.tif", "-o", "o.tif"])
    assert "drifting: 25.0% of it differ from MS by more than 5 %\n" in stdout
    assert "disagreeing: in 12.5% of it PAN and MS show different things\n" in stdout
    assert stderr == ""  # no bar where there is no terminal


# --- batch


BATCH: Flags = SHARPENING | {
    "manifest": ["scenes.csv"],
    "out": ["--out", "sharp"],
    "confidence": ["--confidence"],
    "dask": ["--dask", "tcp://host:8786"],
    "dry_run": ["--dry-run"],
}


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What `batch` plans and has done, in place of its being done."""
    seen: list[tuple[Any, ...]] = []

    def plan_batch(manifest: Path, out: Path, options: SharpenOptions, *, confidence: bool) -> Plan:
        seen.append((manifest, out, options, confidence))
        return Plan((Job("s00", options),), (), ())

    def run_on_cluster(plan: Plan, *given: Any) -> Any:
        seen.append(("cluster", given[0]))
        return (Outcome(job.scene, "done", job.options.output) for job in plan.jobs)

    def run_batch(plan: Plan) -> Any:
        seen.append(("here",))
        return (Outcome(job.scene, "done", job.options.output) for job in plan.jobs)

    def look_at(job: Job) -> Outcome:
        return Outcome(job.scene, "to do", job.options.output)

    for name, fake in {
        "batch.plan_batch": plan_batch,
        "batch.run_batch": run_batch,
        "batch.look_at": look_at,
        "cluster.run_on_cluster": run_on_cluster,
    }.items():
        monkeypatch.setattr(f"pancrafter_cli.tasks.{name}", fake)
    return seen


def test_batch_is_asked_for_what_its_flags_say(planned: list[tuple[Any, ...]], run: Run) -> None:
    line = words("batch", BATCH)
    stdout, stderr = run(line)
    options = replace(SHARPENED, command=("pancrafter", *line))
    assert planned == [(Path("scenes.csv"), Path("sharp"), options, True)]  # and nothing is done
    # The plan names a scene's files; a score and a start from nothing are for single scenes.
    own = {"pan", "ms", "output", "confidence", "score", "resume"}
    assert by_default(options, SharpenOptions(Path(), (), Path())) == {"blend", "band_names", *own}
    assert json.loads(stdout)["counts"] == {"done": 0, "skipped": 0, "to do": 1, "failed": 0}
    assert "s00 to do: 100%" in stderr
    assert "warning: --dask: " in stderr


def test_batch_works_here_or_on_the_cluster_that_is_named(planned: list[tuple[Any, ...]], run: Run) -> None:
    stdout, _ = run(words("batch", BATCH, but=["dry_run"]))
    assert planned[1:] == [("cluster", "tcp://host:8786")]
    assert json.loads(stdout)["counts"]["done"] == 1
    planned.clear()
    stdout, stderr = run(["batch", "scenes.csv", "--out", "sharp"])
    (_, _, options, confidence), where = planned
    assert where == ("here",)
    assert (options.overwrite, options.stac, confidence) == (False, False, False)
    assert stdout.splitlines()[-1] == "1 done"
    assert stderr == ""


# --- inspect


INSPECT: Flags = PLACING | {
    "pan": ["p.tif"],
    "ms": ["m1.tif", "m2.tif"],
    "dem": ["--dem", "dem.tif"],
    "displacement": ["--displacement"],
    "as_json": ["--json"],
}
FACTS = SceneFacts(
    layout="pair",
    pan_shape=(400, 800),
    pan_dtype="uint16",
    pan_peak=None,
    pan_pixel=(0.5, 0.5),
    ms_shape=(100, 200),
    ms_pixel=(2.0, 2.0),
    bands=1,
    band_names=("red",),
    dtype="uint16",
    ms_peak=None,
    crs=None,
    warped=False,
    ratio=4.0,
    output_shape=(400, 800),
    overlap=1.0,
    nodata=None,
    valid=1.0,
    sensor=None,
    scale=900.0,
    ms_mtf=0.3,
    ms_mtf_source="measured",
    correlation=(0.9,),
    shift=SHIFT,
    displacement=None,
    model="universal-small",
    passes=1,
    tile=512,
    tiles=2,
    memory_bytes=3 << 30,
    notices=(),
)


def test_inspect_is_asked_for_what_its_flags_say(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    seen: list[dict[str, Any]] = []
    takes = signature(inspect_scene)

    def seeing(*args: object, **kwargs: object) -> SceneFacts:
        seen.append(takes.bind(*args, **kwargs).arguments)
        return FACTS

    monkeypatch.setattr("pancrafter_cli.tasks.inspect.inspect_scene", seeing)
    stdout, _ = run(words("inspect", INSPECT))
    given = {"pan": Path("p.tif"), "ms": (Path("m1.tif"), Path("m2.tif")), "dem": Path("dem.tif")}
    assert seen == [given | {"ratio": 3.0, "ms_origin": (1.5, 2.0), "nodata": 7.0, "displacement": True}]
    assert json.loads(stdout)["memory_bytes"] == 3 << 30
    stdout, _ = run(["inspect", "p.tif", "m.tif"])
    assert stdout.splitlines()[-1] == "memory      about 3.0 GiB"


# --- score


SCORE: Flags = PLACING | {
    "fused": ["f.tif"],
    "reference": ["--reference", "r.tif"],
    "full_res": ["--full-res"],
    "pan": ["--pan", "p.tif"],
    "ms": ["--ms", "m1.tif", "--ms", "m2.tif"],
    "sensor": ["--sensor", "QB"],
    "dem": ["--dem", "dem.tif"],
    "peak": ["--peak", "1000"],
    "cut": ["--cut", "21"],
    "geometry": ["--geometry", "toolbox"],
    "registration": ["--registration=0.5,-1"],
    "report": ["--report", "report"],
    "bands": ["--bands", "3,2,1"],
    "as_json": ["--json"],
}


def test_score_is_asked_for_what_its_flags_say(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    seen: list[ScoreOptions] = []
    reports: list[tuple[Path, tuple[int, ...]]] = []
    result = ScoreResult(Path("f.tif"), True, (8, 8), 3, 1.0, {"fused": {"qnr": 0.5}}, {"sensor": "QB"}, ())

    def score(options: ScoreOptions, stack: ExitStack) -> Measured:
        seen.append(options)
        return Measured(result, {}, lambda *_: None, {}, ())

    def write_score_report(measured: Measured, folder: Path, bands: tuple[int, ...]) -> Path:
        reports.append((folder, bands))
        return folder / "index.html"

    monkeypatch.setattr("pancrafter_cli.tasks.score.score", score)
    monkeypatch.setattr("pancrafter_cli.tasks.score_report.write_score_report", write_score_report)
    full = ScoreOptions(
        fused=Path("f.tif"),
        pan=Path("p.tif"),
        ms=(Path("m1.tif"), Path("m2.tif")),
        ratio=3.0,
        sensor="QB",
        geometry="toolbox",
        cut=21,
        peak=1000.0,
        registration=(0.5, -1.0),
        scene=SceneOptions(ratio=3.0, ms_origin=(1.5, 2.0), nodata=7.0, dem=Path("dem.tif")),
    )
    beside = replace(full, reference=Path("r.tif"), scene=replace(full.scene, ratio=None))
    stdout, _ = run(words("score", SCORE, but=["reference"]))
    assert json.loads(stdout)["scores"] == {"fused": {"qnr": 0.5}}
    stdout, _ = run(words("score", SCORE, but=["full_res", "as_json"]))
    assert stdout.splitlines()[-2:] == ["sensor: QB", f"report: {Path('report/index.html')}"]
    assert seen == [full, beside]
    assert by_default(beside, ScoreOptions(Path())) == set()
    assert reports == [(Path("report"), (2, 1, 0))] * 2


# --- eval


EVAL: Flags = PLACING | {
    "scenes": ["paris", "rome"],
    "methods": ["--methods", "exp,network"],
    "model": ["--model", "a", "--model", "b"],
    "consistency": ["--consistency", "0,5"],
    "protocol": ["--protocol", "reduced"],
    "geometry": ["--geometry", "toolbox"],
    "sensor": ["--sensor", "QB"],
    "size": ["--size", "64"],
    "shift": ["--shift", "0,0.5"],
    "registration": ["--registration=0.5,-1"],
    "local_registration": ["--no-local-registration"],
    "cut": ["--cut", "21"],
    "peak": ["--peak", "1000"],
    "device": ["--device", "cuda:1"],
    "report": ["--report", "report"],
    "progress": ["--progress"],
    "as_json": ["--json"],
}


def test_eval_is_asked_for_what_its_flags_say(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    seen: list[EvalOptions] = []
    reports: list[Path] = []

    def evaluate(options: EvalOptions, progress: Callable[[str, int, int], None]) -> EvalResult:
        seen.append(options)
        progress("paris", 1, 2)
        return EvalResult((), (), {"scenes": "2"}, ("look again",))

    def write_evaluation(result: EvalResult, folder: Path) -> list[Path]:
        reports.append(folder)
        return [folder / "eval.md"]

    monkeypatch.setattr("pancrafter_cli.tasks.evaluate.evaluate", evaluate)
    monkeypatch.setattr("pancrafter_cli.tasks.eval_report.write_evaluation", write_evaluation)
    stdout, stderr = run(words("eval", EVAL))
    expected = EvalOptions(
        scenes=(Path("paris"), Path("rome")),
        contestants=contestants(["exp", "network"], ["a", "b"], [0, 5]),
        protocols=("reduced",),
        geometry="toolbox",
        sensor="QB",
        size=64,
        shifts=(0.0, 0.5),
        registration=(0.5, -1.0),
        local_registration=False,
        cut=21,
        peak=1000.0,
        device="cuda:1",
        scene=SceneOptions(ratio=3.0, ms_origin=(1.5, 2.0), nodata=7.0),
    )
    assert seen == [expected]
    assert by_default(expected, EvalOptions((), ())) == set()
    assert reports == [Path("report")]
    assert json.loads(stdout)["settings"] == {"scenes": "2"}
    assert "paris:  50%" in stderr
    stdout, _ = run(words("eval", EVAL, but=["as_json", "progress"]))
    assert stdout.splitlines()[-2:] == ["warning: look again", str(Path("report/eval.md"))]
