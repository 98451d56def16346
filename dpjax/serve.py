"""Serves a policy to robots: openpi's websocket protocol, for several clients at once.

python -m dpjax.serve --run runs/demo [--port 8000] [--reply chunk|step] [--follow]
python -m dpjax.serve --exported policy.stablehlo
"""

import argparse
from collections.abc import Sequence
import json
import logging
import os
from pathlib import Path
import signal
import threading
import time

from dpjax.core import errors, runtime
from dpjax.core.errors import UserError
from dpjax.runs import served
from dpjax.serving import access, batching, session
from dpjax.serving.follow import Follower
from dpjax.serving.metrics import Counts
from dpjax.serving.server import Limits, Server
from dpjax.serving.service import Service
from dpjax.serving.worker import Worker

TOKEN = "DPJAX_TOKEN"  # an environment variable: every user of a machine sees command lines

log = logging.getLogger("dpjax")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command-line arguments, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.serve",
        description="Serve a policy by openpi's websocket protocol. The token that clients must "
        f"present is the environment variable {TOKEN}.",
    )
    add = parser.add_argument
    # What is served.
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", help="a run folder, or the name of a policy such as pusht_demo")
    source.add_argument("--exported", help="a .stablehlo file of dpjax.export; needs no networks")
    add("--steps", type=int, help="sampling steps S (default: the run's)")
    add("--sampler", help="default: the run's")
    add("--warm-start", type=float, help="share of S that is skipped (default: the run's)")
    add("--agree", help="with the last chunk: none, blend, line or rtc (default: the run's)")
    add("--weights", choices=("ema", "raw"), default="ema")
    add("--checkpoint", type=int, help="training step (default: the newest good checkpoint)")
    add("--follow", action="store_true", help="serve newer checkpoints as they are written")
    # How it answers.
    add("--reply", choices=("chunk", "step"), default="chunk", help="actions: a chunk, or one")
    add("--delay", type=int, default=0, help="control steps until a chunk takes over (default 0)")
    add("--rename", action="append", default=[], metavar="NAME=COLUMN", help="of observations")
    add("--metadata", help="a JSON file that replaces the first message to a client")
    add("--seed", type=int, help="of the noise; default: another one each time")
    # Who may connect, and to what.
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    add("--port", type=int, default=8000, help="0 for any that is free (default 8000)")
    add("--open", action="store_true", help="allow other machines to connect without a token")
    add("--cert", help="PEM file of a certificate: serve with TLS (wss://)")
    add("--key", help="PEM file of its key")
    add("--clients", type=int, default=64, help="at the same time (default 64)")
    add("--batch", type=int, default=16, help="examples sampled at once (default 16)")
    args = parser.parse_args(argv)
    check_ranges(args)
    return args


def check_ranges(args: argparse.Namespace) -> None:
    """Raises UserError for a number that is out of its range, or half of a pair."""
    # argparse has checked types; these are the ranges.
    for name, lowest, highest in (
        *(("clients", 1, 10000), ("batch", 1, 1024), ("port", 0, 65535)),
        ("delay", 0, 1000),
    ):
        if not lowest <= getattr(args, name) <= highest:
            raise UserError(
                f"--{name} {getattr(args, name)} must be from {lowest} to {highest}.", argument=name
            )
    if args.warm_start is not None and not 0 <= args.warm_start < 1:
        raise UserError(f"--warm-start {args.warm_start} must be in [0, 1).")
    if args.key and not args.cert:
        raise UserError("--key is the key of a certificate: give --cert too.")


