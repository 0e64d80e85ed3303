"""Where the output lies: its corners against what pyproj says, for all sorts of grids."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from pancrafter_cli.raster import open_scene
from tests.scene_factory import FileFacts, smooth_image, write_tif

DEGREE = 111_320.0  # metres, about
TOLERANCE = 0.1  # PAN pixels


@dataclass(frozen=True)
class Place:
    """A point (degrees) and the CRS of PAN and MS there; `turns` are added to the longitudes that a file counts in."""

    lon: float
    lat: float
    pan: str
    ms: str
    pan_turns: int = 0
    ms_turns: int = 0


PLACES = {
    "one zone": Place(9.3, 48.2, "EPSG:32632", "EPSG:32632"),
    "two zones": Place(6.0, 48.2, "EPSG:32631", "EPSG:32632"),
    "two zones, south": Place(-66.0, -54.0, "EPSG:32719", "EPSG:32720"),
    "antimeridian, two zones": Place(180.0, -17.0, "EPSG:32760", "EPSG:32701"),
    "geographic": Place(9.3, 48.2, "EPSG:4326", "EPSG:4326"),
    "antimeridian, geographic": Place(180.0, -17.0, "EPSG:4326", "EPSG:4326", 0, -1),
    "antimeridian, geographic, the other way": Place(-180.0, -17.0, "EPSG:4326", "EPSG:4326", 0, 1),
    "MS geographic": Place(9.3, 48.2, "EPSG:32632", "EPSG:4326"),
    "antimeridian, MS geographic": Place(180.0, -17.0, "EPSG:32760", "EPSG:4326"),
    "PAN geographic": Place(9.3, 48.2, "EPSG:4326", "EPSG:32632"),
    "antimeridian, PAN geographic": Place(180.0, -17.0, "EPSG:4326", "EPSG:32701"),
    "national grid": Place(9.3, 48.2, "EPSG:32632", "EPSG:3035"),
}


def middle_transform(place: Place, crs: str, turns: int, pixel: tuple[float, float], size: tuple[int, int]) -> Affine:
    """North-up transform of `size` (width, height) pixels (metres) around the place; MS not quite centred on PAN."""
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(place.lon, place.lat)
    dx, dy = pixel
    if crs == "EPSG:4326":
        # PROJ wraps longitudes; a file at the antimeridian counts on.
        x = place.lon + 360 * turns
        dx, dy = dx / DEGREE / math.cos(math.radians(place.lat)), dy / DEGREE
    return Affine(dx, 0, x - dx * size[0] / 2, 0, -dy, y + dy * size[1] / 2)


def ramps(width: int, height: int) -> np.ndarray:
    """Two bands that hold the pixel coordinates x and y."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y]).astype("float32")


def where_ms_is_taken_from(scene, col: float, row: float) -> np.ndarray:
    """Pixel coordinates (x, y) in the MS file that the scene puts at a point of the output grid."""
    x = scene.ms_map.cols.scale * col + scene.ms_map.cols.offset - 0.5
    y = scene.ms_map.rows.scale * row + scene.ms_map.rows.offset - 0.5
    left, top = math.floor(x), math.floor(y)
    values, valid = scene.read_ms(top, left, 2, 2)
    assert valid.all()
    fx, fy = x - left, y - top
    return values @ np.array([1 - fx, fx]) @ np.array([1 - fy, fy])


def where_pyproj_says(scene, col: float, row: float, place: Place, ms_transform: Affine) -> np.ndarray:
    """Pixel coordinates (x, y) in the MS file of a point of the output grid."""
    x, y = scene.grid.transform @ (col, row)
    x, y = Transformer.from_crs(place.pan, place.ms, always_xy=True).transform(x, y)
    if place.ms == "EPSG:4326":  # to the turn in which the MS file counts
        x += 360 * round((ms_transform.c - x) / 360)
    return np.array(~ms_transform @ (x, y))


