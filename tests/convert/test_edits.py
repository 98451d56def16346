"""Joining, cutting and thinning of episodes: values by hand, and the options that ask for it."""

import numpy as np
import pytest
from support import foreign_sets
from support.converting import convert_to, refusal

from dpjax.convert import edits
from dpjax.convert.edits import Edits
from dpjax.core.errors import UserError
from dpjax.data.rlds import reader

KEYS = ("state", "action")


def column(*values):
    return np.array(values, np.float32).reshape(len(values), -1)


def test_the_last_target_and_the_sum_of_changes_count():
    action = np.stack([np.arange(7), 10 ** np.arange(7), np.arange(7)], 1).astype(np.float32)
    columns = {"state": column(*range(7)), "action": action}
    chosen = Edits(every=3, deltas=(1,))
    thinned, counts = edits.edit(columns, chosen)
    # Blocks of steps 0-2, 3-5 and 6.
    np.testing.assert_array_equal(thinned["state"], column(0, 3, 6))
    np.testing.assert_array_equal(thinned["action"], [[2, 111, 2], [5, 111000, 5], [6, 1e6, 6]])
    assert counts == edits.Counts(7, 0)


def test_a_policy_reaches_the_same_states_by_thinned_actions():
    # Targets: the state follows a step later. Changes: the state is their sum.
    state = np.cumsum(np.arange(13.0))[:, None].astype(np.float32)
    targets = {"state": state[:-1], "action": state[1:]}
    changes = {"state": state[:-1], "action": np.diff(state, axis=0)}
    last = edits.thin(targets, 4, ())
    np.testing.assert_array_equal(last["action"][:-1], last["state"][1:])
    total = edits.thin(changes, 4, (0,))
    np.testing.assert_array_equal(total["state"] + total["action"], last["action"])


def test_a_join_keeps_the_order_and_the_action_may_be_what_follows():
    columns = {"a": column([1, 2], [3, 4], [5, 6]), "b": column(7, 8, 9)}
    joined = edits.join(columns, {"action": ["b", "a"]}, following=False)
    np.testing.assert_array_equal(joined["action"], [[7, 1, 2], [8, 3, 4], [9, 5, 6]])
    follows = edits.join(columns, {"action": ["b", "a"]}, following=True)
    np.testing.assert_array_equal(follows["action"], [[8, 3, 4], [9, 5, 6]])
    np.testing.assert_array_equal(follows["b"], column(7, 8))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_waiting_is_cut_off_in_any_unit(scale):
    rng = np.random.default_rng(0)
    noise = 1e-3 * rng.uniform(size=(30, 1))
    path = np.concatenate([np.zeros(10), np.arange(1, 11) / 10, np.ones(10)])[:, None]
    episode = lambda x: {"state": (scale * x).astype(np.float32), "action": column(*[0] * len(x))}
    # In the second episode only the noise of the sensor moves: it is kept as it is.
    episodes = [episode(path + noise), episode(noise)]
    rest = edits.rests(episodes)
    assert edits.moving(episodes[0], rest) == slice(9, 20)
    assert edits.moving(episodes[1], rest) == slice(0, 30)
    trimmed, counts = edits.edit(episodes[0], Edits(rest=rest))
    np.testing.assert_array_equal(trimmed["state"], episodes[0]["state"][9:20])
    assert counts == edits.Counts(30, 19)


def test_a_noisy_dim_that_moves_in_other_episodes_does_not_hide_the_waiting():
    grip = np.linspace(0, 1, 20)
    wait = np.concatenate([np.zeros(8), np.arange(1, 13)])
    noise = 1e-3 * np.random.default_rng(0).uniform(size=20)
    moved = {"state": np.stack([wait, grip], 1), "action": np.zeros((20, 1))}
    still = {"state": np.stack([wait, noise], 1), "action": np.zeros((20, 1))}
    assert edits.moving(still, edits.rests([moved, still])) == slice(7, 20)


@pytest.mark.parametrize("fps, to_fps, every", [(30, 10, 3), (29.97, 10, 3), (50, 50, 1)])
def test_rates_that_divide(fps, to_fps, every):
    assert edits.every_of(fps, to_fps) == every


@pytest.mark.parametrize(
    "fps, to_fps, words",
    [(30, 20, "near are 15 and 30"), (50, 15, "12.5 and 16.67"), (10, 20, "near are 5 and 10"),
     (0, 10, "give fps=")],
)  # fmt: skip
def test_rates_that_do_not_divide_are_refused_with_the_nearest(fps, to_fps, words):
    with pytest.raises(UserError, match=words):
        edits.every_of(fps, to_fps)


