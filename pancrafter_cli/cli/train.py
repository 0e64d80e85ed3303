"""`pancrafter train`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from pancrafter_cli.cli import options as opt
from pancrafter_cli.cli.output import print_json
from pancrafter_cli.errors import UsageError

EXAMPLES = """Examples:

pancrafter train examples/recipes/universal-small/1.toml --scenes scenes/ --run runs/first

pancrafter train --from universal-small --scenes scenes/ --minutes 20

torchrun --nproc-per-node 4 --no-python -- pancrafter train recipe.toml --scenes scenes/ --run runs/large

The same command goes on where a run was stopped. Without a recipe, the model of --from is adapted to the scenes.
With torchrun, several GPUs share the samples of every step.
"""


def command(
    config: Path | None = typer.Argument(None, help="TOML file with the recipe; examples/ has some."),
    run: Path | None = typer.Option(None, help="Folder of the run: checkpoint, logs and model; default: runs/NAME."),
    scenes: str | None = typer.Option(
        None,
        help="Folder with one folder per scene (pan.tif and ms.tif, or a product) and PanCollection files (train*.h5).",
    ),
    start_from: str | None = typer.Option(None, "--from", help="Start from this model's weights (name or path)."),
    nodata: opt.Nodata = None,
    minutes: float | None = typer.Option(None, help="Time for the run; the learning rate falls to 0 by its end."),
    device: opt.Device = "auto",
    workers: int | None = typer.Option(
        None, help="Processes that draw samples, 0 for a thread; default: several where the network runs on a GPU."
    ),
    stop_at: int | None = typer.Option(None, help="Stop after this many steps in all, with a checkpoint."),
    progress: opt.Progress = None,
    as_json: opt.AsJson = False,
) -> None:
    """Train a model from PAN+MS scenes; an interrupted run goes on exactly where its checkpoint left it."""
    from tqdm import tqdm

    from pancrafter_cli.data.config import fine_tuning, read_config
    from pancrafter_cli.raster.align import parse_nodata
    from pancrafter_cli.runtime.installed import require

    fill = parse_nodata(nodata)
    if config is not None:
        recipe = read_config(config, scenes, start_from, minutes, fill)
    elif start_from is not None:
        recipe = fine_tuning(start_from, scenes, minutes, fill)
    else:
        raise UsageError(
            "neither a recipe nor a model to start from is given",
            "name a TOML file (examples/ has some), or adapt a model with --from universal-small",
        )
    require("torch", hint="pip install 'pancrafter[train]'")
    from pancrafter_cli.runtime.processes import is_first
    from pancrafter_cli.tasks.train import train

    folder = run or Path("runs") / recipe.name
    shown = is_first() and (sys.stderr.isatty() if progress is None else progress)
    with tqdm(unit="step", disable=not shown, file=sys.stderr, desc="train") as bar:

        def report(step: int, steps: int, loss: float) -> None:
            bar.total = steps if not recipe.minutes else None
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{loss:.4f}")

        def warn(text: str) -> None:
            tqdm.write(f"warning: {text}", file=sys.stderr)

        result = train(recipe, folder, device=device, workers=workers, stop_at=stop_at, progress=report, warn=warn)
    if not is_first():
        return
    if as_json:
        print_json(result)
        return
    print(f"{result.model}: step {result.step} of {recipe.steps}, loss {result.loss:.4f}")
    if result.relative_ergas is not None:
        print(f"best at step {result.best_step}: ERGAS {result.relative_ergas:.3f} of that of interpolation")
    if result.skipped:
        print(f"left out: {len(result.skipped)} scenes or patches", file=sys.stderr)
