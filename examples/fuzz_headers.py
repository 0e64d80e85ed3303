"""Sharpen pairs whose GeoTIFF headers are damaged at random, and report what should never happen.

    python examples/fuzz_headers.py --minutes 10
    python examples/fuzz_headers.py --seed 1234 --count 1 --keep /tmp/finding

Each trial has a seed of its own and runs in a child process with limited time and memory. A damaged file may be
accepted or refused with one message; a traceback, a crash, a hang, other words on stderr, or a file left behind
is a finding. Needs Linux or macOS.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from pancrafter_cli.cli.main import run
from pancrafter_cli.tasks import sharpen as _loaded_before_forking  # noqa: F401

SECONDS = 20.0
MEGABYTES = 1536  # of address space, libraries included
LARGEST_OUTPUT = 64 << 20
METHODS = ("exp", "gsa", "brovey", "mtf-glp-fs")
NUMBERS = (0, 1, 2, 3, 4, 7, 8, 9, 12, 16, 17, 255, 256, 4095, 65535, 65536, 1 << 24, 1 << 31, (1 << 31) - 1)
NUMBERS += (0xFFFFFFFF, 0x7FF00000, 0x7FF80000, 0xFFF00000, 1 << 62, (1 << 64) - 1)
FLOATS = (0.0, -0.5, 1e-30, 1e9, 1e300, float("nan"), float("inf"), -float("inf"))
# What files are written like: creation options of GDAL, dtype, nodata.
KINDS = (
    ({}, "uint16", None),
    ({"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}, "uint16", 0),
    ({"compress": "lzw", "predictor": 2, "interleave": "band"}, "uint8", None),
    ({"compress": "deflate", "predictor": 3}, "float32", float("nan")),
    ({"bigtiff": "yes", "tiled": True, "blockxsize": 32, "blockysize": 32}, "int16", -1),
    ({"endianness": "big", "compress": "packbits"}, "uint16", None),
    ({"compress": "jpeg"}, "uint8", None),
    ({"nbits": "12", "sparse_ok": True}, "uint16", None),
)


@dataclass(frozen=True)
class Trial:
    """How a trial ended: `finding` is empty where all went as it should."""

    seed: int
    kind: str
    finding: str
    said: str
    seconds: float


def write_kinds(folder: Path) -> list[Path]:
    """Sound pairs of 64 x 64 and 16 x 16 pixels, one of each kind, every second with a mask; returns their folders."""
    rng = np.random.default_rng(0)
    pairs = []
    for number, (options, dtype, nodata) in enumerate(KINDS):
        pair = folder / str(number)
        pair.mkdir()
        for name, bands, size, pixel in (("pan.tif", 1, 64, 0.5), ("ms.tif", 3, 16, 2.0)):
            place = {"transform": Affine(pixel, 0, 500_000, 0, -pixel, 5_700_000), "crs": "EPSG:32631"}
            shape = {"count": bands, "height": size, "width": size, "dtype": dtype, "nodata": nodata}
            with (
                rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
                rasterio.open(pair / name, "w", driver="GTiff", **place, **shape, **options) as file,
            ):
                file.write(rng.integers(10, 120, (bands, size, size)).astype(dtype))
                file.update_tags(SENSOR="none", NOTE="x" * 50)
                file.descriptions = [f"band {n}" for n in range(bands)]
                if number % 2 and nodata is None:
                    file.write_mask(rng.random((size, size)) > 0.1)
        pairs.append(pair)
    return pairs


def entries(data: bytes) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """The entries of all directories of a TIFF: (format of its numbers, offset, offsets of its four fields)."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    link, count, fields, size = ("Q", "Q", (0, 2, 4, 12), 20) if big else ("I", "H", (0, 2, 4, 8), 12)
    at = struct.unpack_from(order + link, data, 8 if big else 4)[0]
    while at:
        number = struct.unpack_from(order + count, data, at)[0]
        first = at + struct.calcsize(count)
        for n in range(number):
            yield order + link, first + n * size, fields
        at = struct.unpack_from(order + link, data, first + number * size)[0]


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes of a TIFF after a few changes, most of them to the entries of its directories."""
    places = list(entries(data))
    out = bytearray(data)
    for _ in range(rng.geometric(0.6)):
        form, at, fields = places[rng.integers(len(places))]
        number = int(rng.choice(np.array(NUMBERS, object)))
        what = rng.random()
        if what < 0.2:  # tag or type
            struct.pack_into(form[0] + "H", out, at + fields[rng.integers(2)], min(number, 65535))
        elif what < 0.55:  # count or value
            struct.pack_into(
                form, out, at + fields[2 + rng.integers(2)], number & (2 ** (8 * struct.calcsize(form)) - 1)
            )
        elif what < 0.65:  # value, moved by a little
            old = struct.unpack_from(form, out, at + fields[3])[0]
            struct.pack_into(form, out, at + fields[3], max(0, old + int(rng.integers(-9, 1 if old >> 31 else 10))))
        elif what < 0.75:  # one entry for another
            _, other, _ = places[rng.integers(len(places))]
            size = fields[3] + struct.calcsize(form)
            out[at : at + size] = out[other : other + size]
        elif what < 0.85:  # numbers that entries lead to: places, GeoKeys, offsets
            kind, value = ("d", rng.choice(FLOATS)) if rng.random() < 0.5 else ("H", min(number, 65535))
            target = struct.unpack_from(form, out, at + fields[3])[0] + 2 * int(rng.integers(32))
            if target < len(out) - 8:
                struct.pack_into(form[0] + kind, out, target, value)
        elif what < 0.97:  # any byte, most likely one before the pixels
            out[int(len(out) * rng.random() ** 3)] = rng.integers(256)
        else:
            out = out[: max(200, int(len(out) * rng.random()))].ljust(len(data), b"\0")
    return bytes(out)


def attempt(seed: int, pairs: list[Path], work: Path) -> Trial:
    """Damage one of the pairs as `seed` says, sharpen it in a child, and judge how that ended."""
    rng = np.random.default_rng(seed)
    pair = pairs[rng.integers(len(pairs))]
    shutil.rmtree(work, ignore_errors=True)
    (work / "out").mkdir(parents=True)
    which = rng.choice(["pan.tif", "ms.tif", "both"], p=[0.45, 0.45, 0.1])
    for name in ("pan.tif", "ms.tif"):
        data = (pair / name).read_bytes()
        (work / name).write_bytes(damage(data, rng) if which in (name, "both") else data)
    method = str(rng.choice(METHODS))
    words = ["sharpen", str(work / "pan.tif"), str(work / "ms.tif"), "-o", str(work / "out" / "o.tif")]
    began = time.monotonic()
    status = _in_child([*words, "--method", method], work)
    seconds = time.monotonic() - began
    said = (work / "stderr").read_text(errors="replace")
    left = sorted(path.name for path in (work / "out").iterdir())
    for name in ("stdout", "stderr"):
        (work / name).unlink()
    beside = sorted(path.name for path in work.iterdir())
    return Trial(seed, f"{which} {method} {pair.name}", _judge(status, said, left, beside), said, seconds)


def _judge(status: int | None, said: str, left: list[str], beside: list[str]) -> str:
    """What is wrong with how a run ended, in a word or two."""
    if status is None:
        # With output under way the run only has much to do: the header claims a large image.
        return "" if left else "hang"
    if os.WIFSIGNALED(status):
        return f"crash ({signal.Signals(os.WTERMSIG(status)).name})"
    code = os.WEXITSTATUS(status)
    # libtiff itself prints a line when the system refuses it something, and leaves nobody a way to prevent it.
    lines = [line for line in said.splitlines() if not line.startswith("_tiff")]
    if "Traceback" in said:
        return "traceback"
    if "there is not enough memory" in said:
        return "memory"
    if code not in (0, 1):
        return f"exit code {code}"
    if [line.split(" ")[0] for line in lines] != (["error:", "hint:"] if code else []):
        return "other words on stderr"
    if left != ([] if code else ["o.tif"]) or beside != ["ms.tif", "out", "pan.tif"]:
        return "stray file"
    return ""


def _in_child(arguments: list[str], work: Path) -> int | None:
    """Wait status of a fork of this process that runs the program, None when it had to be stopped."""
    child = os.fork()
    if child == 0:
        _be_program(arguments, work)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _be_program(arguments: list[str], work: Path) -> None:
    """Run the program with limits, and never return."""
    code = 70
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(work / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
        for what, limit in (
            (resource.RLIMIT_AS, MEGABYTES << 20),
            (resource.RLIMIT_FSIZE, LARGEST_OUTPUT),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(what, (limit, limit))
        sys.argv = ["pancrafter", *arguments]
        try:
            run()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> int:
    """Run trials one seed after another; returns 1 when there was a finding."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of the first trial; the next ones count up")
    parser.add_argument("--count", type=int, help="trials; default: as many as fit into --minutes")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--keep", type=Path, help="folder to keep the damaged pairs of findings in")
    parser.add_argument("--show", action="store_true", help="print what every trial said")
    options = parser.parse_args()
    tally: Counter[str] = Counter()
    findings = 0
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as name:
        work = Path(name) / "work"
        pairs = write_kinds(Path(name))
        for seed in itertools.count(options.seed):
            if time.monotonic() > end or (options.count is not None and seed >= options.seed + options.count):
                break
            trial = attempt(seed, pairs, work)
            tally["refused" if "error: " in trial.said else "accepted"] += not trial.finding
            if options.show or trial.finding:
                print(f"seed {seed}: {trial.finding or 'as it should be'}; {trial.kind}; {trial.seconds:.1f} s")
                print("    " + trial.said[-3000:].strip().replace("\n", "\n    "), flush=True)
            if trial.finding:
                findings += 1
                tally[trial.finding] += 1
                if options.keep:
                    shutil.copytree(work, options.keep / str(seed), dirs_exist_ok=True)
    print(f"{sum(tally.values())} trials: " + ", ".join(f"{n} {what}" for what, n in tally.most_common()))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