def test_options_compose_and_are_recorded(tmp_path, capsys):
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(4):
        x = np.concatenate([np.zeros((6, 3)), rng.normal(size=(24, 3)).cumsum(0)]).astype("f4")
        episodes.append({"pose": x[:, :2], "grip": x[:, 2], "unused": x})
    source = foreign_sets.write_npz(tmp_path / "s", episodes)
    options = ["--join", "grip+pose=action", "--following", "--keys", "pose", "--fps", "30"]
    options += ["--episodes", "0,2-3", "--trim-idle", "--to-fps", "10", "--actions", "absolute"]
    out = convert_to(tmp_path, "arrays", source, *options)
    said = capsys.readouterr().out
    # The pose waits for 6 steps. In the last of them the action moves, and one before is kept.
    assert "cut off: 12 of 87 steps" in said and "the last of the 3" in said
    read = foreign_sets.converted(out, ("pose", "action"))
    assert len(read) == 3
    for got, e in zip(read, (0, 2, 3)):
        x = np.column_stack([episodes[e]["grip"], episodes[e]["pose"]])[4:]
        np.testing.assert_array_equal(got["pose"], x[:-1][::3, 1:])
        np.testing.assert_array_equal(got["action"], x[1:][np.minimum(np.arange(9) * 3 + 2, 24)])
    recorded = reader.metadata(out)
    assert recorded["fps"] == 10 and recorded["action is"] == "grip 0, pose 1-2"
    assert recorded["every"] == 3 and recorded["episodes"] == "0,2-3"


@pytest.mark.parametrize(
    "options, words",
    [
        (["--episodes", "0-9"], "--episodes 0-9: 9 is beyond the last number, 2"),
        (["--episodes", "x"], "expected numbers and ranges such as 0-4,7"),
        (["--every", "2"], "--every and --to-fps need --actions"),
        (["--actions", "deltas"], "--actions goes with --every or --to-fps"),
        (["--every", "2", "--to-fps", "5", "--actions", "deltas"], "give one of them"),
        (["--every", "2", "--actions", "deltas:9"], "9 is beyond the last number, 6"),
        (["--to-fps", "5", "--actions", "deltas"], "give --fps RATE too"),
        (["--join", "state+stat=x"], "--join stat is not a key of"),
        (["--join", "camera+state=x"], "--join x: camera has images"),
        (["--following"], "--following goes with --join"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, words):
    source = foreign_sets.write_npz(tmp_path / "s")
    assert words in refusal(tmp_path, "arrays", source, *options)


def test_a_file_that_is_cut_is_left_out_and_an_asked_key_makes_bad_episodes(tmp_path, caplog):
    made = foreign_sets.make_episodes((4, 5, 6, 7))
    episodes = [{key: episode[key] for key in KEYS} for episode in made]
    del episodes[3]["state"]
    source = foreign_sets.write_npz(tmp_path / "s", episodes)
    file = source / "episode_1.npz"
    file.write_bytes(file.read_bytes()[:100])
    line = refusal(tmp_path, "arrays", source, "--keys", "state")
    assert "2 of 4 episodes are bad" in line and "--on-bad skip leaves them out" in line
    assert "episode_1.npz: not a zip file" in line and "episode_3.npz: state: missing" in line
    out = convert_to(tmp_path, "arrays", source, "--keys", "state", "--on-bad", "skip")
    read = foreign_sets.converted(out, KEYS)
    np.testing.assert_array_equal(read[1]["state"], episodes[2]["state"])
    assert len(read) == 2 and "left out: 2 of 4 episodes are bad" in caplog.text


def test_steps_are_dropped_at_both_ends_before_anything_else():
    columns = {"state": column(*range(8)), "action": column(0, 11, 12, 13, 14, 15, 16, 0)}
    got, _ = edits.edit(columns, Edits(drop_first=1, drop_last=1, every=2, deltas=()))
    np.testing.assert_array_equal(got["state"], column(1, 3, 5))
    np.testing.assert_array_equal(got["action"], column(12, 14, 16))


@pytest.mark.parametrize("steps", [-2, -1, 0, 1, 3])
def test_each_observation_gets_the_action_of_later(steps):
    columns = {"state": column(*range(9)), "action": column(*range(100, 109))}
    got = edits.shift(columns, steps)
    np.testing.assert_array_equal(got["action"], got["state"] + 100 + steps)
    assert len(got["state"]) == 9 - abs(steps)


def test_an_episode_of_which_nothing_is_left_is_bad(tmp_path):
    source = foreign_sets.write_npz(tmp_path / "s")
    line = refusal(tmp_path, "arrays", source, "--drop-first", "10000")
    assert "--drop-first 10000 and --drop-last 0 leave nothing of an episode" in line
    line = refusal(tmp_path, "arrays", source, "--shift-actions", "-10000")
    assert "-10000 leaves nothing" in line


def test_the_command_drops_and_shifts(tmp_path):
    source = foreign_sets.write_npz(tmp_path / "s")
    whole = convert_to(tmp_path, "arrays", source)
    features = {"s": "observation/state", "a": "action"}
    before = list(reader.stream(whole, features=features))
    (tmp_path / "b").mkdir()
    options = ("--drop-last", "1", "--shift-actions", "2")
    after = list(
        reader.stream(convert_to(tmp_path / "b", "arrays", source, *options), features=features)
    )
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new["s"], old["s"][:-3])
        np.testing.assert_array_equal(new["a"], old["a"][2:-1])
