"""`pancrafter sharpen`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

from pancrafter_cli.cli.output import pixel_progress, print_json
from pancrafter_cli.errors import UsageError

EXAMPLES = """Examples:

pancrafter sharpen pan.tif ms.tif -o sharp.tif

pancrafter sharpen LC08_B8.TIF LC08_B4.TIF LC08_B3.TIF LC08_B2.TIF -o sharp.tif

pancrafter sharpen pan.tif ms.tif -o sharp.tif --device cuda --json
"""


class PrecisionChoice(StrEnum):
    """Number format of the network's arithmetic."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


def command(
    pan: Path = typer.Argument(..., help="PAN raster, one band."),
    ms: list[Path] = typer.Argument(..., help="MS raster; or several rasters of one grid, in the order of bands."),
    output: Path = typer.Option(..., "-o", "--output", help="GeoTIFF to write."),
    model: str = typer.Option("universal-small", help="Shipped model (see `pancrafter models`) or path to one."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or cuda:N."),
    precision: PrecisionChoice = typer.Option(PrecisionChoice.AUTO, help="auto: fp32 on a CPU, bf16 on a GPU."),
    tile: int = typer.Option(512, help="Tile side in PAN pixels, a multiple of 256; smaller needs less memory."),
    halo: str = typer.Option("32", help="PAN pixels read around a tile, or 'full': exact, reads twice the pixels."),
    consistency: int = typer.Option(5, help="Back-projections that pull the result onto MS; 0: none."),
    ratio: float | None = typer.Option(None, help="MS over PAN pixel size; only for files without georeferencing."),
    ms_origin: str | None = typer.Option(
        None, metavar="X,Y", help="MS upper-left corner in PAN pixels; only for files without georeferencing."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing output."),
    progress: bool | None = typer.Option(
        None, "--progress/--no-progress", help="Progress bar on stderr; default: on a terminal."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Sharpen MS with PAN: a GeoTIFF with all MS bands on the PAN grid."""
    from pancrafter_cli.tasks.sharpen import SharpenOptions, sharpen_scene

    options = SharpenOptions(
        pan=pan,
        ms=tuple(ms),
        output=output,
        model=model,
        device=device,
        precision=precision.value,
        tile=tile,
        halo=_halo(halo),
        consistency=consistency,
        ratio=ratio,
        ms_origin=parse_point(ms_origin, "--ms-origin"),
        overwrite=overwrite,
    )
    with pixel_progress(progress) as report:
        result = sharpen_scene(options, report)
    if as_json:
        print_json(result)
        return
    rate = result.width * result.height / result.seconds / 1e6
    print(
        f"{result.output}: {result.width} x {result.height} pixels, {result.bands} bands, {result.dtype}, "
        f"ratio {result.ratio:.4g}, {100 * result.valid:.1f} % valid; model {result.model} on {result.device} "
        f"({result.precision}), {result.seconds:.1f} s, {rate:.2f} Mpixel/s"
    )


def parse_point(text: str | None, flag: str) -> tuple[float, float] | None:
    """'X,Y' as two numbers. Raises UsageError."""
    if text is None:
        return None
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{flag} {text}: expected two numbers X,Y", f"for example {flag} -12.5,40") from error
    return x, y


def _halo(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
