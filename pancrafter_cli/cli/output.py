"""What commands share: reading numbers from flags, printing results for people or machines, and progress."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pancrafter_cli.errors import UsageError

if TYPE_CHECKING:
    from pancrafter_cli.report.contents import Table


INTERRUPTED = 130  # exit code after Ctrl-C


def print_json(value: Any) -> None:
    """A result dataclass, or a list of them, as JSON on stdout. What JSON cannot hold (NaN, infinity) becomes null.

    A nodata value that is not a number is told from none: it becomes "nan".
    """
    print(json.dumps(_plain(value), indent=2))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(k): "nan" if k == "nodata" and v != v else _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def mtf_text(gain: float, source: str) -> str:
    """The MTF of MS, for people."""
    why = "; assumed, PAN and MS share too little detail to measure it" if source == "assumed" else ""
    return f"{gain:.2f} at its Nyquist frequency, relative to PAN{why}"


def print_notice(text: str) -> None:
    """What people should know while a command runs, on stderr, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"notice: {text}", file=sys.stderr)


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Names and values, aligned."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


@contextmanager
def pixel_progress(wanted: bool | None) -> Iterator[Callable[[int, int], None]]:
    """A progress bar over PAN pixels on stderr; `wanted` None shows it on a terminal only."""
    from tqdm import tqdm

    shown = sys.stderr.isatty() if wanted is None else wanted
    with tqdm(unit="px", unit_scale=True, disable=not shown, file=sys.stderr, desc="sharpen") as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


@contextmanager
def step_progress(wanted: bool | None) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar over steps with names on stderr; `wanted` None shows it on a terminal only."""
    from tqdm import tqdm

    shown = sys.stderr.isatty() if wanted is None else wanted
    with tqdm(disable=not shown, file=sys.stderr) as bar:

        def update(what: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        yield update


def print_table(table: Table) -> None:
    """A table of numbers, columns aligned; an arrow says which way is better."""
    from pancrafter_cli.report.page import cells

    arrows = {"low": " \u2193", "high": " \u2191", None: ""}
    head = [table.row_header, *(c.name + arrows[c.better] for c in table.columns)]
    body = [
        [row.label, *(f"{c.text} \u00b1 {c.deviation}" if c.deviation else c.text for c in line)]
        for row, line in zip(table.rows, cells(table), strict=True)
    ]
    widths = [max(len(line[k]) for line in (head, *body)) for k in range(len(head))]
    for line in (head, *body):
        print("  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]))


def parse_point(text: str | None, flag: str) -> tuple[float, float] | None:
    """'X,Y' as two numbers. Raises UsageError."""
    if text is None:
        return None
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{flag} {text}: expected two numbers X,Y", f"for example {flag} -12.5,40") from error
    return x, y


def parse_bands(text: str | None) -> tuple[int, ...] | None:
    """'3,2,1' as band indices counted from 0. Raises UsageError."""
    if text is None:
        return None
    try:
        return tuple(int(part) - 1 for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--bands {text}: expected band numbers R,G,B", "for example --bands 3,2,1") from error
