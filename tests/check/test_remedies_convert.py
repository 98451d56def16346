"""Remedies that are options of dpjax.convert: applied by converting the data again."""

import numpy as np
import pytest
from support import check_cases as cases
from support.converting import convert_to

from dpjax.check import collect

START = 12  # steps that the robot waits


def far(train):
    train[5]["action"][7, 1] = 1e6
    train[9]["action"][3, 0] = -1e6


def jump(train):
    train[3]["action"][20, 0] += 60


def third_value(train):
    for episode in train:
        episode["action"][:, 1] = np.arange(len(episode["action"])) // 20
    train[7]["action"][5, 1] = 0.5


def wait(train):
    for episode in train:
        for key, x in episode.items():
            episode[key] = np.concatenate([np.repeat(x[:1], START, 0), x])


def film(train):
    rng = np.random.default_rng(0)
    for episode in train:
        episode["cam"] = rng.integers(60, 256, (len(episode["action"]), 12, 12, 3), np.uint8)


def black(train):
    film(train)
    train[11]["cam"][:] = 0


def frozen(train):
    film(train)
    train[13]["cam"][:] = train[13]["cam"][:1]


# {rule: (change of the episodes, options of the first conversion, options of the second beside
# those of the finding)}.
BY_CONVERSION = {
    "outliers": (far, (), ()),
    "action_jumps": (jump, (), ()),
    "rare_values": (third_value, (), ()),
    "blank_frames": (black, (), ()),
    "frozen_camera": (frozen, (), ()),
    "idle_steps": (wait, (), ()),
    "short_chunks": (None, ("--fps=50",), ("--actions=absolute",)),
}


def write(folder, train):
    folder.mkdir(parents=True)
    for i, episode in enumerate(train):
        np.savez(folder / f"episode_{i:03d}.npz", **episode)
    return folder


def check(*sets):
    """The findings of data sets, all of whose episodes are trained on."""
    config = cases.make_config()
    config.data.columns = cases.ConfigDict({})  # all that there are
    config.data.update(dir=",".join(map(str, sets)), val_fraction=0.0)
    config.train.steps = 3000
    return cases.found(collect.from_config(config))


@pytest.mark.slow
@pytest.mark.parametrize("rule", BY_CONVERSION)
def test_converting_again_as_the_remedy_says_mends_it(rule, tmp_path):
    change, first, more = BY_CONVERSION[rule]
    train = cases.episodes(30)
    if change:
        change(train)
    source = write(tmp_path / "source", train)
    before = check(convert_to(tmp_path, "arrays", source, *first))
    changes = before[rule].changes
    assert changes and all(part in before[rule].remedy for part in changes)
    (tmp_path / "again").mkdir()
    after = check(convert_to(tmp_path / "again", "arrays", source, *first, *changes, *more))
    cases.assert_mended(rule, before, after)


@pytest.mark.slow
def test_the_faster_of_two_sets_is_converted_again(tmp_path):
    sets = {}
    for name, fps in (("a", 10), ("b", 30)):
        source = write(tmp_path / name / "source", cases.episodes(30, 120, seed=fps))
        sets[name] = convert_to(tmp_path / name, "arrays", source, f"--fps={fps}")
    before = check(*sets.values())
    (change,) = before["mixed_rates"].changes
    (tmp_path / "again").mkdir()
    options = ("--fps=30", change, "--actions=absolute")
    again = convert_to(tmp_path / "again", "arrays", tmp_path / "b" / "source", *options)
    cases.assert_mended("mixed_rates", before, check(sets["a"], again))
