"""A short, repeatable run of the header fuzzer; examples/fuzz_headers.py runs longer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("resource", reason="limits of processes are a matter of Unix")

FUZZER = Path(__file__).parents[1] / "examples" / "fuzz_headers.py"


def test_damaged_headers_are_refused_or_sharpened() -> None:
    words = [sys.executable, str(FUZZER), "--seed", "1", "--count", "60", "--minutes", "1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.splitlines()[-1]
    # Both ways are walked: a fuzzer whose files are all refused at the door would see nothing.
    assert "refused" in summary
    assert "accepted" in summary


@pytest.mark.parametrize(
    "seed",
    [
        33,  # GDAL's own exceptions where only metadata are asked for
        100113,  # GDAL quotes bytes that are no text, and rasterio's log cannot take them
        100264,  # pixels near the end of float32
        400897,  # sums of pixels that overflow
        301171,  # a geotransform whose pixels are too small to count in
    ],
)
def test_seeds_that_once_failed(seed: int) -> None:
    words = [sys.executable, str(FUZZER), "--seed", str(seed), "--count", "1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_headers", FUZZER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_headers"] = module
    spec.loader.exec_module(module)
    return module


def test_damage_depends_on_the_seed_only(fuzzer: ModuleType, tmp_path: Path) -> None:
    pairs = fuzzer.write_kinds(tmp_path)
    assert len(pairs) == len(fuzzer.KINDS)
    for pair in pairs:
        data = (pair / "ms.tif").read_bytes()
        assert len(list(fuzzer.entries(data))) > 10
        first, again = ([fuzzer.damage(data, np.random.default_rng(seed)) for seed in range(20)] for _ in range(2))
        assert first == again
        assert len({*first} - {data}) > 15


@pytest.mark.parametrize(
    ("status", "said", "left", "beside", "finding"),
    [
        (0, "", ["o.tif"], [], ""),
        (0, "", [], [], "stray file"),
        (0, "warning", ["o.tif"], [], "other words on stderr"),
        (1 << 8, "error: a\nhint: b\n", [], [], ""),
        (1 << 8, "error: a\nhint: b\n", ["o.tif"], [], "stray file"),
        (1 << 8, "error: a\nhint: b\n", [], ["pan.tif.aux.xml"], "stray file"),
        (1 << 8, "error: there is not enough memory\nhint: b\n", [], [], "memory"),
        (1 << 8, "error: a\nb\nhint: c\n", [], [], "other words on stderr"),
        (70 << 8, "Traceback (most recent call last):", [], [], "traceback"),
        (3 << 8, "", [], [], "exit code 3"),
        (11, "", [], [], "crash (SIGSEGV)"),
        (None, "", [], [], "hang"),
        (None, "", [".o.tif.part.tif"], [], ""),
    ],
)
def test_what_counts_as_a_finding(
    fuzzer: ModuleType, status: int | None, said: str, left: list[str], beside: list[str], finding: str
) -> None:
    assert fuzzer._judge(status, said, left, sorted([*beside, "pan.tif", "ms.tif", "out"])) == finding
