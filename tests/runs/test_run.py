"""A loaded run: sampling, its controller, its task."""

import jax
import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.runs import run as run_lib


@pytest.fixture(scope="module")
def run():
    """A policy that comes with dpjax."""
    return run_lib.load("pusht_demo", steps=2)


def observations(run, batch_size):
    """{name: [B, To, D]} of zeros."""
    observed = run.config.horizon.obs
    return {
        name: np.zeros((batch_size, observed, size), np.float32)
        for name, size in run.spec.numbers.items()
    }


def test_it_samples_action_chunks(run):
    chunks = run.sample_actions(jax.random.key(0), observations(run, 2))
    assert chunks.shape == (2, run.config.horizon.predict, run.spec.action)
    assert np.isfinite(chunks).all()


def test_its_controller_has_the_horizons_of_the_run(run):
    controller = run.controller(jax.random.key(0))
    assert (controller.observed, controller.executed) == (2, 8)
    action = controller.act({name: x[0, 0] for name, x in observations(run, 1).items()})
    assert action.shape == (run.spec.action,)


def test_a_controller_of_several_robots_is_reset_by_the_caller(run):
    controller = run.controller()
    controller.reset(jax.random.split(jax.random.key(0), 2))
    action = controller.act({name: x[:, 0] for name, x in observations(run, 2).items()})
    assert action.shape == (2, run.spec.action)


def test_it_knows_its_task_and_the_sampler_that_was_asked_for(run):
    assert run.task.name == "pusht"
    assert run.config.sampler.num_steps == 2


def test_its_repr_is_one_line_with_the_sizes(run):
    assert repr(run) == (
        f"Run(task='pusht', step={run.step}, sampler='ddim', num_steps=2, "
        f"observations={run.spec.observations}, action=2, observed=2, predicted=16, executed=8)"
    )
    assert str(run) == repr(run)


def test_warming_up_compiles_ahead(run):
    assert run.warm_up([3]) >= 0


def test_a_name_that_is_neither_a_folder_nor_a_policy(tmp_path):
    with pytest.raises(UserError, match="no config.json there"):
        run_lib.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="did you mean 'pusht_demo'"):
        run_lib.load("pusht_dem")


def test_a_sampler_that_does_not_fit_is_told_in_keys():
    with pytest.raises(UserError, match="config.sampler.num_steps=0 must be"):
        run_lib.load("pusht_demo", steps=0)
