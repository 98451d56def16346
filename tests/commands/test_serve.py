"""python -m dpjax.serve: from a run or a file, its options, newer checkpoints, bad arguments."""

import contextlib
import shutil
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from support import serving

import dpjax
from dpjax import serve
from dpjax.core.errors import UserError
from dpjax.export import stablehlo
from dpjax.serving.client import RemotePolicy
from dpjax.serving.follow import Follower

STATE = np.array([100, 100, 256, 256, 0.5], np.float32)


@contextlib.contextmanager
def served(*args):
    """(source, server, url) of the command, whose main loop runs in a thread."""
    source, server = serve.set_up(serve.arguments(["--port", "0", "--batch", "2", *args]))
    port = server.start()
    serve.warm_up(server.service)
    server.is_ready.set()
    threading.Thread(target=server.service.worker.run, daemon=True).start()
    try:
        yield source, server, f"ws://127.0.0.1:{port}"
    finally:
        server.stop(1.0)


def observation(number, seed=0):
    state = np.random.default_rng(seed).uniform(50, 450, (number, 5)).astype(np.float32)
    return {"state": state}


@pytest.mark.parametrize("delay", [0, 2])
def test_step_mode_is_bit_equal_to_the_runs_controller(policy, delay):
    run = dpjax.load(policy)
    options = ("--reply", "step", "--seed", "0", "--delay", str(delay))
    with served("--run", policy, *options) as (_, server, url):
        with serving.client(url) as websocket:
            serving.ask(websocket, **{"endpoint": "reset", "dpjax/seed": 3})
            local = run.controller(jax.random.key(3), delay=delay)
            for state in observation(9)["state"]:
                reply = serving.ask(websocket, **{"observation/state": state})
                obs = run.task.observe({"state": state})
                np.testing.assert_array_equal(reply["actions"], local.act(obs)[None])
        assert server.service.describe()["checkpoint"] == 7


def test_a_remote_policy_samples_the_runs_chunks(policy):
    run = dpjax.load(policy)
    obs = run.task.observe({"state": observation(6)["state"].reshape(3, 2, 5)})
    keys = jax.random.split(jax.random.key(0), 3)
    with served("--run", policy) as (_, _, url):
        remote = RemotePolicy(url)
        one = {name: x[:1] for name, x in obs.items()}
        np.testing.assert_array_equal(remote(keys[:1], one), run.sample_actions(keys[:1], one))
        np.testing.assert_allclose(remote(keys, obs), run.sample_actions(keys, obs), rtol=1e-4)


@pytest.mark.slow
def test_an_exported_file_is_served(policy, tmp_path):
    out = tmp_path / "policy.stablehlo"
    stablehlo.main(["--run", policy, "--out", str(out)])
    with served("--exported", str(out)) as (source, _, url), serving.client(url) as websocket:
        assert serving.ask(websocket, state=STATE)["actions"].shape == (7, 2)
        assert source.newest() == source.current


def test_options_reach_the_clients(policy, tmp_path):
    metadata = tmp_path / "metadata.json"
    metadata.write_text('{"needs_session_id": true}')
    options = ("--rename", "robot/pose=state", "--metadata", str(metadata), "--seed", "1")
    with served("--run", policy, *options) as (_, _, url), serving.client(url) as websocket:
        assert websocket.metadata == {"needs_session_id": True}
        reply = serving.ask(websocket, **{"robot/pose": STATE, "session_id": "7"})
        assert reply["history"] == "first"


