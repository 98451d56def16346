"""An exported policy gives the run's actions without dpjax's networks."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from support import tiny
from support.tiny import cache, data  # noqa: F401 (fixtures)

from dpjax import export_weights
from dpjax.config import build
from dpjax.core.errors import UserError
from dpjax.export import __main__ as command
from dpjax.export import lerobot as export_lerobot
from dpjax.export import stablehlo
from dpjax.inference import exported
from dpjax.inference.controller import Controller
from dpjax.runs import run as run_lib

# Reads the file, samples actions for the arrays of an .npz, prints the modules that were loaded.
LOADER = """
import json, sys
import jax, numpy as np
from dpjax.inference import exported
sample_actions, chunks = exported.load(sys.argv[1]), {}
arrays = dict(np.load(sys.argv[2]))
for batch in (1, 3):
    keys = jax.random.split(jax.random.key(5), batch)
    chunks[str(batch)] = sample_actions(keys, {name: x[:batch] for name, x in arrays.items()})
np.savez(sys.argv[3], **chunks)
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, data, cache):  # noqa: F811
    """A run folder, trained for two steps."""
    folder = tmp_path_factory.mktemp("export") / "run"
    tiny.finish(folder, data, "train.steps=2", "optim.warmup=1", cache=cache)
    return folder


def observe(spec, batch=3):
    draw = np.random.default_rng(0).normal
    return {key: draw(256, 50, (batch, 2, size)) for key, size in spec.numbers.items()}


@pytest.fixture(scope="module")
def exported_file(run, tmp_path_factory):
    """The exported policy of that run, for two kinds of machine."""
    out = tmp_path_factory.mktemp("export") / "small.stablehlo"
    assert stablehlo.main(["--run", str(run), "--out", str(out), "--platforms", "cpu,cuda"]) == 0
    return out


@pytest.mark.slow
def test_a_process_without_the_networks_gives_the_same(run, exported_file, tmp_path):
    loaded = run_lib.load(run)
    obs = observe(loaded.spec)
    np.savez(tmp_path / "obs.npz", **obs)
    paths = [exported_file, tmp_path / "obs.npz", tmp_path / "actions.npz"]
    done = subprocess.run(
        [sys.executable, "-c", LOADER, *map(str, paths)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    modules = set(json.loads(done.stdout))
    assert {name for name in modules if name.split(".")[0] == "dpjax"} == {
        *("dpjax", "dpjax.core", "dpjax.core.errors"),
        *("dpjax.inference", "dpjax.inference.compiled", "dpjax.inference.exported"),
        "dpjax.inference.trained_range",
    }
    assert not modules & {"flax", "optax", "orbax", "ml_collections", "configs"}
    # In units of the network: an action's is about 100 px here.
    scale = np.asarray(loaded.params["normalizer"].scale["action"])
    for batch, got in np.load(tmp_path / "actions.npz").items():
        keys = jax.random.split(jax.random.key(5), int(batch))
        want = loaded.sample_actions(keys, {name: x[: int(batch)] for name, x in obs.items()})
        assert got.shape == (int(batch), 8, 2)
        np.testing.assert_allclose(got / scale, want / scale, rtol=1e-6, atol=1e-6)


def test_it_acts_through_the_controller_and_says_how(exported_file):
    sample_actions = exported.load(exported_file)
    about = sample_actions.about
    assert (about["observed"], about["executed"], about["executed_steps"]) == (2, 4, [1, 5])
    assert about["output"]["shape"] == ["batch", 8, 2] and about["platforms"] == ["cpu", "cuda"]
    assert about["bytes"] == exported_file.stat().st_size
    assert about["versions"]["jax"] == jax.__version__
    controller = Controller(sample_actions, observed=about["observed"], executed=about["executed"])
    controller.reset(jax.random.key(0))
    for _ in range(6):
        action = controller.act({"keypoints": np.ones(18), "agent_pos": np.ones(2)})
    assert action.shape == (2,) and sample_actions.warm_up([1]) < 1  # compiled already


@pytest.mark.slow
def test_a_fixed_batch_a_warm_start_and_an_agreement(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    loaded = run_lib.load(run, sampler="ddim", steps=2)
    with loaded.config.unlocked():
        loaded.config.sampler.warm_start = 0.5
        loaded.config.sampler.agree = "line"
    policy = build.policy(loaded.config, None, loaded.spec)
    compiled = build.compiled_policy(loaded.config, policy, loaded.spec)
    loaded = loaded._replace(policy=policy, compiled=compiled)
    args = stablehlo.parse(["--run", str(run), "--batch", "4"])
    program = stablehlo.export(loaded, args.batch, args.platforms)
    sample_actions = exported.Exported(program, stablehlo.describe(loaded, args, b""))
    obs = observe(loaded.spec)
    key = jax.random.key(0)
    first = sample_actions(key, obs)
    want = loaded.compiled(loaded.params, key, obs)
    np.testing.assert_allclose(first, want, rtol=1e-5, atol=1e-3)
    want = loaded.compiled(loaded.params, key, obs, first)
    np.testing.assert_allclose(sample_actions(key, obs, first), want, rtol=1e-5, atol=1e-3)
    # The committed steps are an input too: one program for all delays.
    delays = np.array([2, 0, 4], np.int32)
    want = loaded.compiled(loaded.params, key, obs, first, delays)
    got = sample_actions(key, obs, first, delays)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3)
    assert sample_actions.about["inputs"]["committed"] == {"shape": [4], "dtype": "int32"}
    with pytest.raises(UserError, match="a batch of 5 examples, but this policy takes 1 to 4"):
        sample_actions(key, observe(loaded.spec, batch=5))
    assert config["config"]["sampler"]["warm_start"] == 0


def test_a_damaged_file_is_named(exported_file, tmp_path):
    copy = tmp_path / "policy.stablehlo"
    with pytest.raises(UserError, match=r"policy.stablehlo: No such file.*dpjax.export"):
        exported.load(tmp_path)
    content = bytearray(exported_file.read_bytes())
    copy.write_bytes(content)
    with pytest.raises(UserError, match=r"policy.json: No such file"):
        exported.load(tmp_path)
    about = exported_file.with_suffix(".json").read_text()
    copy.with_suffix(".json").write_text(about)
    assert exported.load(tmp_path)
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    with pytest.raises(UserError, match="policy.stablehlo: damaged"):
        exported.load(copy)
    copy.write_bytes(exported_file.read_bytes())
    copy.with_suffix(".json").write_text(about.replace('"cpu"', '"tpu"'))
    with pytest.raises(UserError, match="is for tpu, cuda, but this machine runs on cpu"):
        exported.load(copy)
    copy.with_suffix(".json").write_text(about[:-20])
    with pytest.raises(UserError, match="policy.json: not a file that dpjax.export wrote"):
        exported.load(copy)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--platforms", "cpu,gpu"], "'gpu' is unknown"),
        (["--batch", "0"], "--batch 0 must be at least 1"),
        (["--out", "policy.onnx"], "ending in .stablehlo"),
        (["--out", "/proc/none/policy.stablehlo"], "--out /proc/none/policy.stablehlo: "),
    ],
)
def test_wrong_options_are_said_in_one_line(run, options, message):
    with pytest.raises(UserError, match=message):
        stablehlo.main(["--run", str(run), *options])


