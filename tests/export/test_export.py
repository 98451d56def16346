"""An exported policy acts without dpjax's networks, and gives what the run gives."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from support import tiny
from support.tiny import cache, data  # noqa: F401 (fixtures)

from dpjax.config import build
from dpjax.core.errors import UserError
from dpjax.export import stablehlo
from dpjax.inference import exported
from dpjax.inference.controller import Controller
from dpjax.runs import run as run_lib

# Reads the file, plans for the arrays of the given .npz, says which modules that took.
LOADER = """
import json, sys
import jax, numpy as np
from dpjax import exported
plan, found = exported.load(sys.argv[1]), {}
arrays = dict(np.load(sys.argv[2]))
for rows in (1, 3):
    keys = jax.random.split(jax.random.key(5), rows)
    found[str(rows)] = plan(keys, {name: x[:rows] for name, x in arrays.items()})
np.savez(sys.argv[3], **found)
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, data, cache):  # noqa: F811
    """A run folder, trained for two steps."""
    folder = tmp_path_factory.mktemp("export") / "run"
    tiny.finish(folder, data, "train.steps=2", "optim.warmup=1", cache=cache)
    return folder


def observe(spec, rows=3):
    draw = np.random.default_rng(0).normal
    return {key: draw(256, 50, (rows, 2, size)) for key, size in spec.numbers.items()}


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """The exported policy of that run, for two kinds of machine."""
    out = tmp_path_factory.mktemp("export") / "small.stablehlo"
    assert stablehlo.main(["--run", str(run), "--out", str(out), "--platforms", "cpu,cuda"]) == 0
    return out


def test_a_process_without_the_networks_gives_the_same(run, made, tmp_path):
    loaded = run_lib.load(run)
    obs = observe(loaded.spec)
    np.savez(tmp_path / "obs.npz", **obs)
    paths = [made, tmp_path / "obs.npz", tmp_path / "plans.npz"]
    done = subprocess.run(
        [sys.executable, "-c", LOADER, *map(str, paths)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    modules = set(json.loads(done.stdout))
    assert {name for name in modules if name.split(".")[0] == "dpjax"} == {
        *("dpjax", "dpjax.exported", "dpjax.actor", "dpjax.errors")
    }
    assert not modules & {"flax", "optax", "orbax", "ml_collections", "configs"}
    # In units of the network: an action's is about 100 px here.
    scale = np.asarray(loaded.params["normalizer"].scale["action"])
    for rows, got in np.load(tmp_path / "plans.npz").items():
        keys = jax.random.split(jax.random.key(5), int(rows))
        want = loaded.plan(keys, {name: x[: int(rows)] for name, x in obs.items()})
        assert got.shape == (int(rows), 8, 2)
        np.testing.assert_allclose(got / scale, want / scale, rtol=1e-6, atol=1e-6)


def test_it_acts_through_the_controller_and_says_how(made):
    plan = exported.load(made)
    about = plan.about
    assert (about["observed"], about["executed"], about["executed_steps"]) == (2, 4, [1, 5])
    assert about["output"]["shape"] == ["batch", 8, 2] and about["platforms"] == ["cpu", "cuda"]
    assert about["bytes"] == made.stat().st_size and about["versions"]["jax"] == jax.__version__
    controller = Controller(plan, observed=about["observed"], executed=about["executed"])
    controller.reset(jax.random.key(0))
    for _ in range(6):
        action = controller.act({"keypoints": np.ones(18), "agent_pos": np.ones(2)})
    assert action.shape == (2,) and plan.warm_up([1]) < 1  # compiled already


def test_a_fixed_batch_and_a_warm_start(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    loaded = run_lib.load(run, sampler="ddim", steps=2)
    with loaded.config.unlocked():
        loaded.config.sampler.warm_start = 0.5
    policy = build.policy(loaded.config, None, loaded.spec)
    loaded = loaded._replace(policy=policy, act=build.actor(loaded.config, policy, loaded.spec))
    given = stablehlo.arguments(["--run", str(run), "--batch", "4"])
    program = stablehlo.export(loaded, given.batch, given.platforms)
    plan = exported.Exported(program, stablehlo.about(loaded, given, b""))
    obs, key = observe(loaded.spec), jax.random.key(0)
    first = plan(key, obs)
    want = loaded.act(loaded.params, key, obs)
    np.testing.assert_allclose(first, want, rtol=1e-5, atol=1e-3)
    want = loaded.act(loaded.params, key, obs, first)
    np.testing.assert_allclose(plan(key, obs, first), want, rtol=1e-5, atol=1e-3)
    with pytest.raises(UserError, match="a batch of 5 rows: this policy acts for 1 to 4"):
        plan(key, observe(loaded.spec, rows=5))
    assert config["config"]["sampler"]["warm_start"] == 0


def test_a_damaged_file_is_named(made, tmp_path):
    copy = tmp_path / "policy.stablehlo"
    with pytest.raises(UserError, match=r"policy.stablehlo: No such file.*dpjax.export"):
        exported.load(tmp_path)
    content = bytearray(made.read_bytes())
    copy.write_bytes(content)
    with pytest.raises(UserError, match=r"policy.json: No such file"):
        exported.load(tmp_path)
    about = made.with_suffix(".json").read_text()
    copy.with_suffix(".json").write_text(about)
    assert exported.load(tmp_path)
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    with pytest.raises(UserError, match="policy.stablehlo: damaged"):
        exported.load(copy)
    copy.write_bytes(made.read_bytes())
    copy.with_suffix(".json").write_text(about.replace('"cpu"', '"tpu"'))
    with pytest.raises(UserError, match="is for tpu, cuda, this machine acts on cpu"):
        exported.load(copy)
    copy.with_suffix(".json").write_text(about[:-20])
    with pytest.raises(UserError, match="policy.json: not what dpjax.export wrote"):
        exported.load(copy)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--platforms", "cpu,gpu"], "'gpu' is unknown"),
        (["--batch", "0"], "--batch 0 must be at least 1"),
        (["--out", "policy.onnx"], "ending in .stablehlo"),
        (["--out", "/proc/none/policy.stablehlo"], "--out /proc/none/policy.stablehlo: "),
    ],
)
def test_wrong_options_are_said_in_one_line(run, options, said):
    with pytest.raises(UserError, match=said):
        stablehlo.main(["--run", str(run), *options])
