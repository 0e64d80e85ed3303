"""Rational polynomial coefficients (RPCs): which pixel of an image shows a point of the ground, and the reverse.

Column and row are each a ratio of two cubic polynomials in latitude, longitude and height, all normalised by an offset
and a scale (RPC00B: NIMA STDI-0002, "The compendium of controlled extensions for NITF", section 8).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import GeometryError

FloatArray = NDArray[np.float64]

COEFFICIENTS = 20
_STEPS, _CONVERGED = 20, 1e-5  # Newton's steps of the reverse; pixels
_DIFFERENCE = 1e-4  # of a scale: what derivatives are taken over


@dataclass(frozen=True)
class Normalised:
    """A quantity as RPCs count it: (value - offset) / scale."""

    offset: float
    scale: float


@dataclass(frozen=True)
class RpcModel:
    """RPCs of one image: line, sample in pixels; lat, lon in degrees, height in metres above the WGS 84 ellipsoid.

    Each of the four polynomials has 20 coefficients in the order of RPC00B. bias_error, random_error: what the vendor
    says of their accuracy (metres), None where nothing.
    """

    line: Normalised
    sample: Normalised
    lat: Normalised
    lon: Normalised
    height: Normalised
    line_num: tuple[float, ...]
    line_den: tuple[float, ...]
    sample_num: tuple[float, ...]
    sample_den: tuple[float, ...]
    bias_error: float | None = field(default=None, compare=False)
    random_error: float | None = field(default=None, compare=False)

    def window(self, row: int, col: int) -> RpcModel:
        """The RPCs of the part of the image that starts at this pixel."""
        return replace(
            self,
            line=replace(self.line, offset=self.line.offset - row),
            sample=replace(self.sample, offset=self.sample.offset - col),
        )

    def to_image(self, lon: FloatArray, lat: FloatArray, height: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """Pixel coordinates (x, y), counted from the outer edges, of points on the ground; not finite where none."""
        # RPCs know no antimeridian: take the turn of the globe that lies nearest.
        away = (np.asarray(lon, np.float64) - self.lon.offset + 180) % 360 - 180
        return self._project(
            away / self.lon.scale,
            (np.asarray(lat, np.float64) - self.lat.offset) / self.lat.scale,
            (np.asarray(height, np.float64) - self.height.offset) / self.height.scale,
        )

    def to_ground(self, x: FloatArray, y: FloatArray, height: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """Longitude and latitude (degrees) that pixel coordinates show at a height, by Newton's method.

        Longitudes count on past 180 degrees. Raises GeometryError when it does not converge: the RPCs are damaged.
        """
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        h = np.broadcast_to((np.asarray(height, np.float64) - self.height.offset) / self.height.scale, x.shape)
        lon, lat = np.zeros_like(x), np.zeros_like(x)
        d = _DIFFERENCE
        for _ in range(_STEPS):
            at_x, at_y = self._project(lon, lat, h)
            off_x, off_y = x - at_x, y - at_y
            if not np.isfinite(off_x + off_y).all():
                break
            if max(np.abs(off_x).max(initial=0), np.abs(off_y).max(initial=0)) < _CONVERGED:
                return lon * self.lon.scale + self.lon.offset, lat * self.lat.scale + self.lat.offset
            east, north = self._project(lon + d, lat, h), self._project(lon, lat + d, h)
            xe, ye, xn, yn = ((v - at) / d for v, at in zip((*east, *north), (at_x, at_y) * 2, strict=True))
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                det = xe * yn - xn * ye
                lon = lon + (off_x * yn - off_y * xn) / det
                lat = lat + (off_y * xe - off_x * ye) / det
        raise GeometryError(
            "the RPCs tell no place on the ground for the edges of the image",
            "they are damaged, or of another image; give files that are orthorectified",
        )

    def _project(self, lon: FloatArray, lat: FloatArray, height: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pixel coordinates (x, y) of normalised places; RPCs count pixels from the centre of the first."""

        def ratio(numerator: tuple[float, ...], denominator: tuple[float, ...], by: Normalised) -> FloatArray:
            top, bottom = (sum(c * t for c, t in zip(p, terms, strict=True) if c) for p in (numerator, denominator))
            return np.asarray(np.divide(top, bottom) * by.scale + by.offset + 0.5, np.float64)

        # Far from the image, and where RPCs are damaged, there is no answer.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            terms = _terms(lon, lat, height)
            return (
                ratio(self.sample_num, self.sample_den, self.sample),
                ratio(self.line_num, self.line_den, self.line),
            )


def _terms(lon: FloatArray, lat: FloatArray, height: FloatArray) -> list[FloatArray]:
    """The 20 products of RPC00B, in its order."""
    lo, la, h = np.broadcast_arrays(lon, lat, height)
    lo2, la2, h2 = lo * lo, la * la, h * h
    first = [np.ones_like(lo), lo, la, h, lo * la, lo * h, la * h, lo2, la2, h2]
    return [*first, lo * la * h, lo2 * lo, lo * la2, lo * h2, lo2 * la, la2 * la, la * h2, lo2 * h, la2 * h, h2 * h]
