"""`pancrafter sharpen`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pancrafter_cli.cli import options as opt
from pancrafter_cli.cli.output import INTERRUPTED, mtf_text, parse_point, pixel_progress, print_json, print_notice
from pancrafter_cli.errors import UsageError

if TYPE_CHECKING:
    from pancrafter_cli.tasks.sharpen_options import SharpenResult

EXAMPLES = """Examples:

pancrafter sharpen pan.tif ms.tif -o sharp.tif

pancrafter sharpen LC08_B8.TIF LC08_B4.TIF LC08_B3.TIF LC08_B2.TIF -o sharp.tif

pancrafter sharpen LC08_L1TP_199030_20200101_20200101_02_T1/ -o sharp.tif

pancrafter sharpen pan.tif ms.tif -o sharp.tif --device cuda --json

pancrafter sharpen pan.tif ms.tif -o sharp.tif --model model.onnx

pancrafter sharpen pan.tif ms.tif -o sharp.tif --confidence sharp-confidence.tif --score --stac
"""

_WORTH_SAYING = 0.01  # of the scene


def command(
    pan: opt.Pan,
    ms: opt.Ms = None,
    output: Path = typer.Option(..., "-o", "--output", help="GeoTIFF to write."),
    method: opt.Method = opt.DEFAULT_METHOD,
    model: opt.Model = opt.DEFAULT_MODEL,
    device: opt.Device = "auto",
    precision: opt.Precision = opt.PrecisionChoice.AUTO,
    runtime: opt.Runtime = None,
    tile: opt.Tile = None,
    max_memory: opt.MaxMemory = None,
    halo: opt.Halo = opt.DEFAULT_HALO,
    consistency: opt.Consistency = None,
    no_consistency: bool = typer.Option(False, "--no-consistency", help="The same as --consistency 0."),
    confidence: Path | None = typer.Option(
        None, metavar="FILE", help="GeoTIFF to write too: how far each pixel can be relied on, 0 to 1."
    ),
    score: bool = typer.Option(False, "--score", help="Score the result at full resolution: HQNR, D_lambda,K, D_S."),
    stac: bool = typer.Option(False, "--stac", help="Write a STAC item beside the output, OUTPUT with .json."),
    sensor: opt.Sensor = None,
    ms_mtf: opt.MsMtf = None,
    registration: opt.Registration = "auto",
    local_registration: opt.LocalRegistration = None,
    ratio: opt.Ratio = None,
    ms_origin: opt.MsOrigin = None,
    nodata: opt.Nodata = None,
    dem: opt.Dem = None,
    overwrite: opt.Overwrite = False,
    resume: bool = typer.Option(
        True, "--resume/--no-resume", help="Go on with a run that was killed; or start over and keep nothing."
    ),
    progress: opt.Progress = None,
    as_json: opt.AsJson = False,
) -> None:
    """Sharpen MS with PAN: a GeoTIFF with all MS bands on the PAN grid."""
    from pancrafter_cli.raster.align import parse_nodata
    from pancrafter_cli.raster.register import parse_registration
    from pancrafter_cli.tasks.memory import parse_bytes
    from pancrafter_cli.tasks.sharpen import sharpen_scene
    from pancrafter_cli.tasks.sharpen_options import SharpenOptions

    if no_consistency and consistency:
        raise UsageError(f"--no-consistency and --consistency {consistency} exclude each other", "leave out one")
    options = SharpenOptions(
        pan=pan,
        ms=tuple(ms or ()),
        output=output,
        method=method,
        model=model,
        device=device,
        precision=precision.value,
        runtime=None if runtime is None else runtime.value,
        tile=tile,
        max_memory=parse_bytes(max_memory),
        halo=opt.parse_halo(halo),
        consistency=0 if no_consistency else consistency,
        sensor=sensor,
        ms_mtf=ms_mtf,
        registration=parse_registration(registration),
        local_registration=local_registration,
        ratio=ratio,
        ms_origin=parse_point(ms_origin, "--ms-origin"),
        nodata=parse_nodata(nodata),
        dem=dem,
        overwrite=overwrite,
        confidence=confidence,
        score=score,
        stac=stac,
        command=("pancrafter", *sys.argv[1:]),
        resume=resume,
    )
    try:
        with pixel_progress(progress) as report:
            result = sharpen_scene(options, report, notice=print_notice)
    except KeyboardInterrupt as end:  # which typer would forget, and with it how to go on
        raise SystemExit(INTERRUPTED) from end
    if as_json:
        print_json(result)
    else:
        _print(result)


def _print(result: SharpenResult) -> None:
    fuser = result.fuser
    name = fuser.method if fuser.model is None else f"model {fuser.model}"
    where = fuser.device if fuser.runtime is None else f"{fuser.device} with {fuser.runtime}"
    rate = result.width * result.height / result.seconds / 1e6
    print(
        f"{result.output}: {result.width} x {result.height} pixels, {result.bands} bands, {result.dtype}, "
        f"ratio {result.ratio:.4g}, {100 * result.valid:.1f} % valid; {name} on {where} "
        f"({fuser.precision}), {result.seconds:.1f} s, {rate:.2f} Mpixel/s"
    )
    print(f"product: {result.layout}")
    print(f"registration: {result.registration.text}")
    print(f"MS MTF: {mtf_text(result.ms_mtf, result.ms_mtf_source)}")
    if result.drifting > _WORTH_SAYING:
        print(f"drifting: {result.drifting:.1%} of it differ from MS by more than 5 %")
    if result.disagreeing > _WORTH_SAYING:
        print(f"disagreeing: in {result.disagreeing:.1%} of it PAN and MS show different things")
    if result.scores:
        named = zip(
            ("HQNR", "D_lambda,K", "D_S"), (result.scores[k] for k in ("hqnr", "d_lambda_k", "d_s")), strict=True
        )
        print("scores: " + ", ".join(f"{name} {value:.4f}" for name, value in named))
    for path in (result.confidence, result.stac):
        if path is not None:
            print(f"also written: {path}")
    for warning in result.warnings:
        print(f"warning: {warning}")
