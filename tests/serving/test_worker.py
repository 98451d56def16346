"""Clients in one batch: the same answers as alone, and each its own error."""

import threading
import time

import jax
import numpy as np
import pytest
from support import serving

from dpjax.core.errors import UserError
from dpjax.inference.compiled import CompiledPolicy
from dpjax.serving import batching
from dpjax.serving.batching import Request
from dpjax.serving.metrics import Counts
from dpjax.serving.worker import Late, Worker


def request(i, version, **options):
    obs = {"state": np.full((1, 2, 3), i, np.float32)}
    return Request(version, np.array([[0, i]], np.uint32), obs, **options)


def ask_all(worker, requests):
    """The answers, or errors, of requests that come at the same time."""
    answers = {}

    def ask(i):
        try:
            answers[i] = worker.ask(requests[i])
        except Exception as error:
            answers[i] = error

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    assert serving.wait_for(lambda: len(worker._waiting) + len(answers) == len(requests))
    runner = threading.Thread(target=worker.run)
    runner.start()
    for thread in threads:
        thread.join(5)
    worker.stop()
    runner.join(5)
    return [answers[i] for i in range(len(requests))]


def sampled(sample):
    """A compiled policy as a version: the mean of the history, and noise of the key."""
    compiled = CompiledPolicy(sample, serving.SHAPES, (8, 2))
    call = lambda keys, obs, *previous: compiled(None, keys, obs, *previous)
    return batching.Version(call, lambda sizes: compiled.compile(None, sizes), {})


def noise(params, keys, obs, previous):
    draw = jax.vmap(lambda key: jax.random.normal(key, (8, 2)))
    return draw(keys) + obs["state"].mean((1, 2))[:, None, None]


def test_an_answer_is_that_of_the_request_alone():
    version = sampled(noise)
    worker = Worker(Counts(), 8)
    worker.clients = 5
    answers = ask_all(worker, [request(i, version) for i in range(5)])
    for i, answer in enumerate(answers):
        alone = batching.call([request(i, version)])
        np.testing.assert_allclose(answer, alone, atol=1e-5)
        # Among other requests, in a batch of the same size, every bit is the same.
        others = [request(j, version) for j in (50, i, 51, 52, 53)]
        np.testing.assert_array_equal(answer, batching.call(others)[1:2])
    assert worker._counts["batches"] == 1


def test_previous_chunks_and_commitments_of_some_are_filled_up():
    seen = []

    def sample(keys, obs, previous, committed):
        seen.append((previous, committed))
        return np.zeros((len(previous), 8, 2), np.float32)

    version = serving.version(sample)
    one = np.ones((1, 8, 2), np.float32)
    requests = [
        request(0, version),
        request(1, version, previous=one),
        request(2, version, previous=one, committed=np.array([2], np.int32)),
    ]
    batching.call(requests)
    previous, committed = seen[0]
    assert np.isnan(previous[0]).all() and (previous[1:] == 1).all()
    assert committed.tolist() == [0, 0, 2]


def test_one_that_fails_fails_alone():
    def sample(keys, obs):
        if (obs["state"] == 3).any():
            raise UserError("three")
        return serving.chunks(keys, obs)

    version = serving.version(sample)
    worker = Worker(Counts(), 16)
    answers = ask_all(worker, [request(i, version) for i in range(16)])
    assert [i for i, answer in enumerate(answers) if isinstance(answer, Exception)] == [3]
    assert str(answers[3]) == "three"
    assert answers[5][0, 0].tolist() == [30.0, 5.0]


def test_chunks_that_are_not_finite_are_not_sent():
    def sample(keys, obs):
        return np.where(obs["state"][:, :1, :1] == 1, np.nan, np.zeros((len(keys), 8, 2)))

    version = serving.version(sample)
    worker = Worker(Counts(), 4)
    answers = ask_all(worker, [request(i, version) for i in range(3)])
    assert [isinstance(answer, UserError) for answer in answers] == [False, True, False]
    assert "not finite" in str(answers[1]) and worker._counts["not_finite"] == 1


def test_versions_are_not_mixed_in_a_batch():
    sizes = []

    def sample(keys, obs):
        sizes.append(len(keys))
        return serving.chunks(keys, obs)

    old, new = serving.version(sample), serving.version(sample, 2)
    ask_all(Worker(Counts(), 8), [request(i, (old, new)[i % 2]) for i in range(4)])
    assert sizes == [2, 2]


def test_a_deadline_that_has_passed_gets_no_action():
    called = []
    version = serving.version(lambda keys, obs: called.append(1) or serving.chunks(keys, obs))
    worker = Worker(Counts(), 1)
    requests = [request(0, version, deadline=time.monotonic() + 0.05)]
    threading.Timer(0.2, worker.run).start()
    with pytest.raises(Late, match="late"):
        worker.ask(requests[0])
    assert not called
    worker.stop()


def test_a_deadline_that_cannot_be_kept_is_refused_at_once():
    version = serving.version(lambda keys, obs: time.sleep(0.2) or serving.chunks(keys, obs))
    worker = Worker(Counts(), 1)
    threading.Thread(target=worker.run, daemon=True).start()
    # The first one is late: nobody knows yet how long a batch takes.
    with pytest.raises(Late, match="late"):
        worker.ask(request(0, version, deadline=time.monotonic() + 0.05))
    start = time.monotonic()
    with pytest.raises(Late, match="busy: an answer takes 2"):
        worker.ask(request(0, version, deadline=time.monotonic() + 0.05))
    assert time.monotonic() - start < 0.05
    worker.stop()


def test_too_many_examples_and_a_stopped_worker_are_one_line():
    version = serving.version()
    worker = Worker(Counts(), 2)
    many = Request(version, np.zeros((3, 2), np.uint32), {"state": np.zeros((3, 2, 3))})
    with pytest.raises(UserError, match="3 examples in one request, but the server takes 2"):
        worker.ask(many)
    worker.stop()
    with pytest.raises(UserError, match="stopping"):
        worker.ask(request(0, version))


def test_nothing_is_compiled_after_warm_up():
    version = sampled(noise)
    batching.warm_up(version, serving.SHAPES, 8)
    events = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: events.append(name))
    try:
        for size in range(1, 9):
            batching.call([request(i, version) for i in range(size)])
    finally:
        jax.monitoring.clear_event_listeners()
    assert not [name for name in events if "compile" in name]


def test_warm_up_stays_within_the_training_data():
    seen = []

    def sample(keys, obs):
        seen.append(obs["state"].copy())
        return serving.chunks(keys, obs)

    ranges = {"state": (np.array([1, -np.inf, 5]), np.array([3, 0, 5]))}
    batching.warm_up(serving.version(sample)._replace(ranges=ranges), serving.SHAPES, 4)
    assert [len(x) for x in seen] == [1, 2, 3, 4]
    assert all((x == [2, 0, 5]).all() for x in seen)


def test_a_version_that_is_not_finite_does_not_warm_up():
    version = serving.version(lambda keys, obs: np.full((len(keys), 8, 2), np.nan))
    with pytest.raises(UserError, match="not finite"):
        batching.warm_up(version, serving.SHAPES, 2)
