"""Where MS lies on the PAN grid: read from the files, or told by the user when the files do not say."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from affine import Affine

from pancrafter_cli.errors import GeometryError, UsageError
from pancrafter_cli.geometry.grid import SAME_PLACE, Grid, grid_map, is_axis_aligned, overlap
from pancrafter_cli.raster.crs import crs_name, metres_per_unit, same_crs, uncertainty
from pancrafter_cli.raster.dem import Dem
from pancrafter_cli.raster.inputs import Nodata, RasterFile, tell_nodata
from pancrafter_cli.raster.ortho import Ground, OrthoMap, SensorImage, ortho_grids, ortho_notices
from pancrafter_cli.raster.stack import BandStack, Readable
from pancrafter_cli.raster.turns import turned_to
from pancrafter_cli.raster.warp import WarpedRaster, largest_move, parallel_grid, pixel_map

MIN_RATIO, MAX_RATIO = 1.05, 100.0  # what is read of PAN at a time grows with the ratio
_MIN_IMPLIED_RATIO = 1.5  # below this, sizes alone are no sign of a PAN and MS pair
_SAME_DATUM = 2.0  # metres; WGS 84 itself is known no better, and many datums are taken for it

_LEAST_MTF, _MOST_MTF = 0.05, 0.9


@dataclass(frozen=True)
class SceneOptions:
    """What the user says about the files where they do not, or not rightly.

    `ratio` is MS pixel size / PAN pixel size; `ms_origin` is where the upper-left corner of MS lies, (x, y)
    in PAN pixels from the upper-left corner of PAN; both are for files without georeferencing. `nodata` (DN) takes
    the place of what either file declares; "auto" adds undeclared collars to it (see `collar.Collar`), "declared" is
    that alone, also where the files hold what looks like a fill value. `band_names` names the bands that their files
    do not. `dem` is a raster of heights (metres above the ellipsoid) for files with RPCs, which then place them
    whatever else does. `ms_mtf` is the gain at the MS Nyquist frequency of the blur that takes PAN to MS; None:
    measured on the scene.
    """

    ratio: float | None = None
    ms_origin: tuple[float, float] | None = None
    nodata: Nodata | None = None
    band_names: tuple[str, ...] = ()
    dem: Path | None = None
    ms_mtf: float | None = None

    def __post_init__(self) -> None:
        if self.ms_mtf is not None and not _LEAST_MTF <= self.ms_mtf <= _MOST_MTF:
            raise UsageError(
                f"--ms-mtf {self.ms_mtf:g}: expected a gain of {_LEAST_MTF:g} to {_MOST_MTF:g}",
                "it is what the MTF of MS leaves at its Nyquist frequency, some 0.3; leave it out to have it measured",
            )


def parse_nodata(text: str | None) -> Nodata | None:
    """What `--nodata TEXT` asks for. Raises UsageError when it is neither a number nor `auto`."""
    if text is None:
        return None
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if word == "declared":
        return "declared"
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"--nodata {text!r} is not possible",
            "give a value in DN, nan, auto to find undeclared collars, or declared",
        ) from None


@dataclass(frozen=True)
class Placement:
    """PAN and MS as they are to be read, on parallel grids; `notices` for people.

    `warped` tells whether MS had to be resampled for that.
    """

    pan: Readable
    pan_grid: Grid
    source: Readable
    grid: Grid
    warped: bool = False
    notices: tuple[str, ...] = ()


def place(pan: RasterFile, ms: BandStack, options: SceneOptions, dem: Dem | None = None) -> Placement:
    """Put MS on a grid parallel to the PAN axes; both on grids of the ground where only RPCs tell their place.

    What the options say of nodata and band names is applied first. Raises UsageError for options that do not apply
    and GeometryError when the two cannot be related.
    """
    _tell(pan, ms, options)
    if _by_rpcs(pan, ms, options, dem):
        return _orthorectified(pan, ms, dem)
    _check_orthorectified(pan, ms, options)
    if not pan.placed and not ms.placed:
        if pan.grid.crs_wkt and ms.grid.crs_wkt and not same_crs(pan.grid.crs_wkt, ms.grid.crs_wkt):
            raise GeometryError(
                f"{pan.path} and {ms.path} are in different CRSs, and no transform says where they lie",
                "assign their places: gdal_edit.py -a_ullr ULX ULY LRX LRY FILE",
            )
        return Placement(pan, pan.grid, ms, _told_grid(pan.grid, ms.grid, options))
    if options.ratio is not None or options.ms_origin is not None:
        raise UsageError(
            "--ratio and --ms-origin are for files without georeferencing, and these files have it",
            "leave the options out, or correct the georeferencing (gdal_edit.py)",
        )
    _check_both_say(pan, ms)
    return replace(_placed(pan, ms), notices=_datum_notices(pan.grid, ms.grid))


def overlap_window(pan: RasterFile, ms: BandStack, placement: Placement) -> tuple[int, int, int, int]:
    """(row, column, height, width) of the PAN pixels whose centre lies inside the grid of MS, as both are placed.

    Raises GeometryError when PAN is not finer than MS both ways or far finer, and when there are no such pixels.
    """
    pan_grid, grid = placement.pan_grid, placement.grid
    relation = grid_map(pan_grid, grid)
    steps = [1 / abs(axis.scale) for axis in (relation.rows, relation.cols)]
    if max(steps) > MAX_RATIO:
        raise GeometryError(
            f"an MS pixel is {max(steps):.5g} times as long as a PAN pixel; expected at most {MAX_RATIO:g}",
            "check the geotransforms of both files (gdalinfo shows them)",
        )
    if min(steps) < MIN_RATIO:
        raise GeometryError(
            f"PAN is not finer than MS: the pixel of {pan.path} is {_size(pan_grid)}, "
            f"that of {ms.path} is {_size(grid)}",
            "PAN comes first; the files may be swapped",
        )
    (top, bottom), (left, right) = overlap(relation.rows), overlap(relation.cols)
    if bottom <= top or right <= left:
        raise GeometryError(
            f"PAN and MS do not overlap: {pan.path} covers {_extent(pan_grid)}, {ms.path} {_extent(grid)}",
            "give files of the same place; gdalinfo shows where a file lies",
        )
    return top, left, bottom - top, right - left


def _placed(pan: RasterFile, ms: BandStack) -> Placement:
    """PAN and MS as their transforms and CRSs place them."""
    grid = ms.grid
    if not same_crs(pan.grid.crs_wkt, grid.crs_wkt) and largest_move(pan.grid, grid) > SAME_PLACE:
        return _warp(pan, ms)
    grid = turned_to(replace(grid, crs_wkt=pan.grid.crs_wkt), pan.grid)
    if not is_axis_aligned(pan.grid, grid):
        return _warp(pan, ms)
    return Placement(pan, pan.grid, ms, grid)


def _datum_notices(pan: Grid, ms: Grid) -> tuple[str, ...]:
    """That PAN and MS differ in datum, and PROJ's way between these is less sure than a pixel of MS."""
    if pan.crs_wkt is None or ms.crs_wkt is None or same_crs(pan.crs_wkt, ms.crs_wkt):
        return ()
    found = uncertainty(pan.crs_wkt, ms.crs_wkt, *(pan.transform @ (pan.width / 2, pan.height / 2)))
    pixels = found.metres / (min(ms.pixel_size) * metres_per_unit(ms.crs_wkt))
    if pixels <= 1 or found.metres <= _SAME_DATUM:
        return ()
    better = f"; PROJ lacks {' or '.join(found.missing)}, with which it would be better" if found.missing else ""
    known = (
        f"knows the way between their datums to {found.metres:g} m only, {pixels:.1f} MS pixels"
        if math.isfinite(pixels)
        else "knows no way between their datums and takes them for one"
    )
    return (f"PAN is in {crs_name(pan.crs_wkt)}, MS in {crs_name(ms.crs_wkt)}: PROJ {known}{better}",)


