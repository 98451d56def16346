"""Compiled policies: one program per batch size, compiled before the first step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_config, tiny_image

from dpjax.config import build, cameras
from dpjax.core import spec
from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.core.types import ACTION, Batch
from dpjax.inference import compiled
from dpjax.inference.compiled import CompiledPolicy
from dpjax.inference.controller import Controller

SPEC = spec.Spec({"image": (96, 96, 3), "agent_pos": 2}, 2, "")
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """The seconds of each compilation since the fixture was made, cached ones included."""
    seconds = []
    listen = lambda event, duration, **_: seconds.append(duration) if event == COMPILED else None
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(listen)


def observe(batch, seed=0):
    """Random observations of SPEC, To = 2."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (batch, 2, 96, 96, 3), np.uint8)
    return {"image": image, "agent_pos": rng.normal(size=(batch, 2, 2))}


@pytest.fixture(scope="module")
def tiny_policy():
    """(config, policy, params) of an untrained policy with a camera."""
    config = tiny_image.get_config()
    one = {"agent_pos": jnp.ones(2), "image": jnp.full(3, 127.5), ACTION: jnp.full(2, 100.0)}
    units = Normalizer({key: jnp.zeros_like(x) for key, x in one.items()}, one)
    policy = build.policy(config, units, SPEC)
    obs = jax.tree.map(jnp.asarray, observe(1))
    batch = Batch(obs, jnp.zeros((1, 8, 2)), jnp.ones((1, 8)), jnp.arange(1))
    return config, policy, jax.jit(policy.init)(jax.random.key(0), batch)


@pytest.mark.slow
def test_nothing_is_compiled_in_a_thousand_control_steps(tiny_policy, compilations):
    config, policy, params = tiny_policy
    compiled_policy = build.compiled_policy(config, policy, SPEC)
    assert compiled_policy.compile(params, [2]) > 0 and compilations
    sample_actions = lambda rng, obs, previous=None: compiled_policy(params, rng, obs, previous)
    controller = Controller(sample_actions, observed=2, executed=4)
    controller.reset(jax.random.split(jax.random.key(0), 2))
    obs = {key: x[:, 0] for key, x in observe(2).items()}
    controller.act(obs)
    before = len(compilations)
    for _ in range(1000):
        assert np.isfinite(controller.act(obs)).all()
    assert len(compilations) == before


def test_padding_does_not_change_an_example(tiny_policy, compilations):
    config, policy, params = tiny_policy
    act = build.compiled_policy(config, policy, SPEC)
    obs = observe(3)
    keys = jax.random.split(jax.random.key(1), 3)
    together = act(params, keys, obs)
    count = len(compilations)
    act(params, keys, observe(3, seed=1))
    assert len(compilations) == count and together.shape == (3, 8, 2)
    want = jax.jit(policy.sample)(params, keys, {key: jnp.asarray(x) for key, x in obs.items()})
    np.testing.assert_allclose(together, want, atol=1e-3)  # of ±100
    assert abs(together[0] - together[1]).max() > 1


def counting(batch_size=None, previous_shape=None):
    """A CompiledPolicy that adds up its inputs, and the batch sizes that it was traced for."""
    sizes = []

    def sample(params, keys, obs, previous=None):
        sizes.append(len(obs["x"]))
        noise = jax.vmap(jax.random.normal)(keys)[:, None, None]
        start = jnp.zeros((len(keys), 3, 1)) if previous is None else jnp.nan_to_num(previous)
        return params + start + noise + obs["x"].sum((1, 2))[:, None, None]

    obs_shapes = {"x": jax.ShapeDtypeStruct((2, 2), np.float32)}
    return CompiledPolicy(sample, obs_shapes, previous_shape, batch_size), sizes


