"""Batch i is a function of (seed, i), no window is lost, and gather is a fancy index."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.data import frames, loader, mixture
from dpjax.data.windows import window_indices

SIZES = [(10, 4), (10, 10), (3, 8), (1, 5), (97, 32)]


@pytest.mark.parametrize("windows, batch", SIZES)
def test_every_epoch_of_the_stream_is_a_permutation(windows, batch):
    stream = np.concatenate([loader.batch_indices(windows, batch, 0, i) for i in range(windows)])
    assert stream.dtype == np.int32 and len(stream) == windows * batch
    for epoch in stream.reshape(batch, windows):  # windows batches are `batch` epochs
        np.testing.assert_array_equal(np.sort(epoch), np.arange(windows))


@pytest.mark.parametrize("windows, batch", SIZES)
def test_a_call_is_its_batches(windows, batch):
    call = loader.call_indices(windows, batch, 7, 5, 6)
    want = [loader.batch_indices(windows, batch, 7, step) for step in range(5, 11)]
    np.testing.assert_array_equal(call, want)


def test_a_batch_does_not_depend_on_what_was_drawn_before():
    mixture.permutation.cache_clear()
    late = loader.batch_indices(100, 8, 3, 1000)
    for step in range(995, 1000):
        loader.batch_indices(100, 8, 3, step)
    np.testing.assert_array_equal(loader.batch_indices(100, 8, 3, 1000), late)


def test_seeds_and_epochs_differ():
    first = loader.call_indices(100, 100, 0, 0, 2)
    assert (first[0] != first[1]).any()
    assert (loader.batch_indices(100, 100, 1, 0) != first[0]).any()


def test_a_batch_is_the_callers_to_change():
    loader.batch_indices(10, 10, 0, 0)[:] = 0
    np.testing.assert_array_equal(np.sort(loader.batch_indices(10, 10, 0, 0)), np.arange(10))


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    return {
        "state": rng.normal(size=(40, 5)).astype(np.float32),
        "image": frames.Frames(
            rng.integers(0, 255, (40, 4, 4, 3)).astype(np.uint8),
            np.arange(40),
            np.arange(40) % 3 == 0,
            "",
        ),
        "action": rng.normal(size=(40, 2)).astype(np.float32),
        "unused": np.zeros((40, 1000), np.float32),
    }


@pytest.fixture
def windows(columns):
    indices, mask = window_indices(np.array([15, 40]), 8, 1, 3)
    return loader.place(columns, indices, mask, ["state", "image"], "action", 2)


@pytest.fixture
def table(windows):
    return windows.table


def plain(ids):
    """The inputs of windows that observe no camera."""
    return loader.Inputs(ids, {})


def test_gather_under_jit_is_a_fancy_index(columns, windows, table):
    ids = np.array([3, 0, 20], np.int32)
    gather = jax.jit(loader.gather, static_argnums=3)
    batch = gather(table, windows.inputs(ids), jnp.array([4, 5, 6]), 2)
    steps = np.asarray(table.indices)[ids]
    np.testing.assert_array_equal(batch.obs["state"], columns["state"][steps[:, :2]])
    np.testing.assert_array_equal(batch.obs["image"], columns["image"].read(steps[:, :2]))
    np.testing.assert_array_equal(batch.actions, columns["action"][steps])
    np.testing.assert_array_equal(batch.mask, np.asarray(table.mask)[ids])
    np.testing.assert_array_equal(batch.index, [4, 5, 6])
    assert batch.obs["image"].dtype == jnp.uint8 and batch.obs["state"].shape == (3, 2, 5)


def test_gather_works_inside_a_scan(columns, windows, table):
    ids = loader.call_indices(len(table.indices), 6, 0, 0, 10)

    @jax.jit
    def run(table, inputs):
        def body(total, inputs):
            batch = loader.gather(table, inputs, jnp.arange(6), 2)
            return total + batch.actions.sum(), (batch.obs["state"], batch.obs["image"])

        return jax.lax.scan(body, 0.0, inputs)

    total, (states, images) = run(table, windows.inputs(ids))
    steps = np.asarray(table.indices)[ids]
    np.testing.assert_allclose(total, columns["action"][steps].sum(), rtol=1e-4)
    np.testing.assert_array_equal(states, columns["state"][steps[..., :2]])
    np.testing.assert_array_equal(images, columns["image"].read(steps[..., :2]))


def test_the_table_holds_only_what_is_used(table):
    assert set(table.columns) == {"state", "action"}  # images stay on the host


def test_the_action_may_be_observed_too(columns):
    indices, mask = window_indices(np.array([40]), 8, 1, 3)
    windows = loader.place(columns, indices, mask, ["action"], "action", 2)
    batch = loader.gather(windows.table, plain(np.arange(4)), np.arange(4), 2)
    np.testing.assert_array_equal(batch.obs["action"], batch.actions[:, :2])


def test_a_missing_column_is_named(columns):
    with pytest.raises(UserError, match="'stat' in the data; did you mean 'state'"):
        loader.place(columns, np.zeros((1, 8)), np.ones((1, 8)), ["stat"], "action", 2)


@pytest.mark.parametrize("first, total", [(0, 7), (4, 7), (6, 6)])
def test_the_feed_is_the_stream_cut_into_calls(first, total):
    calls_made = []

    def make(start, count):
        calls_made.append((start, count))
        return list(range(start, start + count))

    calls = list(loader.feed(make, first, total, 3))
    assert [step for _, inputs, _ in calls for step in inputs] == list(range(first, total))
    assert all(n == len(inputs) <= 3 and waited >= 0 for n, inputs, waited in calls)
    assert calls_made == [(inputs[0], n) for n, inputs, _ in calls]


def test_the_feed_raises_what_its_thread_raises():
    def make(start, count):
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        next(loader.feed(make, 0, 3, 1))
