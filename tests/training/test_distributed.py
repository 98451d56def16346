"""Two processes with two devices each train as one process: once, stopped, and told apart."""

import os
from pathlib import Path
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from support import tiny

from dpjax.core.errors import UserError
from dpjax.training import checkpoint, distributed
from dpjax.training.checkpoint import integrity
from dpjax.training.distributed import ADDRESS, COUNT, INDEX

data = tiny.data  # fixtures
cache = tiny.cache

STEPS = 12
# One level: most of the seconds are compilation.
SHORT = (f"train.steps={STEPS}", "denoiser.widths=(16,)", "val.every=0", "save.every=6")
VALIDATED = f"val.every={STEPS}"
ROOT = Path(__file__).parents[2]


class Pair:
    """`python -m dpjax.train` twice, two devices each. .texts: the output of each."""

    def __init__(self, workdir, data, cache, *changes, second=()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
        env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        env.update({ADDRESS: address, COUNT: "2", "JAX_PLATFORMS": "cpu"})
        env.update(JAX_COMPILATION_CACHE_DIR=cache, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
        command = [sys.executable, "-m", "dpjax.train", f"--config={tiny.CONFIG}"]
        command += [f"--workdir={workdir}", f"--config.data.dir={data}"]
        wanted = [f"--config.{text}" for text in ("distributed=true", *SHORT, *changes)]
        self.logs = [workdir.with_name(f"{workdir.name}.{i}.log") for i in range(2)]
        self.processes = [
            subprocess.Popen(
                [*command, *wanted, *(second if i else ())],
                env={**env, INDEX: str(i)},
                stdout=log.open("w"),
                stderr=subprocess.STDOUT,
            )
            for i, log in enumerate(self.logs)
        ]

    def wait(self, timeout=300):
        """The exit codes."""
        try:
            return [process.wait(timeout) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()

    @property
    def texts(self):
        return [log.read_text() for log in self.logs]


@pytest.fixture(scope="module")
def pair(data, cache, tmp_path_factory):
    """A finished run of two processes: (its folder, the output of each)."""
    workdir = tmp_path_factory.mktemp("pair") / "run"
    pair = Pair(workdir, data, cache, VALIDATED)
    assert pair.wait() == [0, 0], pair.texts
    return workdir, pair.texts


def assert_close(workdir, expected):
    items, step = tiny.saved(workdir)
    assert step == STEPS
    for name in ("denoiser", "ema_denoiser"):
        got, want = (integrity.by_path(tree[name]) for tree in (items, expected))
        assert set(got) == set(want)
        for path in want:
            np.testing.assert_allclose(
                got[path], want[path], atol=1e-5, rtol=1e-5, err_msg=str(path)
            )


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
def test_two_processes_train_as_one(pair, data, cache, tmp_path, devices):
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    tiny.finish(tmp_path / "one", data, *SHORT, VALIDATED, cache=cache, env=flags)
    assert_close(pair[0], tiny.saved(tmp_path / "one")[0])
    logged = [tiny.entries(folder) for folder in (pair[0], tmp_path / "one")]
    assert [e["step"] for e in logged[0]] == [e["step"] for e in logged[1]]
    for got, want in zip(*logged):
        for key in {*got, *want} - {"seconds", "steps_per_second", "input_wait"}:
            assert got[key] == pytest.approx(want[key], rel=1e-3), key


@pytest.mark.slow
def test_the_first_process_alone_writes_and_talks(pair):
    workdir, (first, second) = pair
    assert {path.name for path in workdir.iterdir()} == {
        *("config.json", "limits.json", "lock", "metrics.jsonl", "checkpoints", "tensorboard")
    }
    assert checkpoint.read_meta(workdir, STEPS)["devices"] == 4
    assert len(list((workdir / "tensorboard").iterdir())) == 1
    assert f"{STEPS}/{STEPS}" in first and "trained for" in first
    assert not re.search(r"train:|trained for|\"batch\"", second)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_they_go_on(pair, data, cache, tmp_path):
    workdir = tmp_path / "run"
    stopped = Pair(workdir, data, cache)
    # Two calls: without the other listening (after its first) there is no second.
    while tiny.logged(workdir) < 4 and stopped.processes[1].poll() is None:
        time.sleep(0.005)
    stopped.processes[1].send_signal(signal.SIGTERM)
    assert stopped.wait() == [128 + signal.SIGTERM] * 2, stopped.texts
    steps = checkpoint.steps(workdir)
    assert len(steps) == 1 and 4 <= steps[0] < STEPS
    assert f"dpjax: SIGTERM: saved step {steps[0]}" in stopped.texts[0]

    again = Pair(workdir, data, cache)
    assert again.wait() == [0, 0], again.texts
    assert f"resuming from step {steps[0]}" in again.texts[0]
    assert tiny.differences(tiny.saved(workdir)[0], tiny.saved(pair[0])[0]) == []


@pytest.mark.slow
def test_the_mesh_strategy_goes_on_where_the_other_was(pair, data, cache, tmp_path):
    """The last half of the run anew: config.train.parallel may change."""
    workdir = Path(shutil.copytree(pair[0], tmp_path / "run"))
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    mesh = Pair(workdir, data, cache, "train.parallel=mesh")
    assert mesh.wait() == [0, 0], mesh.texts
    assert f"resuming from step {STEPS // 2}" in mesh.texts[0]
    assert_close(workdir, tiny.saved(pair[0])[0])


@pytest.mark.slow
def test_processes_with_different_configs_stop(data, cache, tmp_path):
    other = Pair(tmp_path / "run", data, cache, second=("--config.seed=1",))
    assert other.wait() == [2, 2], other.texts
    for text in other.texts:
        assert "dpjax: error: the processes do not have the same config:" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_refusal_in_one_process_stops_the_other(pair, data, cache):
    """The run's folder is another's: only the first process looks at it."""
    refused = Pair(pair[0], data, cache, "optim.lr=0.5")
    assert refused.wait() == [2, 2], refused.texts
    assert "holds a run with another config" in refused.texts[0].splitlines()[-1]
    assert "stopped because another process was" in refused.texts[1]


@pytest.mark.slow
def test_without_other_processes_it_is_one_line(data, cache, tmp_path):
    single = tiny.start(tmp_path / "run", data, "distributed=true", cache=cache).wait()
    assert single.code == 2 and "Traceback" not in single.text()
    assert single.last_line.startswith("dpjax: error: ")
    assert "distributed=True, but no other processes are found" in single.last_line


def test_the_environment_says_who_is_who():
    assert distributed.from_environment({ADDRESS: "host:1"}) == {}  # jax's own to read
    complete = {ADDRESS: "host:1", COUNT: "2", INDEX: "1"}
    settings = distributed.from_environment(complete)
    assert settings["process_id"] == 1 and settings["num_processes"] == 2
    for change, text in (
        ({ADDRESS: None}, f"{COUNT} and {INDEX} set, but {ADDRESS} is not"),
        ({INDEX: None}, f"{COUNT} set, but {INDEX} is not"),
        ({ADDRESS: "host"}, "'host' must be host:port"),
        ({INDEX: "2"}, f"{COUNT}=2 and {INDEX}=2: .* below the first"),
        ({COUNT: "two"}, f"{COUNT}=two and {INDEX}=1"),
    ):
        wrong = {key: x for key, x in {**complete, **change}.items() if x is not None}
        with pytest.raises(UserError, match=text):
            distributed.from_environment(wrong)


def test_a_first_process_that_is_not_there_is_one_line():
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(UserError, match=f"{address}: process 0 does not answer there"):
            distributed.wait_for(address, patience=0.1)
