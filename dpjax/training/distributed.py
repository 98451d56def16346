"""Several processes train one model: how they meet, and what they agree on.

Each process has its own devices and works on their part of every batch (see `parallel`). Only the
first one writes the run folder and runs evaluators; the others wait for it where they next agree.
With one process every function here does nothing.
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

# For clusters without a scheduler that jax knows: where process 0 listens (jax's own name), how
# many processes there are, and which one this is.
ADDRESS = "JAX_COORDINATOR_ADDRESS"
COUNT = "DPJAX_NUM_PROCESSES"
INDEX = "DPJAX_PROCESS_ID"

PATIENCE = 300  # s to wait for a process that does not answer; machines do pause
SHUTDOWN = 20  # s that a failing process waits for the others, which cannot come any more

log = logging.getLogger("dpjax")


def start(environ: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes, which the environment names. Call it before any other use of jax.

    Raises a UserError if the environment is incomplete or no other process is found.
    """
    # The environment is checked first: a mistake there is told before anything waits.
    settings = from_environment(environ)
    # XLA's CPU devices can only reach those of another process through Gloo.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # This service would swallow a SIGTERM that comes before `Signals.listen`.
    jax.config.update("jax_enable_preemption_service", False)
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
    """Arguments of `jax.distributed.initialize`; {} if jax asks the scheduler itself.

    Raises a UserError if only some of the three variables are set, or one makes no sense.
    """
    # The address alone may be there for jax's own detection of a cluster.
    present = [name for name in (COUNT, INDEX) if name in environ]
    if not present:
        return {}
    for name in (ADDRESS, COUNT, INDEX):
        if name not in environ:
            raise UserError(f"{' and '.join(present)} set, but {name} is not: set all three.")
    # Each variable by itself, since jax would report a mistake from deep inside.
    address = environ[ADDRESS]
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{ADDRESS}={address!r} must be host:port of process 0.")
    try:
        count = int(environ[COUNT])
        index = int(environ[INDEX])
    except ValueError:
        count = index = 0  # refused below
    if not 0 <= index < count:
        raise UserError(
            f"{COUNT}={environ[COUNT]} and {INDEX}={environ[INDEX]}: the processes are counted "
            "from 0, so the second must be a whole number below the first."
        )
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
        # Otherwise jax would take the processes of a scheduler that it finds.
        "cluster_detection_method": "deactivate",
    }


def wait_for(address: str, patience: float = PATIENCE) -> None:
    """Returns once somebody listens at host:port.

    Raises a UserError after `patience` seconds; jax itself would end in a C++ trace.
    """
    # An IPv6 address has colons too: the port follows the last one.
    host, _, port = address.rpartition(":")
    end = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            # Process 0 may start later than this one.
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
    """The largest of all processes' numbers. All processes must call it; the first ones wait."""
    # A collective: processes meet here, and none goes on before all have come.
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """A block at whose end an exception in one process stops all of them.

    The others would otherwise wait for it forever where they next agree.
    """
    # Every process gets here, with or without an exception, before any of them raises.
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    if max_over_processes(failure is not None) and failure is None:
        raise UserError("stopped because another process was; the reason is in its output.")
    if failure is not None:
        raise failure


def check_same(**texts: str) -> None:
    """Raises a UserError in all processes if a text differs between two of them."""
    if jax.process_count() == 1:
        return
    # 8 bytes of each text's hash, as two int32, since arrays are what processes can exchange.
    hashes = [hashlib.sha256(text.encode()).digest()[:8] for text in texts.values()]
    here = np.frombuffer(b"".join(hashes), np.int32).reshape(len(texts), 2)
    for i, name in enumerate(texts):
        if (multihost_utils.process_allgather(here)[:, i] != here[i]).any():
            raise UserError(
                f"the processes do not have the same {name}: give all the same command line, "
                "and folders that all of them see."
            )