def read_names(pairs: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """{name in a message: column} of --rename."""
    names = {}
    for pair in pairs:
        # Names in messages may contain slashes and dots, but no "=".
        name, _, column = pair.partition("=")
        if not name or column not in columns:
            raise UserError(
                f"--rename {pair}: expected NAME=COLUMN; {errors.choices(column, columns)}."
            )
        names[name] = column
    return names


def read_metadata(path: str | None) -> dict | None:
    """The JSON object of --metadata; None without it."""
    if path is None:
        return None
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--metadata {path}: not a JSON file ({error}).") from None
    if not isinstance(content, dict):
        raise UserError(f"--metadata {path}: not a JSON object.")
    return content


def read_token(args: argparse.Namespace) -> str | None:
    """The token of the environment; raises UserError if it is empty, or missing where needed."""
    # Whether a token is needed depends on the address, so both are checked together.
    token = os.environ.get(TOKEN)
    try:
        access.check_public(args.host, token, is_open=args.open)
    except UserError as error:
        raise UserError(
            f"{error} Set {TOKEN} in the environment, or give --open to let everybody in."
        ) from None
    if args.host not in access.LOOPBACK and not args.cert:
        log.warning(
            "--host %s without --cert: observations%s cross the network unencrypted. Use --cert, "
            "or a tunnel.",
            args.host,
            " and the token" if token else "",
        )
    return token


def stop_on_signals(server: Server) -> None:
    """SIGTERM and SIGINT answer what has come and end the server; a second one ends it at once."""

    def stop(number: int, frame: object) -> None:
        # The next signal has its default effect and ends the process at once.
        signal.signal(number, signal.SIG_DFL)
        # In a thread of its own: a handler interrupts the main thread wherever it is, perhaps
        # with a lock that stopping needs.
        threading.Thread(target=server.stop, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def set_up(args: argparse.Namespace) -> tuple[served.Source, Server]:
    """The policy, and a server of it that does not listen yet."""
    # What is quick to check comes before a policy is loaded.
    token = read_token(args)
    tls = access.tls_context(args.cert, args.key) if args.cert else None
    metadata = read_metadata(args.metadata)
    source = served.from_run(args) if args.run else served.from_exported(args)
    names = {
        **source.contract.names,
        **read_names(args.rename, source.contract.columns),
    }
    served.check_delay(source, args.delay)
    counts = Counts()
    service = Service(
        contract=source.contract._replace(names=names),
        worker=Worker(counts, source.max_batch or args.batch),
        counts=counts,
        version=source.version,
        reply=args.reply,
        delay=args.delay,
        seed=args.seed,
        metadata=metadata,
    )
    limits = Limits(clients=args.clients)
    server = Server(service, host=args.host, port=args.port, token=token, tls=tls, limits=limits)
    return source, server


def warm_up(service: Service) -> float:
    """Compiles everything that a request can need; returns the seconds that it took."""
    start = time.perf_counter()
    # First the policy in all batch sizes, then the small programs around it.
    contract = service.contract
    batching.warm_up(service.version, contract.obs_shapes, service.worker.max_batch)
    session.warm_up(contract.observed, contract.executed)
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = arguments(argv)
    source, server = set_up(args)
    service = server.service
    # 1. Listen at once, so that a port in use is reported before a minute of compilation. Clients
    # wait for their first message until everything is compiled.
    port = server.start()
    stop_on_signals(server)
    seconds = warm_up(service)
    server.is_ready.set()
    print(
        f"serving {source.name} at {'wss' if args.cert else 'ws'}://{args.host}:{port} "
        f"(--reply {args.reply}), ready after {seconds:.1f} s of compilation; send "
        f"{', '.join(service.contract.columns)}",
        flush=True,
    )
    # 2. Serve. Sampling stays in the main thread, whose memory is kept between calls (`runtime`).
    if args.follow:
        Follower(service, source.newest, source.load, current=source.current).start()
    service.worker.run()
    # 3. `worker.run` ends when the server has stopped answering.
    server.join()
    counts = service.counts
    print(f"served {counts['requests']} requests of {counts['episodes']} episodes", flush=True)
    return 0


if __name__ == "__main__":
    # As in config.flags.run, which needs the libraries of training.
    logging.basicConfig(level=logging.INFO, format="dpjax: %(message)s", force=True)
    for name in ("absl", "jax", "orbax"):
        logging.getLogger(name).setLevel(logging.WARNING)
    runtime.set_up()
    runtime.use_cache()
    errors.run(main)
