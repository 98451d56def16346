"""config.train.init_from: a training that starts from the weights and the units of a run."""

import jax
import numpy as np
import pytest
from support import tiny

from dpjax.core import spec as spec_lib
from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.runs import config_file, init_from, training_run
from dpjax.training import checkpoint, parallel
from dpjax.training.signals import Signals

pytestmark = pytest.mark.slow

data = tiny.data  # fixtures
cache = tiny.cache
SHORT = ("train.steps=2", "optim.warmup=0", "val.every=0", "save.every=2")


@pytest.fixture(scope="module")
def source(data, cache, tmp_path_factory):
    """A run of two steps."""
    workdir = tmp_path_factory.mktemp("began") / "run"
    tiny.finish(workdir, data, *SHORT, cache=cache)
    return workdir


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Demonstrations that reach farther than those of `data`."""
    episodes = list(tiny.episodes(seed=5))
    episodes[0]["action"] = episodes[0]["action"] * 2
    return tiny.write(tmp_path_factory.mktemp("others") / "set", episodes)


def test_a_run_starts_with_the_averaged_weights_and_the_units_of_another(
    source, others, cache, tmp_path
):
    workdir = tmp_path / "tuned"
    options = (*SHORT, f"train.init_from={source}", "optim.lr=1e-30")
    output = tiny.finish(workdir, others, *options, cache=cache).text()
    assert "starting from step 2 of" in output and "its units instead of those" in output
    assert "of the new data reaches" in output and "beyond config.sampler.clip=1" in output
    want, got = (checkpoint.load_params(run)[0] for run in (source, workdir))
    assert tiny.differences(want, got) == []
    raw = checkpoint.load_params(workdir, which="raw")[0]
    assert tiny.differences(want["denoiser"], raw["denoiser"]) == []


def test_a_run_that_has_checkpoints_resumes_and_reads_no_other(source, data, cache):
    config, spec = config_file.read_config(source)
    config.train.init_from = "nowhere"
    with pytest.raises(UserError, match="nowhere: no config.json there"):
        init_from.initial_params(config, spec, None, None)
    strategy = parallel.mesh_strategy(jax.devices())
    run = training_run.TrainingRun(config, source, spec, strategy, Signals())
    assert run.has_checkpoints()


def test_leaves_that_do_not_fit_are_named_and_nothing_is_made(source, others, cache, tmp_path):
    workdir = tmp_path / "wider"
    options = (*SHORT, f"train.init_from={source}", "denoiser.widths=(16,64)")
    refused = tiny.start(workdir, others, *options, cache=cache).wait()
    assert refused.code == 2 and not workdir.exists()
    assert "denoiser/blocks_2/block0/bias: (32,) there, (64,) in this config" in refused.last_line


def test_leaves_that_are_nowhere_are_named():
    like = {"a": np.zeros(2), "b": np.zeros((2, 3)), "c": np.zeros(1)}
    there = {"a": np.zeros(2), "b": np.zeros((3, 2)), "d": np.zeros(1)}
    with pytest.raises(UserError) as refused:
        init_from.check_leaves("runs/x", there, like)
    for text in (
        "3 of 4 leaves",
        "b: (3, 2) there, (2, 3)",
        "c: none there",
        "d: (1,) there, none",
    ):
        assert text in str(refused.value)


def test_other_observations_are_refused():
    spec = spec_lib.Spec({"state": 3, "goal": 2}, 2, "")
    init_from.check_observations("runs/x", spec, spec._replace(data="other"))
    for other in (spec._replace(action=3), spec._replace(observations={"goal": 2, "state": 3})):
        with pytest.raises(UserError, match="expected .*, as in that run, got"):
            init_from.check_observations("runs/x", spec, other)


def test_actions_out_of_the_samplers_reach_are_counted_by_dim():
    units = Normalizer(
        {"action": jax.numpy.array([0.0, 5.0])}, {"action": jax.numpy.array([1, 2.0])}
    )
    columns = {"action": np.array([[1.0, 5.0], [-1.0, 12.0]])}
    assert len(init_from.unreachable(units, columns, 1.0)) == 1
    assert "action[1] of the new data reaches 3.50" in init_from.unreachable(units, columns, 1.0)[0]
    assert init_from.unreachable(units, columns, np.inf) == []
