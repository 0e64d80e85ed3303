"""A scene: PAN and MS opened, checked, and related to each other; pixels are read by the window."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import GeometryError, RasterError, UsageError
from pancrafter_cli.geometry.grid import AxisMap, Grid, GridMap, grid_map, overlap
from pancrafter_cli.raster.align import Placement, SceneOptions, overlap_window, place
from pancrafter_cli.raster.dem import Dem
from pancrafter_cli.raster.displacement import Displacement, displacement_reach, moved_pan
from pancrafter_cli.raster.inputs import Block, RasterFile, open_raster
from pancrafter_cli.raster.spec import OutputSpec, as_dtype, with_colours
from pancrafter_cli.raster.stack import BandStack
from pancrafter_cli.raster.statistics import SceneStatistics, measure
from pancrafter_cli.raster.windows import window_of

__all__ = ["Alignment", "Scene", "SceneOptions", "SceneStatistics", "open_scene"]

NO_OPTIONS = SceneOptions()
_REACHED = 1.0  # MS pixels beyond the edge of MS that its outermost pixels stand for
_MOVED_AT_ONCE, _LEAST_ROWS = 2**20, 64  # PAN pixels that are moved at a time, and rows of them


@dataclass(frozen=True)
class Alignment:
    """How MS lies to PAN beyond what the files say: see `Scene.with_shift` and `Scene.with_displacement`."""

    shift: tuple[float, float]
    displacement: Displacement | None


class Scene:
    """One PAN and one MS raster of the same place, on the PAN grid cut to where both lie.

    `grid` is the output grid, `ms_map` takes its pixels to the pixels that `read_ms` counts, `files` are all
    files that reading depends on, `nodata_told` is whether the user says which pixels hold no data, `notices` is what
    people should know of how the files were taken. `shift` (dx, dy) is how far, in MS pixels, MS content is taken to
    lie further right and down than its georeferencing says; see `with_shift`. May be used by several threads; reads
    wait for each other.
    """

    def __init__(
        self, pan: RasterFile, ms: BandStack, options: SceneOptions = NO_OPTIONS, dem: Dem | None = None
    ) -> None:
        self._pan, self._ms = pan, ms
        self._sources = (pan, *ms.sources) if dem is None else (pan, *ms.sources, dem.file)
        self._lock = threading.RLock()
        self._placement: Placement = place(pan, ms, options, dem)
        self._ms_mtf = options.ms_mtf
        self.nodata_told = options.nodata not in (None, "auto")
        top, left, height, width = overlap_window(pan, ms, self._placement)
        self._pan_origin = top, left
        self.grid: Grid = self._placement.pan_grid.window(top, left, height, width)
        self.ms_map: GridMap = grid_map(self.grid, self._placement.grid)
        self.shift = 0.0, 0.0
        self._displacement: Displacement | None = None
        self.ratio = self.ms_map.ratio
        self.bands = ms.bands
        self.dtype = ms.dtype
        self.warped = self._placement.warped
        self.notices = (*self._placement.notices, *dict.fromkeys((*pan.notices, *ms.notices)))
        self.files: tuple[Path, ...] = tuple(f for r in self._sources for f in r.files)
        _share_nodata(pan, ms)
        self.nodata, self.needs_mask = _output_validity(pan, ms, can_be_invalid=self.warped)
        self._nearest = nearest_pixels(self.ms_map.rows), nearest_pixels(self.ms_map.cols)

    @property
    def ms_grid(self) -> Grid:
        """The grid that `read_ms` counts in: that of the MS files, or of MS warped parallel to PAN."""
        return self._placement.grid

    @property
    def pan_grid(self) -> Grid:
        """The grid of the whole PAN file, or of PAN orthorectified."""
        return self._placement.pan_grid

    @property
    def pan_dtype(self) -> str:
        """Number format of PAN."""
        return self._pan.dtype

    @property
    def peaks(self) -> tuple[float | None, float | None]:
        """The greatest DN of PAN and of MS by their metadata, None where these do not tell."""
        known = [file.peak for file in self._ms.sources if file.peak is not None]
        return self._pan.peak, max(known) if len(known) == len(self._ms.sources) else None

    @property
    def metadata(self) -> tuple[str, ...]:
        """The texts in the files' metadata."""
        return tuple(text for file in (self._pan, *self._ms.sources) for text in file.metadata)

    @property
    def output(self) -> OutputSpec:
        """What the product must carry besides its pixels."""
        facts = with_colours(self._ms.facts)
        spec = OutputSpec(self.grid, self.dtype, facts, self.nodata, self.needs_mask, self._ms.sources[0].tags)
        if self._placement.pan is not self._pan:
            return spec  # orthorectified: no pixel is one of PAN any more
        rpc, gcps, origin = self._pan.rpc, self._pan.gcps, self._pan_origin
        return replace(spec, rpc=rpc and rpc.window(*origin), gcps=gcps and gcps.window(*origin))

    @cached_property
    def statistics(self) -> SceneStatistics:
        """Scale, band matching and means of the scene; measured once, from a bounded part of a large scene.

        Raises RasterError when no pixel is valid in both PAN and MS.
        """
        return measure(self, self._ms_mtf)

    def with_shift(self, dx: float, dy: float) -> Scene:
        """The same scene with MS content taken to lie (dx, dy) MS pixels further right and down than the files say.

        It shares the files of this one: closing either closes both. The output grid stays as it is. At its edges,
        pixels up to one MS pixel beyond MS so shifted count as under the MS pixel nearest to them; those further out
        are not valid. Raises GeometryError when none is left under MS.
        """
        relation = grid_map(self.grid, self._placement.grid)
        relation = GridMap(relation.rows.shifted(dy), relation.cols.shifted(dx))
        if any(stop == start for start, stop in (overlap(relation.rows), overlap(relation.cols))):
            raise GeometryError(
                f"MS shifted by {dx:g},{dy:g} MS pixels does not lie on PAN any more",
                "shifts are counted in MS pixels, x to the right and y down",
            )
        moved = copy.copy(self)
        moved.__dict__.pop("statistics", None)
        moved.shift, moved.ms_map = (dx, dy), relation
        moved._nearest = nearest_pixels(relation.rows), nearest_pixels(relation.cols)
        reached = all(within(axis, _REACHED).all() for axis in (relation.rows, relation.cols))
        invalid = self.warped or not reached
        moved.nodata, moved.needs_mask = _output_validity(self._pan, self._ms, can_be_invalid=invalid)
        return moved

    def with_displacement(self, displacement: Displacement) -> Scene:
        """The same scene with PAN moved to where MS shows the same; it shares the files of this one."""
        moved = copy.copy(self)
        moved.__dict__.pop("statistics", None)
        moved._displacement = displacement
        return moved

    @property
    def alignment(self) -> Alignment:
        """How PAN and MS are taken to lie, for a scene that is opened from the same files again."""
        return Alignment(self.shift, self._displacement)

    def aligned(self, alignment: Alignment) -> Scene:
        """The same scene with a shift and a displacement that were found before."""
        again = self.with_shift(*alignment.shift)
        return again if alignment.displacement is None else again.with_displacement(alignment.displacement)

    def read_pan(self, row: int, col: int, height: int, width: int) -> Block:
        """PAN in a window of the output grid: (1, h, w) in DN, 0 where invalid; which are valid (1, h, w).

        Raises RasterError when the file cannot be read and ValueError when the window does not lie inside.
        """
        _check_inside(row, col, height, width, self.grid)
        if self._displacement is None:
            return self._stored_pan(row, col, height, width)
        # Where each pixel comes from takes many times the memory of the pixel.
        step = max(_LEAST_ROWS, _MOVED_AT_ONCE // width)
        strips = [
            self._moved_pan(self._displacement, (start, min(start + step, row + height)), (col, col + width))
            for start in range(row, row + height, step)
        ]
        pan, valid = (np.concatenate(parts, axis=1) for parts in zip(*strips, strict=True))
        return pan, valid

    def _moved_pan(self, displacement: Displacement, rows: tuple[int, int], cols: tuple[int, int]) -> Block:
        by = displacement.at(self.ms_map, rows, cols)
        if not by.any():
            return self._stored_pan(*window_of(rows, cols))
        reach = displacement_reach(self.ratio)
        around = [
            (max(0, start - reach), min(end, stop + reach))
            for (start, stop), end in zip((rows, cols), self.grid.shape, strict=True)
        ]
        inner = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip((rows, cols), around, strict=True))
        return moved_pan(self._stored_pan(*window_of(*around)), (inner[0], inner[1]), by)

    def _stored_pan(self, row: int, col: int, height: int, width: int) -> Block:
        with self._lock:
            return self._placement.pan.read(row + self._pan_origin[0], col + self._pan_origin[1], height, width)

    def read_ms(self, row: int, col: int, height: int, width: int) -> Block:
        """MS in a window of `ms_grid`: (C, h, w) in DN, 0 where invalid, and which are valid (C, h, w).

        Raises RasterError when a file cannot be read and ValueError when the window does not lie inside.
        """
        _check_inside(row, col, height, width, self.ms_grid)
        with self._lock:
            return self._placement.source.read(row, col, height, width)

    def ms_window_under(self, row: int, col: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Window (row, col, height, width) of the MS pixels under a window of the output grid."""
        _check_inside(row, col, height, width, self.grid)
        rows, cols = self._nearest[0][row : row + height], self._nearest[1][col : col + width]
        top, left = int(rows.min()), int(cols.min())
        return top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1

    def window_over(self, row: int, col: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Window (row, col, height, width) of the output pixels whose centres lie in a window of MS pixels.

        Height or width is 0 when there are none.
        """
        top, tall = _run(self._nearest[0], row, row + height)
        left, wide = _run(self._nearest[1], col, col + width)
        return top, left, tall, wide

    def combine_valid(
        self,
        row: int,
        col: int,
        pan_valid: NDArray[np.bool_],
        ms_valid: NDArray[np.bool_],
        ms_row: int,
        ms_col: int,
    ) -> NDArray[np.bool_]:
        """Combine what was read to valid (C, h, w) on the output grid: PAN (1, h, w) at row, col, and MS.

        An output pixel is valid in a band where PAN is and the MS pixel under its centre is; the MS window
        (C, ..., ...), which starts at ms_row, ms_col, must hold all of those (`ms_window_under`).
        """
        height, width = pan_valid.shape[-2:]
        rows = self._nearest[0][row : row + height] - ms_row
        cols = self._nearest[1][col : col + width] - ms_col
        return pan_valid & ms_valid[:, rows[:, None], cols[None, :]] & self._reached(row, col, height, width, _REACHED)

    def valid(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """Which pixels of a window of the output grid are valid, per band: (C, h, w)."""
        window = self.ms_window_under(row, col, height, width)
        pan_valid = self._stored_pan(row, col, height, width)[1]  # moving PAN leaves it
        return self.combine_valid(row, col, pan_valid, self.read_ms(*window)[1], window[0], window[1])

    def covered(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """Which pixels of a window of the output grid lie on MS as it is registered (h, w), not beside it."""
        return self._reached(row, col, height, width, 0.0)

    def _reached(self, row: int, col: int, height: int, width: int, beyond: float) -> NDArray[np.bool_]:
        rows, cols = within(self.ms_map.rows, beyond), within(self.ms_map.cols, beyond)
        return rows[row : row + height, None] & cols[None, col : col + width]

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for file in self._sources:
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_scene(pan: Path, ms: Sequence[Path], options: SceneOptions = NO_OPTIONS) -> Scene:
    """Open PAN and MS (one multi-band file, or files of one grid whose bands are taken in order).

    The scene is a context manager. Raises RasterError for files that cannot serve, GeometryError when they
    cannot be brought onto one grid, and UsageError for options that do not apply.
    """
    if not ms:
        raise UsageError("no MS file is given", "name one multi-band file or several single-band files after PAN")
    with ExitStack() as opened:
        pan_file = open_raster(Path(pan))
        opened.callback(pan_file.close)
        if pan_file.bands != 1:
            raise RasterError(
                f"{pan_file.path}: has {pan_file.bands} bands; expected PAN, which has one",
                "PAN comes first, then MS; a single band is cut out with: gdal_translate -b 1 IN OUT",
            )
        ms_files = []
        for path in ms:
            ms_files.append(open_raster(Path(path)))
            opened.callback(ms_files[-1].close)
        dem = None
        if options.dem is not None:
            dem_file = open_raster(Path(options.dem))
            opened.callback(dem_file.close)
            dem = Dem(dem_file)
        _check_dn([pan_file, *ms_files])
        scene = Scene(pan_file, BandStack(ms_files), options, dem)
        opened.pop_all()
    return scene


def _check_dn(files: Sequence[RasterFile]) -> None:
    """Raise RasterError for a file whose pixels are no measured numbers."""
    for file in files:
        if file.expand is not None:
            raise RasterError(
                f"{file.path}: its pixels are entries of a colour table; expected DN", f"expand it with: {file.expand}"
            )


def nearest_pixels(axis: AxisMap) -> NDArray[np.int64]:
    """For each target pixel of an axis, the source pixel under its centre (target size,)."""
    centres = axis.centres(0, axis.dst_size)
    # A centre on the border of two source pixels goes to the later one, whatever rounding says.
    nearest: NDArray[np.int64] = np.floor(centres + 1e-9).astype(np.int64)
    return nearest.clip(0, axis.src_size - 1)


def within(axis: AxisMap, beyond: float) -> NDArray[np.bool_]:
    """Which target pixels (target size,) are centred in the source, or at most `beyond` source pixels outside it."""
    centres = axis.centres(0, axis.dst_size)
    return np.asarray((centres >= -beyond - 1e-9) & (centres <= axis.src_size + beyond + 1e-9))


def _run(nearest: NDArray[np.int64], start: int, stop: int) -> tuple[int, int]:
    """First index and number of those with start <= nearest < stop; nearest is monotonic."""
    found = np.flatnonzero((nearest >= start) & (nearest < stop))
    return (int(found[0]), len(found)) if len(found) else (0, 0)


def _share_nodata(pan: RasterFile, ms: BandStack) -> None:
    """Apply the nodata of MS to a PAN that says nothing: products ship as pairs with one collar value."""
    values = {value for value in ms.nodata if value is not None}
    if len(values) == 1 and pan.nodata[0] is None and not pan.masked:
        pan.assume_nodata(values.pop())


def _output_validity(pan: RasterFile, ms: BandStack, *, can_be_invalid: bool) -> tuple[float | None, bool]:
    """(nodata in DN or None, whether a mask is needed) of the output.

    MS's own value, else PAN's if the output can hold it, else NaN for float output; integers without any get
    a mask if pixels can be invalid at all, and their least number where masks of MS can differ from band to band: a
    GeoTIFF has one mask for all.
    """
    declared = [value for value in ms.nodata if value is not None]
    declared += [value for value in (as_dtype(v, ms.dtype) for v in pan.nodata if v is not None) if value is not None]
    if declared:
        return declared[0], False
    if np.dtype(ms.dtype).kind == "f":
        return float("nan"), False
    if ms.uneven:
        return float(np.iinfo(ms.dtype).min), False
    by_pan = pan.masked or pan.nodata[0] is not None or pan.dtype.startswith("float")
    return None, can_be_invalid or by_pan or ms.masked


def _check_inside(row: int, col: int, height: int, width: int, grid: Grid) -> None:
    """Check that a window lies inside a grid. Raises ValueError otherwise."""
    if min(row, col) < 0 or min(height, width) < 1 or row + height > grid.height or col + width > grid.width:
        raise ValueError(f"window {(row, col, height, width)} does not lie inside {grid.shape}")
