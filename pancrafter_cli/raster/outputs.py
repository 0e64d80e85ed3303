"""The files of one run: a product, and perhaps a confidence layer beside it; both appear, or neither does.

While a long run is under way a journal beside the product holds all that is needed to go on after it was killed. The
unfinished files are only ever appended to, so the journal needs no copy of them: it says where each of them ended, and
the next run cuts off what came later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from pancrafter_cli.errors import OutputError
from pancrafter_cli.raster import journal
from pancrafter_cli.raster.env import opening, reading
from pancrafter_cli.raster.journal import Moment
from pancrafter_cli.raster.part import in_use, journal_name, kept_name, remove_remains
from pancrafter_cli.raster.paths import gdal_name
from pancrafter_cli.raster.spec import BandFacts, OutputSpec
from pancrafter_cli.raster.writer import SceneWriter, check_output

Notice = Callable[[str], None]

JOURNAL_SECONDS = 1.0  # between entries: each waits for the disk, and a run that is shorter needs none


class Outputs:
    """What a run writes to: the product, and perhaps its confidence layer (else None).

    begun: where the run that this one goes on with was when it was killed; None for a run from the start.
    """

    def __init__(
        self, product: SceneWriter, layer: SceneWriter | None, facts: Mapping[str, str] | None, notice: Notice
    ) -> None:
        self.product, self.layer = product, layer
        self.begun: Moment | None = None
        self._facts, self._notice = dict(facts or {}), notice
        kept = facts is not None and all(writer.kept for writer in self.writers)
        self._journal = journal_name(product.target) if kept else None
        self._kept: Moment | None = None
        self._last = time.monotonic()
        if facts is not None and not kept:
            notice(f"{product.target}: another run writes it too, or its disk has no locks: killed, this run is lost")

    @property
    def writers(self) -> tuple[SceneWriter, ...]:
        """All there are."""
        return (self.product,) if self.layer is None else (self.product, self.layer)

    def resume(self) -> None:
        """Go on from where the journal says; else start over, and say why. Raises OutputError."""
        if self._journal is None or not self._journal.exists():
            return
        found = journal.load(self._journal)
        if found is None:
            reason = "its journal is damaged"
        elif other := sorted(k for k in {*found.facts, *self._facts} if found.facts.get(k) != self._facts.get(k)):
            reason = f"it was made with other {', '.join(other)}"
        elif not self._go_on(found):
            reason = "its files are not what the journal says"
        else:
            self.begun = self._kept = found
            self._notice(f"going on with an unfinished run from {found.place}")
            return
        journal.remove(self._journal)
        self._notice(f"starting over: there is an unfinished run, but {reason}")

    def commit(self, rows: int, total: int, numbers: Mapping[str, int], pending: NDArray[np.float32]) -> None:
        """At the end of a row of tiles: from here the next run can go on, if the last such place is long enough ago.

        A disk that has no room for the journal ends the journal, not the run. Raises OutputError.
        """
        if self._journal is None or time.monotonic() - self._last < JOURNAL_SECONDS:
            return
        files = tuple(writer.progress() for writer in self.writers)
        moment = Moment(self._facts, rows, total, numbers, pending, files)
        try:
            journal.save(self._journal, moment)
        except OSError as error:
            journal.remove(self._journal)
            self._journal = self._kept = None
            self._notice(f"no journal can be kept ({error.strerror}): killed, this run is lost")
        else:
            self._kept = moment
        self._last = time.monotonic()

    def finish(self) -> None:
        """Complete all files, then give them their names, the product last. Raises OutputError."""
        for writer in self.writers:
            writer.complete()
        placed: list[SceneWriter] = []
        try:
            for writer in reversed(self.writers):
                writer.finish()
                placed.append(writer)
        except BaseException:
            for writer in placed:
                writer.target.unlink(missing_ok=True)
            raise

    def interrupted(self, error: BaseException) -> None:
        """Keep what the next run can go on from, if there is anything, and note in the error that it can."""
        if self._kept is None:
            self.discard()
            return
        for writer in self.writers:
            writer.leave()
        error.add_note(f"run the same command again to go on from {self._kept.place}")

    def discard(self) -> None:
        """Remove all but finished files."""
        if self._journal is not None:
            journal.remove(self._journal)
        for writer in self.writers:
            writer.discard()

    def _go_on(self, found: Moment) -> bool:
        """Bring the files to where they were."""
        pairs = zip(self.writers, found.files, strict=False)
        if len(found.files) == len(self.writers) and all(writer.resume(file) for writer, file in pairs):
            return True
        for writer in self.writers:
            writer.restart()
        return False


def confidence_spec(product: OutputSpec) -> OutputSpec:
    """The confidence layer of a product: one float32 band on its grid, NaN where it is not valid."""
    facts = (BandFacts("confidence", "gray"),)
    return OutputSpec(product.grid, "float32", facts, nodata=float("nan"), rpc=product.rpc, gcps=product.gcps)


def check_beside(path: Path, output: Path, inputs: Iterable[Path], overwrite: bool) -> None:
    """Raise OutputError when a GeoTIFF cannot or should not be written at `path` beside the product `output`."""
    target = check_output(path, inputs, overwrite)
    if target == Path(output).resolve():
        raise OutputError(f"{path}: is the product itself", "give the confidence layer a name of its own")


@contextmanager
def product_writers(
    output: Path,
    spec: OutputSpec,
    confidence: Path | None,
    *,
    inputs: Iterable[Path],
    overwrite: bool,
    facts: Mapping[str, str] | None = None,
    notice: Notice = lambda text: None,
) -> Iterator[Outputs]:
    """Writers of the product and, where a path for it is given, of its confidence layer.

    facts: all that decides the product's bytes, by name; with them the run can be gone on with after it was killed, and
    goes on with one that was. On an error nothing is left; on Ctrl-C or SIGTERM a run that can be gone on with is.
    Both files are complete and checked before the product takes its name; should it fail then, the layer goes too.
    Raises OutputError.
    """
    files, resumable = list(inputs), facts is not None
    product = SceneWriter(output, spec, inputs=files, overwrite=overwrite, resumable=resumable)
    layer = None
    try:
        if confidence is not None:
            layer = SceneWriter(
                confidence, confidence_spec(spec), inputs=files, overwrite=overwrite, resumable=resumable
            )
    except BaseException:
        product.discard()
        raise
    outputs = Outputs(product, layer, facts, notice)
    try:
        outputs.resume()
        yield outputs
        outputs.finish()
    except (KeyboardInterrupt, SystemExit) as error:
        outputs.interrupted(error)
        raise
    except BaseException:
        outputs.discard()
        raise
    outputs.discard()


@dataclass(frozen=True)
class Finished:
    """A finished GeoTIFF: its size in pixels, its bands and its tags."""

    width: int
    height: int
    bands: int
    tags: Mapping[str, str]


def read_finished(path: Path) -> Finished:
    """What a finished GeoTIFF says of itself. Raises RasterError."""
    with reading(path), opening(), rasterio.open(gdal_name(path)) as file:
        return Finished(file.width, file.height, file.count, file.tags())


def remove_unfinished(path: Path) -> None:
    """Remove what killed runs left of the finished product `path`, but not what a living run writes."""
    remove_remains(path.resolve())
    settle(path, None, discard=True)


def unfinished_facts(output: Path) -> Mapping[str, str]:
    """What an unfinished run of this product was made with, by name; nothing where there is none."""
    found = None
    with suppress(OSError, ValueError):  # names that cannot be looked at are refused later, with a reason
        found = journal.load(journal_name(Path(os.path.realpath(output))))
    return found.facts if found is not None else {}


def settle(output: Path, confidence: Path | None, *, discard: bool = False) -> None:
    """Bring to an end what a run that was killed while its files took their names has left; nothing in most cases.

    discard: remove what could be gone on with, too. Files that a living run writes are left alone.
    """
    with suppress(OSError, ValueError):  # names that cannot be looked at are refused later, with a reason
        _settle(output, confidence, discard)


def _settle(output: Path, confidence: Path | None, discard: bool) -> None:
    product = Path(os.path.realpath(output))
    layer = None if confidence is None else Path(os.path.realpath(confidence))
    targets = [product] if layer is None else [product, layer]
    parts = [kept_name(target) for target in targets]
    if any(in_use(part) for part in parts):
        return
    complete = _same(parts[0], product)
    if complete or discard or not parts[0].exists():
        journal.remove(journal_name(product))
    for target, part in zip(targets, parts, strict=True):
        if complete or discard or (_same(part, target) and not parts[0].exists()):
            part.unlink(missing_ok=True)
    if layer is not None and not complete and _same(parts[1], layer):
        layer.unlink()


def _same(part: Path, target: Path) -> bool:
    try:
        return part.samefile(target)
    except OSError:
        return False