def test_the_first_word_is_the_format_and_stablehlo_without_one(run, tmp_path):
    for words in ([], ["stablehlo"]):
        out = tmp_path / f"{len(words)}.stablehlo"
        assert command.main([*words, "--run", str(run), "--out", str(out)]) == 0
        assert out.exists() and out.with_suffix(".json").exists()
    with pytest.raises(UserError, match="format 'lerobt' is unknown; did you mean 'lerobot'"):
        command.main(["lerobt", "--run", str(run)])


def test_a_misspelled_run_leaves_no_folder_behind(tmp_path):
    with pytest.raises(UserError, match=r"rum(: no config.json|/checkpoints: train first)"):
        stablehlo.main(["--run", str(tmp_path / "rum")])
    assert not (tmp_path / "rum").exists()


def test_lerobots_format_and_the_former_command_write_the_same(run, tmp_path, caplog):
    options = ["--run", str(run), "--sampler", "ddpm", "--steps", "20"]
    assert command.main(["lerobot", *options, "--out", str(tmp_path / "new")]) == 0
    assert "is now dpjax.export lerobot" not in caplog.text
    assert export_weights.main([*options, "--out", str(tmp_path / "old")]) == 0
    assert "dpjax.export_weights is now dpjax.export lerobot" in caplog.text
    new, old = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (tmp_path / "new", tmp_path / "old")
    )
    assert new == old and {"config.json", "model.safetensors"} <= set(new)


def test_what_lerobot_cannot_express_is_refused_by_its_config_key(run, tmp_path):
    options = ["--run", str(run), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="^config.sampler.spacing='auto': LeRobot's .* can't expr"):
        export_lerobot.main([*options, "--sampler", "ddim", "--steps", "7"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="exists: give a new folder; nothing is overwritten"):
        export_lerobot.main(["--run", str(run), "--out", str(tmp_path)])
