"""`pancrafter sharpen`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pancrafter_cli.cli.output import INTERRUPTED, parse_point, pixel_progress, print_json, print_notice
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


class PrecisionChoice(StrEnum):
    """Number format of the network's arithmetic."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


class RuntimeChoice(StrEnum):
    """Library that runs the network."""

    TORCH = "torch"
    ONNX = "onnx"


def command(
    pan: Path = typer.Argument(..., readable=False, help="PAN raster, one band; or the folder of a product, alone."),
    ms: list[Path] | None = typer.Argument(
        None, readable=False, help="MS raster; or several of one grid, in the order of bands."
    ),
    output: Path = typer.Option(..., "-o", "--output", help="GeoTIFF to write."),
    method: str = typer.Option(
        "network", help="network, or classical: exp, brovey, gsa, mtf-glp-fs, mtf-glp-hpm-r, bdsd-pc."
    ),
    model: str = typer.Option("universal-small", help="Shipped model (see `pancrafter models`) or path to one."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or cuda:N."),
    precision: PrecisionChoice = typer.Option(
        PrecisionChoice.AUTO, help="auto: bf16 on GPUs, and on CPUs with units for it if it agrees with fp32."
    ),
    runtime: RuntimeChoice | None = typer.Option(
        None, help="torch, or onnx for a model that was exported; default: as the model's file needs."
    ),
    tile: int | None = typer.Option(
        None, help="Tile side in PAN pixels, a multiple of 256; default: 512, or 256 where memory is short."
    ),
    max_memory: str | None = typer.Option(
        None, metavar="SIZE", help="Choose the tile so that the run is expected to need no more, such as 2G."
    ),
    halo: str = typer.Option("32", help="PAN pixels read around a tile, or 'full': exact, reads twice the pixels."),
    consistency: int | None = typer.Option(
        None, help="Back-projections that pull the result onto MS; default: 2 after a network, 0 after other methods."
    ),
    no_consistency: bool = typer.Option(False, "--no-consistency", help="The same as --consistency 0."),
    confidence: Path | None = typer.Option(
        None, metavar="FILE", help="GeoTIFF to write too: how far each pixel can be relied on, 0 to 1."
    ),
    score: bool = typer.Option(False, "--score", help="Score the result at full resolution: HQNR, D_lambda,K, D_S."),
    stac: bool = typer.Option(False, "--stac", help="Write a STAC item beside the output, OUTPUT with .json."),
    sensor: str | None = typer.Option(
        None, help="Sensor whose MTF classical methods assume; default: from the metadata, else generic."
    ),
    ms_mtf: float | None = typer.Option(
        None, help="MTF of MS, relative to PAN, at its Nyquist frequency; default: measured on the scene."
    ),
    registration: str = typer.Option(
        "auto", help="auto: measure how far MS lies off PAN and correct it; off; or DX,DY in MS pixels."
    ),
    ratio: float | None = typer.Option(None, help="MS over PAN pixel size; only for files without georeferencing."),
    ms_origin: str | None = typer.Option(
        None, metavar="X,Y", help="MS upper-left corner in PAN pixels; only for files without georeferencing."
    ),
    nodata: str | None = typer.Option(
        None, help="DN without data in place of what the files declare; auto: find undeclared collars."
    ),
    dem: Path | None = typer.Option(
        None, metavar="FILE", readable=False, help="Heights in metres above the ellipsoid, for PAN and MS with RPCs."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing output."),
    resume: bool = typer.Option(
        True, "--resume/--no-resume", help="Go on with a run that was killed; or start over and keep nothing."
    ),
    progress: bool | None = typer.Option(
        None, "--progress/--no-progress", help="Progress bar on stderr; default: on a terminal."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Sharpen MS with PAN: a GeoTIFF with all MS bands on the PAN grid."""
    from pancrafter_cli.raster.align import parse_nodata
    from pancrafter_cli.tasks.memory import parse_bytes
    from pancrafter_cli.tasks.register import parse_registration
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
        halo=_halo(halo),
        consistency=0 if no_consistency else consistency,
        sensor=sensor,
        ms_mtf=ms_mtf,
        registration=parse_registration(registration),
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
    print(f"MS MTF: {result.ms_mtf:.2f} at its Nyquist frequency, relative to PAN")
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


def _halo(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
