"""Remedies that a person applies: to the recording, or by a decision that no rule can make.

Each case is a pair of contexts: as it was found, and after what the remedy says.
"""

import numpy as np
import pytest
from support import check_cases as cases
import test_remedies
import test_remedies_convert

from dpjax.check import rules
from dpjax.config import dataset
from dpjax.data.rlds.reader import Feature

FLOAT = np.dtype(np.float32)
BYTE = np.dtype(np.uint8)
FEATURES = {"observation/state": Feature((3,), FLOAT), "action": Feature((2,), FLOAT)}
RNG = np.random.default_rng(0)


def data(change=None, val=None, config=None, **fields):
    """The context of episodes after `change(train)`; val: "changed" for held-out ones like them."""
    train = cases.episodes()
    if val == "changed":
        val = cases.episodes(cases.VAL, seed=1)
        change(val)
    if change:
        change(train)
    return cases.context(train, val=val, config=config, **fields)


def each(change):
    """A change of all episodes."""

    def change_all(train):
        for episode in train:
            change(episode)

    return change_all


def with_features(**more):
    return data(features={**FEATURES, **more})


def image_size(size):
    config = test_remedies.camera(size=size)
    config.data.columns.cam = "observation/cam"
    return data(features={**FEATURES, "observation/cam": Feature((64, 80, 3), BYTE)})._replace(
        config=config
    )


def columns(**paths):
    """The context with other paths of columns."""
    config = cases.make_config()
    config.data.columns.update(paths)
    return data()._replace(config=config)


def split(fraction):
    """Episodes of which a share is held out."""
    config = cases.make_config(data__val_fraction=fraction)
    episodes = cases.episodes(27)
    train, val = dataset.split_ids(config.data, len(episodes))
    parts = ([episodes[e] for e in part] for part in (train, val))
    return cases.context(*parts, config=config)


def constant(episode):
    episode["action"][:] = 7


def constant_state(episode):
    episode["state"][:, 1] = 7


def zero_last(episode):
    episode["action"] += 20
    episode["action"][-1] = 0


def zero_last_left_out(episode):
    zero_last(episode)
    episode.update({key: x[:-1] for key, x in episode.items()})


def angle(episode):
    return (0.12 * np.arange(40) + 4 * episode["state"][0, 0]) % (2 * np.pi)


def wraps(episode):
    episode["state"][:, 2] = angle(episode)


def sine(episode):
    x = angle(episode)
    y = np.stack([np.sin(x), np.cos(x)], 1).astype("f4")
    episode["state"] = np.concatenate([episode["state"][:, :2], y], axis=1)


def commanded(wrapped):
    def change(episode):
        x = angle(episode) - np.pi
        episode["state"][:, 2] = x
        target = x + 0.12
        episode["action"][:, 0] = (target + np.pi) % (2 * np.pi) - np.pi if wrapped else target

    return each(change)


def turning(**layouts):
    """Quaternions that change their sign, with the layouts that a person declares."""
    config = cases.make_config()
    config.data.columns.q = "observation/q"
    config.representation.layouts = cases.ConfigDict(layouts)
    train = cases.episodes()
    for i, episode in enumerate(train):
        half = 0.4 * np.sin(episode["state"][:, 0]) + 0.1 * i
        q = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], 1).astype("f4")
        q[20:] *= -1
        train[i] = {"state": episode["state"], "q": q, "action": episode["action"]}
    return cases.context(train, val=train[:2], config=config)


def late(episode):
    """The state is recorded after its action."""
    episode["state"][:, :2] = episode["action"] + RNG.normal(0, 0.01, (40, 2))


def in_time(episode):
    """The same, with each state beside the action that comes next."""
    late(episode)
    state, action = episode["state"][:-1], episode["action"][1:]
    episode.update(state=state, action=action)


def resting(gap):
    def change(episode):
        episode["state"][25:] = episode["state"][25]
        episode["action"][25:] = episode["state"][25, :2] + gap
        episode["action"] += RNG.normal(0, 1e-3, (40, 2)).astype("f4")

    return each(change)


def count_steps(episode):
    episode["state"][:, 2] = 0.1 * np.arange(40)


def without_count(episode):
    episode["state"] = episode["state"][:, :2]


