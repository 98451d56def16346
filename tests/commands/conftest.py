"""What the tests of commands share: policies to act with, and episodes that end soon."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny, tiny_config
from support.tiny import cache, data  # noqa: F401 (fixtures)

from dpjax import tasks
from dpjax.config import build
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION, Batch
from dpjax.runs import shipped


@pytest.fixture
def short_episodes(monkeypatch):
    """Push-T's episodes end after 24 steps."""
    task = tasks.get("pusht")
    task = task._replace(simulator=task.simulator._replace(max_steps=24))
    monkeypatch.setitem(tasks.TASKS, "pusht", lambda: task)


@pytest.fixture(scope="session")
def shipped_folder(tmp_path_factory):
    """A folder of shipped policies with one, `tiny`: random weights, compiled in a second."""
    config = tiny_config.get_config()
    spec = Spec({"keypoints": 18, "agent_pos": 2}, action=2, data="of no data set")
    sizes = {**spec.observations, ACTION: spec.action}
    constant = lambda x: {key: jnp.full(size, x, jnp.float32) for key, size in sizes.items()}
    normalizer = Normalizer(offset=constant(256.0), scale=constant(256.0))  # px
    policy = build.policy(config, normalizer, spec)
    obs = {key: np.zeros((1, config.horizon.obs, d)) for key, d in spec.observations.items()}
    actions = np.zeros((1, config.horizon.predict, spec.action))
    batch = Batch(obs, actions, actions[..., 0], np.zeros(1, np.int32))
    params = jax.jit(policy.init)(jax.random.key(0), batch)

    folder = tmp_path_factory.mktemp("shipped")
    (folder / "tiny").mkdir()
    shipped.save_params(folder / "tiny", params, step=7)
    content = {"config": config.to_dict(), "spec": spec._asdict()}
    (folder / "tiny" / "config.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def policy(shipped_folder, monkeypatch):
    """The name of a policy that comes with dpjax, for these tests."""
    monkeypatch.setattr(shipped, "FOLDER", shipped_folder)
    return "tiny"


@pytest.fixture(scope="session")
def run(tmp_path_factory, data, cache):  # noqa: F811
    """A run folder with two checkpoints."""
    folder = tmp_path_factory.mktemp("commands") / "run"
    tiny.finish(folder, data, "train.steps=8", "save.every=4", "log.every=4", cache=cache)
    return folder