def _warp(pan: RasterFile, ms: BandStack) -> Placement:
    """MS resampled onto axes parallel to those of PAN."""
    grid = parallel_grid(pan.grid, ms.grid)
    return Placement(pan, pan.grid, WarpedRaster(ms, grid, pixel_map(grid, ms.grid)), grid, warped=True)


def _by_rpcs(pan: RasterFile, ms: BandStack, options: SceneOptions, dem: Dem | None) -> bool:
    """Whether RPCs place PAN and MS: both have them, and nothing else does or a DEM is given.

    Raises GeometryError for a DEM and a file without RPCs, and UsageError for options that do not go with it.
    """
    files = [pan, *ms.sources]
    lacking = [file for file in files if file.rpc is None]
    told = options.ratio is not None or options.ms_origin is not None
    if dem is None:
        return not lacking and not told and all(file.orthorectify is not None for file in files)
    if told:
        raise UsageError("--dem and --ratio or --ms-origin exclude each other", "RPCs tell where the files lie")
    if lacking:
        raise GeometryError(
            f"{lacking[0].path} has no RPCs; a DEM is of use only when both PAN and MS have them",
            "leave out --dem, or put the vendor's RPC file beside the image",
        )
    return True


def _orthorectified(pan: RasterFile, ms: BandStack, dem: Dem | None) -> Placement:
    """PAN and MS resampled onto grids of the ground. Raises GeometryError when RPCs or DEM do not allow it."""
    pan_rpc, ms_rpc = pan.rpc, ms.sources[0].rpc
    assert pan_rpc is not None
    assert ms_rpc is not None
    for file in ms.sources[1:]:
        if file.rpc != ms_rpc:
            raise GeometryError(
                f"{file.path}: its RPCs are not those of {ms.path}", "give bands of one camera, or orthorectify them"
            )
    ground = Ground(pan_rpc.height.offset, dem)
    pan_grid, ms_grid = ortho_grids(
        SensorImage(pan_rpc, pan.grid.width, pan.grid.height),
        SensorImage(ms_rpc, ms.grid.width, ms.grid.height),
        ground,
    )
    return Placement(
        WarpedRaster(pan, pan_grid, OrthoMap(pan_grid, pan_rpc, ground)),
        pan_grid,
        WarpedRaster(ms, ms_grid, OrthoMap(ms_grid, ms_rpc, ground)),
        ms_grid,
        warped=True,
        notices=ortho_notices(pan_grid, ground),
    )


