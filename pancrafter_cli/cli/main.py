"""The `pancrafter` program: its commands, and how failures reach the user."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import warnings
from types import TracebackType
from typing import Any, NoReturn

# The network's threads have the processor; a second pool, for the small matrices of resampling, only fights them.
# Must be set before NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from pancrafter_cli.cli import batch, bench, demo, eval, export, inspect, models, score, sharpen, train
from pancrafter_cli.cli.output import INTERRUPTED
from pancrafter_cli.errors import PancrafterError
from pancrafter_cli.version import __version__

_TERMINATED = 143
_NOTHING_KEPT = "no unfinished output was kept"
# What typer raises for wrong arguments: click's UsageError, wherever this version keeps click.
_USAGE: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="pancrafter",
    help="Pansharpening of satellite scenes: PAN and MS in, a sharp multi-band GeoTIFF out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("sharpen", epilog=sharpen.EXAMPLES)(sharpen.command)
app.command("batch", epilog=batch.EXAMPLES)(batch.command)
app.command("inspect", epilog=inspect.EXAMPLES)(inspect.command)
app.command("models", epilog=models.EXAMPLES)(models.command)
app.command("demo", epilog=demo.EXAMPLES)(demo.command)
app.command("score", epilog=score.EXAMPLES)(score.command)
app.command("eval", epilog=eval.EXAMPLES)(eval.command)
app.command("bench", epilog=bench.EXAMPLES)(bench.command)
app.command("train", epilog=train.EXAMPLES)(train.command)
app.command("export", epilog=export.EXAMPLES)(export.command)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pancrafter {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Options of the program itself."""
    sys.excepthook = _uncaught  # not sooner: typer puts its own in when it is called


def run() -> None:
    """Entry point: expected failures become one message and a hint on stderr; exit code 1 (data) or 2 (usage)."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.unraisablehook = _unraisable
    # Where numbers overflow, the writer says so once, in words for people.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="pancrafter_cli")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    try:
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
        sys.exit(code)
    except PancrafterError as error:
        _fail(error.exit_code, error.message, error.hint)
    except _USAGE as error:
        _misused(error)
    except MemoryError:
        _fail(1, "there is not enough memory", "free some, or use a smaller --tile")
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer makes this of Ctrl-C, without a word
            _fail(INTERRUPTED, "interrupted", _kept(end))
        if end.code == _TERMINATED:
            _fail(_TERMINATED, "terminated", _kept(end))
        raise
    except BrokenPipeError:
        _mute()  # the reader of our output has gone, as `head` does
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _mute()
        _fail(1, f"not all could be written: {error.strerror}", "make room on the disk, also on that of stdout")


def _kept(end: BaseException) -> str:
    """How to go on, as an interrupted command noted it: in the interruption, or in the one that typer saw."""
    error: BaseException | None = end
    while error is not None:
        if notes := getattr(error, "__notes__", ()):
            return str(notes[0])
        error = error.__context__
    if sys.argv[1:2] == ["train"]:
        return f"{_NOTHING_KEPT}; the same command goes on from the last checkpoint, if there is one"
    return _NOTHING_KEPT


def _mute() -> None:
    """Let nobody read stdout; Python would complain again while closing it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(code: int, message: str, hint: str) -> NoReturn:
    print(f"error: {_line(message)}", file=sys.stderr)
    if hint:
        print(f"hint: {_line(hint)}", file=sys.stderr)
    sys.exit(code)


def _misused(error: Any) -> NoReturn:
    """What typer has to say about the arguments, in our words; help, when there are none, is shown as it is."""
    if type(error).show is not _USAGE.show:
        error.show()
        sys.exit(error.exit_code)
    command = error.ctx.command_path if error.ctx else "pancrafter"
    _fail(error.exit_code, error.format_message().removesuffix("."), f"`{command} --help` shows how it is used")


def _line(text: str) -> str:
    """Text on one line, however files are named: what cannot be printed is spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _unraisable(found: Any) -> None:
    """Keep to ourselves that rasterio's log cannot decode what GDAL quotes from a damaged file; errors say it again."""
    if not isinstance(found.exc_value, UnicodeDecodeError):
        sys.__unraisablehook__(found)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As `_unraisable`, which Cython makes two of; what really ends the program comes with a trace."""
    if trace is not None or not isinstance(error, UnicodeDecodeError):
        sys.__excepthook__(kind, error, trace)


def _terminated(number: int, frame: object) -> NoReturn:
    """Leave through every context, so that unfinished files are removed."""
    sys.exit(_TERMINATED)