@pytest.mark.parametrize("name", PLACES)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ratio=st.floats(1.5, 8), aspect=st.floats(0.5, 2), width=st.integers(15, 61), height=st.integers(15, 61),
    south_up=st.booleans(), angle=st.sampled_from([0.0, 0.0, 25.0, 180.0]),
)  # fmt: skip
@example(ratio=1.5, aspect=1.0, width=31, height=17, south_up=False, angle=0.0)
@example(ratio=8.0, aspect=1.0, width=61, height=59, south_up=True, angle=25.0)
def test_the_corners_lie_where_pyproj_says(tmp_path, name, ratio, aspect, width, height, south_up, angle):
    place = PLACES[name]
    pixel = 2.0, 2.0 * aspect
    pan_transform = middle_transform(place, place.pan, place.pan_turns, pixel, (width, height))
    pan_transform = pan_transform @ Affine.rotation(angle, (width / 2, height / 2))
    if south_up:
        pan_transform = pan_transform @ Affine.translation(0, height) @ Affine.scale(1, -1)
    # Room for the turn between the two grids, and for interpolation at the corners.
    ms_size = tuple(math.ceil(2 * max(width, height * aspect) / ratio / step) + 9 for step in (1.0, min(aspect, 1.0)))
    ms_transform = middle_transform(
        place, place.ms, place.ms_turns, (pixel[0] * ratio, pixel[1] * ratio), ms_size
    ) @ Affine.translation(0.3, -0.2)
    pan = write_tif(
        tmp_path / "p.tif", smooth_image(1, height, width).astype("uint16"), FileFacts(pan_transform, place.pan)
    )
    ms = write_tif(tmp_path / "m.tif", ramps(*ms_size), FileFacts(ms_transform, place.ms))
    with open_scene(pan, [ms]) as scene:
        assert scene.grid.shape == (height, width)
        assert scene.grid.transform.almost_equals(pan_transform, precision=1e-9)
        for corner in ((0, 0), (width, 0), (0, height), (width, height), (width / 2, height / 2)):
            told = where_pyproj_says(scene, *corner, place, ms_transform)
            taken = where_ms_is_taken_from(scene, *corner)
            assert np.abs(taken - told).max() * ratio < TOLERANCE


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ratio=st.floats(1.5, 8), width=st.integers(15, 61), height=st.integers(15, 61),
    ms_width=st.integers(5, 40), ms_height=st.integers(5, 40), shift=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
)  # fmt: skip
def test_ms_larger_or_smaller_than_pan(tmp_path, ratio, width, height, ms_width, ms_height, shift):
    pan_transform = Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000)
    ms_place = pan_transform @ Affine.translation(*shift) @ Affine.scale(ratio)
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, height, width).astype("uint16"), FileFacts(pan_transform))
    ms = write_tif(tmp_path / "m.tif", ramps(ms_width, ms_height), FileFacts(ms_place))
    x = np.arange(width) + 0.5
    y = np.arange(height) + 0.5
    cols = x[(x >= shift[0]) & (x <= shift[0] + ratio * ms_width)]
    rows = y[(y >= shift[1]) & (y <= shift[1] + ratio * ms_height)]
    with open_scene(pan, [ms]) as scene:
        assert scene.ratio == pytest.approx(ratio)
        # An edge on the very centre of a pixel may fall to either side.
        assert abs(scene.grid.width - len(cols)) <= 1
        assert abs(scene.grid.height - len(rows)) <= 1
        left, top = ~pan_transform @ (scene.grid.transform @ (0, 0))
        for col, row in ((0, 0), (scene.grid.width, scene.grid.height)):
            told = (left + col - shift[0]) / ratio, (top + row - shift[1]) / ratio
            taken = (
                scene.ms_map.cols.scale * col + scene.ms_map.cols.offset,
                scene.ms_map.rows.scale * row + scene.ms_map.rows.offset,
            )
            assert taken == pytest.approx(told, abs=TOLERANCE / ratio)
