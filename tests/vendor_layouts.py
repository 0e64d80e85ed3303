"""Tiny products in the layouts in which vendors deliver theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from tests.scene_factory import PAN_TRANSFORM, FileFacts, ms_transform, smooth_image, write_tif

LANDSAT = "LC08_L1TP_193026_20200101_20200113_02_T1"
SURFACE = "LC08_L2SP_193026_20200101_20200114_02_T1"
LANDSAT_PAN = Affine(15, 0, 500_000 - 7.5, 0, -15, 5_700_000 + 7.5)
LANDSAT_MS = Affine(30, 0, 500_000 - 15, 0, -30, 5_700_000 + 15)


def image(bands: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return smooth_image(bands, height, width, seed).astype("uint16")


def write_landsat(
    folder: Path, scene: str, numbers: list[int], fill: np.ndarray | None = None, quality_name: str = "QA_PIXEL.TIF"
) -> Path:
    """Bands of one level, SR_ in their names for level 2; band 8 at 15 m; quality where `fill` (8, 10) is given."""
    folder.mkdir(exist_ok=True)
    surface = "SR_" if "_L2" in scene else ""
    for number in numbers:
        pan = number == 8
        size, transform = ((17, 21), LANDSAT_PAN) if pan else ((8, 10), LANDSAT_MS)
        write_tif(folder / f"{scene}_{surface}B{number}.TIF", image(1, *size, number), FileFacts(transform))
    if fill is not None:
        # Clear land is 21824 (2720 in Collection 1); bit 0 is fill.
        quality = np.where(fill, 1, 21824).astype("uint16")[None]
        write_tif(folder / f"{scene}_{quality_name}", quality, FileFacts(LANDSAT_MS, nodata=1))
    (folder / f"{scene}_MTL.txt").write_text("GROUP = LANDSAT_METADATA_FILE\nEND_GROUP = LANDSAT_METADATA_FILE\nEND\n")
    return folder


def write_dimap(folder: Path, name: str, bands: int, mission: tuple[str, str] = ("PHR", "1A")) -> Path:
    """A DIMAP v2 ortho dataset: DIM_name.XML, and the image without georeferencing of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width, t = (32, 40, PAN_TRANSFORM) if bands == 1 else (8, 10, ms_transform(4))
    pixels = image(bands, height, width, bands)
    pixels[:, 0, 0] = 0
    write_tif(folder / f"IMG_{name}_R1C1.TIF", pixels, FileFacts(None))
    channels = zip(("RED", "GREEN", "BLUE", "ALPHA"), ("B2", "B1", "B0", "B3"), strict=True)
    shown = "".join(f"<{c}_CHANNEL>{b}</{c}_CHANNEL>" for c, b in channels) if bands == 4 else ""
    document = folder / f"DIM_{name}.XML"
    document.write_text(f"""<?xml version="1.0" encoding="UTF-8"?>
<Dimap_Document>
<Metadata_Identification><METADATA_FORMAT version="2.0">DIMAP</METADATA_FORMAT></Metadata_Identification>
<Coordinate_Reference_System><Projected_CRS>
<PROJECTED_CRS_CODE>urn:ogc:def:crs:EPSG::32631</PROJECTED_CRS_CODE></Projected_CRS></Coordinate_Reference_System>
<Geoposition><Geoposition_Insert><ULXMAP unit="m">{t.c}</ULXMAP><ULYMAP unit="m">{t.f}</ULYMAP>
<XDIM unit="m">{t.a}</XDIM><YDIM unit="m">{-t.e}</YDIM></Geoposition_Insert></Geoposition>
<Processing_Information><Product_Settings><PROCESSING_LEVEL>ORTHO</PROCESSING_LEVEL>
<SPECTRAL_PROCESSING>{"P" if bands == 1 else "MS"}</SPECTRAL_PROCESSING></Product_Settings></Processing_Information>
<Raster_Data><Data_Access><DATA_FILE_FORMAT>image/tiff</DATA_FILE_FORMAT><Data_Files>
<Data_File tile_R="1" tile_C="1"><DATA_FILE_PATH href="IMG_{name}_R1C1.TIF"/></Data_File></Data_Files></Data_Access>
<Raster_Dimensions><NROWS>{height}</NROWS><NCOLS>{width}</NCOLS><NBANDS>{bands}</NBANDS><Tile_Set><NTILES>1</NTILES>
<Regular_Tiling><NTILES_SIZE nrows="{height}" ncols="{width}"/><NTILES_COUNT ntiles_R="1" ntiles_C="1"/>
<OVERLAP_ROW>0</OVERLAP_ROW><OVERLAP_COL>0</OVERLAP_COL></Regular_Tiling></Tile_Set></Raster_Dimensions>
<Raster_Encoding><DATA_TYPE>INTEGER</DATA_TYPE><NBITS>16</NBITS><SIGN>UNSIGNED</SIGN></Raster_Encoding>
<Raster_Display><Band_Display_Order>{shown}</Band_Display_Order>
<Special_Value><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_COUNT>0</SPECIAL_VALUE_COUNT></Special_Value>
<Special_Value><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_COUNT>4095</SPECIAL_VALUE_COUNT>
</Special_Value></Raster_Display></Raster_Data>
<Dataset_Sources><Source_Identification><Strip_Source><MISSION>{mission[0]}</MISSION>
<MISSION_INDEX>{mission[1]}</MISSION_INDEX></Strip_Source></Source_Identification></Dataset_Sources>
</Dimap_Document>
""")
    return document


