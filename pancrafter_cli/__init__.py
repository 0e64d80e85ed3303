"""PAN-Crafter: PAN and MS in, a sharp multi-band GeoTIFF out.

>>> from pancrafter_cli import sharpen
>>> sharpen("pan.tif", "ms.tif", "out.tif")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pancrafter_cli.version import __version__

if TYPE_CHECKING:
    from pancrafter_cli.tasks.sharpen_options import SharpenResult


__all__ = ["__version__", "sharpen"]

StrPath = str | PathLike[str]


def sharpen(pan: StrPath, ms: StrPath | Sequence[StrPath], output: StrPath, **options: Any) -> SharpenResult:
    """Sharpen a scene into a GeoTIFF on the PAN grid: the command `pancrafter sharpen` as a function.

    pan: a raster with one band; ms: one multi-band raster or several of one grid. Keyword options are the fields of
    `tasks.sharpen.SharpenOptions` (model, device, precision, tile, halo, overwrite, ...), files by strings or paths.
    Raises a `PancrafterError` for unusable input; nothing is written then.
    """
    from pancrafter_cli.tasks.sharpen import sharpen_scene
    from pancrafter_cli.tasks.sharpen_options import SharpenOptions

    files = ms if isinstance(ms, Iterable) and not isinstance(ms, str) else [ms]
    options |= {name: _path(options[name]) for name in ("confidence", "dem") if name in options}
    if isinstance(options.get("model"), PathLike):
        options["model"] = fspath(options["model"])
    return sharpen_scene(SharpenOptions(pan=_path(pan), ms=tuple(map(_path, files)), output=_path(output), **options))


def _path(given: Any) -> Any:
    """What names a file as a Path; anything else as it is, for SharpenOptions to refuse."""
    return Path(given) if isinstance(given, (str, PathLike)) else given
