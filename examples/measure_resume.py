#!/usr/bin/env python
"""Kill one run of `sharpen` at random moments, go on with it each time, and compare the product to an undisturbed one.

    python examples/measure_resume.py --kills 50

The scene is long and narrow, so that it has many rows of tiles; the confidence layer is written too. A killed run is
ended by SIGKILL, which no program can catch. Needs a system that forks.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import random
import signal
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from pancrafter_cli.errors import PancrafterError
from pancrafter_cli.raster import outputs
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions

WIDTH, TILE, RATIO, BANDS = 600, 256, 4, 3


def main() -> None:
    """Print how often the run was killed and gone on with; fail where the product is another one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--method", default="brovey")
    parser.add_argument("--rows", type=int, help="of tiles; by default as many as kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outputs.JOURNAL_SECONDS = 0.0  # after each row of tiles, however fast they are here
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.kills, options.method, options.rows or options.kills, random.Random(options.seed))


@dataclass(frozen=True)
class Life:
    """One process: whether it came to its end, when its first tile was done (s), how long it lived, what it said."""

    ended: bool
    first: float
    seconds: float
    said: str


def measure(folder: Path, kills: int, method: str, rows: int, rng: random.Random) -> None:
    """Kill, go on, compare."""
    write_scene(folder, rows * TILE)
    begun = time.monotonic()
    whole = run(folder, "whole", method)
    if not (folder / "whole" / "out.tif").exists():
        raise SystemExit(f"there is no product: {whole.said}")
    print(f"undisturbed: {whole.seconds:.2f} s, the first tile after {whole.first:.2f} s")
    lives: list[Life] = []
    tiles, pause = rows * -(-WIDTH // TILE), (whole.seconds - whole.first) / rows
    while len(lives) < kills and not (lives and lives[-1].ended):
        # Mostly while tiles are written, and so few of them that the run lasts about as long as the kills do.
        if rng.random() < 0.2:
            lives.append(run(folder, "killed", method, delay=rng.uniform(0, whole.first)))
        else:
            after = int(rng.uniform(0, 1.5 * tiles / kills))
            lives.append(run(folder, "killed", method, after, rng.uniform(0, pause)))
    killed = sum(not life.ended for life in lives)
    if killed == len(lives):
        lives.append(run(folder, "killed", method))
    went_on = sum("going on" in life.said for life in lives)
    over = sum("starting over" in life.said for life in lives)
    print(
        f"killed {killed} times, went on {went_on} times, started over {over} times, {time.monotonic() - begun:.0f} s"
    )
    print(f"the last life: {lives[-1].said.strip() or 'from the start'}")
    names = {name: sorted(p.name for p in (folder / name).iterdir()) for name in ("whole", "killed")}
    hashes = {name: [digest(folder / name / file) for file in names["whole"]] for name in names}
    print(f"files: {', '.join(names['killed'])}")
    if names["whole"] != names["killed"] or hashes["whole"] != hashes["killed"]:
        raise SystemExit("the product of the killed run is another one")
    print("bit-identical to the undisturbed run: " + ", ".join(h[:16] for h in hashes["killed"]))


def run(folder: Path, name: str, method: str, tiles: int = 0, delay: float = math.inf) -> Life:
    """Sharpen in a process of its own, killed `delay` seconds after it has written so many tiles."""
    output = folder / name
    output.mkdir(exist_ok=True)
    reader, writer = os.pipe()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        sharpen(folder, output, method, writer)
    os.close(writer)
    os.set_blocking(reader, False)
    first, said, killed, since = 0.0, b"", False, begun
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        said += read(reader)
        now = time.monotonic()
        if not first and b"." in said:
            first = now - begun
        if said.count(b".") < tiles:
            since = now
        elif now - since > delay:
            os.kill(child, signal.SIGKILL)
            killed = True
        time.sleep(0.001)
    said += read(reader)
    os.close(reader)
    return Life(not killed, first, time.monotonic() - begun, said.decode().replace(".", ""))


def sharpen(folder: Path, output: Path, method: str, pipe: int) -> None:
    """Sharpen in this process, tell of tiles and notices through the pipe, and end it."""
    options = SharpenOptions(
        folder / "pan.tif",
        (folder / "ms.tif",),
        output / "out.tif",
        method=method,
        tile=TILE,
        registration="off",
        confidence=output / "confidence.tif",
    )
    try:
        sharpen_scene(
            options,
            lambda done, total: os.write(pipe, b"."),
            notice=lambda text: os.write(pipe, f"{text}\n".encode()),
        )
    except PancrafterError as error:
        os.write(pipe, f"{error.message}\n".encode())
    except Exception:
        os.write(pipe, traceback.format_exc().encode())
    finally:
        os._exit(0)


def read(pipe: int) -> bytes:
    """What has come through a pipe by now."""
    try:
        return os.read(pipe, 1 << 16)
    except BlockingIOError:
        return b""


def write_scene(folder: Path, height: int) -> None:
    """PAN and MS of noise that MS can see."""
    rng = np.random.default_rng(0)
    small = rng.integers(200, 2000, (BANDS, height // RATIO, WIDTH // RATIO), dtype=np.uint16)
    pan = small.mean(axis=0).repeat(RATIO, 0).repeat(RATIO, 1) + rng.normal(0, 30, (height, WIDTH))
    for name, image, step in (("pan", pan[None].astype(np.uint16), 1), ("ms", small, RATIO)):
        with rasterio.open(
            folder / f"{name}.tif",
            "w",
            driver="GTiff",
            count=len(image),
            height=image.shape[1],
            width=image.shape[2],
            dtype="uint16",
            crs="EPSG:32631",
            transform=Affine(step, 0, 500_000, 0, -step, 5_400_000),
            tiled=True,
        ) as file:
            file.write(image)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


if __name__ == "__main__":
    main()