def _tell(pan: RasterFile, ms: BandStack, options: SceneOptions) -> None:
    """Apply what the user says of nodata and band names. Raises UsageError for a value that no pixel can have."""
    if options.band_names:
        ms.name_bands(options.band_names)
    tell_nodata(pan, options.nodata)
    tell_nodata(ms, options.nodata)
    told = options.nodata if isinstance(options.nodata, int | float) else None
    if told is not None and all(value is None for value in (*pan.nodata, *ms.nodata)):
        raise UsageError(
            f"--nodata {told:g}: no pixel of {pan.dtype} (PAN) or {ms.dtype} (MS) can have this value",
            "give a value in DN that the files hold (gdalinfo -stats shows their range)",
        )


def _check_orthorectified(pan: RasterFile, ms: BandStack, options: SceneOptions) -> None:
    """Check that no file's place hangs on RPCs or ground control points, unless the user tells where MS lies.

    Raises GeometryError with the command that orthorectifies.
    """
    told = options.ratio is not None or options.ms_origin is not None
    files = [pan, *ms.sources]
    needing = [file for file in files if file.orthorectify is not None]
    if not needing or (told and not pan.placed and not ms.placed):
        return
    also = f" (and {len(needing) - 1} more)" if len(needing) > 1 else ""
    commands = "; ".join(str(file.orthorectify) for file in needing)
    by = "RPCs" if needing[0].rpc is not None else "ground control points"
    without = [file.path for file in files if file.rpc is None]
    lacks = f", and {without[0]} has no RPCs" if by == "RPCs" and without else ""
    raise GeometryError(
        f"{needing[0].path}{also}: {by} tell where it lies and no transform does{lacks}",
        f"orthorectify first, with a DEM of the place or without -to: {commands}",
    )