def test_batches_share_the_programs_of_their_buckets():
    act, sizes = counting()
    x = np.arange(40.0).reshape(10, 2, 2)
    want = act(0.0, jax.random.key(0), {"x": x})
    for n in (1, 2, 3, 4, 5, 7, 8):
        got = act(0.0, jax.random.key(0), {"x": x[:n]})
        np.testing.assert_allclose(got, want[:n], rtol=1e-6)
    assert sorted(sizes) == [1, 2, 4, 8, 16]


def test_a_size_that_was_asked_for_is_not_rounded_up():
    act, sizes = counting()
    act.compile(0.0, [5, 5])
    act(0.0, jax.random.key(0), {"x": np.zeros((5, 2, 2))})
    assert sizes == [5]
    act(0.0, jax.random.key(0), {"x": np.zeros((6, 2, 2))})  # 5 is too small
    act(0.0, jax.random.key(0), {"x": np.zeros((2, 2, 2))})  # 5 is more than twice as many
    assert sizes == [5, 8, 2]
    assert [compiled.bucket(n) for n in (1, 2, 3, 4, 5, 64, 65)] == [1, 2, 4, 4, 8, 64, 128]


def test_the_callers_previous_chunk_is_not_overwritten():
    act, sizes = counting(previous_shape=(3, 1))
    previous = np.full((2, 3, 1), 7.0, np.float32)
    obs = {"x": np.zeros((2, 2, 2), np.float32)}
    first = act(1.0, jax.random.key(0), obs)
    second = act(1.0, jax.random.key(0), obs, previous)
    np.testing.assert_allclose(second, first + 7, rtol=1e-6)
    assert (previous == 7).all() and sizes == [2]


def test_committed_actions_are_an_input_of_one_program():
    sizes = []

    def sample(params, keys, obs, previous, committed):
        sizes.append(len(committed))
        return jnp.zeros((len(keys), 3, 1)) + committed[:, None, None]

    obs_shapes = {"x": jax.ShapeDtypeStruct((2, 2), np.float32)}
    act = CompiledPolicy(sample, obs_shapes, (3, 1), takes_committed=True)
    obs = {"x": np.zeros((3, 2, 2), np.float32)}
    key = jax.random.key(0)
    for steps in ([0, 1, 2], [4, 0, 0]):
        got = act(0.0, key, obs, None, np.array(steps))
        np.testing.assert_array_equal(got[:, 0, 0], steps)
    assert not act(0.0, key, obs).any() and sizes == [4]  # padded to a power of two
    for wrong in (np.zeros(2, int), np.zeros(3), np.array([0, -1, 0])):
        with pytest.raises(UserError, match="committed must be 3 whole numbers"):
            act(0.0, key, obs, None, wrong)


@pytest.mark.parametrize(
    "keys, x, message",
    [
        (2, (3, 2, 2), "rng has 2 keys for 3 examples"),
        (3, (3, 2, 1), r"must be numbers \[B, To, 2\] with To = 2, but is float64 \[3, 2, 1\]"),
        (3, (3, 1, 2), r"with To = 2, but is float64 \[3, 1, 2\]"),
        (5, (5, 2, 2), "a batch of 5 examples, but this policy takes 1 to 4 at once"),
        (0, (0, 2, 2), "a batch of 0 examples"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(keys, x, message):
    act, _ = counting(batch_size=4)
    with pytest.raises(UserError, match=message) as error:
        act(0.0, jax.random.split(jax.random.key(0), keys), {"x": np.zeros(x)})
    assert "\n" not in str(error.value)


def test_keys_of_the_old_kind_are_refused():
    with pytest.raises(UserError, match="rng must be made by jax.random.key"):
        counting()[0](0.0, np.zeros(2, np.uint32), {"x": np.zeros((1, 2, 2))})


def test_the_observations_that_a_policy_takes():
    shapes = cameras.observation_shapes(SPEC, tiny_config.get_config().horizon.obs)
    assert {key: (one.shape, one.dtype) for key, one in shapes.items()} == {
        "agent_pos": ((2, 2), np.float32),
        "image": ((2, 96, 96, 3), np.uint8),
    }
