"""One product of each layout, built or real, and where the ground ends up when it is sharpened.

The answer that a product is compared with is made of rasterio's view of the files, pyproj and nothing of ours.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from pyproj import Transformer
from rasterio.transform import RPCTransformer

from pancrafter_cli import sharpen
from pancrafter_cli.raster.products import find_product
from tests.rpc_scene import HEIGHT, write_rpc_scene
from tests.scene_factory import FileFacts, Pair, write_pair, write_tif
from tests.vendor_layouts import LANDSAT, write_dimap, write_gaofen, write_landsat, write_maxar

Array = np.ndarray
LARGEST = 1024  # PAN pixels a side in which the content is compared
LANDSAT_8 = "LC08_L1TP_167055_20170308_20170317_01_T1_B{}.TIF"


@dataclass(frozen=True)
class Layout:
    """PAN and MS files or folders as given to `sharpen`; options: of `sharpen`, for files that do not tell."""

    name: str
    given: tuple[Path, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A product's grid, and how far from pyproj's answer, in PAN pixels, its corners and its content lie."""

    layout: str
    recognised: str
    grid: str
    corners: float
    content: float


def built(folder: Path) -> Iterator[tuple[str, Callable[[], Layout]]]:
    """Names of all built layouts, each with the function that writes it into `folder`."""

    def folders(name: str, write: Callable[[Path], object]) -> Callable[[], Layout]:
        def make() -> Layout:
            write(folder)
            return Layout(name, (folder,))

        return make

    def dimap(name: str, mission: tuple[str, str]) -> Callable[[Path], object]:
        return lambda at: [
            write_dimap(at / kind, f"{name}_{kind}_ORT", n, mission) for kind, n in (("P", 1), ("MS", 4))
        ]

    def maxar(satellite: str, ids: str) -> Callable[[Path], object]:
        return lambda at: [
            write_maxar(at / f"x_{kind}", n, satellite, i)
            for kind, n, i in (("PAN", 1, "P"), ("MUL", len(ids.split()), ids))
        ]

    for name, write in {
        "DIMAP Pleiades": dimap("PHR1B", ("PHR", "1B")),
        "DIMAP SPOT": dimap("SPOT7", ("SPOT", "7")),
        "WorldView .TIL": maxar("WV02", "C B G Y R RE N N2"),
        "QuickBird .TIL": maxar("QB02", "B G R N"),
        "Landsat C2 folder": lambda at: write_landsat(at, LANDSAT, list(range(1, 12))),
        "GF-1": lambda at: write_gaofen(at, "GF1"),
        "GF-2": lambda at: write_gaofen(at, "GF2"),
    }.items():
        yield name, folders(name, write)
    for name, (suffix, options) in {
        "VRT": ("vrt", {"driver": "VRT"}),
        "GeoPackage": ("gpkg", {"driver": "GPKG"}),
        "NITF": ("ntf", {"driver": "NITF", "ICORDS": "N"}),
        "JPEG2000": ("jp2", {"driver": "JP2OpenJPEG", "REVERSIBLE": "YES", "QUALITY": "100"}),
    }.items():
        yield name, lambda name=name, suffix=suffix, options=options: _converted(name, folder, suffix, options)
    yield "RPCs only", lambda: Layout("RPCs only", write_rpc_scene(folder))


