"""The place a product takes: whether it can, how it does, and what is said when it cannot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pancrafter_cli.errors import OutputError
from pancrafter_cli.raster.env import GDAL_FAILURES
from pancrafter_cli.raster.paths import gdal_name

_SIDECARS = (".aux.xml", ".msk", ".ovr")


@dataclass(frozen=True)
class OutputKind:
    """A kind of file, as messages call it, and how its names end."""

    name: str
    suffixes: tuple[str, ...]


GEOTIFF = OutputKind("a GeoTIFF", (".tif", ".tiff"))


def check_output(path: Path, inputs: Iterable[Path] = (), overwrite: bool = False, kind: OutputKind = GEOTIFF) -> Path:
    """Find the place to write to, links followed. Raises OutputError when it cannot or should not be."""
    check_local(path)
    try:
        os.fspath(path).encode()
        return _checked_output(path, inputs, overwrite, kind)
    except UnicodeEncodeError as error:
        raise OutputError(f"{path}: is not a name in UTF-8, as GDAL expects", "give another name") from error
    except OSError as error:
        raise _refused(path, error) from error


def check_local(path: Path) -> None:
    """Raise OutputError for the name of a file, or folder, that is on no disk of this machine."""
    if gdal_name(path).startswith("/vsi"):
        raise OutputError(f"{path}: outputs are local files", "write to a local file, and copy it there")


def is_there(path: Path) -> bool:
    """Whether an output exists. Raises OutputError where the system refuses to tell, as of names that are too long."""
    try:
        return path.exists()
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written to: {error.strerror or error}", "choose another name or folder")


def _checked_output(path: Path, inputs: Iterable[Path], overwrite: bool, kind: OutputKind) -> Path:
    """As check_output; also raises OSError where the system refuses to tell about a file."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():  # realpath gives up on those only
        raise OutputError(f"{path}: is a loop of links", "remove it, or give another name")
    if target.suffix.lower() not in kind.suffixes:
        raise OutputError(
            f"{path}: the output is {kind.name}", f"give a name that ends in {' or '.join(kind.suffixes)}"
        )
    if target.is_dir():
        raise OutputError(f"{path}: is a folder", "give the name of a file")
    for source in inputs:
        if _is_same_file(target, source):
            raise OutputError(f"{path}: is one of the inputs ({source})", "write to another name")
    if target.exists() and not overwrite:
        raise OutputError(f"{path}: exists already", "use --overwrite to replace it, or another name")
    if not target.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {target.parent}", "create it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {target.parent} cannot be written to", "choose another folder")
    return target


def _is_same_file(target: Path, source: Path) -> bool:
    """Whether both names lead to one file; a source that cannot be looked at is told of when it is opened."""
    if target == Path(os.path.realpath(source)):
        return True
    try:
        return target.samefile(source)
    except OSError:
        return False


def take_name(part: Path, target: Path, overwrite: bool) -> None:
    """Give the finished file its name, at once. Raises OutputError where there is one that may not be replaced."""
    if not overwrite:
        try:
            os.link(part, target)  # unlike a renaming, this fails where another run has been faster
        except FileExistsError as error:
            raise OutputError(
                f"{target}: another run has written it meanwhile", "use --overwrite to replace it, or another name"
            ) from error
        except OSError:  # a file system without hard links
            pass
        else:
            return
    part.replace(target)


def beside(path: Path) -> list[Path]:
    """Files that GDAL keeps next to one."""
    return [path.with_name(path.name + suffix) for suffix in _SIDECARS]


def as_output_error(error: BaseException, target: Path) -> BaseException:
    """Choose what to raise: an OutputError that tells the room on the disk, or the error itself."""
    if isinstance(error, OutputError) or not isinstance(error, GDAL_FAILURES):
        return error
    free = ""
    with suppress(OSError):
        free = f"; {shutil.disk_usage(target.parent).free / 1e6:.1f} MB are free there"
    return OutputError(
        f"{target}: cannot be written: {error.__cause__ or error}{free}",
        "make room or write to another disk, and check that the folder can be written to",
    )
