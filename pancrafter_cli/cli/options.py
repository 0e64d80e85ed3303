"""Options that several commands have: declared once, they mean the same everywhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

# As `tasks` and `zoo` have them, which take a second to load: too long for --help. A test compares them.
DEFAULT_METHOD = "network"
DEFAULT_MODEL = "universal-small"
DEFAULT_HALO = "32"


class PrecisionChoice(StrEnum):
    """Number format of the network's arithmetic."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


class RuntimeChoice(StrEnum):
    """Library that runs the network."""

    TORCH = "torch"
    ONNX = "onnx"


Pan = Annotated[Path, typer.Argument(readable=False, help="PAN raster, one band; or the folder of a product, alone.")]
Ms = Annotated[
    list[Path] | None,
    typer.Argument(readable=False, help="MS raster; or several of one grid, in the order of bands."),
]
Method = Annotated[
    str,
    typer.Option(
        help="network, or classical: exp, brovey, gs, gsa, gs2-glp, mtf-glp, mtf-glp-fs, mtf-glp-hpm-r, bdsd-pc."
    ),
]
MODEL_HELP = "Shipped model (see `pancrafter models`) or path to one."
Model = Annotated[str, typer.Option(help=MODEL_HELP)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(help="auto: bf16 on devices with units for it if it agrees with fp32."),
]
Runtime = Annotated[
    RuntimeChoice | None,
    typer.Option(help="torch, or onnx for a model that was exported; default: as the model's file needs."),
]
Tile = Annotated[
    int | None,
    typer.Option(help="Tile side in PAN pixels, a multiple of 256; default: 512, or 256 where memory is short."),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Choose the tile so that the run is expected to need no more, such as 2G."),
]
Halo = Annotated[str, typer.Option(help="PAN pixels read around a tile, or 'full': exact, reads twice the pixels.")]
Consistency = Annotated[
    int | None,
    typer.Option(
        help="Back-projections that pull the result onto MS; default: 2 after a network, 0 after other methods."
    ),
]
Sensor = Annotated[
    str | None,
    typer.Option(help="Sensor whose MTF classical methods and scores assume; default: as metadata say, else generic."),
]
MsMtf = Annotated[
    float | None,
    typer.Option(help="MTF of MS, relative to PAN, at its Nyquist frequency; default: measured on the scene."),
]
Registration = Annotated[
    str, typer.Option(help="auto: measure how far MS lies off PAN and correct it; off; or DX,DY in MS pixels.")
]
LocalRegistration = Annotated[
    bool | None,
    typer.Option(
        "--local-registration/--no-local-registration",
        help="Move PAN, from place to place, to where MS shows the same (relief, jitter); default: with auto.",
    ),
]
Ratio = Annotated[float | None, typer.Option(help="MS over PAN pixel size; only for files without georeferencing.")]
MsOrigin = Annotated[
    str | None,
    typer.Option(metavar="X,Y", help="MS upper-left corner in PAN pixels; only for files without georeferencing."),
]
Nodata = Annotated[
    str | None,
    typer.Option(
        help="DN without data in place of what the files declare; auto: find undeclared collars; declared: the files' "
        "word, also for what looks like a fill value."
    ),
]
Dem = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", readable=False, help="Heights in metres above the ellipsoid, for PAN and MS with RPCs."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Progress = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="Progress on stderr; default: on a terminal."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def parse_halo(text: str) -> int | str:
    """PAN pixels, or a word such as "full"."""
    return int(text) if text.isdecimal() else text
