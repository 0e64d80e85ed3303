"""How GDAL is run: bounded cache, and nothing that reaches the user past our own errors."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError

from pancrafter_cli.errors import RasterError

# Without a bound GDAL's block cache takes 5 % of the machine's memory. Not set through rasterio.Env, which empties
# the cache each time it is left: blocks would be read again, and half-filled tiles written and written again.
os.environ.setdefault("GDAL_CACHEMAX", "64")  # megabytes; of inputs alone, the product is compressed past it
# Without a handler of its own the library's warnings would be printed by logging's last resort.
logging.getLogger("rasterio").addHandler(logging.NullHandler())

GDAL_VERSION: str = rasterio.__gdal_version__
# All that rasterio raises when GDAL fails; errors of GDAL itself come out raw where only metadata are asked for, and
# texts in other encodings than UTF-8 are not decoded.
GDAL_FAILURES = (RasterioError, CPLE_BaseError, CRSError, UnicodeDecodeError, OSError)


@contextmanager
def gdal_env() -> Iterator[None]:
    """GDAL settings of this package, for the calling thread; cheap enough for every read and write."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        yield


@contextmanager
def opening() -> Iterator[None]:
    """As gdal_env, without rasterio's warning that a file has no georeferencing: we judge that ourselves."""
    with gdal_env(), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """As gdal_env; whatever goes wrong while `path` is read becomes a RasterError that names the file."""
    try:
        with gdal_env():
            yield
    except GDAL_FAILURES as error:
        raise RasterError(
            f"{path}: cannot be read: {error.__cause__ or error}",
            "the file is damaged or was cut short; copy or download it again",
        ) from error