def remote(folder: Path, address: str) -> Layout:
    """A cloud-optimised pair, written into the folder that is served at `address`."""
    _converted("COG", folder, "cog.tif", {"driver": "COG"})
    return Layout("COG over /vsicurl/", tuple(Path(f"/vsicurl/{address}/{n}.cog.tif") for n in ("pan", "ms")))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which the files of a folder are served meanwhile."""
    command = [sys.executable, str(Path(__file__).with_name("range_server.py")), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def real(scenes: Path, folder: Path) -> Iterator[tuple[str, Callable[[], Layout]]]:
    """Names of the real scenes, each with the function that finds it; `folder` takes an MS for the south-up PAN."""
    for name in ("vhr-henan", "spot6-tiny"):
        at = scenes / name
        yield name, lambda name=name, at=at: Layout(name, (at / "pan.tif", at / "ms.tif"))
    at = scenes / "quickbird-paris"
    # Its files do not say where they lie; MS was found on PAN by correlation.
    told = {"ratio": 4.0, "ms_origin": (225.7, -735.2)}
    yield at.name, lambda at=at: Layout(at.name, (at / "pan.tif", at / "ms.tif"), told)
    bands = tuple(scenes / "landsat8-bands" / LANDSAT_8.format(b) for b in (8, 4, 3, 2, 5))
    yield "landsat8-bands", lambda: Layout("landsat8-bands", bands)
    yield "south-up PAN", lambda: _south_up(scenes / "edge" / "south-up-pan.tif", folder)


def check(layout: Layout, output: Path) -> Found:
    """Sharpen a layout by interpolation into `output`, and compare where corners and content lie."""
    product = find_product(layout.given)
    result = sharpen(
        layout.given[0], layout.given[1:], output, method="exp", registration="off", overwrite=True, **layout.options
    )
    with rasterio.open(output) as sharp, rasterio.open(product.pan) as pan, rasterio.open(product.ms[0]) as ms:
        to_ms = _position(sharp, pan, ms, layout.options)
        offsets = _corner_offsets(sharp, pan) if pan.rpcs is None else _corner_rest(sharp)
        size = f"{sharp.width} x {sharp.height}, pixel {abs(sharp.transform.a):g} x {abs(sharp.transform.e):g}"
        crs = sharp.crs.to_string() if sharp.crs else "no CRS"
        return Found(layout.name, result.layout, f"{size}, {crs}", offsets, _content_shift(sharp, ms, to_ms))


Position = Callable[[Array, Array], tuple[Array, Array]]


def _position(sharp: Any, pan: Any, ms: Any, options: dict[str, Any]) -> Position:
    """From product coordinates (CRS units) to MS pixel coordinates (x, y)."""
    if "ms_origin" in options:
        (left, top), ratio = options["ms_origin"], options["ratio"]
        t = Affine.translation(left, top) @ Affine.scale(ratio)
        return lambda x, y: _apply(~t, *_apply(~pan.transform, x, y))
    if ms.rpcs is not None:
        degrees, model = Transformer.from_crs(sharp.crs, "EPSG:4326", always_xy=True), RPCTransformer(ms.rpcs)

        def by_rpcs(x: Array, y: Array) -> tuple[Array, Array]:
            lon, lat = (v.ravel() for v in degrees.transform(x, y))
            rows, cols = model.rowcol(lon, lat, zs=np.full(lon.shape, HEIGHT), op=np.asarray)
            return np.reshape(cols, x.shape), np.reshape(rows, x.shape)

        return by_rpcs
    between = Transformer.from_crs(sharp.crs, ms.crs, always_xy=True)
    return lambda x, y: _apply(~ms.transform, *between.transform(x, y))


def _corners(raster: Any) -> tuple[Array, Array]:
    w, h = raster.width, raster.height
    return _apply(raster.transform, np.array([0.0, w, 0, w]), np.array([0.0, 0, h, h]))


def _corner_offsets(sharp: Any, pan: Any) -> float:
    """How far the product's corners lie from corners of PAN pixels, by pyproj where there is a CRS."""
    x, y = _corners(sharp)
    if sharp.crs:
        x, y = Transformer.from_crs(sharp.crs, pan.crs, always_xy=True).transform(x, y)
    col, row = _apply(~pan.transform, x, y)
    assert ((col > -0.5) & (col < pan.width + 0.5) & (row > -0.5) & (row < pan.height + 0.5)).all()
    return float(np.hypot(col - col.round(), row - row.round()).max())


def _corner_rest(sharp: Any) -> float:
    """How far the corners of an orthorectified product lie from whole multiples of its pixel."""
    pixels = np.array(_corners(sharp)) / sharp.transform.a
    return float(np.abs(pixels - pixels.round()).max())


