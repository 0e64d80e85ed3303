"""Measures what a hole in PAN does to the pixels around it.

python examples/measure_holes.py SCENE [SCENE ...]
Every SCENE is a folder with pan.tif and ms.tif. Holes of 80 x 80 PAN pixels are cut at random places, the scene is
sharpened with and without them, and the valid pixels within two MS pixels of a hole are compared, as a share of the
scale (99th percentile of the product). The last columns fill the hole with PAN itself, blurred to MS resolution, in
place of what the tool puts there: what is left then is detail that nobody can know who does not see the hole's inside.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from scipy import ndimage

from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions

HOLE, EDGE = 80, 40
NEAR = 2  # MS pixels
LARGE = 0.02  # of the scale


def write_pan(path: Path, pan: np.ndarray, profile: dict[str, object]) -> Path:
    """Write PAN (1, H, W) with the profile of another file."""
    with rasterio.open(path, "w", **profile) as file:
        file.write(pan)
    return path


def sharpened(pan: Path, ms: Path, folder: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """The product in DN, where it is valid, and the ratio."""
    output = folder / "out.tif"
    result = sharpen_scene(SharpenOptions(pan, (ms,), output, overwrite=True, registration="off"))
    with rasterio.open(output) as file:
        return file.read().astype(np.float64), file.dataset_mask() > 0, result.ratio


def measure(scene: Path, holes: int, rng: np.random.Generator, folder: Path) -> None:
    """Print a row for each of so many holes."""
    ms = scene / "ms.tif"
    with rasterio.open(scene / "pan.tif") as file:
        pan, profile = file.read(), file.profile
    nodata = int(np.iinfo(pan.dtype).max) if pan.dtype.kind in "iu" else -9999
    profile.update(nodata=nodata, dtype=pan.dtype)
    whole, valid, ratio = sharpened(write_pan(folder / "pan.tif", pan, profile), ms, folder)
    scale = np.percentile(whole[:, valid], 99)
    margin = round(NEAR * ratio)
    # PAN blurred about as MS is (MTF 0.3 at its Nyquist frequency).
    blurred = ndimage.gaussian_filter(pan[0].astype(np.float64), 0.49 * ratio)
    blurred = (blurred.round() if pan.dtype.kind in "iu" else blurred).astype(pan.dtype)
    for _ in range(holes):
        row, col = (int(rng.integers(EDGE, size - HOLE - EDGE)) for size in pan.shape[1:])
        part = np.s_[row : row + HOLE, col : col + HOLE]
        near = np.zeros(valid.shape, bool)
        near[row - margin : row + HOLE + margin, col - margin : col + HOLE + margin] = True
        near[part] = False
        near &= valid
        cut, known = pan.copy(), pan.copy()
        cut[0][part], known[0][part] = nodata, blurred[part]
        columns, lost = [], 0
        for image in (cut, known):
            product, still, _ = sharpened(write_pan(folder / "pan.tif", image, profile), ms, folder)
            lost = max(lost, int((valid & ~still).sum()))
            off = np.abs(product - whole)[:, near] / scale
            columns += [f"{np.percentile(off, 99):7.2%} {off.max():7.2%} {(off > LARGE).mean():7.2%}"]
        print(f"{scene.name:20s} {lost:6d}   {columns[0]}   {columns[1]}", flush=True)


def main() -> None:
    """Measure the scenes named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenes", nargs="+", type=Path)
    parser.add_argument("--holes", type=int, default=2, help="holes for each scene, one at a time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    print(f"{'scene':20s} nodata   {'99 % of pixels, worst, share beyond 2 %':39s}   with blurred PAN in the hole")
    with tempfile.TemporaryDirectory() as folder:
        for scene in options.scenes:
            measure(scene, options.holes, rng, Path(folder))


if __name__ == "__main__":
    main()
