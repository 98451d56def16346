"""A client's messages without a socket: history, noise, episodes, errors."""

import jax
import numpy as np
import pytest
from support import serving

from dpjax.inference.controller import Controller
from dpjax.serving import wire
from dpjax.serving.connection import Connection
from experiments.serving import messages

LIMIT = 1 << 20


def talk(connection, **message):
    """The answer to a message: a map, or a text."""
    answer = connection.answer(wire.pack({k.replace("__", "/"): v for k, v in message.items()}))
    connection.sent()
    return answer if isinstance(answer, str) else wire.unpack(answer, LIMIT)


def states(number, seed=0):
    return np.random.default_rng(seed).normal(size=(number, 3)).astype(np.float32)


@pytest.fixture
def chunk():
    service = serving.service()
    yield Connection(service)
    service.worker.stop()


@pytest.fixture
def step():
    service = serving.service(reply="step")
    yield Connection(service)
    service.worker.stop()


def controller(seed):
    """The same policy without a server."""
    controller = Controller(serving.chunks, observed=2, executed=4)
    controller.reset(jax.random.key(seed))
    return controller


def test_step_mode_is_bit_equal_to_a_local_controller(step):
    for seed in (3, 4):
        assert talk(step, endpoint="reset", dpjax__seed=seed) == "reset successful"
        local = controller(seed)
        for state in states(11, seed):
            reply = talk(step, state=state)
            np.testing.assert_array_equal(reply["actions"], local.act({"state": state})[None])


def test_step_mode_with_a_delay_is_bit_equal_too():
    service = serving.service(reply="step", delay=2)
    connection = Connection(service)
    talk(connection, endpoint="reset", dpjax__seed=3)
    local = Controller(serving.chunks, observed=2, executed=4, delay=2)
    local.reset(jax.random.key(3))
    for state in states(15):
        reply = talk(connection, state=state)
        np.testing.assert_array_equal(reply["actions"], local.act({"state": state})[None])
    service.worker.stop()


def test_committed_steps_reach_the_policy():
    seen = []

    def sample(keys, obs, previous=None, committed=None):
        seen.append(None if committed is None else committed.tolist())
        return serving.chunks(keys, obs)

    service = serving.service(sample, delay=1)
    connection = Connection(service)
    talk(connection, state=serving.STATE, dpjax__step=0)  # nothing to commit to
    talk(connection, state=serving.STATE, dpjax__step=4)
    talk(connection, state=serving.STATE, dpjax__step=8, dpjax__committed=3)
    service.worker.stop()
    assert seen == [None, [1], [3]]


def test_the_first_action_is_that_of_the_present(chunk):
    reply = talk(chunk, state=serving.STATE)
    assert reply["actions"].shape == (7, 2)  # Tp - To + 1
    # Twice the state, and one step after the oldest observed one.
    assert reply["actions"][0, 0] == 2 * 6 + 1
    assert reply["history"] == "first" and reply["checkpoint"] == 1


@pytest.mark.parametrize("how", ["history", "observe", "numbered"])
def test_chunks_are_those_of_a_controller_if_the_history_is_known(chunk, how):
    talk(chunk, endpoint="reset", dpjax__seed=7)
    local = controller(7)
    all_states = states(12)
    for i, state in enumerate(all_states):
        action = local.act({"state": state})
        if i % 4 == 0:
            message = {"state": state}
            if how == "history":
                message["state"] = all_states[[max(i - 1, 0), i]]
            if how == "numbered":
                message["dpjax__step"] = i
            reply = talk(chunk, **message)
            origins = {"history": "given", "observe": "observed", "numbered": "observed"}
            assert reply["history"] == ("first" if i == 0 and how != "history" else origins[how])
        elif how == "observe":
            assert talk(chunk, endpoint="observe", state=state) == "ok"
        elif how == "numbered":
            talk(chunk, endpoint="observe", state=state, dpjax__step=i)
        np.testing.assert_array_equal(reply["actions"][i % 4], action)


def test_a_frame_alone_is_repeated_and_said_so(chunk, caplog):
    talk(chunk, state=serving.STATE)
    for _ in range(2):
        reply = talk(chunk, state=serving.STATE + 1)
        assert reply["history"] == "repeated"
        assert reply["actions"][0, 0] == 2 * 9 + 1
    assert caplog.text.count("the frame is repeated") == 1


def test_missed_steps_are_counted_and_old_frames_refused(chunk):
    talk(chunk, state=serving.STATE, dpjax__step=10)
    reply = talk(chunk, state=serving.STATE, dpjax__step=14)
    assert reply["missed"] == 3 and reply["history"] == "repeated"
    assert talk(chunk, state=serving.STATE, dpjax__step=14).startswith("stale: dpjax/step 14")
    assert talk(chunk, state=serving.STATE, dpjax__step=15)["history"] == "observed"


def test_the_previous_chunk_is_moved_by_the_steps_that_passed():
    seen = []

    def sample(keys, obs, previous=None):
        seen.append(None if previous is None else previous[0, :, 0].copy())
        return serving.chunks(keys, obs)

    service = serving.service(sample)
    connection = Connection(service)
    talk(connection, state=0 * serving.STATE, dpjax__step=0)  # 0, 1, … 7
    talk(connection, state=0 * serving.STATE, dpjax__step=3)
    talk(connection, state=0 * serving.STATE)  # nobody knows when
    service.worker.stop()
    assert seen[0] is None
    np.testing.assert_array_equal(seen[1], [3, 4, 5, 6, 7, *[np.nan] * 3])
    assert np.isnan(seen[2]).all()