def _content_shift(sharp: Any, ms: Any, to_ms: Position) -> float:
    """How far the first band lies from MS at pyproj's place, at worst in four quarters, in PAN pixels."""
    height, width = (min(n, LARGEST) for n in sharp.shape)
    top, left = (sharp.height - height) // 2, (sharp.width - width) // 2
    window = rasterio.windows.Window(left, top, width, height)
    image = sharp.read(1, window=window).astype(float)
    col, row = np.meshgrid(left + np.arange(width) + 0.5, top + np.arange(height) + 0.5)
    x, y = to_ms(*_apply(sharp.transform, col, row))
    first_row, first_col = max(0, math.floor(y.min()) - 3), max(0, math.floor(x.min()) - 3)
    last_row, last_col = min(ms.height, math.ceil(y.max()) + 3), min(ms.width, math.ceil(x.max()) + 3)
    part = rasterio.windows.Window(first_col, first_row, last_col - first_col, last_row - first_row)
    truth, inside = _keys(ms.read(1, window=part).astype(float), y - first_row, x - first_col)
    inside &= sharp.read_masks(1, window=window) > 0
    down, across = np.gradient(truth)
    inside[[0, -1]], inside[:, [0, -1]] = False, False
    worst = 0.0
    for rows in (np.s_[: height // 2], np.s_[height // 2 :]):
        for cols in (np.s_[: width // 2], np.s_[width // 2 :]):
            use = inside[rows, cols]
            columns = [v[rows, cols][use] for v in (truth, np.ones_like(truth), -across, -down)]
            gain, _, dx, dy = np.linalg.lstsq(np.stack(columns, axis=1), image[rows, cols][use], rcond=None)[0]
            assert abs(gain - 1) < 0.05
            worst = max(worst, math.hypot(dx, dy))
    return worst


def _keys(image: Array, y: Array, x: Array) -> tuple[Array, Array]:
    """Keys' cubic convolution at pixel coordinates, and where its 16 pixels and more lie inside."""

    def kernel(t: Array) -> Array:
        t = np.abs(t)
        return np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))

    row, col = np.floor(y - 0.5).astype(int), np.floor(x - 0.5).astype(int)
    value = np.zeros(y.shape)
    for j in range(-1, 3):
        for i in range(-1, 3):
            at = (row + j).clip(0, image.shape[0] - 1), (col + i).clip(0, image.shape[1] - 1)
            value += kernel(y - 0.5 - row - j) * kernel(x - 0.5 - col - i) * image[at]
    inside = (row >= 1) & (col >= 1) & (row + 2 < image.shape[0]) & (col + 2 < image.shape[1])
    return value, inside


def _apply(t: Affine, x: Array, y: Array) -> tuple[Array, Array]:
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def _converted(name: str, folder: Path, suffix: str, options: dict[str, Any]) -> Layout:
    """A pair in another format; NITF keeps corners to the metre only."""
    place = Affine(2, 0, 500_000, 0, -2, 5_700_000)
    pair: Pair = write_pair(folder, size=(64, 80), pan=FileFacts(place), ms=FileFacts(place @ Affine.scale(4)))
    paths = []
    for source in (pair.pan, pair.ms):
        if suffix == "gpkg" and source == pair.ms:  # holds no more than one band of 16 bits
            paths.append(source)
            continue
        paths.append(source.with_suffix(f".{suffix}"))
        if suffix == "vrt":
            rasterio.shutil.copy(str(source), str(paths[-1]), **options)
            continue
        with rasterio.open(source) as file:
            profile = {k: file.profile[k] for k in ("width", "height", "count", "dtype", "crs", "transform")}
            with rasterio.open(paths[-1], "w", **profile, **options) as target:
                target.write(file.read())
    return Layout(name, (paths[0], paths[1]))


def _south_up(pan: Path, folder: Path) -> Layout:
    """The PAN whose rows run north, with a north-up MS made of it."""
    with rasterio.open(pan) as file:
        image, t, crs = file.read(), file.transform, file.crs
    height, width = (n // 4 * 4 for n in image.shape[1:])
    low = image[:, :height, :width].reshape(1, height // 4, 4, width // 4, 4).mean(axis=(2, 4))
    place = t @ Affine.scale(4) @ Affine.translation(0, height // 4) @ Affine.scale(1, -1)
    ms = write_tif(folder / "ms.tif", np.repeat(low[:, ::-1], 3, axis=0).astype(image.dtype), FileFacts(place, crs))
    return Layout("south-up PAN", (Path(shutil.copy(pan, folder)), ms))
