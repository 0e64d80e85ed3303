"""Rasters in and out: everything that touches rasterio and GDAL."""

from __future__ import annotations

import os

# Set before PROJ loads, which would print to stderr of a GeoTIFF with half a CRS; errors reach us without it.
os.environ.setdefault("PROJ_DEBUG", "0")

from pancrafter_cli.raster.align import SceneOptions
from pancrafter_cli.raster.scene import Scene, open_scene
from pancrafter_cli.raster.spec import BandFacts, OutputSpec
from pancrafter_cli.raster.statistics import SceneStatistics
from pancrafter_cli.raster.writer import TILE, SceneWriter, check_output

__all__ = [
    "TILE",
    "BandFacts",
    "OutputSpec",
    "Scene",
    "SceneOptions",
    "SceneStatistics",
    "SceneWriter",
    "check_output",
    "open_scene",
]