def ticking(step, fps=0.0):
    """A clock that jumps once by `step` seconds."""
    times = 0.1 * np.arange(20) + step * (np.arange(20) > 13)
    return data(clocks={"t": cases.clock(times, [20])}, fps=fps)


def replace(number, by):
    def change(train):
        train[number] = by(train)

    return change


def filmed(*pixels):
    context = data()
    for i, x in enumerate(pixels):
        context = cases.with_camera(context, x, f"cam{i}")
    return context


def noise(seed, high=256):
    return np.random.default_rng(seed).integers(0, high, (12, 2, 8, 8, 3), np.uint8)


def noisy(train):
    return {key: (x + 1e-4).astype("f4") for key, x in train[2].items()}


def six_times(train):
    return {key: np.concatenate([x] * 6) + np.float32(0.7) for key, x in train[0].items()}


CASES = {
    "refused_config": (lambda: data(refusal="config.horizon.predict=7: use 8."), data),
    "unreadable_columns": (
        lambda: columns(state="observation/pose")._replace(features=FEATURES),
        with_features,
    ),
    "unused_columns": (
        lambda: with_features(wrist=Feature((3, 64, 64), BYTE, False)),
        with_features,
    ),
    "changed_aspect_ratio": (
        lambda: data(config=test_remedies.camera(resize=(240, 240))),
        lambda: data(config=test_remedies.camera(resize=(240, 320))),
    ),
    "bad_episodes": (
        lambda: data(skipped=["episode 3, step 2, action[0]: got nan"]),
        lambda: data(skipped=["x"], config=cases.make_config(data__on_bad="skip")),
    ),
    "image_size": (lambda: image_size((96, 96)), lambda: image_size((64, 80))),
    "one_held_out": (lambda: split(0.04), lambda: split(0.11)),
    "constant_dims": (lambda: data(each(constant)), data),
    "constant_in_training": (lambda: data(each(constant_state)), data),
    "dummy_steps": (lambda: data(each(zero_last)), lambda: data(each(zero_last_left_out))),
    "angle_wraps": (lambda: data(each(wraps)), lambda: data(each(sine), val="changed")),
    "turns_apart": (lambda: data(commanded(False)), lambda: data(commanded(True))),
    "quaternions": (turning, lambda: turning(q="quaternion_wxyz")),
    "action_observed": (lambda: columns(state="action"), data),
    "copied_observation": (lambda: data(each(lambda x: x.update(action=x["state"][:, :2]))), data),
    "leader_offset": (lambda: data(resting(0.5)), lambda: data(resting(0.0))),
    "state_lag": (lambda: data(each(late)), lambda: data(each(in_time))),
    "clock_observed": (
        lambda: data(each(count_steps)),
        lambda: data(each(without_count), val="changed"),
    ),
    "irregular_clock": (lambda: ticking(0.5), lambda: ticking(0.0)),
    "rate_mismatch": (lambda: ticking(0.0, fps=30.0), lambda: ticking(0.0, fps=10.0)),
    "few_episodes": (lambda: cases.context(cases.episodes(3)), data),
    "odd_lengths": (lambda: data(replace(3, six_times)), data),
    "duplicate_episodes": (lambda: data(replace(9, lambda train: train[2])), data),
    "near_duplicates": (lambda: data(replace(9, noisy)), data),
    "unscaled_pixels": (lambda: filmed(noise(0, high=2)), lambda: filmed(noise(0))),
    "duplicate_cameras": (lambda: filmed(noise(0), noise(0)), lambda: filmed(noise(0), noise(1))),
}


@pytest.mark.parametrize("rule", CASES)
def test_what_a_person_does_as_the_remedy_says_mends_it(rule):
    bad, mended = CASES[rule]
    before = cases.found(bad())
    assert rule in before, list(before)
    cases.assert_mended(rule, before, cases.found(mended()))


def test_every_rule_has_a_remedy_that_is_tried():
    tried = {
        *CASES,
        *test_remedies.BY_CONFIG,
        *test_remedies_convert.BY_CONVERSION,
        "mixed_rates",  # needs two data sets
    }
    assert tried == {rule.__name__ for rule in rules.RULES}
