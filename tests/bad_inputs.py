"""Broken and odd inputs for `sharpen`, each made on the spot, and a child process with limits to run it in.

A row is a generator: it writes its files into a folder and yields what to run. A refused row ends there, an accepted
one is sent the product and checks it.
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import struct
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.geometry.resample import cubic_weights
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions
from tests import pairs
from tests.scene_factory import PAN_TRANSFORM, UTM, FileFacts, ms_transform, smooth_image, write_tif
from tests.scene_factory import write_pair as smooth_pair

SECONDS = 20.0
MEGABYTES = 2048  # of address space, libraries included
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2  # what lets root ignore permissions


@dataclass
class Case:
    """A command line, and the folder in which nothing may appear but the product."""

    pan: Path
    ms: tuple[Path, ...]
    out: Path
    args: tuple[str, ...] = ("--method", "exp")
    file_limit: int | None = None  # bytes

    @property
    def sources(self) -> list[str]:
        return [str(self.pan), *map(str, self.ms)]

    @property
    def arguments(self) -> list[str]:
        return ["sharpen", *self.sources, "-o", str(self.out), *self.args]


@dataclass
class Product:
    """What was written: pixels (C, H, W), validity (C, H, W), and what the file says."""

    image: NDArray[Any]
    valid: NDArray[np.bool_]
    crs: Any
    transform: Affine
    nodata: float | None


Making = Generator[Case, Product, None]


@dataclass(frozen=True)
class Row:
    """A line of the table. said: what the message must match, None where the input is to be accepted."""

    name: str
    make: Callable[[Path], Making]
    said: str | None = None
    code: int = 0


ROWS: list[Row] = []


def refused(said: str, code: int = 1) -> Callable[[Callable[[Path], Making]], Callable[[Path], Making]]:
    def enter(make: Callable[[Path], Making]) -> Callable[[Path], Making]:
        ROWS.append(Row(make.__name__, make, said, code))
        return make

    return enter


def accepted(make: Callable[[Path], Making]) -> Callable[[Path], Making]:
    ROWS.append(Row(make.__name__, make))
    return make


# ---- Running


@dataclass
class Ended:
    """How a run ended; code is negative for a signal and None when it had to be stopped."""

    code: int | None
    out: str
    err: str
    seconds: float


def run_limited(arguments: list[str], logs: Path, *, file_limit: int | None = None) -> Ended:
    """Run `pancrafter` with limited time, memory and (where given) file size, and without root's privileges on files.

    In a fork of a process that has loaded the libraries: its exit code and output are those of the real program,
    without the second that each would take to start.
    """
    context = _server(os.getpid())
    files = logs / "stdout", logs / "stderr"
    began = time.monotonic()
    process = context.Process(target=_child, args=(arguments, *map(str, files), file_limit))
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        return Ended(None, *(f.read_text(errors="replace") for f in files), time.monotonic() - began)
    return Ended(process.exitcode, *(f.read_text(errors="replace") for f in files), time.monotonic() - began)


@functools.cache
def _server(_: int) -> Any:
    context = multiprocessing.get_context("forkserver")
    root = str(Path(__file__).parents[1])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = root if before is None else os.pathsep.join((root, before))
    modules = ("pancrafter_cli.cli.main", "pancrafter_cli.tasks.sharpen", "pancrafter_cli.tasks.inspect", __name__)
    context.set_forkserver_preload(list(modules))
    multiprocessing.forkserver.ensure_running()  # type: ignore[attr-defined]
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    return context


def _child(arguments: list[str], out: str, err: str, file_limit: int | None) -> None:
    import resource

    from pancrafter_cli.cli.main import run

    sys.stdout.flush()
    for number, path in enumerate((out, err), 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (sys.stdout, sys.stderr):  # as in a shell with a UTF-8 locale
        stream.reconfigure(encoding="utf-8", errors="strict" if stream is sys.stdout else "backslashreplace")  # type: ignore[union-attr]
    resource.setrlimit(resource.RLIMIT_AS, (MEGABYTES << 20,) * 2)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit,) * 2)
    obey_permissions()
    sys.argv = ["pancrafter", *arguments]
    run()


def obey_permissions() -> None:
    """Take from a process of root's, for good, what lets it pass over the permissions of files."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    keep = ~((1 << _DAC_OVERRIDE) | (1 << _DAC_READ_SEARCH)) & 0xFFFFFFFF
    for word in range(3):  # effective, permitted, inheritable
        data[word] &= keep
    libc.capset(header, data)


# ---- Building blocks


def pair(folder: Path, *, args: tuple[str, ...] = ("--method", "exp"), **options: Any) -> Case:
    """A sound pair of 32 x 40 and 8 x 10 pixels, three bands, to be spoilt."""
    made = smooth_pair(folder, **options)
    (folder / "out").mkdir(exist_ok=True)
    return Case(made.pan, (made.ms,), folder / "out" / "sharp.tif", args)


