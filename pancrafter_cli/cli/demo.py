"""`pancrafter demo`."""

from __future__ import annotations

from pathlib import Path

import typer

from pancrafter_cli.cli import options as opt
from pancrafter_cli.cli.output import print_json
from pancrafter_cli.errors import UsageError

EXAMPLES = """Examples:

pancrafter demo demo/

pancrafter demo demo/ --seed 7 --size 2048

pancrafter demo demo/ --sharpened demo/sharp.tif
"""


def command(
    folder: Path = typer.Argument(..., help="Folder for pan.tif, ms.tif and reference.tif."),
    seed: int | None = typer.Option(None, min=0, help="Another seed draws another town."),
    size: int | None = typer.Option(None, help="PAN pixels per side, a multiple of 4; default: 1024."),
    sharpened: Path | None = typer.Option(
        None, help="Only draw before-after.png of the demo scene in FOLDER and this result of `sharpen`."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace existing files."),
    as_json: opt.AsJson = False,
) -> None:
    """Write a synthetic PAN+MS scene with its reference: streets, roofs, trees, fields, water, cars."""
    from pancrafter_cli.tasks.demo import draw_before_after, write_demo

    if sharpened is not None:
        unused = [flag for flag, given in {"--seed": seed, "--size": size}.items() if given is not None]
        if unused:
            raise UsageError(
                f"{', '.join(unused)}: --sharpened only draws what is there", "leave it out, or --sharpened"
            )
        result = draw_before_after(folder, sharpened, overwrite=overwrite)
    else:
        result = write_demo(folder, seed=seed, size=size, overwrite=overwrite)
    if as_json:
        print_json(result)
        return
    for path in result.files:
        print(path)
    for name, (ergas, sam) in result.scores.items():
        print(f"{name}: ERGAS {ergas:.3f}, SAM {sam:.3f} degrees")
