"""`pancrafter sharpen`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

from pancrafter_cli.cli.output import parse_point, pixel_progress, print_json

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
    method: str = typer.Option(
        "network", help="network, or classical: exp, brovey, gsa, mtf-glp-fs, mtf-glp-hpm-r, bdsd-pc."
    ),
    model: str = typer.Option("universal-small", help="Shipped model (see `pancrafter models`) or path to one."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or cuda:N."),
    precision: PrecisionChoice = typer.Option(PrecisionChoice.AUTO, help="auto: fp32 on a CPU, bf16 on a GPU."),
    tile: int = typer.Option(512, help="Tile side in PAN pixels, a multiple of 256; smaller needs less memory."),
    halo: str = typer.Option("32", help="PAN pixels read around a tile, or 'full': exact, reads twice the pixels."),
    consistency: int | None = typer.Option(
        None, help="Back-projections that pull the result onto MS; default: 5 after a network, 0 after other methods."
    ),
    sensor: str | None = typer.Option(
        None, help="Sensor whose MTF classical methods assume; default: from the metadata, else generic."
    ),
    registration: str = typer.Option(
        "auto", help="auto: measure how far MS lies off PAN and correct it; off; or DX,DY in MS pixels."
    ),
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
    from pancrafter_cli.tasks.register import parse_registration
    from pancrafter_cli.tasks.sharpen import SharpenOptions, sharpen_scene

    options = SharpenOptions(
        pan=pan,
        ms=tuple(ms),
        output=output,
        method=method,
        model=model,
        device=device,
        precision=precision.value,
        tile=tile,
        halo=_halo(halo),
        consistency=consistency,
        sensor=sensor,
        registration=parse_registration(registration),
        ratio=ratio,
        ms_origin=parse_point(ms_origin, "--ms-origin"),
        overwrite=overwrite,
    )
    with pixel_progress(progress) as report:
        result = sharpen_scene(options, report)
    if as_json:
        print_json(result)
        return
    fuser = result.fuser
    name = fuser.method if fuser.model is None else f"model {fuser.model}"
    rate = result.width * result.height / result.seconds / 1e6
    print(
        f"{result.output}: {result.width} x {result.height} pixels, {result.bands} bands, {result.dtype}, "
        f"ratio {result.ratio:.4g}, {100 * result.valid:.1f} % valid; {name} on {fuser.device} "
        f"({fuser.precision}), {result.seconds:.1f} s, {rate:.2f} Mpixel/s"
    )
    print(f"registration: {result.registration.text}")


def _halo(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
