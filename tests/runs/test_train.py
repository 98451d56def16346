"""Training, end to end: what a run leaves, what it goes on from, and what it refuses."""

import json
from pathlib import Path
import shutil

import jax
import numpy as np
import pytest
from support import tiny, tiny_config

from dpjax.config import build, dataset, defaults
from dpjax.core import spec as spec_lib
from dpjax.core.errors import UserError
from dpjax.data import episodes as episodes_lib
from dpjax.data import loader, windows
from dpjax.runs import config_file, directory
from dpjax.runs import run as run_lib
from dpjax.training import checkpoint
from dpjax.training import metrics as metrics_lib
from dpjax.training.metrics import Metrics, averages, read

data, cache = tiny.data, tiny.cache  # fixtures

STEPS = 60  # of tiny_config.py


@pytest.fixture(scope="module")
def run(data, cache, tmp_path_factory):
    """A finished run: (its folder, what it said)."""
    workdir = tmp_path_factory.mktemp("train") / "run"
    return workdir, tiny.finish(workdir, data, cache=cache).text()


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the finished run, to be broken."""
    return Path(shutil.copytree(run[0], tmp_path / "run"))


def test_the_loss_falls(run):
    losses = [entry["loss"] for entry in tiny.entries(run[0]) if "loss" in entry]
    assert len(losses) == STEPS // 2 and np.isfinite(losses).all()
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:4])


def test_a_run_leaves_its_files(run, data):
    workdir, output = run
    assert {path.name for path in workdir.iterdir()} == {
        *("config.json", "limits.json", "lock", "metrics.jsonl", "checkpoints", "tensorboard")
    }
    config, spec = config_file.read_config(workdir)
    assert config.train.batch == 16 and config.data.dir == str(data)
    assert "with its config in config.json" in output and '"batch": 16' not in output
    assert f"{STEPS}/{STEPS}" in output and "compiling" in output and "loss=" in output
    assert spec.observations == {"keypoints": 18, "agent_pos": 2} and spec.action == 2
    assert list((workdir / "tensorboard").glob("events.out.tfevents.*"))

    assert checkpoint.steps(workdir) == [STEPS - 4, STEPS]
    meta = checkpoint.read_meta(workdir, STEPS)
    assert meta["config"]["train"]["batch"] == 16 and meta["versions"]["jax"] == jax.__version__
    assert meta["spec"]["data"] == spec.data and meta["devices"] == 1
    items, _ = tiny.saved(workdir)
    assert set(items["normalizer"].scale) == {"keypoints", "agent_pos", "action"}
    assert items["counters"] == {"step": STEPS, "ema_count": STEPS}
    assert tiny.differences(items["denoiser"], items["ema_denoiser"])


def test_the_run_loads_as_a_policy(run):
    loaded = run_lib.load(run[0])
    obs = {key: np.zeros((1, 2, size)) for key, size in loaded.spec.observations.items()}
    chunk = loaded.sample_actions(jax.random.key(0), obs)
    assert chunk.shape == (1, 8, 2) and np.isfinite(chunk).all()


def test_the_mirror_doubles_what_is_trained_on_and_nothing_held_out(run, data):
    config, _ = config_file.read_config(run[0])
    plain = dataset.read(config)
    config.data.mirror = True
    doubled = dataset.read(config)
    half = len(plain.train.columns["action"])
    assert len(doubled.train.ends) == 2 * len(plain.train.ends)
    for key, column in plain.train.columns.items():
        np.testing.assert_array_equal(doubled.train.columns[key][:half], column)
    agent, action = (doubled.train.columns[key][half:] for key in ("agent_pos", "action"))
    np.testing.assert_allclose(512 - agent[:, ::-1], plain.train.columns["agent_pos"], atol=1e-4)
    np.testing.assert_allclose(512 - action[:, ::-1], plain.train.columns["action"], atol=1e-4)
    for key, column in plain.val.columns.items():
        np.testing.assert_array_equal(doubled.val.columns[key], column)


@pytest.mark.parametrize(
    "config, changes",
    [
        (tiny.CONFIG, ("condition=inpaint", "train.steps=2", "optim.warmup=1", "val.every=2")),
        (tiny.CONFIG.with_name("tiny_transformer.py"), ()),
    ],
)
@pytest.mark.slow
def test_other_networks_and_conditions_train_and_act(data, cache, tmp_path, config, changes):
    workdir = tmp_path / "run"
    tiny.finish(workdir, data, *changes, config=config, cache=cache)
    entries = {key for entry in tiny.entries(workdir) for key in entry}
    assert {"loss", "val_loss", "val_action_error"} <= entries
    loaded = run_lib.load(workdir)
    obs = {key: np.zeros((1, 2, size)) for key, size in loaded.spec.observations.items()}
    chunk = loaded.sample_actions(jax.random.key(0), obs)
    assert chunk.shape == (1, 8, 2) and np.isfinite(chunk).all()


@pytest.mark.slow
def test_a_run_with_a_camera_trains_acts_and_is_killed_without_a_trace(cache, tmp_path):
    data, config = tiny.write_images(tmp_path / "set"), tiny.CONFIG.with_name("tiny_image.py")
    tiny.finish(tmp_path / "whole", data, config=config, cache=cache)
    # The other lies on the disk, is stopped in the middle, and goes on.
    changes = ("data.memory=0.0001", f"data.spill={tmp_path}", "save.every=2")
    cut = tiny.start(tmp_path / "cut", data, *changes, config=config, cache=cache)
    cut.wait_until(lambda: (tmp_path / "cut" / "checkpoints" / "2").exists())
    cut.end()
    tiny.finish(tmp_path / "cut", data, *changes, config=config, cache=cache)
    (uninterrupted, _), (again, _) = (tiny.saved(tmp_path / name) for name in ("whole", "cut"))
    assert not tiny.differences(uninterrupted, again)

    loaded = run_lib.load(tmp_path / "whole")
    assert loaded.spec.cameras == {"image": (96, 96, 3)}
    obs = {"image": np.zeros((1, 2, 96, 96, 3), np.uint8), "agent_pos": np.zeros((1, 2, 2))}
    assert np.isfinite(loaded.sample_actions(jax.random.key(0), obs)).all()
    for wrong, message in (
        (
            {"image": obs["image"] / 255.0},
            "must be uint8 images .B, To, 96, 96, 3. .*, but is float64",
        ),
        ({"image": np.moveaxis(obs["image"], -1, 2)}, r"but is uint8 \[1, 2, 3, 96, 96\]"),
        ({"image": obs["image"][:, :, :48]}, r"but is uint8 \[1, 2, 48, 96, 3\]"),
    ):
        with pytest.raises(UserError, match=message):
            loaded.sample_actions(jax.random.key(0), {**obs, **wrong})
    with pytest.raises(UserError, match="obs: 'image' is missing; got agent_pos"):
        loaded.sample_actions(jax.random.key(0), {"agent_pos": obs["agent_pos"]})


def test_the_saved_config_is_the_given_one(run, data):
    """Evaluators sample with fewer steps; the run's config keeps its number."""
    config = tiny_config.get_config()
    config.data.dir = str(data)
    assert config_file.read_config(run[0])[0].to_dict() == config.to_dict()
    assert config.sampler.num_steps != config.val.num_steps
    assert build.with_sampling(config, steps=7).sampler.num_steps == 7
    assert config.sampler.num_steps == 4


