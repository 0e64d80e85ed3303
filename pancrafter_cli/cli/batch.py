"""`pancrafter batch`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pancrafter_cli.cli import options as opt
from pancrafter_cli.cli.output import parse_point, print_json, step_progress

if TYPE_CHECKING:
    from pancrafter_cli.tasks.batch import Outcome, Plan

EXAMPLES = """Examples:

pancrafter batch scenes/ --out sharp/

pancrafter batch scenes.csv --out sharp/ --method gsa --stac

pancrafter batch scenes/ --out sharp/ --dry-run

pancrafter batch scenes.csv --out /data/sharp --dask tcp://10.0.0.1:8786
"""

_STATUSES = ("done", "skipped", "to do", "failed")


def command(
    manifest: Path = typer.Argument(
        ...,
        help="CSV with the columns pan, ms (several files separated by ';'; none where pan is the folder of a product) "
        "and, as wanted, output (in --out, where it is relative) and the flags sensor, ms_mtf, nodata, registration, "
        "ratio, ms_origin, dem of a scene; paths start at the CSV. Or a folder: of one subfolder for each scene, or of "
        "NAME_pan.tif and NAME_ms.tif.",
    ),
    out: Path = typer.Option(..., metavar="DIR", help="Folder for the products, SCENE.tif each; made if needed."),
    method: opt.Method = opt.DEFAULT_METHOD,
    model: opt.Model = opt.DEFAULT_MODEL,
    device: opt.Device = "auto",
    precision: opt.Precision = opt.PrecisionChoice.AUTO,
    runtime: opt.Runtime = None,
    tile: opt.Tile = None,
    max_memory: opt.MaxMemory = None,
    halo: opt.Halo = opt.DEFAULT_HALO,
    consistency: opt.Consistency = None,
    sensor: opt.Sensor = None,
    ms_mtf: opt.MsMtf = None,
    registration: opt.Registration = "auto",
    local_registration: opt.LocalRegistration = None,
    nodata: opt.Nodata = None,
    ratio: opt.Ratio = None,
    ms_origin: opt.MsOrigin = None,
    dem: opt.Dem = None,
    confidence: bool = typer.Option(False, "--confidence", help="Write SCENE-confidence.tif beside each product."),
    stac: bool = typer.Option(False, "--stac", help="Write a STAC item beside each product."),
    dask: str | None = typer.Option(
        None,
        metavar="SCHEDULER",
        help="Address of a Dask scheduler (tcp://host:8786) whose workers do the work. A worker process sharpens one "
        "scene at a time, whatever its threads: start them with --nthreads 1. All must see the paths of this machine.",
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Make all products anew, also finished and stale ones."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be done."),
    progress: opt.Progress = None,
    as_json: bool = typer.Option(False, "--json", help="Print the outcomes as JSON."),
) -> None:
    """Sharpen many scenes: finished ones are skipped, one that fails does not stop the rest.

    A scene is finished if its product's tags name the same inputs (by hash), weights and options; one that differs is
    stale: it is kept, and the scene failed, unless --overwrite. The exit code is 1 if any scene failed.
    """
    from pancrafter_cli.raster.align import parse_nodata
    from pancrafter_cli.raster.register import parse_registration
    from pancrafter_cli.tasks.batch import broken_outcomes, plan_batch
    from pancrafter_cli.tasks.memory import parse_bytes
    from pancrafter_cli.tasks.sharpen_options import SharpenOptions
    from pancrafter_cli.tasks.tiles import DEFAULT_TILE, make_tiling

    options = SharpenOptions(
        pan=Path(),
        ms=(),
        output=Path(),
        method=method,
        model=model,
        device=device,
        precision=precision.value,
        runtime=None if runtime is None else runtime.value,
        tile=tile,
        max_memory=parse_bytes(max_memory),
        halo=opt.parse_halo(halo),
        consistency=consistency,
        sensor=sensor,
        ms_mtf=ms_mtf,
        registration=parse_registration(registration),
        local_registration=local_registration,
        nodata=parse_nodata(nodata),
        ratio=ratio,
        ms_origin=parse_point(ms_origin, "--ms-origin"),
        dem=dem,
        overwrite=overwrite,
        stac=stac,
        command=("pancrafter", *sys.argv[1:]),
    )
    make_tiling(DEFAULT_TILE if tile is None else tile, options.halo)  # raises now what every scene would
    plan = plan_batch(manifest, out, options, confidence=confidence)
    outcomes = broken_outcomes(plan)
    try:
        _collect(_outcomes(plan, dask, dry_run), outcomes, len(plan.jobs), progress)
    except (KeyboardInterrupt, SystemExit):
        _tell(plan, outcomes, as_json)  # what was done is done
        raise
    _tell(plan, outcomes, as_json)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _outcomes(plan: Plan, dask: str | None, dry_run: bool) -> Iterator[Outcome]:
    """The outcomes as they come, of what was asked for."""
    from pancrafter_cli.tasks.batch import look_at, run_batch

    if dry_run:
        if dask is not None:
            print("warning: --dask: a dry run looks at the files from this machine", file=sys.stderr)
        return (look_at(job) for job in plan.jobs)
    if dask is None:
        return run_batch(plan)
    from pancrafter_cli.tasks.cluster import run_on_cluster

    return run_on_cluster(plan, dask, lambda text: print(f"warning: {text}", file=sys.stderr))


def _collect(coming: Iterator[Outcome], outcomes: list[Outcome], total: int, progress: bool | None) -> None:
    """Add the outcomes as they come, which are then there also when this is interrupted."""
    with closing(coming), step_progress(progress) as tell:  # type: ignore[type-var]
        tell("scenes", 0, total)
        for done, outcome in enumerate(coming, 1):
            outcomes.append(outcome)
            tell(f"{outcome.scene} {outcome.status}", done, total)


def _tell(plan: Plan, outcomes: list[Outcome], as_json: bool) -> None:
    """All outcomes in the order of the manifest, and what was not reached."""
    told = {outcome.output: outcome for outcome in outcomes}
    missing = [job.scene for job in plan.jobs if job.options.output not in told]
    ordered = [told[job.options.output] for job in plan.jobs if job.options.output in told]
    ordered += [outcome for outcome in outcomes if outcome.output is None]
    if as_json:
        print_json({"scenes": ordered, "counts": _counts(ordered), "not_reached": missing, "left_out": plan.left_out})
        return
    _print_table(ordered)
    for hint in dict.fromkeys(outcome.hint for outcome in ordered if outcome.hint):
        print(f"hint: {hint}")
    for item in plan.left_out:
        print(f"left out: {item.name}: {item.reason}")
    counts = [f"{count} {status}" for status, count in _counts(ordered).items() if count]
    print(", ".join([*counts, *([f"{len(missing)} not reached"] if missing else [])]))
    for outcome in ordered:
        if outcome.traceback:
            print(f"{outcome.scene}:\n{outcome.traceback}", file=sys.stderr)


def _counts(outcomes: list[Outcome]) -> dict[str, int]:
    found = Counter[str](outcome.status for outcome in outcomes)
    return {status: found[status] for status in _STATUSES}


def _print_table(outcomes: list[Outcome]) -> None:
    """Scene, status, seconds, size and message, aligned."""
    rows = [("scene", "status", "seconds", "size", "message"), *map(_row, outcomes)]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    for scene, status, seconds, size, message in rows:
        cells = [
            scene.ljust(widths[0]),
            status.ljust(widths[1]),
            seconds.rjust(widths[2]),
            size.rjust(widths[3]),
            message,
        ]
        print("  ".join(cells).rstrip())


def _row(outcome: Outcome) -> tuple[str, str, str, str, str]:
    size = f"{outcome.width} x {outcome.height} x {outcome.bands}" if outcome.width else ""
    message = " ".join(outcome.message.split())
    return outcome.scene, outcome.status, f"{outcome.seconds:.1f}", size, message
