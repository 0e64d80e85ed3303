"""The demo scene: a synthetic PAN and MS with their reference, and a before/after picture of a result."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from pancrafter_cli.data.simulate import simulate_scene
from pancrafter_cli.errors import OutputError, RasterError, UsageError
from pancrafter_cli.geometry.grid import Grid
from pancrafter_cli.metrics.reduced import ergas, sam
from pancrafter_cli.raster.arrays import read_array
from pancrafter_cli.raster.spec import BandFacts, OutputSpec
from pancrafter_cli.raster.targets import OutputKind, check_local
from pancrafter_cli.raster.writer import SceneWriter, check_output

DEFAULT_SEED = 6
DEFAULT_SIZE = 1024  # PAN pixels
RATIO = 4
PIXEL_METRES = 0.5
# A place in UTM 31 N, so that the demo has a real CRS to carry.
_ORIGIN = (450_000.0, 5_411_000.0)
_CRS = "EPSG:32631"
_PICTURE = OutputKind("a PNG picture", (".png",))
_NAMES = ("pan", "ms", "reference")
_COLOURS = {"red": "red", "green": "green", "blue": "blue"}


@dataclass(frozen=True)
class DemoResult:
    """Files written; scores by name as (ERGAS, SAM in degrees) against the reference."""

    files: tuple[Path, ...]
    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def write_demo(
    folder: Path, seed: int | None = None, size: int | None = None, *, overwrite: bool = False
) -> DemoResult:
    """Write pan.tif, ms.tif and reference.tif into `folder`; the same seed and size (PAN pixels) give the same pixels.

    Raises UsageError for a size that cannot be drawn and OutputError when files exist or cannot be written.
    """
    size = DEFAULT_SIZE if size is None else size
    if size % RATIO or not 256 <= size <= 4096:
        raise UsageError(f"--size {size}: expected a multiple of {RATIO} from 256 to 4096", "use 1024")
    check_local(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror})", "choose another folder") from error
    for name in _NAMES:
        check_output(folder / f"{name}.tif", overwrite=overwrite)
    scene = simulate_scene(DEFAULT_SEED if seed is None else seed, size, RATIO, PIXEL_METRES)
    written = []
    for name, image, step, bands in (
        ("pan", scene.pan, PIXEL_METRES, ("pan",)),
        ("ms", scene.ms, PIXEL_METRES * RATIO, scene.bands),
        ("reference", scene.reference, PIXEL_METRES, scene.bands),
    ):
        path = folder / f"{name}.tif"
        write_image(path, image, step, bands, overwrite=overwrite)
        written.append(path)
    return DemoResult(tuple(written))


def draw_before_after(folder: Path, sharpened: Path, *, overwrite: bool = False) -> DemoResult:
    """Draw before-after.png beside a result of the demo scene: MS as delivered, PAN, and the result.

    Scores MS brought to the PAN grid by pixel repetition and the result against the reference.
    Raises RasterError when the result is not of this scene, and OutputError when the picture is there already or cannot
    be written.
    """
    reference, ms, pan, sharp = (
        read_array(path) for path in (folder / "reference.tif", folder / "ms.tif", folder / "pan.tif", sharpened)
    )
    if sharp.shape != reference.shape:
        raise RasterError(
            f"{sharpened}: {sharp.shape} bands, rows, columns; the demo scene in {folder} has {reference.shape}",
            f"sharpen {folder / 'pan.tif'} and {folder / 'ms.tif'} first",
        )
    picture = folder / "before-after.png"
    check_output(picture, (sharpened,), overwrite, _PICTURE)
    coarse = np.kron(ms, np.ones((1, RATIO, RATIO), dtype=np.float32))
    _draw(picture, coarse, pan, sharp)
    scores = {
        "MS as delivered": (ergas(reference, coarse, RATIO), sam(reference, coarse)),
        "sharpened": (ergas(reference, sharp, RATIO), sam(reference, sharp)),
    }
    return DemoResult((picture,), scores)


def write_image(
    path: Path, image: NDArray[np.float32], step: float, bands: tuple[str, ...], *, overwrite: bool = False
) -> None:
    """Write an image (C, H, W) as uint16 with pixels of `step` metres and named bands, at the demo scene's place."""
    grid = Grid(Affine(step, 0, _ORIGIN[0], 0, -step, _ORIGIN[1]), image.shape[2], image.shape[1], _crs_wkt())
    facts = tuple(
        BandFacts(description=b, colorinterp=_COLOURS.get(b, "gray" if b == "pan" else "undefined")) for b in bands
    )
    with SceneWriter(path, OutputSpec(grid, "uint16", facts), overwrite=overwrite) as writer:
        writer.write(0, 0, image, np.ones(image.shape, dtype=bool))


def _crs_wkt() -> str:
    from pyproj import CRS

    return CRS.from_user_input(_CRS).to_wkt()


def _draw(path: Path, coarse: NDArray[np.float32], pan: NDArray[np.float32], sharp: NDArray[np.float32]) -> None:
    """Three panels of the busiest place, enlarged twice: MS, PAN, sharpened; one stretch for both MS panels."""
    side = min(240, coarse.shape[1])
    top, left = _busiest(pan[0], side)
    part = np.s_[:, top : top + side, left : left + side]
    low, high = (np.percentile(coarse[:3], p, axis=(1, 2)) for p in (1, 99))
    panels = [
        _to_rgb(coarse[part], low, high),
        _to_rgb(np.repeat(pan[part], 3, axis=0), *(np.full(3, np.percentile(pan, p)) for p in (1, 99))),
        _to_rgb(sharp[part], low, high),
    ]
    gap = np.full((side, 4, 3), 255, dtype=np.uint8)
    strip = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        Image.fromarray(strip.repeat(2, axis=0).repeat(2, axis=1)).save(unfinished, format="png", optimize=True)
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error})", "make room, or choose another folder"
        ) from error


def _busiest(pan: NDArray[np.float32], side: int) -> tuple[int, int]:
    """Top left corner of the window of PAN (H, W) with the most edges, `side` pixels a side."""
    edges = np.abs(np.diff(pan, axis=0, prepend=pan[:1])) + np.abs(np.diff(pan, axis=1, prepend=pan[:, :1]))
    starts = [range(0, n - side + 1, max(1, side // 4)) for n in pan.shape]
    # The square root keeps a single glaring roof from outweighing a street of houses.
    return max(
        ((y, x) for y in starts[0] for x in starts[1]),
        key=lambda at: float(np.sqrt(edges[at[0] : at[0] + side, at[1] : at[1] + side]).mean()),
    )


def _to_rgb(image: NDArray[np.float32], low: NDArray[np.floating], high: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(3 or more bands, blue first) to (H, W, 3), linear between `low` and `high` of each band."""
    scaled = (image[:3] - low[:, None, None]) / (high - low)[:, None, None]
    rgb: NDArray[np.uint8] = (255 * np.clip(scaled[::-1], 0, 1) ** (1 / 1.4)).astype(np.uint8).transpose(1, 2, 0)
    return rgb
