"""Training runs for tests: processes of their own, that may be killed.

Importing takes five seconds, a tiny run two. So most runs are forks of one process
that has imported everything and started nothing (multiprocessing's forkserver).
"""

import json
import multiprocessing
import os
from pathlib import Path
import sys
import time

import jax
import numpy as np
import pytest

from dpjax.data import rlds
from dpjax.training import checkpoint
from dpjax.training.checkpoint import layout

CONFIG = Path(__file__).with_name("tiny_config.py")
LENGTHS = (24, 31, 27, 33, 29, 1)

fork = multiprocessing.get_context("forkserver")
# pytest too: it is the main module that a fork imports again.
fork.set_forkserver_preload(["pytest", "dpjax.train", "dpjax.convert"])


def episodes(lengths=LENGTHS, seed=0):
    """Random walks of a Push-T state and of its action."""
    rng = np.random.default_rng(seed)
    for length in lengths:
        walk = np.clip(256 + rng.normal(0, 20, (length, 4)).cumsum(0), 0, 512)
        state = np.concatenate([walk, rng.uniform(-3, 3, (length, 1))], axis=1)
        action = walk[:, :2] + rng.normal(0, 5, (length, 2))
        yield {"state": state.astype(np.float32), "action": action.astype(np.float32)}


def write(directory, made=None):
    """An RLDS data set of tiny episodes; returns its folder."""
    rlds.write(directory, made or episodes(), observations=("state",), description="random")
    return directory


def write_images(directory):
    """The same with noise for a camera; returns its folder."""
    rng = np.random.default_rng(1)
    image = lambda episode: rng.integers(0, 256, (len(episode["state"]), 96, 96, 3), np.uint8)
    made = ({"image": image(episode), **episode} for episode in episodes())
    rlds.write(directory, made, observations=("image", "state"), description="random")
    return directory


def _shared(tmp_path_factory):
    """A folder for all test processes of this session."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The data set that most runs train on."""
    return write(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """jax's compilation cache: the second run of a kind does not compile."""
    folder = _shared(tmp_path_factory) / "compiled"
    folder.mkdir(exist_ok=True)
    return str(folder)


class Run:
    """A started training command. .code: its exit code, negative for a signal."""

    def __init__(self, args, *, cache=None, env=None, log: Path, command=None):
        self.log = log
        self.log.parent.mkdir(parents=True, exist_ok=True)
        args = [str(text) for text in args]
        arguments = (args, cache, env or {}, str(log))
        self.process = fork.Process(target=command or train, args=arguments)
        self.process.start()

    def wait(self, timeout=900):
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running after {timeout} s: {self.text()[-2000:]}")
        return self

    def wait_until(self, condition, timeout=900):
        """Polls until the condition holds or the run is over; returns which."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and self.process.is_alive():
            if condition():
                return True
            time.sleep(0.005)
        return bool(condition())

    def signal(self, number):
        os.kill(self.process.pid, number)

    def text(self):
        return self.log.read_text() if self.log.exists() else ""

    def end(self, timeout=900):
        """kill -9, if it still runs."""
        self.process.kill()
        return self.wait(timeout)

    @property
    def code(self):
        return self.process.exitcode

    @property
    def last_line(self):
        return self.text().splitlines()[-1]


def start(workdir, data, *changes, config=CONFIG, **options) -> Run:
    """Starts a tiny run; changes are given as "train.steps=3", options with their dashes."""
    args = [f"--config={config}", f"--workdir={workdir}", f"--config.data.dir={data}"]
    args += [text if text.startswith("--") else f"--config.{text}" for text in changes]
    count = len(list(Path(workdir).parent.glob(f"{Path(workdir).name}.*.log")))
    log = Path(workdir).parent / f"{Path(workdir).name}.{count}.log"
    return Run(args, log=log, **options)


def finish(workdir, data, *changes, **options) -> Run:
    """A tiny run to its end, which must be a good one."""
    run = start(workdir, data, *changes, **options).wait()
    assert run.code == 0, run.text()[-3000:]
    return run


def train(args, cache, env, log):
    """`python -m dpjax.train` in a fork; both streams go to the file `log`."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {env.get('XLA_FLAGS', '')}"
    os.environ.update({**env, "XLA_FLAGS": flags})
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    sys.argv = ["dpjax.train", *args]
    from dpjax.train import command

    command()


def entries(workdir) -> list[dict]:
    """The lines of metrics.jsonl, all of which must be JSON as everybody reads it."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def logged(workdir) -> int:
    """The newest step in metrics.jsonl; 0 without one."""
    path = Path(workdir) / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()
    return json.loads(lines[-1])["step"] if lines else 0


def saved(workdir, step=None):
    """(all items of a checkpoint, its step); bit for bit what is on disk."""
    return checkpoint.load_items(workdir, layout.ITEMS, step)


def differences(a, b) -> list[str]:
    """The leaves in which two trees are not bit-equal."""
    there, here = (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (a, b))
    assert [path for path, _ in there] == [path for path, _ in here]
    return [
        jax.tree_util.keystr(path)
        for (path, x), (_, y) in zip(there, here)
        if x.dtype != y.dtype or x.shape != y.shape or x.tobytes() != y.tobytes()
    ]


def files(folder) -> dict[str, bytes]:
    """{path: content} of everything in a folder."""
    paths = sorted(Path(folder).rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}
