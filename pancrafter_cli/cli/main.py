"""The `pancrafter` program: its commands, and how failures reach the user."""

from __future__ import annotations

import os
import sys

# The network's threads have the processor; a second pool, for the small matrices of resampling, only fights them.
# Must be set before NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from pancrafter_cli.cli import demo, eval, inspect, models, score, sharpen, train
from pancrafter_cli.errors import PancrafterError
from pancrafter_cli.version import __version__

_INTERRUPTED = 130

app = typer.Typer(
    name="pancrafter",
    help="Pansharpening of satellite scenes: PAN and MS in, a sharp multi-band GeoTIFF out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("sharpen", epilog=sharpen.EXAMPLES)(sharpen.command)
app.command("inspect", epilog=inspect.EXAMPLES)(inspect.command)
app.command("models", epilog=models.EXAMPLES)(models.command)
app.command("demo", epilog=demo.EXAMPLES)(demo.command)
app.command("score", epilog=score.EXAMPLES)(score.command)
app.command("eval", epilog=eval.EXAMPLES)(eval.command)
app.command("train", epilog=train.EXAMPLES)(train.command)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pancrafter {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Options of the program itself."""


def run() -> None:
    """Entry point: expected failures become one message and a hint on stderr; exit code 1 (data) or 2 (usage)."""
    try:
        app()
    except PancrafterError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # typer makes this of Ctrl-C, without a word
            print("error: interrupted", file=sys.stderr)
            print("hint: no unfinished output was kept; `train` goes on from its last checkpoint", file=sys.stderr)
        raise
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; Python would complain again while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
