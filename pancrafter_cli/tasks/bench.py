"""Measuring how fast this machine sharpens: a synthetic scene, stage by stage and from end to end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from pancrafter_cli.data.simulate import simulate_scene
from pancrafter_cli.errors import UsageError
from pancrafter_cli.geometry.inputs import band_groups
from pancrafter_cli.geometry.tiling import Tiling
from pancrafter_cli.raster.outputs import product_writers
from pancrafter_cli.raster.scene import Scene, open_scene
from pancrafter_cli.runtime.measure import flops_per_pixel, matmul_ceiling, peak_memory
from pancrafter_cli.runtime.torch_runner import DTYPES, Precision, TorchRunner, pick_device
from pancrafter_cli.tasks.demo import DEFAULT_SEED, PIXEL_METRES, RATIO, write_image
from pancrafter_cli.tasks.fusers import DEFAULT_CONSISTENCY, check_ratio, checked_runner
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions
from pancrafter_cli.tasks.tile_inputs import read_inputs
from pancrafter_cli.tasks.tiles import DEFAULT_TILE, make_tiling
from pancrafter_cli.zoo import DEFAULT_MODEL, load_model

UNIT = 256  # PAN pixels a side of the synthetic scene that is repeated
STAGES = ("read", "network", "consistency", "write")


@dataclass(frozen=True)
class BenchOptions:
    """What to measure: model, device, precision, tile as for `sharpen`; size: PAN pixels a side; repeats: of each."""

    model: str | None = None
    device: str = "auto"
    precision: Precision = "auto"
    tile: int = DEFAULT_TILE
    size: int = 1024
    repeats: int = 5


@dataclass(frozen=True)
class Speed:
    """Median seconds for the whole scene, and PAN pixels per second."""

    seconds: float
    pixels_per_second: float


@dataclass(frozen=True)
class BenchResult:
    """How fast, with what: medians of `repeats` runs over a scene of `size` x `size` PAN pixels and `bands` bands.

    stages: one after another, without the overlap of reading and computing that end_to_end, `sharpen` as a whole, has.
    flops_per_pixel: of the network, for all bands of a pixel. matmul_flops: what matrix products reach per second on
    the device in this precision; share: what of that the network reaches, halos around tiles counted.
    peak_memory: bytes held by this process at most; device_memory: bytes on the GPU, None without one.
    """

    model: str
    device: str
    precision: str
    precision_reason: str
    threads: int
    size: int
    bands: int
    tile: int
    halo: int
    repeats: int
    stages: dict[str, Speed]
    end_to_end: Speed
    flops_per_pixel: float
    network_flops: float
    matmul_flops: float
    share: float
    peak_memory: int | None
    device_memory: int | None


def bench(options: BenchOptions) -> BenchResult:
    """Sharpen a synthetic scene in a temporary folder, several times. Raises UsageError, ModelError or DeviceError."""
    if options.size < UNIT or options.size % UNIT:
        raise UsageError(f"--size {options.size}: expected a multiple of {UNIT} PAN pixels", "use 1024")
    if options.repeats < 1:
        raise UsageError(f"--repeat {options.repeats}: expected at least 1", "use 5")
    undecided = TorchRunner(load_model(options.model or DEFAULT_MODEL), pick_device(options.device), options.precision)
    with TemporaryDirectory() as name:
        folder = Path(name)
        _write_scene(folder, options.size)
        with open_scene(folder / "pan.tif", [folder / "ms.tif"]) as scene:
            check_ratio(scene, undecided.spec)
            runner, bands = checked_runner(undecided, scene), scene.bands
            tiling = make_tiling(options.tile, reach=runner.radius)
            runs = [_staged(scene, runner, tiling, folder / "staged.tif") for _ in range(options.repeats)]
        whole = [_end_to_end(options, runner, folder) for _ in range(options.repeats)]
    pixels = options.size**2
    stages = {stage: _speed([run[stage] for run in runs], pixels) for stage in STAGES}
    flops = flops_per_pixel(runner.model.network) * len(band_groups(bands, runner.spec.bands))
    computed = flops * _pixels_read(tiling, options.size) / stages["network"].seconds
    ceiling = matmul_ceiling(runner.device, DTYPES[runner.precision])
    cuda = runner.device.type == "cuda"
    return BenchResult(
        model=runner.spec.name,
        device=str(runner.device),
        precision=runner.precision,
        precision_reason=runner.reason,
        threads=torch.get_num_threads(),
        size=options.size,
        bands=bands,
        tile=tiling.tile,
        halo=tiling.halo,
        repeats=options.repeats,
        stages=stages,
        end_to_end=_speed(whole, pixels),
        flops_per_pixel=flops,
        network_flops=computed,
        matmul_flops=ceiling,
        share=computed / ceiling,
        peak_memory=peak_memory(),
        device_memory=torch.cuda.max_memory_allocated(runner.device) if cuda else None,
    )


def _write_scene(folder: Path, size: int) -> None:
    unit, times = simulate_scene(DEFAULT_SEED, UNIT, RATIO, PIXEL_METRES), size // UNIT
    write_image(folder / "pan.tif", np.tile(unit.pan, (1, times, times)), PIXEL_METRES, ("pan",))
    write_image(folder / "ms.tif", np.tile(unit.ms, (1, times, times)), PIXEL_METRES * RATIO, unit.bands)


def _staged(scene: Scene, runner: TorchRunner, tiling: Tiling, output: Path) -> dict[str, float]:
    """Seconds of each stage over all tiles, one stage after the other."""
    spent = dict.fromkeys(STAGES, 0.0)
    normalisation = scene.statistics.normalisation
    with product_writers(output, scene.output, None, inputs=scene.files, overwrite=True) as outputs:
        for tile in tiling.tiles(scene.grid.shape):
            with _timed(spent, "read"):
                inputs = read_inputs(scene, tile.rows.read, tile.cols.read, matched=runner.matched)
            with _timed(spent, "network"):
                sharp = runner.sharpen(inputs.images)
            with _timed(spent, "consistency"):
                sharp = inputs.observed.pull(sharp, DEFAULT_CONSISTENCY)
            (top, bottom), (left, right) = tile.rows.core, tile.cols.core
            row, col = tile.rows.read[0], tile.cols.read[0]
            core = normalisation.undone(sharp[:, top - row : bottom - row, left - col : right - col])
            with _timed(spent, "write"):
                outputs.product.write(top, left, core, np.ones(core.shape, dtype=bool))
        began = time.perf_counter()
    spent["write"] += time.perf_counter() - began  # the file is finished and renamed on the way out
    return spent


def _end_to_end(options: BenchOptions, runner: TorchRunner, folder: Path) -> float:
    asked = SharpenOptions(
        folder / "pan.tif",
        (folder / "ms.tif",),
        folder / "sharp.tif",
        model=options.model,
        device=str(runner.device),
        precision=options.precision,
        tile=options.tile,
        overwrite=True,
    )
    return sharpen_scene(asked).seconds


@contextmanager
def _timed(spent: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    spent[stage] += time.perf_counter() - began


def _speed(seconds: list[float], pixels: int) -> Speed:
    median = statistics.median(seconds)
    return Speed(median, pixels / median)


def _pixels_read(tiling: Tiling, size: int) -> int:
    """Pixels the network computes for a scene of size x size pixels."""
    along = sum(span.read[1] - span.read[0] for span in tiling.spans(size))
    return along * along
