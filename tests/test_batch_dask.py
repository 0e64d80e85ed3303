"""Batches on a Dask cluster: workers may die, every scene is completed once, and no pixel differs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio

from pancrafter_cli.errors import ClusterError, UsageError
from pancrafter_cli.tasks import cluster
from pancrafter_cli.tasks.batch import Outcome, Plan, plan_batch
from pancrafter_cli.tasks.cluster import run_on_cluster
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions
from pancrafter_cli.version import __version__
from tests.pairs import write_pair

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")

SCENES = 20
BROVEY = SharpenOptions(Path(), (), Path(), method="brovey", registration="off")
RUN = "from pancrafter_cli.cli.main import run; run()"


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    """Two worker processes of one thread each."""
    with distributed.LocalCluster(
        processes=True, n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as made:
        yield made


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for n in range(SCENES):
        write_pair(folder / f"s{n:02}", seed=n, pan_size=192, ratio=4, bands=3)
    return folder


def run(plan: Plan, scheduler: str) -> list[Outcome]:
    with closing(run_on_cluster(plan, scheduler, lambda text: None)) as coming:  # type: ignore[type-var]
        return list(coming)


def open_files(pid: int) -> list[str]:
    """Where the open files of a process lie."""
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            names.append(str(link.readlink()))
    return names


def kill_while_writing(pids: list[int], out: Path, done: int, killed: list[int]) -> None:
    """SIGKILL the first of these processes that is amid a scene once so many are done; note it and the scene's file."""
    for _ in range(20_000):
        if len(list(out.glob("*.tif"))) >= done:
            for pid in pids:
                if any(name.endswith(".part.tif") for name in open_files(pid)):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
        time.sleep(0.001)


def test_a_killed_worker_costs_no_scene_and_no_pixel(tmp_path: Path, scenes: Path, workers: Any) -> None:
    out = tmp_path / "out"
    pids = [worker.pid for worker in workers.workers.values()]
    killed: list[int] = []
    killer = threading.Thread(target=kill_while_writing, args=(pids, out, 6, killed))
    killer.start()
    words = ["batch", scenes, "--out", out, "--method", "brovey", "--registration", "off"]
    words += ["--dask", workers.scheduler_address]
    done = subprocess.run([sys.executable, "-c", RUN, *map(str, words)], capture_output=True, text=True, timeout=120)
    killer.join()
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(killed) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(killed[0], 0)
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:-1]] == [[f"s{n:02}", "done"] for n in range(SCENES)]
    assert lines[-1] == f"{SCENES} done"
    assert sorted(path.name for path in out.iterdir()) == [f"s{n:02}.tif" for n in range(SCENES)]  # no unfinished file
    for n in range(SCENES):
        single = tmp_path / f"s{n:02}.tif"
        folder = scenes / single.stem
        sharpen_scene(replace(BROVEY, pan=folder / "pan.tif", ms=(folder / "ms.tif",), output=single))
        with rasterio.open(single) as one, rasterio.open(out / single.name) as many:
            np.testing.assert_array_equal(one.read(), many.read())
            tags = {key: value for key, value in many.tags().items() if key != "PANCRAFTER_COMMAND"}
            assert tags == one.tags()
    again = run(plan_batch(scenes, out, BROVEY), workers.scheduler_address)
    assert [outcome.status for outcome in again] == ["skipped"] * SCENES


def test_failures_are_told_and_bytes_are_those_of_single_runs(tmp_path: Path, workers: Any) -> None:
    for n in range(3):
        write_pair(tmp_path / "scenes" / f"s{n}", seed=n, pan_size=64, ratio=4, bands=3)
    (tmp_path / "scenes/s1/pan.tif").write_bytes(b"no raster")
    outcomes = run(plan_batch(tmp_path / "scenes", tmp_path / "out", BROVEY), workers.scheduler_address)
    assert {outcome.scene: outcome.status for outcome in outcomes} == {"s0": "done", "s1": "failed", "s2": "done"}
    failed = next(outcome for outcome in outcomes if outcome.status == "failed")
    assert failed.error == "RasterError"
    assert failed.hint
    folder = tmp_path / "scenes/s2"
    sharpen_scene(replace(BROVEY, pan=folder / "pan.tif", ms=(folder / "ms.tif",), output=tmp_path / "s2.tif"))
    assert (tmp_path / "s2.tif").read_bytes() == (tmp_path / "out/s2.tif").read_bytes()