def test_a_seed_makes_a_chunk_repeatable(chunk):
    first = talk(chunk, state=serving.STATE, dpjax__seed=5)["actions"]
    again = talk(chunk, state=serving.STATE, dpjax__seed=5)["actions"]
    other = talk(chunk, state=serving.STATE, dpjax__seed=6)["actions"]
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_two_clients_have_other_noise():
    service = serving.service()
    a, b = (talk(Connection(service), state=serving.STATE)["actions"] for _ in range(2))
    service.worker.stop()
    assert (a[:, 0] == b[:, 0]).all() and (a[:, 1] != b[:, 1]).all()


def test_a_batch_has_the_callers_keys(chunk):
    keys = jax.random.split(jax.random.key(1), 3)
    obs = {"state": states(6).reshape(3, 2, 3)}
    words = np.asarray(jax.random.key_data(keys))
    reply = talk(chunk, endpoint="plan", obs=obs, key=words)
    np.testing.assert_array_equal(reply["plan"], serving.chunks(keys, obs))


def test_replies_carry_times_and_the_id(chunk):
    first = talk(chunk, state=serving.STATE, dpjax__id="a-7")
    second = talk(chunk, state=serving.STATE)
    assert first["dpjax/id"] == "a-7" and "dpjax/id" not in second
    assert set(first["server_timing"]) == {"infer_ms", "policy_ms"}
    assert second["server_timing"]["prev_total_ms"] >= first["server_timing"]["infer_ms"]
    # ActionChunkBroker slices every array of a reply.
    assert [k for k, v in first.items() if isinstance(v, np.ndarray)] == ["actions"]


def test_an_episode_keeps_the_version_that_it_began_with(chunk):
    chunk._service.version = serving.version(checkpoint=2)
    assert talk(chunk, state=serving.STATE)["checkpoint"] == 1
    talk(chunk, endpoint="reset")
    assert talk(chunk, state=serving.STATE)["checkpoint"] == 2


OBS = {"state": np.zeros((1, 2, 3))}
KEY = np.zeros((1, 2), np.uint32)
WRONG = {
    "endpoint": ({"endpoint": "infers"}, "endpoint='infers' is unknown; did you mean 'infer'"),
    "endpoint of another type": ({"endpoint": {"a": 1}}, "is unknown"),
    "observation": ({"sate": [1]}, "'state' is missing"),
    "step": ({"state": serving.STATE, "dpjax__step": -1}, "from 0 to"),
    "step of another type": ({"state": serving.STATE, "dpjax__step": "3"}, "must be an integer"),
    "committed": ({"state": serving.STATE, "dpjax__committed": 5}, "from 0 to 4"),
    "deadline": ({"state": serving.STATE, "dpjax__deadline_ms": 0}, "above 0"),
    "id": ({"state": serving.STATE, "dpjax__id": "x" * 65}, "at most 64 characters"),
    "no obs": ({"endpoint": "plan", "key": KEY}, "'obs' must be a map"),
    "obs": ({"endpoint": "plan", "obs": {"stat": 1}, "key": KEY}, "obs lacks 'state'"),
    "obs shape": ({"endpoint": "plan", "obs": {"state": np.zeros((1, 3))}, "key": KEY}, "B, 2, 3"),
    "obs nan": (
        {"endpoint": "plan", "obs": {"state": OBS["state"] + np.nan}, "key": KEY},
        "finite",
    ),
    "key": ({"endpoint": "plan", "obs": OBS, "key": KEY.astype(float)}, "key must be"),
    "keys": ({"endpoint": "plan", "obs": OBS, "key": np.repeat(KEY, 2, 0)}, "2 examples"),
    "batch": (
        {"endpoint": "plan", "obs": {"state": np.zeros((9, 2, 3))}, "key": np.repeat(KEY, 9, 0)},
        "9 examples in one request, but the server takes 8",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_is_one_line_and_the_next_message_is_answered(chunk, case):
    message, expected = WRONG[case]
    answer = talk(chunk, **message)
    assert isinstance(answer, str) and expected in answer and "\n" not in answer
    assert talk(chunk, state=serving.STATE)["actions"].shape == (7, 2)


def test_step_mode_refuses_what_only_chunks_have(step):
    assert "keeps it" in talk(step, state=np.zeros((2, 3)))
    assert "--reply chunk" in talk(step, endpoint="observe", state=serving.STATE)
    assert "not read with --reply step" in talk(step, state=serving.STATE, dpjax__seed=1)


def test_a_failing_policy_shows_no_traceback(caplog):
    def sample(keys, obs):
        raise RuntimeError("/home/someone/secret.py broke")

    service = serving.service(sample)
    answer = talk(Connection(service), state=serving.STATE)
    service.worker.stop()
    assert answer == "internal error: the server's log has the reason."
    assert "secret.py broke" in caplog.text and service.counts["errors"] == 1


def test_mutated_messages_get_one_line(chunk):
    for data in messages.mutated(2_000, seed=1):
        answer = chunk.answer(data)
        chunk.sent()
        assert isinstance(answer, bytes) or "\n" not in answer
    assert chunk._service.counts["errors"] == 0
    assert chunk._service.counts["refused"] > 1_000
