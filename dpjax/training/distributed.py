"""Training one model with several processes: how they connect and stay in step.

Each process has its own devices and computes their part of every batch (see `parallel`). Only
process 0 writes the run folder and runs evaluators; the others wait for it at the next collective
operation. With a single process there is nothing to wait for.
"""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import logging
import os
import socket
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from dpjax.core.errors import UserError

# Environment variables for clusters without a scheduler that jax supports.
ADDRESS = "JAX_COORDINATOR_ADDRESS"  # host:port where process 0 listens; jax reads it too
COUNT = "DPJAX_NUM_PROCESSES"  # number of processes
INDEX = "DPJAX_PROCESS_ID"  # number of this process, from 0

# Seconds to wait for a process that does not answer. Long, because machines may be suspended.
PATIENCE = 300
# Seconds that a failing process waits for the others. Short, because they cannot answer any more.
SHUTDOWN = 20

log = logging.getLogger("dpjax")


def start(environ: Mapping[str, str] = os.environ) -> None:
    """Connects to the other processes, as the environment says. Must precede any other use of jax.

    Raises a UserError if the environment is incomplete or no other process is found.
    """
    # Check the environment first, to report a mistake before waiting for anything.
    settings = from_environment(environ)
    # Gloo is the library for collectives between the CPU devices of different processes.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # jax's preemption service would swallow a SIGTERM that arrives before `Signals.listen`.
    jax.config.update("jax_enable_preemption_service", False)
    # Process 0 is the one that listens; the others wait until it does.
    if settings.get("process_id"):
        wait_for(settings["coordinator_address"])
    try:
        jax.distributed.initialize(
            **settings,
            heartbeat_timeout_seconds=PATIENCE,
            shutdown_timeout_seconds=SHUTDOWN,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"distributed=True, but no other processes are found ({error}): start under "
            f"SLURM, Open MPI, Kubernetes or on a TPU pod, or set {ADDRESS} (host:port of "
            f"process 0), {COUNT} and {INDEX}.",
            argument="distributed",
        ) from error


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of `jax.distributed.initialize`; {} if jax is to detect the scheduler.

    Raises a UserError if only some of the three variables are set, or if one is invalid.
    """
    # The address alone is not enough: it may be set for jax's own detection of a cluster.
    present = [name for name in (COUNT, INDEX) if name in environ]
    if not present:
        return {}
    for name in (ADDRESS, COUNT, INDEX):
        if name not in environ:
            raise UserError(f"{' and '.join(present)} set, but {name} is not: set all three.")
    # Check each variable here: jax would report a mistake with an error from its internals.
    address = environ[ADDRESS]
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{ADDRESS}={address!r} must be host:port of process 0.")
    try:
        count = int(environ[COUNT])
        index = int(environ[INDEX])
    except ValueError:
        count = index = 0  # raises the error below
    if not 0 <= index < count:
        raise UserError(
            f"{COUNT}={environ[COUNT]} and {INDEX}={environ[INDEX]}: the processes are counted "
            "from 0, so the second must be a whole number below the first."
        )
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
        # Otherwise jax would prefer the settings of a scheduler that it detects.
        "cluster_detection_method": "deactivate",
    }


def wait_for(address: str, patience: float = PATIENCE) -> None:
    """Waits until process 0 listens at `address`, host:port.

    Raises a UserError after `patience` seconds; jax itself would abort with a C++ stack trace.
    """
    # The port follows the last colon: an IPv6 address has several, as in [::1]:1234.
    host, _, port = address.rpartition(":")
    end = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            # Process 0 may start later than this one, so keep trying until the time is over.
            if time.monotonic() > end:
                raise UserError(
                    f"{ADDRESS}={address}: process 0 does not answer there after "
                    f"{patience:.0f} s ({error.strerror or error}): start it, or mend the address."
                ) from error
        time.sleep(0.2)


def is_first() -> bool:
    """Whether this is process 0, which writes the run folder."""
    return jax.process_index() == 0


def max_over_processes(number: int) -> int:
    """The maximum of `number` over all processes. All processes must call it."""
    # A collective operation: every process waits here for all others. One process has none.
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """A context manager: if its block raises an exception in one process, all processes stop.

    Otherwise the other processes would wait forever for the failed one.
    """
    # Hold the exception back until all processes know of it.
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    # At the end of the block all processes exchange whether they failed.
    if max_over_processes(failure is not None) and failure is None:
        raise UserError("stopped because another process was; the reason is in its output.")
    if failure is not None:
        raise failure


def check_same(**texts: str) -> None:
    """Raises a UserError in all processes if one of the texts is not the same in all of them."""
    # A single process agrees with itself.
    if jax.process_count() == 1:
        return
    # Processes can exchange arrays only, so 8 bytes of each text's hash become two int32.
    hashes = [hashlib.sha256(text.encode()).digest()[:8] for text in texts.values()]
    here = np.frombuffer(b"".join(hashes), np.int32).reshape(len(texts), 2)
    # Gathered: [processes, texts, 2].
    for i, name in enumerate(texts):
        if (multihost_utils.process_allgather(here)[:, i] != here[i]).any():
            raise UserError(
                f"the processes do not have the same {name}: give all the same command line, "
                "and folders that all of them see."
            )