def test_a_run_from_before_a_key_was_there_still_loads(copy):
    path = copy / "config.json"
    content = json.loads(path.read_text())
    for key in ("cameras", "encoder", "augment", "condition"):
        del content["config"][key]
    del content["config"]["data"]["mirror"]
    path.write_text(json.dumps(content))
    assert run_lib.load(copy).config.to_dict() == config_file.read_config(copy)[0].to_dict()
    config, spec = config_file.read_config(copy)
    assert config.condition == "features" and not config.data.mirror
    directory.claim(copy, config, spec).close()  # and can be gone on with


def test_metrics_are_counted_and_timed(run):
    entries = tiny.entries(run[0])
    steps = [entry["step"] for entry in entries]
    seconds = [entry["seconds"] for entry in entries]
    assert steps == sorted(steps) and steps[-1] == STEPS
    assert seconds == sorted(seconds) and seconds[0] > 0
    speeds = [entry["steps_per_second"] for entry in entries if "steps_per_second" in entry]
    assert len(speeds) == STEPS // 2 - 1 and min(speeds) > 0  # not of the call that compiled


def test_held_out_demonstrations_are_scored(run):
    entries = [entry for entry in tiny.entries(run[0]) if "val_loss" in entry]
    assert [entry["step"] for entry in entries] == [STEPS // 2, STEPS]
    for entry in entries:
        assert 0 < entry["val_loss"] < 10
        assert 0 < entry["val_action_error_best"] <= entry["val_action_error"] < 512


def test_a_finished_run_says_so(copy, data, cache):
    before = tiny.files(copy)
    again = tiny.finish(copy, data, cache=cache)
    assert f"is finished: step {STEPS} of {STEPS}" in again.last_line
    assert f"--config.train.init_from={copy}" in again.last_line
    after = tiny.files(copy)
    assert {path for path in before if before[path] != after[path]} == {str(copy / "lock")}


def test_another_config_is_refused(copy, data, cache):
    before = tiny.files(copy)
    refused = tiny.start(copy, data, "train.batch=32", "optim.lr=0.5", cache=cache).wait()
    assert refused.code == 2
    assert refused.last_line.startswith(f"dpjax: error: --workdir {copy} holds a run with another")
    assert "config.train.batch: 16 there, 32 now" in refused.last_line
    assert "config.optim.lr: 0.002 there, 0.5 now" in refused.last_line
    assert tiny.files(copy) == before


def test_other_data_are_refused(run, tmp_path):
    config, spec = config_file.read_config(run[0])
    before = tiny.files(run[0])
    with pytest.raises(UserError, match="data: fingerprint .* there, other now"):
        directory.claim(run[0], config, spec._replace(data="other"))
    assert tiny.files(run[0]) == before


@pytest.mark.parametrize("steps, named", [(STEPS + 1, True), (STEPS - 1, False)])
def test_more_steps_are_refused_with_the_way_to_train_further(copy, steps, named):
    config, spec = config_file.read_config(copy)
    config.train.steps = steps
    with pytest.raises(UserError, match=f"train.steps: {STEPS} there, {steps} now") as refused:
        directory.claim(copy, config, spec)
    assert (f"--config.train.init_from={copy} and another" in str(refused.value)) == named


def test_more_steps_of_a_run_without_weights_name_no_weights(tmp_path):
    config = defaults.get_config()
    spec = spec_lib.Spec({"state": 2}, 2, "fingerprint")
    directory.claim(tmp_path / "run", config, spec).close()
    config.train.steps += 1
    with pytest.raises(UserError, match="another --workdir.$"):
        directory.claim(tmp_path / "run", config, spec)


def test_cadences_may_change_and_are_said(copy, caplog):
    config, spec = config_file.read_config(copy)
    config.save.every = 12
    directory.claim(copy, config, spec).close()
    assert "config.save.every is 12 now, 4 when the run began" in caplog.text
    assert config_file.read_config(copy)[0].save.every == 12


def test_a_config_that_is_none_is_refused(copy):
    path = copy / "config.json"
    for broken in ({"config": [], "spec": {}}, {"spec": {}}, {"config": {}, "spec": {"x": 1}}):
        path.write_text(json.dumps(broken))
        with pytest.raises(UserError, match="is not a config that dpjax.train wrote"):
            config_file.read_config(copy)


def test_a_folder_that_is_no_run_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not lose")
    before = tiny.files(tmp_path)
    with pytest.raises(UserError, match="has files but no config.json"):
        directory.claim(tmp_path, defaults.get_config(), spec_lib.Spec({}, 2, ""))
    assert tiny.files(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir .*/run: .*: Not a directory"):
        directory.claim(tmp_path / "file" / "run", defaults.get_config(), spec_lib.Spec({}, 2, ""))


def test_what_a_killed_start_left_is_taken_over(tmp_path):
    for name in directory.LEFT_OVER:
        (tmp_path / name).write_text("half")
    directory.claim(tmp_path, defaults.get_config(), spec_lib.Spec({}, 2, "")).close()
    assert config_file.read_config(tmp_path)[0].train.batch == 256


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_and_said(run, copy, data, cache):
    folder = copy / "checkpoints" / str(STEPS) / "denoiser"
    largest = max(folder.rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"\0" * largest.stat().st_size)
    output = tiny.finish(copy, data, cache=cache).text()
    assert f"checkpoint skipped: step {STEPS}: denoiser" in output
    assert f"resuming from step {STEPS - 4}" in output
    assert tiny.differences(tiny.saved(copy)[0], tiny.saved(run[0])[0]) == []
    assert [e["step"] for e in tiny.entries(copy)] == [e["step"] for e in tiny.entries(run[0])]


@pytest.mark.slow
def test_numbers_that_are_not_finite_stop_the_run(tmp_path, cache):
    episodes = list(tiny.episodes())
    bad = tiny.LENGTHS.index(1)  # one window, so one step of the first epoch
    episodes[bad]["action"][:] = 3e38
    data = tiny.write(tmp_path / "set", episodes)
    train_ids, _ = episodes_lib.split(len(episodes), 0.2, defaults.get_config().data.val_seed)
    ends = np.cumsum([len(episodes[i]["state"]) for i in train_ids])
    rows, _ = windows.window_indices(ends, 8, 1, 3)
    window = np.flatnonzero((rows == ends[list(train_ids).index(bad)] - 1).all(1))[0]
    seen = lambda seed: np.flatnonzero(
        (loader.call_indices(len(rows), 16, seed, 0, 9) == window).any(1)
    )
    seed = next(seed for seed in range(99) if seen(seed)[0] in (4, 5))
    step = int(seen(seed)[0]) + 1

    workdir = tmp_path / "run"
    changes = (
        "normalize.obs=identity",
        "normalize.action=identity",
        f"seed={seed}",
        "val.every=0",
    )
    stopped = tiny.start(workdir, data, *changes, cache=cache).wait()
    assert stopped.code == 2, stopped.text()
    assert stopped.last_line.startswith(f"dpjax: error: step {step}: the loss is ")
    good = checkpoint.steps(workdir)[-1]
    assert 4 <= good < step
    items, _ = tiny.saved(workdir)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(items))
    assert tiny.logged(workdir) < step


def counting(*args):
    """A training that says how often it has the widest kernel in memory."""

    def count(window, number):
        sizes = [leaf.size for leaf in jax.live_arrays() if leaf.dtype == np.float32]
        print(f"held: {sizes.count(max(sizes))}", flush=True)
        return averages(window, number)

    metrics_lib.averages = count
    tiny.train(*args)


@pytest.mark.slow
def test_a_run_holds_its_state_once(data, cache, tmp_path):
    options = dict(cache=cache, command=counting)
    output = tiny.finish(tmp_path / "run", data, "log.every=20", "eval.every=0", **options).text()
    lines = [line for line in output.splitlines() if "held: " in line]
    assert len(lines) == 3  # weights, average and Adam's two
    assert all(line.endswith("held: 4") for line in lines), lines


@pytest.mark.slow
def test_two_devices_train_as_one(run, data, cache, tmp_path):
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    tiny.finish(tmp_path / "two", data, cache=cache, env=two)
    items, _ = tiny.saved(tmp_path / "two")
    assert checkpoint.read_meta(tmp_path / "two", STEPS)["devices"] == 2
    expected, _ = tiny.saved(run[0])
    for name in ("denoiser", "ema_denoiser"):
        for x, y in zip(*map(jax.tree.leaves, (items[name], expected[name]))):
            np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_traced_run_is_the_same_run(run, data, cache, tmp_path):
    output = tiny.finish(tmp_path / "traced", data, "--profile", "--verbose", cache=cache).text()
    assert str(tmp_path / "traced" / "profile") in output
    assert '"batch": 16' in output  # --verbose prints the config
    assert len(list((tmp_path / "traced" / "profile").rglob("*.xplane.pb"))) == 1
    items, _ = tiny.saved(tmp_path / "traced")
    expected, _ = tiny.saved(run[0])
    assert not tiny.differences(items["denoiser"], expected["denoiser"])


def test_a_run_too_short_for_a_trace_is_refused_untouched(data, cache, tmp_path):
    refused = tiny.start(tmp_path / "run", data, "--profile", "train.steps=4", cache=cache).wait()
    assert refused.code == 2 and "--profile traces call 3 of this start" in refused.last_line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_metrics_after_the_checkpoint_are_done_again(tmp_path):
    metrics = Metrics(tmp_path, 0)
    for step in (2, 4, 6):
        metrics.write(step, {"loss": 1 / step, "seconds": step / 2, "bad": np.nan})
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # killed here
    metrics = Metrics(tmp_path, 4)
    metrics.write(6, {"loss": 7.0})
    metrics.close()
    assert (metrics.removed, metrics.seconds) == (1, 2.0)
    entries = read(tmp_path / "metrics.jsonl")
    assert [entry["step"] for entry in entries] == [2, 4, 6]
    assert entries[-1]["loss"] == 7.0 and entries[0]["bad"] is None


def test_a_full_disk_stops_no_training(tmp_path, caplog):
    metrics = Metrics(tmp_path, 0)
    metrics._file.close()
    metrics._file = open("/dev/full", "a")
    for step in range(50):
        metrics.write(step, {"loss": 0.1})
    metrics.close()
    assert caplog.text.count("metrics are not written") == 1


def test_the_speed_leaves_the_compiling_call_out():
    sums = {"loss": np.array([1.0, 3.0])}
    assert averages([(sums, 2, None, 0.1)]) == {"loss": 2.0}
    speed = {"steps_per_second": 4.0, "input_wait": 0.25}
    assert averages([(sums, 2, None, 0.1), (sums, 2, 0.5, 0.125)]) == {"loss": 2.0, **speed}
