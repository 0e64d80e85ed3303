"""Scenes on a Dask cluster: one task each, run again where a worker is lost."""

from __future__ import annotations

import logging
import os
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pancrafter_cli.errors import ClusterError, UsageError
from pancrafter_cli.tasks.batch import Job, Outcome, Plan, run_job
from pancrafter_cli.version import __version__

_VERSION = "pancrafter_cli.version:__version__"
_PATIENCE = 20  # seconds to wait for the scheduler's answer


def run_on_cluster(plan: Plan, scheduler: str, warn: Callable[[str], None]) -> Iterator[Outcome]:
    """Sharpen the scenes on the workers of a Dask scheduler; their outcomes as they come.

    A scene whose worker is lost is run again by another, up to the scheduler's `allowed-failures`; if the lost one had
    finished it, it counts as done. Workers read and write the same paths as this machine. `warn` gets what the user
    should know besides. Leaving the iterator cancels scenes that no worker has begun.

    Raises ClusterError where Dask is not installed, the scheduler does not answer, or workers have another version.
    """
    distributed = _distributed()
    with _connected(distributed, scheduler) as client:
        _check_workers(client, scheduler, warn)
        # Where there was none before, a product that a worker finds finished is that of one that has been lost since.
        before = {job.options.output for job in plan.jobs if os.path.exists(job.options.output)}  # noqa: PTH110
        futures = {client.submit(_run_remotely, __version__, job, pure=False): job for job in plan.jobs}
        try:
            for future in distributed.as_completed(list(futures), loop=client.loop):
                job = futures[future]
                yield _outcome(future, job, new=job.options.output not in before)
        except (KeyboardInterrupt, SystemExit):
            warn("workers go on with the scenes that they have begun")
            raise
        finally:
            client.cancel(list(futures))


def _distributed() -> Any:
    """The library. Raises ClusterError where it is not installed."""
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            "--dask needs dask.distributed, which is not installed", "pip install 'pancrafter[dask]'"
        ) from error
    return distributed


def _connected(distributed: Any, scheduler: str) -> Any:
    """A client of the scheduler. Raises UsageError for what is no address, ClusterError when nobody answers there."""
    try:
        distributed.comm.get_address_host_port(scheduler)
    except ValueError as error:
        raise UsageError(f"--dask {scheduler}: {error}", "give an address such as tcp://10.0.0.1:8786") from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it would say, our outcomes and errors do
    try:
        return distributed.Client(scheduler, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ImportError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {scheduler}: {error}",
            "start one with `dask scheduler`; it prints its address",
        ) from error


def _check_workers(client: Any, scheduler: str, warn: Callable[[str], None]) -> None:
    """Raise ClusterError when a worker has another version of pancrafter, or none."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        warn(f"{scheduler} has no worker yet; scenes wait for one")
    # By name, for the library's own functions cannot be sent where it is not installed.
    found = client.run(pkgutil.resolve_name, _VERSION, on_error="return") if workers else {}
    for worker, version in sorted(found.items()):
        if version != __version__:
            raise _other_version(worker, version if isinstance(version, str) else None)
    threaded = [worker for worker, facts in workers.items() if facts["nthreads"] > 1]
    if threaded:
        warn(
            f"{len(threaded)} of {len(workers)} workers have several threads, but each sharpens one scene at a time; "
            "scenes spread better over workers started with --nthreads 1"
        )


def _other_version(worker: str, version: str | None) -> ClusterError:
    has = f"pancrafter {version}" if version else "no pancrafter"
    return ClusterError(
        f"worker {worker} has {has}, this machine has {__version__}", f"install pancrafter {__version__} there"
    )


def _run_remotely(version: str, job: Job) -> Outcome:
    """The task: runs on a worker, which may have joined after the versions were compared."""
    if version != __version__:
        return Outcome(
            job.scene,
            "failed",
            job.options.output,
            message=f"its worker has pancrafter {__version__}, the batch was started by {version}",
            hint=f"install pancrafter {version} there",
            error="ClusterError",
        )
    return run_job(job)


def _outcome(future: Any, job: Job, new: bool) -> Outcome:
    """What became of a task; `new`: there was no product before the batch began."""
    if future.status == "finished":
        outcome: Outcome = future.result()
        if new and outcome.status == "skipped":
            return replace(outcome, status="done", message="finished by a worker that was lost afterwards")
        return outcome
    failed = Outcome(job.scene, "failed", job.options.output, error="ClusterError")
    if future.status == "error":
        error = future.exception()
        if type(error).__name__ == "KilledWorker":
            lost = "every worker that began it was lost; one may need more memory than they have"
            return replace(failed, message=lost, hint="use a smaller --tile, or workers with more memory")
        return replace(failed, message=f"{type(error).__name__}: {error}")
    return replace(failed, message="the scheduler was lost", hint="start the cluster, and the batch again")
