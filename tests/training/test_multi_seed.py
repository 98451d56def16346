"""Several trainings side by side: each equals a training by itself, and is a run."""

import jax
import numpy as np
import pytest
from support import tiny

from dpjax.runs import run as run_lib
from dpjax.training import checkpoint

pytestmark = pytest.mark.slow
data = tiny.data  # fixtures
cache = tiny.cache

SHORT = ("train.steps=8", "save.every=4", "log.every=4", "val.every=8")


@pytest.fixture(scope="module")
def both(data, cache, tmp_path_factory):
    """Two trainings side by side: their folder."""
    folder = tmp_path_factory.mktemp("seeds") / "both"
    tiny.finish(folder, data, "train.seeds=2", *SHORT, cache=cache)
    return folder


@pytest.mark.parametrize("seed", [42, 43])
def test_each_equals_a_training_by_itself(both, data, cache, tmp_path, seed):
    tiny.finish(tmp_path / "alone", data, f"seed={seed}", *SHORT, cache=cache)
    (there, _), (here, _) = (tiny.saved(run) for run in (tmp_path / "alone", both / f"seed_{seed}"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-5), there, here)
    losses = [
        [entry["loss"] for entry in tiny.entries(run) if "loss" in entry]
        for run in (tmp_path / "alone", both / f"seed_{seed}")
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_each_is_a_run(both):
    runs = [run_lib.load(both / f"seed_{seed}") for seed in (42, 43)]
    assert [run.config.seed for run in runs] == [42, 43]
    assert all(run.config.train.seeds == 1 and run.step == 8 for run in runs)
    first, second = (jax.tree.leaves(run.params["denoiser"]) for run in runs)
    assert not any(np.array_equal(a, b) for a, b in zip(first, second) if np.std(a) > 0)


def test_a_kill_between_two_saves_goes_on_from_what_both_have(both, data, cache, tmp_path):
    folder = tmp_path / "both"
    kill = {"DPJAX_KILL_AT": "after_arrays:3"}
    run = tiny.start(folder, data, "train.seeds=2", *SHORT, cache=cache, env=kill).wait()
    assert run.code == -9
    at = [checkpoint.steps(folder / f"seed_{seed}")[-1] for seed in (42, 43)]
    tiny.finish(folder, data, "train.seeds=2", *SHORT, cache=cache)
    assert 4 in at
    for seed in (42, 43):
        again, uninterrupted = (tiny.saved(where / f"seed_{seed}")[0] for where in (folder, both))
        assert not tiny.differences(uninterrupted, again)


def test_one_of_them_may_go_on_alone(both, data, cache, tmp_path):
    run = tiny.finish(both / "seed_43", data, "seed=43", *SHORT, cache=cache)
    assert "is finished: step 8 of 8" in run.text()


def test_a_run_is_not_a_folder_of_runs(both, data):
    run = tiny.start(both / "seed_42", data, "train.seeds=2", *SHORT).wait()
    assert run.code == 2
    assert "seed_42 is a run: config.train.seeds=2 makes a folder" in run.last_line


def test_several_devices_share_the_examples_of_all(both, data, cache, tmp_path):
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    for strategy in ("pmap", "mesh"):
        changes = ("train.seeds=2", f"train.parallel={strategy}", *SHORT)
        tiny.finish(tmp_path / strategy, data, *changes, cache=cache, env=two)
        for seed in (42, 43):
            got, want = (tiny.saved(run / f"seed_{seed}")[0] for run in (tmp_path / strategy, both))
            for item in ("denoiser", "ema_denoiser"):
                jax.tree.map(
                    lambda a, b: np.testing.assert_allclose(b, a, rtol=2e-3, atol=2e-4),
                    *(want[item], got[item]),
                )
