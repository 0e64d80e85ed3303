"""A synthetic camera, its images of a known ground, and the RPCs fitted to it as vendors do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.rpc import RPC

from tests.scene_factory import FileFacts, write_tif

Array = NDArray[np.float64]
Heights = Callable[[Array, Array], Array]

UTM = "EPSG:32632"
EAST, NORTH = 691_000.0, 5_334_000.0  # the middle of the scene
HEIGHT = 520.0  # metres: the height offset of the RPCs
PIXEL = 0.5  # metres, PAN
SIZE = 256, 320  # PAN, (rows, columns)
WAVES = 60


@dataclass(frozen=True)
class Camera:
    """Where on the ground it sees what its PAN pixels show: turned, oblique, a little curved."""

    turn: float = 12.0
    tilt: tuple[float, float] = (0.45, -0.2)  # metres sideways per metre of height
    curve: float = 1.2e-5  # pixels per pixel squared

    def ground(self, x: Array, y: Array, height: Array | float) -> tuple[Array, Array]:
        """East and north (metres) of PAN pixel coordinates at a height."""
        u, v = x - SIZE[1] / 2, y - SIZE[0] / 2
        u, v = u + self.curve * u * v, v + self.curve * u * u
        c, s = math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn))
        rise = (np.asarray(height) - HEIGHT) * (1 + (np.asarray(height) - HEIGHT) / 600_000)
        return EAST + PIXEL * (c * u + s * v) + self.tilt[0] * rise, NORTH + PIXEL * (s * u - c * v) + (
            self.tilt[1] * rise
        )

    def on_terrain(self, x: Array, y: Array, heights: Heights) -> tuple[Array, Array]:
        """East and north where the ways of sight meet the terrain."""
        east, north = self.ground(x, y, HEIGHT)
        for _ in range(25):
            east, north = self.ground(x, y, heights(east, north))
        return east, north

    def rpcs(self, ratio: float = 1) -> RPC:
        """RPCs of the image with pixels `ratio` times as large, fitted to the camera by linear least squares."""
        rows, cols = SIZE
        y, x, h = np.meshgrid(
            np.linspace(-20, rows + 20, 12), np.linspace(-20, cols + 20, 12), np.linspace(HEIGHT - 400, HEIGHT + 400, 7)
        )
        lon, lat = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform(*self.ground(x, y, h))
        # RPCs count from the centre of the first pixel.
        values = {"line": y / ratio - 0.5, "samp": x / ratio - 0.5, "long": lon, "lat": lat, "height": h}
        offset = {k: (v.max() + v.min()) / 2 for k, v in values.items()}
        scale = {k: (v.max() - v.min()) / 2 for k, v in values.items()}
        norm = {k: (v.ravel() - offset[k]) / scale[k] for k, v in values.items()}
        terms = rpc_terms(norm["long"], norm["lat"], norm["height"])
        fitted = {}
        for name in ("line", "samp"):
            design = np.hstack([terms, -norm[name][:, None] * terms[:, 1:]])
            solution = np.linalg.lstsq(design, norm[name], rcond=1e-9)[0]
            fitted[f"{name}_num_coeff"] = list(solution[:20])
            fitted[f"{name}_den_coeff"] = [1.0, *solution[20:]]
        offsets = {f"{k}_off": float(v) for k, v in offset.items()} | {"height_off": HEIGHT}
        return RPC(**offsets, **{f"{k}_scale": float(v) for k, v in scale.items()}, **fitted)


def rpc_terms(lon: Array, lat: Array, h: Array) -> Array:
    """The 20 terms of RPC00B (n, 20)."""
    powers = "000 100 010 001 110 101 011 200 020 002 111 300 120 102 210 030 012 201 021 003"  # of lon, lat, height
    return np.stack([lon ** int(p[0]) * lat ** int(p[1]) * h ** int(p[2]) for p in powers.split()], axis=1)


def brightness(east: Array, north: Array) -> Array:
    """What the ground looks like, 200 to 1800 DN: many waves of 4 metres and more, and a bright blob in a plain."""
    rng = np.random.default_rng(5)
    value = np.zeros(east.shape)
    for _ in range(WAVES):
        length, angle, phase = rng.uniform(4, 60), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        along = (east - EAST) * np.cos(angle) + (north - NORTH) * np.sin(angle)
        value += np.sin(2 * np.pi * along / length + phase) * length**0.5
    far = (east - EAST) ** 2 + (north - NORTH) ** 2
    value = 900 + 120 / WAVES**0.5 * value * (1 - np.exp(-far / 2 / 12**2))
    return np.clip(value, 200, 1600) + 1200 * np.exp(-far / 2 / 3**2)


def flat(east: Array, north: Array) -> Array:
    return np.full(east.shape, HEIGHT)


def sloped(east: Array, north: Array) -> Array:
    """A slope of 20 % with a hill on it."""
    hill = 25 * np.exp(-((east - EAST - 30) ** 2 + (north - NORTH + 20) ** 2) / 2 / 25**2)
    return HEIGHT + 60 + 0.2 * (east - EAST) - 0.1 * (north - NORTH) + hill


def write_rpc_scene(folder: Path, heights: Heights = flat, camera: Camera | None = None) -> tuple[Path, Path]:
    """PAN and MS of 4 bands (ratio 4) as the camera sees them, with RPCs and without transforms."""
    camera = camera or Camera()
    y, x = np.mgrid[: 2 * SIZE[0], : 2 * SIZE[1]] / 2 + 0.25  # four samples a pixel
    fine = brightness(*camera.on_terrain(x, y, heights))
    bands = np.stack([fine * gain for gain in (0.6, 0.8, 1.0, 1.3)])
    paths = []
    for name, image, ratio in (("pan", fine[None], 1), ("ms", bands, 4)):
        n, box = len(image), 2 * ratio
        mean = image.reshape(n, SIZE[0] // ratio, box, SIZE[1] // ratio, box).mean(axis=(2, 4))
        paths.append(write_tif(folder / f"{name}.tif", mean.round().astype("uint16"), FileFacts(None)))
        with rasterio.open(paths[-1], "r+") as file:
            file.rpcs = camera.rpcs(ratio)
    return paths[0], paths[1]


def write_dem(path: Path, heights: Heights = sloped, half: float = 250, step: float = 5, crs: str = UTM) -> Path:
    """Heights of the place as a raster with pixels of `step` metres, `half` metres around the middle."""
    place = Affine(step, 0, EAST - half, 0, -step, NORTH + half)
    n = round(2 * half / step)
    x, y = np.meshgrid(np.arange(n) + 0.5, np.arange(n) + 0.5)
    east, north = place.c + step * x, place.f - step * y
    return write_tif(path, heights(east, north)[None].astype("float32"), FileFacts(place, crs))