def write_maxar(folder: Path, bands: int, satellite: str, ids: str, corner: bool = True) -> Path:
    """A mosaic of two tiles side by side with its .IMD; the tiles lie where the .IMD says the corner is."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width, t = (32, 40, PAN_TRANSFORM) if bands == 1 else (8, 10, ms_transform(4))
    name = f"19AUG22153053-{'P' if bands == 1 else 'M'}2AS-050123456010_01_P001"
    pixels, cut = image(bands, height, width, bands), width * 6 // 10
    groups = ""
    for number, (start, stop) in enumerate(((0, cut), (cut, width)), 1):
        tile = name.replace("-05", f"_R1C{number}-05", 1)
        write_tif(folder / f"{tile}.TIF", pixels[:, :, start:stop], FileFacts(t @ Affine.translation(start, 0)))
        groups += (
            f'BEGIN_GROUP = TILE_{number}\n\tfilename = "{tile}.TIF";\n\tULColOffset = {start};\n\tULRowOffset = 0;\n'
            f"\tLRColOffset = {stop - 1};\n\tLRRowOffset = {height - 1};\nEND_GROUP = TILE_{number}\n"
        )
    mosaic = folder / f"{name}.TIL"
    mosaic.write_text(
        f'bandId = "Multi";\nnumTiles = 2;\ntileSize = {width};\ntileUnits = "Pixels";\n'
        f"tileOverlap = 0;\n{groups}END;\n"
    )
    bands_text = "".join(
        f"BEGIN_GROUP = BAND_{i}\n\tabsCalFactor = 1.0e-02;\nEND_GROUP = BAND_{i}\n" for i in ids.split()
    )
    place = (
        f"BEGIN_GROUP = MAP_PROJECTED_PRODUCT\n\tULX = {t.c + t.a / 2};\n\tULY = {t.f + t.e / 2};\n"
        "END_GROUP = MAP_PROJECTED_PRODUCT\n"
    )
    (folder / f"{name}.IMD").write_text(
        f'version = "28.3";\nnumRows = {height};\nnumColumns = {width};\nbitsPerPixel = 16;\n{bands_text}'
        f'BEGIN_GROUP = IMAGE_1\n\tsatId = "{satellite}";\nEND_GROUP = IMAGE_1\n{place if corner else ""}END;\n'
    )
    return mosaic


def write_gaofen(folder: Path, platform: str = "GF2", kinds: tuple[str, str] = ("PAN1", "MSS1")) -> tuple[Path, Path]:
    """PAN and MS of one camera, orthorectified; `kinds` is what their names call them."""
    folder.mkdir(exist_ok=True)
    stem = f"{platform}_PMS1_E113.5_N34.7_20200101_L1A0004567890"
    pan = write_tif(folder / f"{stem}-{kinds[0]}.tiff", image(1, 32, 40))
    ms = write_tif(folder / f"{stem}-{kinds[1]}.tiff", image(4, 8, 10), FileFacts(ms_transform(4)))
    return pan, ms


RPCS = rasterio.rpc.RPC(
    height_off=100, height_scale=500, lat_off=48.1, lat_scale=0.1, long_off=11.5, long_scale=0.15,
    line_off=16, line_scale=16, samp_off=20, samp_scale=20,
    line_num_coeff=[0, 0, -1] + [0] * 17, line_den_coeff=[1] + [0] * 19,
    samp_num_coeff=[0, 1] + [0] * 18, samp_den_coeff=[1] + [0] * 19,
)  # fmt: skip