def _check_both_say(pan: RasterFile, ms: BandStack) -> None:
    """Check that both or neither are georeferenced and have a CRS. Raises GeometryError otherwise."""
    if pan.georeferenced != ms.georeferenced:
        has, lacks = (pan.path, ms.path) if pan.georeferenced else (ms.path, pan.path)
        raise GeometryError(
            f"{lacks} has no georeferencing, while {has} has",
            f"assign its place and CRS: gdal_edit.py -a_srs EPSG:... -a_ullr ULX ULY LRX LRY {lacks}",
        )
    if (pan.grid.crs_wkt is None) != (ms.grid.crs_wkt is None):
        has, lacks = (pan.path, ms.path) if pan.grid.crs_wkt is not None else (ms.path, pan.path)
        raise GeometryError(
            f"{lacks} has no CRS, while {has} has", f"assign it with: gdal_edit.py -a_srs EPSG:... {lacks}"
        )


def _told_grid(pan: Grid, ms: Grid, options: SceneOptions) -> Grid:
    """Make the grid of MS in PAN pixels from the options or, without them, from the sizes alone."""
    ratio, origin = options.ratio, options.ms_origin
    if ratio is not None and not MIN_RATIO <= ratio <= MAX_RATIO:
        raise UsageError(f"--ratio {ratio} is not possible", f"give a number from {MIN_RATIO} to {MAX_RATIO:g}")
    if origin is not None and not all(math.isfinite(v) for v in origin):
        raise UsageError(f"--ms-origin {origin} is not possible", "give two finite numbers, X,Y in PAN pixels")
    steps = (ratio, ratio) if ratio is not None else _implied_steps(pan, ms)
    if steps is None:
        swapped = " (they may be swapped: PAN comes first)" if pan.width < ms.width else ""
        raise GeometryError(
            f"neither file says where it lies, and their sizes do not tell: PAN {pan.width} x {pan.height}, "
            f"MS {ms.width} x {ms.height} pixels{swapped}",
            "give --ratio R and --ms-origin X,Y: the upper-left corner of MS in PAN pixels",
        )
    transform = pan.transform @ Affine.translation(*(origin or (0.0, 0.0))) @ Affine.scale(*steps)
    return Grid(transform, ms.width, ms.height, pan.crs_wkt)


def _implied_steps(pan: Grid, ms: Grid) -> tuple[float, float] | None:
    """MS pixel in PAN pixels (x, y) if both files are of one place and share the corner; None if they cannot.

    A whole ratio that fits both axes within one MS pixel is taken for the true one (a size was rounded);
    otherwise the two files are taken to cover the same area.
    """
    across, down = pan.width / ms.width, pan.height / ms.height
    ratio = math.sqrt(across * down)
    whole = float(round(ratio))
    for step_x, step_y, common in ((whole, whole, whole), (across, down, ratio)):
        if common < _MIN_IMPLIED_RATIO:  # 0 even, when rounded
            continue
        if abs(pan.width / common - ms.width) <= 1 and abs(pan.height / common - ms.height) <= 1:
            return step_x, step_y
    return None


def _size(grid: Grid) -> str:
    """Pixel size in words."""
    return "{:.6g} x {:.6g}".format(*grid.pixel_size)


def _extent(grid: Grid) -> str:
    """Corners in words."""
    corners = [grid.transform @ c for c in ((0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height))]
    x, y = zip(*corners, strict=True)
    return f"x {min(x):.8g} to {max(x):.8g}, y {min(y):.8g} to {max(y):.8g}"