def test_a_scene_that_kills_its_workers_fails_alone(tmp_path: Path, scenes: Path, workers: Any) -> None:
    job = plan_batch(scenes, tmp_path, BROVEY).jobs[0]
    before, workers.scheduler.allowed_failures = workers.scheduler.allowed_failures, 0
    try:
        with distributed.Client(workers, set_as_default=False) as client:
            future = client.submit(os._exit, 9, pure=False)
            assert future.exception() is not None  # waits
            outcome = cluster._outcome(future, job, new=True)
    finally:
        workers.scheduler.allowed_failures = before
    assert (outcome.status, outcome.error) == ("failed", "ClusterError")
    assert "every worker that began it was lost" in outcome.message


def test_ctrl_c_cancels_what_no_worker_has_begun(tmp_path: Path, scenes: Path, workers: Any) -> None:
    said: list[str] = []
    coming = run_on_cluster(plan_batch(scenes, tmp_path / "out", BROVEY), workers.scheduler_address, said.append)
    assert next(coming).status == "done"
    with pytest.raises(KeyboardInterrupt):
        coming.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert said == ["workers go on with the scenes that they have begun"]
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(info.processing for info in workers.scheduler.workers.values()):
        time.sleep(0.05)
    made = len(list((tmp_path / "out").glob("*.tif")))
    time.sleep(0.5)
    assert len(list((tmp_path / "out").glob("*.tif"))) <= made + 2 < SCENES


def test_what_a_lost_worker_had_finished_counts_as_done(tmp_path: Path, scenes: Path) -> None:
    job = plan_batch(scenes, tmp_path, BROVEY).jobs[0]
    found = Outcome(job.scene, "skipped", job.options.output)
    future = SimpleNamespace(status="finished", result=lambda: found)
    assert cluster._outcome(future, job, new=True).status == "done"
    assert cluster._outcome(future, job, new=False).status == "skipped"
    lost = cluster._outcome(SimpleNamespace(status="cancelled"), job, new=True)
    assert (lost.status, lost.message) == ("failed", "the scheduler was lost")


def test_workers_of_another_version_are_refused(
    tmp_path: Path, scenes: Path, workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_batch(scenes, tmp_path / "out", BROVEY)
    late = cluster._run_remotely("0.0.1", plan.jobs[0])
    assert late.status == "failed"
    assert __version__ in late.message
    assert "0.0.1" in late.message
    monkeypatch.setattr(cluster, "__version__", "9.9.9")
    with pytest.raises(ClusterError, match=rf"tcp://\S+ has pancrafter {__version__}, this machine has 9.9.9"):
        run(plan, workers.scheduler_address)
    monkeypatch.setattr(cluster, "_VERSION", "no_such_module:__version__")
    with pytest.raises(ClusterError, match="has no pancrafter"):
        run(plan, workers.scheduler_address)
    assert not (tmp_path / "out").exists()


def test_several_threads_or_no_worker_are_warned_of(tmp_path: Path, scenes: Path) -> None:
    plan = replace(plan_batch(scenes, tmp_path, BROVEY), jobs=())
    said: list[str] = []
    with distributed.LocalCluster(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0", protocol="tcp"
    ) as made:
        assert list(run_on_cluster(plan, made.scheduler_address, said.append)) == []
    with distributed.LocalCluster(processes=False, n_workers=0, dashboard_address=":0", protocol="tcp") as made:
        assert list(run_on_cluster(plan, made.scheduler_address, said.append)) == []
    assert [("several threads" in text, "no worker yet" in text) for text in said] == [(True, False), (False, True)]


def test_a_scheduler_that_is_not_there_is_one_message(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_batch(scenes, tmp_path, BROVEY)
    for wrong in ("nonsense", "foo://host:1"):
        with pytest.raises(UsageError, match="--dask"):
            run(plan, wrong)
    monkeypatch.setattr(cluster, "_PATIENCE", 1)
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run(plan, "tcp://127.0.0.1:9")


def test_without_the_library_the_error_says_how_to_install_it(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError) as raised:
        run(plan_batch(scenes, tmp_path, BROVEY), "tcp://127.0.0.1:9")
    assert raised.value.hint == "pip install 'pancrafter[dask]'"
