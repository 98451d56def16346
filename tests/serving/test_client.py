"""RemotePolicy: a local policy's chunks, time limits, and reconnecting."""

import socket
import threading
import time

import jax
import numpy as np
import pytest
from support import serving
from websockets.sync.server import serve

import dpjax
from dpjax.core.errors import UserError
from dpjax.inference.controller import Controller
from dpjax.serving import wire
from dpjax.serving.client import RemotePolicy


@pytest.fixture
def url():
    with serving.serving(serving.service()) as (_, url):
        yield url


def obs(batch_size):
    shape = (batch_size, 2, 3)
    return {"state": np.random.default_rng(0).normal(size=shape).astype(np.float32)}


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_chunks_are_those_of_the_local_policy(url, batch_size):
    """20 examples are more than the server takes at once."""
    policy = dpjax.RemotePolicy(url)
    keys = jax.random.split(jax.random.key(1), batch_size)
    expected = serving.chunks(keys, obs(batch_size))
    np.testing.assert_array_equal(policy(keys, obs(batch_size)), expected)
    words = np.asarray(jax.random.key_data(keys))
    np.testing.assert_array_equal(policy(words, obs(batch_size)), expected)
    policy.close()


def test_a_single_key_is_folded_as_a_local_policy_does_it(url):
    key = jax.random.key(2)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(3))
    np.testing.assert_array_equal(RemotePolicy(url)(key, obs(3)), serving.chunks(keys, obs(3)))


def test_a_controller_acts_on_it(url):
    policy = RemotePolicy(url)
    remote = Controller(policy, observed=policy.observed, executed=policy.executed)
    local = Controller(serving.chunks, observed=2, executed=4)
    for controller in (remote, local):
        controller.reset(jax.random.split(jax.random.key(0), 2))
    for i in range(9):
        state = {"state": np.full((2, 3), i, np.float32)}
        np.testing.assert_array_equal(remote.act(state), local.act(state))


def test_previous_chunks_and_commitments_arrive():
    seen = []

    def sample(keys, obs, previous, committed):
        seen.append((previous, committed))
        return serving.chunks(keys, obs)

    previous = np.ones((2, 8, 2), np.float32)
    previous[:, 5:] = np.nan
    with serving.serving(serving.service(sample)) as (_, url):
        keys = jax.random.split(jax.random.key(0), 2)
        RemotePolicy(url)(keys, obs(2), previous, np.array([0, 3]))
    np.testing.assert_array_equal(seen[0][0], previous)
    assert seen[0][1].tolist() == [0, 3]


def test_what_the_server_refuses_is_one_line_and_the_connection_stays(url):
    policy = RemotePolicy(url)
    key = jax.random.key(0)
    with pytest.raises(UserError, match="obs lacks 'state'"):
        policy(key, {"stat": np.zeros((1, 2, 3))})
    websocket = policy._socket
    assert policy(key, obs(1)).shape == (1, 8, 2) and policy._socket is websocket


def test_old_keys_are_refused(url):
    with pytest.raises(UserError, match="jax.random.key"):
        RemotePolicy(url)(jax.random.PRNGKey(0), obs(1))


def test_a_late_answer_is_never_read():
    """The answer to the first request comes after its time, and must not be the second's."""
    pause = [0.6]

    def sample(keys, obs):
        time.sleep(pause.pop() if pause else 0)
        return serving.chunks(keys, obs)

    with serving.serving(serving.service(sample)) as (_, url):
        policy = RemotePolicy(url, timeout=0.2)
        keys = jax.random.split(jax.random.key(0), 1)
        with pytest.raises(UserError, match="no answer in 0.2 s; disconnected"):
            policy(keys, {"state": np.full((1, 2, 3), 100, np.float32)})
        time.sleep(0.5)
        np.testing.assert_array_equal(policy(keys, obs(1)), serving.chunks(keys, obs(1)))


def test_it_reconnects_when_the_server_is_back():
    with serving.serving(serving.service()) as (_, url):
        policy = RemotePolicy(url, connect_timeout=5)
        key = jax.random.key(0)
        policy(key, obs(1))
    with pytest.raises(UserError, match="connection was lost"):
        policy(key, obs(1))
    with serving.serving(serving.service(), port=int(url.rpartition(":")[2])):
        assert policy(key, obs(1)).shape == (1, 8, 2)


def test_a_server_that_is_not_there_is_one_line():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(UserError, match="cannot connect.*refused"):
        RemotePolicy(f"ws://127.0.0.1:{port}", connect_timeout=0.3)._connect()
    with pytest.raises(UserError, match="expected ws://"):
        RemotePolicy("localhost:8000")


def test_a_wrong_token_is_one_line():
    with serving.serving(serving.service(), token="secret") as (_, url):
        with pytest.raises(UserError, match="HTTP 401: the token is missing or wrong"):
            RemotePolicy(url, token="guess")._connect()
        assert RemotePolicy(url, token="secret").observed == 2


@pytest.mark.parametrize(
    "first, message", [({}, "no protocol"), ({"dpjax/protocol": 2}, "speaks 2")]
)
def test_a_server_of_another_protocol_is_one_line(first, message):
    def handle(websocket):
        websocket.send(wire.pack(first))
        websocket.recv()

    with serve(handle, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        with pytest.raises(UserError, match=f"{message}.*this client speaks protocol 1"):
            RemotePolicy(url)._connect()
        server.shutdown()