def blocked(folder: Path, **options: Any) -> Case:
    """A larger pair in compressed tiles of 64 pixels: 256 x 256 and 128 x 128."""
    made = pair(folder)
    rng = np.random.default_rng(0)
    facts: dict[str, Any] = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"} | options
    write_tif(made.pan, rng.integers(1, 999, (1, 256, 256)).astype("uint16"), FileFacts(options=facts))
    ms = rng.integers(1, 999, (3, 128, 128)).astype("uint16")
    write_tif(made.ms[0], ms, FileFacts(transform=ms_transform(2), options=facts))
    return made


def rewrite(path: Path, change: Callable[[NDArray[Any]], Any]) -> None:
    """Change the pixels (C, h, w) of a file in place."""
    with rasterio.open(path, "r+") as file:
        image = file.read()
        change(image)
        file.write(image)


def cut(path: Path, keep: float) -> None:
    """Keep the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def interpolated(case: Case) -> NDArray[np.float64]:
    """What plain interpolation makes of the 8 x 10 MS pixels under 32 x 40 PAN pixels."""
    down, across = (cubic_weights(AxisMap(0.25, 0.0, 4 * n, n), 0, 4 * n).matrix for n in (8, 10))
    return down @ read(case.ms[0]).astype(float) @ across.T


def sharpened(case: Case) -> NDArray[Any]:
    """The product of a case as it is now, made in this process; nothing of it stays."""
    out = case.out.with_name("reference.tif")
    sharpen_scene(SharpenOptions(pan=case.pan, ms=case.ms, output=out, method=case.args[1]))
    image = read(out)
    out.unlink()
    return image


def floats(folder: Path, **options: Any) -> Case:
    return pair(folder, dtype="float32", **options)


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as file:
        return file.read()


def stored_image(width: int, height: int, entries: dict[int, tuple[int, int]] | None = None) -> bytes:
    """The bytes of a little TIFF of one 8-bit band that claims width x height pixels and holds none of them."""
    tags: dict[int, tuple[int, int]] = {
        256: (4, width),
        257: (4, height),
        258: (3, 8),
        259: (3, 1),
        262: (3, 1),
        273: (4, 400),
        277: (3, 1),
        278: (4, height),
        279: (4, min(width * height, 2**32 - 1)),
    } | (entries or {})
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + body + b"\0" * 4


def vrt(path: Path, source: Path, *, transform: str | None = None, size: tuple[int, int] = (40, 32)) -> Path:
    """A VRT of one band over a file."""
    place = "" if transform is None else f"<SRS>{UTM}</SRS><GeoTransform>{transform}</GeoTransform>"
    path.write_text(
        f'<VRTDataset rasterXSize="{size[0]}" rasterYSize="{size[1]}">{place}'
        f'<VRTRasterBand dataType="UInt16" band="1"><SimpleSource><SourceFilename relativeToVRT="0">{source}'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


def both_in(folder: Path, crs: Any, **options: Any) -> Case:
    """A pair in one CRS."""
    return pair(folder, pan=FileFacts(crs=crs), ms=FileFacts(crs=crs, transform=ms_transform(4)), **options)


def placed(folder: Path, ratio: float, shift: tuple[float, float] = (0.0, 0.0), **options: Any) -> Case:
    """A pair whose MS is said to lie at another ratio or place."""
    return pair(folder, ms=FileFacts(transform=ms_transform(ratio, shift)), **options)


# ---- Files that cannot be read


@refused("pan.tif: no such file")
def pan_missing(folder: Path) -> Making:
    case = pair(folder)
    case.pan.unlink()
    yield case


@refused("ms.tif: no such file")
def ms_missing(folder: Path) -> Making:
    case = pair(folder)
    case.ms[0].unlink()
    yield case


@refused("out is a folder and .*ms.tif is not", 2)
def pan_is_a_folder(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, pan=folder / "out")


@refused("expected PAN and MS", 2)
def pan_alone(folder: Path) -> Making:
    yield replace(pair(folder), ms=())


@refused("holds no files within 3 levels of folders")
def a_folder_of_nothing(folder: Path) -> Making:
    yield replace(pair(folder), pan=folder / "out", ms=())


@accepted
def a_folder_that_links_to_itself(folder: Path) -> Making:
    case = pair(folder)
    (folder / "deeper").symlink_to(folder)
    product = yield replace(case, pan=folder, ms=())
    assert (product.image == np.rint(interpolated(case))).mean() > 0.99


@refused("pan.tif: is empty")
def pan_of_no_bytes(folder: Path) -> Making:
    case = pair(folder)
    case.pan.write_bytes(b"")
    yield case


@refused("ms.tif: is not a raster")
def ms_is_text(folder: Path) -> Making:
    case = pair(folder)
    case.ms[0].write_text("P" * 5000)
    yield case


@refused("pan.tif: is not a raster")
def pan_of_noise_behind_a_tiff_signature(folder: Path) -> Making:
    case = pair(folder)
    case.pan.write_bytes(b"II*\0\x08\0\0\0" + np.random.default_rng(1).bytes(4000))
    yield case


@refused("pan.tif: cannot be read")
def pan_cut_in_a_tile(folder: Path) -> Making:
    case = blocked(folder)
    cut(case.pan, 0.6)
    yield case


@refused("ms.tif: cannot be read")
def ms_cut_in_a_tile(folder: Path) -> Making:
    case = blocked(folder)
    cut(case.ms[0], 0.6)
    yield case


@refused("ms.tif: cannot be read")
def ms_cut_in_plain_strips(folder: Path) -> Making:
    case = blocked(folder, tiled=False, compress="none")
    cut(case.ms[0], 0.5)
    yield case


@refused("pan.tif: (is not a raster|cannot be read)")
def pan_cut_in_its_header(folder: Path) -> Making:
    case = blocked(folder)
    cut(case.pan, 200 / case.pan.stat().st_size)
    yield case


@refused("pan.tif: cannot be read")
def pan_with_a_damaged_tile(folder: Path) -> Making:
    case = blocked(folder)
    data = bytearray(case.pan.read_bytes())
    half = len(data) // 2
    data[half : half + 200] = b"\xff" * 200
    case.pan.write_bytes(data)
    yield case


@refused("pan.tif: (no such file|.*symbolic links)")
def pan_is_a_loop_of_links(folder: Path) -> Making:
    case = pair(folder)
    case.pan.unlink()
    (folder / "other.tif").symlink_to(case.pan)
    case.pan.symlink_to(folder / "other.tif")
    yield case


@refused("ms.tif: no such file")
def ms_is_a_link_to_nothing(folder: Path) -> Making:
    case = pair(folder)
    case.ms[0].unlink()
    case.ms[0].symlink_to(folder / "none.tif")
    yield case


@refused("pan.tif: .*(Permission denied|not a raster)")
def pan_without_permission(folder: Path) -> Making:
    case = pair(folder)
    case.pan.chmod(0)
    yield case


@refused("pan.tif: .*(Permission denied|no such file|cannot be read)")
def pan_in_a_folder_without_permission(folder: Path) -> Making:
    case = pair(folder)
    (folder / "closed").mkdir()
    case.pan.rename(folder / "closed" / "pan.tif")
    (folder / "closed").chmod(0)
    yield replace(case, pan=folder / "closed" / "pan.tif")


@refused("pan.tif: is not a (regular )?file")
def pan_is_a_pipe_nobody_writes_to(folder: Path) -> Making:
    case = pair(folder)
    case.pan.unlink()
    os.mkfifo(case.pan)
    yield case


@refused("(is not a (regular )?file|is not a raster)")
def pan_is_a_device(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, pan=Path("/dev/zero"))


@refused("none.tif: (is not a raster|cannot be opened)")
def pan_in_an_empty_file_system_of_gdal(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, pan=Path("/vsimem/none.tif"))


@refused("pan.tif: (is not a raster|cannot be read|has no pixels)")
def pan_of_no_width(folder: Path) -> Making:
    case = pair(folder)
    case.pan.write_bytes(stored_image(0, 32))
    yield case


def claims(folder: Path, **options: Any) -> Case:
    """A pair without CRS whose PAN is placed by a file beside it, so that its pixels come to be read."""
    case = both_in(folder, None, **options)
    (folder / "pan.tfw").write_text("0.5\n0\n0\n-0.5\n500000.25\n5699999.75\n")
    return case


@refused("pan.tif: (cannot be read|is not a raster|claims)")
def pan_that_claims_a_million_squared_without_data(folder: Path) -> Making:
    case = claims(folder)
    case.pan.write_bytes(stored_image(1_000_000, 1_000_000))
    yield case


@refused("pan.tif: (cannot be read|is not a raster|claims)")
def pan_that_claims_a_hundred_thousand_rows_in_a_strip(folder: Path) -> Making:
    case = claims(folder)
    case.pan.write_bytes(stored_image(40_000, 100_000))
    yield case


@refused("pan.tif: (cannot be read|is not a raster|claims)")
def pan_that_claims_tiles_without_an_index(folder: Path) -> Making:
    case = claims(folder)
    tiles = {322: (3, 256), 323: (3, 256), 324: (4, 500), 325: (4, 500)}
    case.pan.write_bytes(stored_image(1_000_000, 1_000_000, tiles))
    yield case


@refused("sizes do not tell")
def ms_that_claims_the_largest_size_there_is(folder: Path) -> Making:
    case = pair(folder, pan=FileFacts(transform=None))
    case.ms[0].write_bytes(stored_image(2**31 - 1, 1))
    yield case


@refused("pan.tif: |sizes do not tell")
def pan_whose_directory_follows_itself(folder: Path) -> Making:
    case = pair(folder, pan=FileFacts(transform=None), ms=FileFacts(transform=None))
    data = bytearray(stored_image(40, 32))
    data[-4:] = struct.pack("<I", 8)
    case.pan.write_bytes(data)
    yield case


@refused("pan.vrt: ")
def pan_is_a_vrt_of_itself(folder: Path) -> Making:
    case = pair(folder)
    transform = ", ".join(map(str, PAN_TRANSFORM.to_gdal()))
    yield replace(case, pan=vrt(folder / "pan.vrt", folder / "pan.vrt", transform=transform))


@refused("pan.vrt: cannot be read")
def pan_is_a_vrt_of_nothing(folder: Path) -> Making:
    case = pair(folder)
    transform = ", ".join(map(str, PAN_TRANSFORM.to_gdal()))
    yield replace(case, pan=vrt(folder / "pan.vrt", folder / "none.tif", transform=transform))


# ---- Kinds of numbers


@refused("complex")
def pan_of_complex_numbers(folder: Path) -> Making:
    case = pair(folder)
    write_tif(case.pan, np.ones((1, 32, 40), "complex64"))
    yield case


@refused("dtype uint32 is not supported")
def ms_of_uint32(folder: Path) -> Making:
    yield pair(folder, dtype="uint32")


@refused("dtype is float32, expected uint16")
def ms_files_of_two_dtypes(folder: Path) -> Making:
    case = pair(folder)
    other = write_tif(folder / "b2.tif", read(case.ms[0]).astype("float32"), FileFacts(transform=ms_transform(4)))
    yield replace(case, ms=(*case.ms, other))


@refused("6 x 10 pixels|10 x 6 pixels")
def ms_files_of_two_sizes(folder: Path) -> Making:
    case = pair(folder)
    other = write_tif(folder / "b2.tif", read(case.ms[0])[:, :6], FileFacts(transform=ms_transform(4)))
    yield replace(case, ms=(*case.ms, other))


@accepted
def pan_of_one_bit(folder: Path) -> Making:
    case = pair(folder, dtype="uint8")
    write_tif(case.pan, np.indices((32, 40)).sum(0, keepdims=True).astype("uint8") % 2, FileFacts(options={"nbits": 1}))
    product = yield replace(case, args=("--method", "gsa"))
    assert product.valid.all()


@accepted
def ms_of_negative_int16(folder: Path) -> Making:
    case = pair(folder, dtype="int16")
    rewrite(case.ms[0], lambda image: np.subtract(image, 2000, out=image))
    product = yield case
    assert (product.image < -900).all()


# ---- Places


@refused("has 3 bands; expected PAN")
def swapped(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, pan=case.ms[0], ms=(case.pan,))


@refused("PAN is not finer than MS")
def swapped_with_one_band(folder: Path) -> Making:
    case = pair(folder, bands=1)
    yield replace(case, pan=case.ms[0], ms=(case.pan,))


@refused("PAN is not finer than MS")
def pan_given_twice(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, ms=(case.pan,))


@refused("PAN is not finer than MS")
def ms_at_the_resolution_of_pan(folder: Path) -> Making:
    yield pair(folder, ratio=1)


@refused("PAN is not finer than MS")
def ratio_of_1_02(folder: Path) -> Making:
    yield placed(folder, 1.02)


@refused("1000 times as long as a PAN pixel")
def ratio_of_a_thousand(folder: Path) -> Making:
    yield placed(folder, 1000, args=("--method", "gsa"))


@refused("10000 times as long as a PAN pixel")
def ratio_of_four_on_the_whole(folder: Path) -> Making:
    place = PAN_TRANSFORM @ Affine.scale(10_000, 0.0016)
    yield pair(folder, ms=FileFacts(transform=place), args=("--method", "gsa"))


@refused("--ratio .* is not possible", 2)
def ratio_told_to_be_a_billion(folder: Path) -> Making:
    facts = FileFacts(transform=None)
    yield pair(folder, pan=facts, ms=facts, args=("--method", "exp", "--ratio", "1e9"))


@accepted
def ratio_of_1_1(folder: Path) -> Making:
    product = yield placed(folder, 1.1, size=(32, 40))
    assert product.image.shape == (3, 9, 11)  # what 8 x 10 MS pixels cover


@accepted
def ms_of_one_pixel(folder: Path) -> Making:
    case = pair(folder, size=(32, 32), ratio=32)
    product = yield case
    assert (product.image == read(case.ms[0])).all()


@accepted
def pan_of_one_pixel(folder: Path) -> Making:
    case = pair(folder)
    write_tif(case.pan, np.full((1, 1, 1), 7, "uint16"))
    product = yield case
    assert product.image.shape == (3, 1, 1)
    assert np.abs(product.image - interpolated(case)[:, :1, :1]).max() <= 0.51


@refused("only 1 pixels of MS are valid")
def ms_of_one_pixel_for_a_fitted_method(folder: Path) -> Making:
    yield pair(folder, size=(32, 32), ratio=32, args=("--method", "gsa"))


@refused("do not overlap")
def geotransform_off_by_a_kilometre(folder: Path) -> Making:
    yield placed(folder, 4, (2000, 0))


@refused("MS lies .* from where its georeferencing puts it|MS lies elsewhere")
def geotransform_off_by_twenty_metres_within_the_scene(folder: Path) -> Making:
    case = pair(folder)
    pairs.write_pair(folder, seed=2, pan_size=512, ratio=4, bands=3)
    with rasterio.open(case.ms[0], "r+") as file:
        file.transform = Affine.translation(20, 0) @ file.transform
    yield case


@refused("do not overlap")
def ms_that_only_touches_pan(folder: Path) -> Making:
    yield placed(folder, 4, (40, 0))


@accepted
def ms_that_covers_one_column_of_pan(folder: Path) -> Making:
    product = yield placed(folder, 4, (39, 0))
    assert product.image.shape == (3, 32, 1)
    assert product.transform.c == PAN_TRANSFORM.c + 39 * 0.5


@refused("pixels without area|geotransform")
def geotransform_of_zeros(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, pan=vrt(folder / "pan.vrt", case.pan, transform="5e5, 0, 0, 5.7e6, 0, 0"))


@refused("geotransform|not a raster")
def geotransform_of_nan(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, pan=vrt(folder / "pan.vrt", case.pan, transform="nan, nan, 0, 5.7e6, 0, nan"))


@refused("do not overlap|cannot be transformed|finer")
def geotransform_of_astronomic_size(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, pan=vrt(folder / "pan.vrt", case.pan, transform="1e300, 1e290, 0, -1e300, 0, -1e290"))


@refused("times as long")
def geotransform_of_vanishing_pixels(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, pan=vrt(folder / "pan.vrt", case.pan, transform="5e5, 1e-160, 0, 5.7e6, 0, -1e-160"))


@refused("times as long")
def ms_geotransform_of_the_largest_numbers(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, ms=(vrt(folder / "ms.vrt", case.ms[0], transform="5e5, 1e200, 0, 5.7e6, 0, -1e100"),))


@accepted
def crs_without_epsg(folder: Path) -> Making:
    crs = CRS.from_proj4("+proj=laea +lat_0=10 +lon_0=20 +x_0=500000 +y_0=5700000 +ellps=bessel +units=m +no_defs")
    product = yield both_in(folder, crs)
    assert product.crs == crs
    assert product.image.shape == (3, 32, 40)


ENGINEERING = 'LOCAL_CS["site grid",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'


@accepted
def engineering_crs(folder: Path) -> Making:
    product = yield both_in(folder, CRS.from_wkt(ENGINEERING))
    assert "site grid" in product.crs.to_wkt()
    assert product.image.shape == (3, 32, 40)


@refused("cannot be transformed|no way|CRS")
def engineering_crs_on_one_side(folder: Path) -> Making:
    yield pair(folder, pan=FileFacts(crs=CRS.from_wkt(ENGINEERING)))


@refused("cannot be transformed|CRS|celestial|do not overlap")
def pan_on_the_moon(folder: Path) -> Making:
    moon = CRS.from_proj4("+proj=eqc +R=1737400 +units=m +no_defs")
    yield pair(folder, pan=FileFacts(crs=moon))


@accepted
def compound_crs_on_one_side(folder: Path) -> Making:
    product = yield pair(folder, pan=FileFacts(crs=CRS.from_user_input("EPSG:32631+5773")))
    assert product.valid.all()


@accepted
def ms_in_degrees(folder: Path) -> Making:
    case = pair(folder, pan=FileFacts(crs=UTM))
    with rasterio.open(case.pan) as file:
        from rasterio.warp import transform_bounds

        west, south, east, north = transform_bounds(UTM, "EPSG:4326", *file.bounds)
    place = Affine((east - west) / 10, 0, west, 0, -(north - south) / 8, north)
    write_tif(case.ms[0], np.full((3, 8, 10), 300, "uint16"), FileFacts(crs="EPSG:4326", transform=place))
    product = yield case
    assert product.crs == UTM
    assert (product.image[product.valid] == 300).all()
    assert product.valid.mean() > 0.9


@refused("pan.tif has no CRS")
def pan_without_crs(folder: Path) -> Making:
    yield pair(folder, pan=FileFacts(crs=None))


@refused("ms.tif has no georeferencing")
def ms_without_place(folder: Path) -> Making:
    yield pair(folder, ms=FileFacts(transform=None))


@accepted
def no_place_at_all_but_sizes_that_tell(folder: Path) -> Making:
    product = yield pair(folder, pan=FileFacts(transform=None), ms=FileFacts(transform=None))
    assert product.crs is None
    assert product.image.shape == (3, 32, 40)


@refused("sizes do not tell")
def no_place_at_all_and_sizes_that_do_not_tell(folder: Path) -> Making:
    case = pair(folder, pan=FileFacts(transform=None), ms=FileFacts(transform=None))
    write_tif(case.ms[0], smooth_image(3, 7, 31).astype("uint16"), FileFacts(transform=None))
    yield case


# ---- Pixels


@accepted
def nan_rows_in_pan(folder: Path) -> Making:
    case = floats(folder)
    rewrite(case.pan, lambda image: image[:, 8:12].fill(np.nan))
    product = yield replace(case, args=("--method", "gsa"))
    assert np.isnan(product.image[:, 8:12]).all()
    assert np.isfinite(np.delete(product.image, np.s_[8:12], axis=1)).all()


@accepted
def nan_rows_in_ms(folder: Path) -> Making:
    case = floats(folder)
    rewrite(case.ms[0], lambda image: image[:, 2:4].fill(np.nan))
    product = yield replace(case, args=("--method", "gsa"))
    assert np.isnan(product.image[:, 8:16]).all()
    assert np.isfinite(np.delete(product.image, np.s_[8:16], axis=1)).all()


@accepted
def infinite_values_in_one_band(folder: Path) -> Making:
    case = floats(folder)

    def spoil(image: NDArray[Any]) -> None:
        image[1, 3, 4], image[1, 5, 5] = np.inf, -np.inf

    rewrite(case.ms[0], spoil)
    product = yield case
    assert (~product.valid).sum(axis=(1, 2)).tolist() == [0, 32, 0]
    assert np.isfinite(product.image[product.valid]).all()


@refused("no pixel is valid")
def pan_of_nan_only(folder: Path) -> Making:
    case = floats(folder)
    rewrite(case.pan, lambda image: image.fill(np.nan))
    yield case


@accepted
def constant_pan(folder: Path) -> Making:
    case = pair(folder, args=("--method", "gsa"))
    rewrite(case.pan, lambda image: image.fill(500))
    product = yield case
    assert np.abs(product.image - interpolated(case)).max() <= 0.51  # there is no detail to inject


@accepted
def constant_pan_and_ms(folder: Path) -> Making:
    case = pair(folder, args=("--method", "mtf-glp-fs"))
    for path in (case.pan, *case.ms):
        rewrite(path, lambda image: image.fill(500))
    product = yield case
    assert (product.image == 500).all()


@accepted
def black_ms(folder: Path) -> Making:
    case = pair(folder, args=("--method", "brovey"))
    rewrite(case.ms[0], lambda image: image.fill(0))
    product = yield case
    assert (product.image == 0).all()


@accepted
def saturated_pan(folder: Path) -> Making:
    case = pair(folder, args=("--method", "gsa"))
    rewrite(case.pan, lambda image: image.fill(65535))
    product = yield case
    assert product.valid.all()
    assert np.abs(product.image - interpolated(case)).max() <= 0.51


@refused("no pixel is valid")
def saturated_pan_whose_nodata_that_is(folder: Path) -> Making:
    case = pair(folder, pan=FileFacts(nodata=65535))
    rewrite(case.pan, lambda image: image.fill(65535))
    yield case


@refused("no pixel is valid")
def ms_of_nodata_only(folder: Path) -> Making:
    case = pair(folder, ms=FileFacts(transform=ms_transform(4), nodata=0))
    rewrite(case.ms[0], lambda image: image.fill(0))
    yield case


@accepted
def nodata_that_no_pixel_can_have(folder: Path) -> Making:
    case = pair(folder, dtype="uint8", ms=FileFacts(transform=ms_transform(4)))
    (folder / "ms.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>-9999.5</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    product = yield case
    assert product.valid.all()


@accepted
def floats_as_large_as_they_go(folder: Path) -> Making:
    case = floats(folder)
    for path in (case.pan, *case.ms):
        rewrite(path, lambda image: np.multiply(image, 3e35, out=image))
    product = yield case
    np.testing.assert_allclose(product.image, interpolated(case), rtol=1e-4)


@refused("not finite|overflow")
def floats_that_overflow_on_the_way(folder: Path) -> Making:
    case = floats(folder, args=("--method", "gsa"))
    rewrite(case.ms[0], lambda image: np.multiply(image, 3.7e35, out=image))
    rewrite(case.pan, lambda image: image.__imul__(np.float32(1e-3)))
    yield case


@accepted
def large_floats_through_a_fitted_method(folder: Path) -> Making:
    case = floats(folder, args=("--method", "gsa"))
    plain = sharpened(case)
    for path in (case.pan, *case.ms):
        rewrite(path, lambda image: np.multiply(image, 1e30, out=image))
    product = yield case
    np.testing.assert_allclose(product.image, plain * 1e30, rtol=1e-3)


@accepted
def floats_far_below_one(folder: Path) -> Making:
    case = floats(folder, args=("--method", "gsa"))
    plain = sharpened(case)
    for path in (case.pan, *case.ms):
        rewrite(path, lambda image: np.multiply(image, 1e-15, out=image))
    product = yield case
    np.testing.assert_allclose(product.image, plain * 1e-15, rtol=1e-3)


@accepted
def duplicate_bands(folder: Path) -> Making:
    case = pair(folder, args=("--method", "gsa"))
    pairs.write_pair(folder, seed=2, pan_size=64, ratio=4, bands=1)
    single = sharpened(case)
    write_tif(case.ms[0], np.repeat(read(case.ms[0]), 3, axis=0), FileFacts(transform=ms_transform(4)))
    product = yield case
    assert (product.image == single).all()


@accepted
def one_file_given_twice(folder: Path) -> Making:
    case = pair(folder)
    product = yield replace(case, ms=case.ms * 2)  # with a warning, which test_sharpen looks at
    assert (product.image[:3] == product.image[3:]).all()


@refused("40000 bands")
def forty_thousand_bands(folder: Path) -> Making:
    case = claims(folder, size=(8, 8))
    header = stored_image(2, 2, {277: (3, 40_000), 279: (4, 160_000), 284: (3, 1)})
    case.ms[0].write_bytes(header.ljust(400, b"\0") + b"\x09" * 160_000)
    (folder / "ms.tfw").write_text("2\n0\n0\n-2\n500001\n5699999\n")
    yield case


@accepted
def three_hundred_bands(folder: Path) -> Making:
    case = pair(folder, bands=300)
    product = yield case
    assert product.image.shape == (300, 32, 40)


@accepted
def a_pixel_valid_in_ms_only_where_pan_is_not(folder: Path) -> Making:
    case = pair(folder, pan=FileFacts(nodata=0), ms=FileFacts(transform=ms_transform(4), nodata=0))
    rewrite(case.pan, lambda image: image[:, :16].fill(0))
    rewrite(case.ms[0], lambda image: image[:, 5:].fill(0))
    product = yield case
    assert product.valid[:, 16:20].all()
    assert product.valid.sum() == 3 * 4 * 40


# ---- What lies beside and inside the files


@accepted
def mask_of_another_size(folder: Path) -> Making:
    case = pair(folder)
    write_tif(folder / "pan.tif.msk", np.zeros((1, 5, 5), "uint8"), FileFacts(transform=None))
    product = yield case
    assert product.image.shape == (3, 32, 40)


@refused("no pixel is valid")
def mask_that_allows_nothing(folder: Path) -> Making:
    yield pair(folder, pan=FileFacts(mask=np.zeros((32, 40), bool)))


@accepted
def broken_xml_beside_pan(folder: Path) -> Making:
    case = pair(folder)
    (folder / "pan.tif.aux.xml").write_text("<PAMDataset><PAMRaster")
    product = yield case
    assert product.valid.all()


@accepted
def broken_overviews_beside_ms(folder: Path) -> Making:
    case = pair(folder)
    (folder / "ms.tif.ovr").write_bytes(b"II*\0" + b"\xff" * 100)
    product = yield case
    assert product.valid.all()


@accepted
def world_file_that_contradicts(folder: Path) -> Making:
    case = pair(folder)
    (folder / "pan.tfw").write_text("9\n0\n0\n-9\n0\n0\n")
    product = yield case
    assert product.transform == PAN_TRANSFORM


@accepted
def band_names_in_two_lines_and_scripts(folder: Path) -> Making:
    names = ["red\nor so", "\u7eff\u8272", "b" * 5000]
    product = yield pair(folder, ms=FileFacts(transform=ms_transform(4), descriptions=names))
    assert product.image.shape == (3, 32, 40)


@accepted
def texts_that_are_not_utf8(folder: Path) -> Making:
    case = pair(folder)
    with rasterio.open(case.pan, "r+") as file:
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION="R1eseau", TIFFTAG_ARTIST="Q1uebec")
    data = case.pan.read_bytes()
    assert data.count(b"R1eseau") == 1
    case.pan.write_bytes(data.replace(b"R1eseau", b"R\xe9eseau").replace(b"Q1uebec", b"Q\xe9uebec"))
    product = yield case
    assert product.valid.all()


@accepted
def scale_of_nan_and_zero(folder: Path) -> Making:
    facts = FileFacts(transform=ms_transform(4), scales=[0.0, float("nan"), 1.0], offsets=[0.0, 0.0, float("inf")])
    product = yield pair(folder, ms=facts)
    assert product.valid.all()


# ---- Names


@accepted
def spaces_and_unicode_in_names(folder: Path) -> Making:
    inside = folder / "a b \u00fc \u5317\u4eac '\"$(x)"
    inside.mkdir()
    product = yield pair(inside)
    assert product.valid.all()


@accepted
def names_that_look_like_flags_and_patterns(folder: Path) -> Making:
    inside = folder / "-o [1] %d *?"
    inside.mkdir()
    product = yield pair(inside)
    assert product.valid.all()


@accepted
def names_with_a_line_end(folder: Path) -> Making:
    inside = folder / "two\nlines"
    inside.mkdir()
    product = yield pair(inside)
    assert product.valid.all()


@refused("no such file")
def missing_file_with_a_line_end(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, pan=folder / "two\nhint: lines.tif")


@refused("name|UTF-8")
def names_that_are_not_utf8(folder: Path) -> Making:
    case = pair(folder)
    name = folder / os.fsdecode(b"pan\xff.tif")
    case.pan.rename(name)
    yield replace(case, pan=name)


@refused("name|UTF-8")
def output_name_that_is_not_utf8(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, out=folder / "out" / os.fsdecode(b"sharp\xff.tif"))


@refused("name too long", 1)
def input_name_of_a_thousand_letters(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, pan=folder / ("x" * 1000 + ".tif"))


@refused("(?i)name too long", 1)
def output_name_of_a_thousand_letters(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, out=folder / "out" / ("x" * 1000 + ".tif"))


@refused("outputs are local files")
def output_in_a_bucket(folder: Path) -> Making:
    yield replace(pair(folder), out=Path("s3://bucket/sharp.tif"))


@refused("outputs are local files")
def output_in_a_file_system_of_gdal(folder: Path) -> Making:
    yield replace(pair(folder), out=Path("/vsimem/sharp.tif"))


@accepted
def output_name_as_long_as_names_go(folder: Path) -> Making:
    case = pair(folder)
    product = yield replace(case, out=folder / "out" / ("\U0001f6f0" * 62 + ".tif"))  # 252 bytes
    assert product.valid.all()


# ---- Places to write to; what lies above is about the sources, and matters to `inspect` too

SOURCE_ROWS = tuple(ROWS)


@refused("has no RPCs")
def dem_for_files_without_rpcs(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, args=("--method", "exp", "--dem", str(case.pan)))


@refused("is a folder")
def output_is_a_folder(folder: Path) -> Making:
    case = pair(folder)
    case.out.mkdir()
    yield case


@refused("ends in|GeoTIFF")
def output_is_no_tif(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, out=folder / "out" / "sharp.png")


@refused("no folder")
def output_in_no_folder(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, out=folder / "out" / "none" / "sharp.tif")


@refused("no folder")
def output_below_a_file(folder: Path) -> Making:
    case = pair(folder)
    yield replace(case, out=case.pan / "sharp.tif")


@refused("cannot be written to")
def output_in_a_read_only_folder(folder: Path) -> Making:
    case = pair(folder)
    case.out.parent.chmod(0o555)
    yield case


@refused("cannot be|Permission")
def output_in_a_folder_without_permission(folder: Path) -> Making:
    case = pair(folder)
    case.out.parent.chmod(0)
    yield case


@refused("exists already")
def output_exists(folder: Path) -> Making:
    case = pair(folder)
    case.out.write_bytes(b"precious")
    yield case


@refused("is one of the inputs")
def output_is_ms(folder: Path) -> Making:
    case = pair(folder, args=("--method", "exp", "--overwrite"))
    yield replace(case, out=case.ms[0])


@refused("is one of the inputs")
def output_is_a_hard_link_to_pan(folder: Path) -> Making:
    case = pair(folder, args=("--method", "exp", "--overwrite"))
    case.out.hardlink_to(case.pan)
    yield case


@refused("is one of the inputs")
def output_is_a_link_to_ms(folder: Path) -> Making:
    case = pair(folder, args=("--method", "exp", "--overwrite"))
    case.out.symlink_to(case.ms[0])
    yield case


@refused("loop")
def output_is_a_loop_of_links(folder: Path) -> Making:
    case = pair(folder)
    other = case.out.with_name("other.tif")
    case.out.symlink_to(other)
    other.symlink_to(case.out)
    yield case


@refused("cannot be written")
def output_larger_than_files_may_be(folder: Path) -> Making:
    yield replace(blocked(folder), file_limit=100_000)


@refused("cannot be read")
def old_output_survives_a_run_that_fails(folder: Path) -> Making:
    case = blocked(folder)
    cut(case.ms[0], 0.6)
    case.out.write_bytes(b"precious")
    yield replace(case, args=("--method", "exp", "--overwrite"))


# ---- Flags


def _flag_row(name: str, said: str, *args: str, code: int = 2) -> None:
    def make(folder: Path) -> Making:
        yield pair(folder, args=("--method", "exp", *args))

    make.__name__ = name
    refused(said, code)(make)


_flag_row("tile_of_7", "multiples of 256", "--tile", "7")
_flag_row("tile_of_0", "blend|tile", "--tile", "0")
_flag_row("tile_in_words", "valid integer", "--tile", "abc")
_flag_row("negative_halo", "--halo", "--halo", "-1")
_flag_row("impossible_mtf", "--ms-mtf", "--ms-mtf", "2")
_flag_row("negative_consistency", "--consistency", "--consistency", "-1")
_flag_row("registration_of_nan", "not possible", "--registration", "nan,nan")
_flag_row("registration_far_away", "does not lie on PAN", "--registration", "1e9,0", code=1)
_flag_row("ratio_of_a_file_that_tells_its_own", "--ratio", "--ratio", "4")
_flag_row("ms_origin_of_one_number", "--ms-origin", "--ms-origin", "1")
_flag_row("dem_that_is_not_there", "gone.tif: no such file", "--dem", "gone.tif", code=1)
_flag_row("unknown_method", "unknown method", "--method", "magic")
_flag_row("unknown_sensor", "sensor", "--method", "gsa", "--sensor", "magic")
_flag_row("unknown_flag", "(?i)no such option", "--nonsense")
_flag_row("flag_without_value", "(?i)requires an argument", "--tile")


@refused("(?i)missing option .*--output", 2)
def no_output(folder: Path) -> Making:
    case = pair(folder)

    @dataclass
    class Bare(Case):
        @property
        def arguments(self) -> list[str]:
            return ["sharpen", *self.sources]

    yield Bare(case.pan, case.ms, case.out)


@accepted
def tile_larger_than_any_scene(folder: Path) -> Making:
    product = yield pair(folder, args=("--method", "exp", "--tile", str(2**40)))
    assert product.valid.all()
