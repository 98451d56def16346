"""Several processes train one model: how they meet, and what they agree on.

Each has devices of its own and works on their rows of every batch (`parallel`). The first
one alone writes the run folder and judges; all others wait for it where they next agree.
All of it does nothing where there is one process.
"""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import logging
import os
import socket
import time

import jax
from jax.experimental import multihost_utils
import numpy as np

from dpjax.core.errors import UserError

# The processes of a cluster without a scheduler that jax knows; the address is jax's own.
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "DPJAX_NUM_PROCESSES", "DPJAX_PROCESS_ID"
PATIENCE = 300  # s that processes wait for one that does not answer; machines do pause

log = logging.getLogger("dpjax")


def start(environ: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes, which the environment names; before any other use of jax."""
    given = from_environment(environ)
    # XLA's CPU devices reach those of another process through Gloo alone.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would swallow SIGTERM until `Signals` listens, and a start would not die of it.
    jax.config.update("jax_enable_preemption_service", False)
    if given.get("process_id"):
        wait_for(given["coordinator_address"])
    try:
        jax.distributed.initialize(
            **given,
            heartbeat_timeout_seconds=PATIENCE,
            shutdown_timeout_seconds=20,  # of one that fails, whose others can't come any more
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"config.distributed=True, but no other processes are found ({error}): start under "
            f"SLURM, Open MPI, Kubernetes or on a TPU pod, or set {ADDRESS} (host:port of "
            f"process 0), {COUNT} and {INDEX}."
        ) from error


def from_environment(environ: Mapping[str, str]) -> dict:
    """Arguments of `jax.distributed.initialize`: none where jax asks the scheduler itself."""
    given = [name for name in (COUNT, INDEX) if name in environ]
    if not given:
        return {}
    for name in (ADDRESS, COUNT, INDEX):
        if name not in environ:
            raise UserError(f"{' and '.join(given)} set, but {name} is not: set all three.")
    address = environ[ADDRESS]
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdigit():
        raise UserError(f"{ADDRESS}={address!r} must be host:port of process 0.")
    try:
        count, index = int(environ[COUNT]), int(environ[INDEX])
    except ValueError:
        count = index = 0
    if not 0 <= index < count:
        raise UserError(
            f"{COUNT}={environ[COUNT]} and {INDEX}={environ[INDEX]}: the processes are counted "
            "from 0, so the second must be a whole number below the first."
        )
    # Deactivated, since a scheduler's own idea of the processes is not what was asked for.
    numbers = {"num_processes": count, "process_id": index}
    return {"coordinator_address": address, **numbers, "cluster_detection_method": "deactivate"}


def wait_for(address: str, patience: float = PATIENCE) -> None:
    """Returns once somebody listens there: jax itself would end in a C++ trace."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"{ADDRESS}={address}: process 0 does not answer there after "
                    f"{patience:.0f} s ({error.strerror or error}): start it, or mend the address."
                ) from error
        time.sleep(0.2)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def max_over_processes(number: int) -> int:
    """The largest of all processes' numbers. All must ask; who comes early waits."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """What stops one process in this block stops all of them at its end."""
    failed = None
    try:
        yield
    except Exception as error:
        failed = error
    if max_over_processes(failed is not None) and failed is None:
        raise UserError("stopped because another process was; the reason is in its output.")
    if failed is not None:
        raise failed


def check_same(**texts: str) -> None:
    """Refuses to go on where a text is another one in another process."""
    if jax.process_count() == 1:
        return
    hashes = [hashlib.sha256(text.encode()).digest()[:8] for text in texts.values()]
    here = np.frombuffer(b"".join(hashes), np.int32).reshape(len(texts), 2)
    for i, name in enumerate(texts):
        if (multihost_utils.process_allgather(here)[:, i] != here[i]).any():
            raise UserError(
                f"the processes do not have the same {name}: give all the same command line, "
                "and folders that all of them see."
            )
