"""The files of one run: a product, and perhaps a confidence layer beside it; both appear, or neither does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from pancrafter_cli.errors import OutputError
from pancrafter_cli.raster.env import gdal_env, opening, reading
from pancrafter_cli.raster.spec import BandFacts, OutputSpec
from pancrafter_cli.raster.writer import SceneWriter, check_output

_LONGEST = 80  # bytes of a name: unfinished files of longer ones cannot be told apart


@dataclass(frozen=True)
class Finished:
    """A finished GeoTIFF: its size in pixels, its bands and its tags."""

    width: int
    height: int
    bands: int
    tags: Mapping[str, str]


class ProductWriter(SceneWriter):
    """A SceneWriter that also takes tags which are known only once the pixels are written."""

    def tag(self, tags: Mapping[str, str]) -> None:
        """Add tags to the unfinished file."""
        with gdal_env():
            self._file.update_tags(**tags)


def confidence_spec(product: OutputSpec) -> OutputSpec:
    """The confidence layer of a product: one float32 band on its grid, NaN where it is not valid."""
    return OutputSpec(product.grid, "float32", (BandFacts("confidence", "gray"),), nodata=float("nan"))


def check_beside(path: Path, output: Path, inputs: Iterable[Path], overwrite: bool) -> None:
    """Raise OutputError when a GeoTIFF cannot or should not be written at `path` beside the product `output`."""
    target = check_output(path, inputs, overwrite)
    if target == Path(output).resolve():
        raise OutputError(f"{path}: is the product itself", "give the confidence layer a name of its own")


@contextmanager
def product_writers(
    output: Path, spec: OutputSpec, confidence: Path | None, *, inputs: Iterable[Path], overwrite: bool
) -> Iterator[tuple[ProductWriter, ProductWriter | None]]:
    """Writers of the product and, where a path for it is given, of its confidence layer.

    Both files are complete and checked before the product takes its name; should it fail then, the layer goes too.
    Raises OutputError.
    """
    files = list(inputs)
    product = ProductWriter(output, spec, inputs=files, overwrite=overwrite)
    if confidence is None:
        with product:
            yield product, None
        return
    placed: list[Path] = []
    try:
        with product:
            with ProductWriter(confidence, confidence_spec(spec), inputs=files, overwrite=overwrite) as layer:
                yield product, layer
            placed.append(confidence)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        raise


def add_tags(path: Path, tags: Mapping[str, str]) -> None:
    """Add tags to a finished GeoTIFF. Raises OutputError."""
    try:
        with opening(), rasterio.open(path, "r+") as file:
            file.update_tags(**tags)
    except (RasterioError, OSError) as error:
        raise OutputError(
            f"{path}: its tags cannot be written: {error.__cause__ or error}",
            "make room on the disk, and check that the file can be written to",
        ) from error


def read_finished(path: Path) -> Finished:
    """What a finished GeoTIFF says of itself. Raises RasterError."""
    with reading(path), opening(), rasterio.open(path) as file:
        return Finished(file.width, file.height, file.count, file.tags())


def remove_unfinished(path: Path) -> None:
    """Remove what killed runs left of the product `path`, which is finished by now; runs that go on would fail."""
    target = path.resolve()
    if len(target.name.encode()) > _LONGEST:
        return
    pattern = re.compile(rf"\.{re.escape(target.name)}\.\d+\.[0-9a-f]{{6}}\.part\.tif")
    for found in target.parent.iterdir():
        if pattern.fullmatch(found.name):
            found.unlink(missing_ok=True)
