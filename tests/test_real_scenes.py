"""The real command on real scenes; skipped where they are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from pancrafter_cli import sharpen
from pancrafter_cli.errors import GeometryError

EXAMPLES = Path(__file__).parents[1] / "examples"
LANDSAT = "LC08_L1TP_167055_20170308_20170317_01_T1_B{}.TIF"
# This scene's files do not say where they lie; its MS was found on PAN by correlation.
UNPLACED = {"ratio": 4.0, "ms_origin": (225.7, -735.2)}


def run(script: str, *args: object) -> str:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, args)], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    "name",
    [
        "wv2-rotterdam-1",
        "wv2-rotterdam-2",
        "wv2-rotterdam-3",
        "vhr-henan",
        "landsat8-pamplona",
        "landsat8-bands",
        "quickbird-paris",
        "spot6-tiny",
    ],
)
def test_products_lie_right_and_agree_with_ms(scenes: Path, tmp_path: Path, name: str) -> None:
    pan, ms = scenes / name / "pan.tif", [scenes / name / "ms.tif"]
    options: dict[str, object] = {}
    flags: list[str] = []
    if name == "landsat8-bands":
        pan, *ms = (scenes / name / LANDSAT.format(b) for b in (8, 4, 3, 2, 5))
    if name == "quickbird-paris":
        with pytest.raises(GeometryError, match="neither file says where it lies"):
            sharpen(pan, ms, tmp_path / "out.tif")
        options = dict(UNPLACED)
        flags = ["--ratio", "4", "--ms-origin=225.7,-735.2"]
    sharpen(pan, ms, tmp_path / "out.tif", **options)
    report = run("check_product.py", tmp_path / "out.tif", pan, *ms, *flags)
    assert "WRONG" not in report
    agreement = report.split("against MS (MTF ")[1].split("): ")[1]
    percent = [float(p.strip().removesuffix("%")) for p in agreement.split(",")]
    assert max(percent) < 3.0, report


def test_south_up_pan(scenes: Path, tmp_path: Path) -> None:
    """A PAN stored bottom row first gives the product of the same PAN stored top row first, upside down."""
    with rasterio.open(scenes / "edge" / "south-up-pan.tif") as file:
        pan, up = file.read(), file.profile
    height, width = pan.shape[1:]
    north = up | {"transform": up["transform"] @ rasterio.Affine(1, 0, 0, 0, -1, height)}
    with rasterio.open(tmp_path / "north.tif", "w", **north) as file:
        file.write(pan[:, ::-1])
    ms = pan[:, ::-1].reshape(1, height // 4, 4, width // 4, 4).mean(axis=(2, 4))
    coarse = north | {
        "height": height // 4,
        "width": width // 4,
        "count": 3,
        "transform": north["transform"] @ rasterio.Affine.scale(4),
    }
    with rasterio.open(tmp_path / "ms.tif", "w", **coarse) as file:
        file.write(np.repeat(ms, 3, axis=0).astype(coarse["dtype"]))
    images = []
    for given in (scenes / "edge" / "south-up-pan.tif", tmp_path / "north.tif"):
        sharpen(given, tmp_path / "ms.tif", tmp_path / "out.tif", overwrite=True)
        with rasterio.open(tmp_path / "out.tif") as file:
            images.append(file.read().astype(float))
    # Networks are not exactly symmetric; geometry that is off by a pixel shows far more than that.
    flipped = images[0][:, ::-1]
    assert np.abs(flipped - images[1]).mean() < 0.2 * np.abs(np.roll(flipped, 1, axis=1) - images[1]).mean()


@pytest.mark.parametrize(
    ("names", "flags"),
    [
        (["gf2-rr-val", "pleiades-rr-val", "vhr-henan", "wv2-rotterdam-2"], ["--unregistered"]),
        # Registered, GDAL's Brovey has a lower ERGAS on wv2-rotterdam-2: the card says why.
        (["gf2-rr-val", "pleiades-rr-val", "vhr-henan"], []),
    ],
)
def test_the_shipped_model_is_best_at_reduced_resolution(scenes: Path, names: list[str], flags: list[str]) -> None:
    table = run("compare_with_gdal.py", scenes, *names, *flags)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert {row[0] for row in rows} == set(names)
    for scene in {row[0] for row in rows}:
        scores = {row[1]: (float(row[2]), float(row[3])) for row in rows if row[0] == scene}
        ours = scores.pop("pancrafter universal-small")
        for method, (ergas, sam) in scores.items():
            assert ours[0] < ergas, (scene, method)
            assert ours[1] < sam, (scene, method)
