"""`pancrafter train`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from pancrafter_cli.cli.output import print_json

EXAMPLES = """Examples:

pancrafter train examples/train-universal-small.toml --scenes scenes/ --run runs/first

The same command goes on where a run was stopped.
"""


def command(
    config: Path = typer.Argument(..., help="TOML file with the recipe; examples/ has one."),
    run: Path = typer.Option(..., help="Folder of the run: checkpoint, log and model."),
    scenes: str | None = typer.Option(None, help="Folder with one folder per scene (pan.tif, ms.tif)."),
    start_from: str | None = typer.Option(None, "--from", help="Start from this model's weights (name or path)."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or cuda:N."),
    stop_at: int | None = typer.Option(None, help="Stop after this many steps in all, with a checkpoint."),
    progress: bool | None = typer.Option(
        None, "--progress/--no-progress", help="Progress bar on stderr; default: on a terminal."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Train a model from PAN+MS scenes; an interrupted run goes on exactly where its checkpoint left it."""
    from tqdm import tqdm

    from pancrafter_cli.data.config import read_config
    from pancrafter_cli.tasks.train import train

    recipe = read_config(config, scenes, start_from)
    shown = sys.stderr.isatty() if progress is None else progress
    with tqdm(unit="step", disable=not shown, file=sys.stderr, desc="train") as bar:

        def report(step: int, steps: int, loss: float) -> None:
            bar.total = steps
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{loss:.4f}")

        result = train(recipe, run, device=device, stop_at=stop_at, progress=report)
    if as_json:
        print_json(result)
    else:
        print(f"{result.model}: step {result.step} of {recipe.steps}, loss {result.loss:.4f}")