def test_newer_checkpoints_are_served_and_damaged_ones_are_not(run, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    steps = sorted((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    last = steps[-1]
    shutil.move(last, tmp_path / "last")
    with served("--run", str(folder), "--follow") as (source, server, url):
        follower = Follower(server.service, source.newest, source.load, current=source.current)
        assert not follower.look()
        # A flipped bit in the largest file.
        shutil.copytree(tmp_path / "last", last)
        files = [path for path in (last / "ema_denoiser").rglob("*") if path.is_file()]
        largest = max(files, key=lambda path: path.stat().st_size)
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 1
        largest.write_bytes(data)
        assert not follower.look()
        assert f"{last.name} is not served" in caplog.text
        # The same step, whole: it is tried again under a new follower only.
        shutil.rmtree(last)
        shutil.copytree(tmp_path / "last", last)
        follower = Follower(server.service, source.newest, source.load, current=source.current)
        with serving.client(url) as websocket:
            before = serving.ask(websocket, state=STATE)["checkpoint"]
            assert follower.look()
            assert serving.ask(websocket, state=STATE)["checkpoint"] == before
            serving.ask(websocket, endpoint="reset")
            assert serving.ask(websocket, state=STATE)["checkpoint"] == int(last.name) > before


WRONG = {
    "no run": (["--run", "runs/nowhere"], "no config.json there"),
    "no policy": (["--run", "pusht_dem"], "did you mean 'tiny'|choose one of tiny"),
    "no file": (["--exported", "nowhere.stablehlo"], "No such file"),
    "public": (["--run", "tiny", "--host", "0.0.0.0"], "Set DPJAX_TOKEN .*--open"),
    "rename": (["--run", "tiny", "--rename", "pose=stat"], "--rename pose=stat.*'state'"),
    "rename without a column": (["--run", "tiny", "--rename", "pose"], "NAME=COLUMN"),
    "metadata": (["--run", "tiny", "--metadata", "nowhere.json"], "not a JSON file"),
    "certificate": (["--run", "tiny", "--cert", "nowhere.pem"], "not a certificate"),
    "key alone": (["--run", "tiny", "--key", "k.pem"], "give --cert too"),
    "follow": (["--run", "tiny", "--follow"], "comes with dpjax"),
    "delay": (["--run", "tiny", "--delay", "5"], "allow at most"),
    "batch": (["--run", "tiny", "--batch", "0"], "--batch 0 must be from 1"),
    "port": (["--run", "tiny", "--port", "70000"], "--port 70000 must be from 0"),
    "steps of a file": (["--exported", "x.stablehlo", "--steps", "2"], "--steps belongs to --run"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_arguments_are_one_line(policy, case, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(serve.TOKEN, raising=False)
    args, message = WRONG[case]
    with pytest.raises(UserError, match=message) as error:
        serve.set_up(serve.arguments(args))
    assert "\n" not in str(error.value)


def test_an_empty_token_does_not_start(policy, monkeypatch):
    monkeypatch.setenv(serve.TOKEN, "")
    with pytest.raises(UserError, match="token is empty.*DPJAX_TOKEN"):
        serve.set_up(serve.arguments(["--run", policy]))


@pytest.mark.slow
def test_a_process_serves_until_it_is_told_to_stop(tmp_path):
    command = [sys.executable, "-m", "dpjax.serve", "--run", "pusht_demo", "--batch", "1"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*command, "--port", "0"], **options) as process:
        line = process.stdout.readline()
        assert line.startswith("serving pusht_demo at ws://127.0.0.1:"), line
        url = line.split()[3]
        with serving.client(url) as websocket:
            assert serving.ask(websocket, state=STATE)["actions"].shape == (15, 2)
            # The port is taken.
            port = url.rpartition(":")[2]
            second = subprocess.run([*command, "--port", port], capture_output=True, text=True)
            assert second.returncode == 2 and "in use" in second.stderr.splitlines()[-1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
        assert "served 1 requests of 1 episodes" in process.stdout.read()


@pytest.mark.slow
def test_an_exported_file_is_served_without_flax(policy, tmp_path):
    out = tmp_path / "policy.stablehlo"
    stablehlo.main(["--run", policy, "--out", str(out)])
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['flax', 'ml_collections', 'orbax']));"
        "from dpjax import serve;"
        f"s, _ = serve.set_up(serve.arguments(['--exported', {str(out)!r}]));"
        "print(sorted(s.contract.columns))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "['state']\n", done.stderr
