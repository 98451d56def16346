"""Every rule's remedy mends what the rule found, and causes no other finding.

A finding's `changes` are applied as a person would type them. Where a person has to decide or to
record again, the test does to the made-up data what the remedy says.
"""

from absl import flags
import numpy as np
import pytest
from support import check_cases as cases

from dpjax.config import flags as flags_lib

FLOAT = np.dtype(np.float32)


def with_changes(config, changes, folder):
    """The config after --config.key=value, parsed as the command line is."""
    file = folder / "recipe.py"
    file.write_text(
        "from math import inf\nfrom ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({config.to_dict()!r})\n"
    )
    argv = ["check", f"--config={file}", *(f"--{change}" for change in changes)]
    return flags_lib.parse(argv, "", flags.FlagValues())


# Findings that a change of the config mends: {rule: (config, change of each episode or None)}.


def squeeze(train):
    train[0]["action"][4:6, 0] = 100


def rest_a_little(train):
    for episode in train:
        episode["state"][:, 1] = 7 + 1e-4 * episode["state"][:, 0]


def close_rarely(train):
    for episode in train:
        episode["action"][:, 1] = 0
    train[0]["action"][3:6, 1] = 1


def close(train):
    for episode in train:
        episode["action"][:, 1] = np.arange(len(episode["action"])) // 20


def to_changes(train):
    for episode in train:
        change = np.diff(episode["state"], axis=0, append=episode["state"][-1:])
        episode["action"] = (change * 5).astype("f4")


def shorten(train):
    train[:] = cases.episodes(length=6)


def shorten_one(train):
    train[2] = {key: x[:4] for key, x in train[2].items()}


def show_the_end(train):
    for i, episode in enumerate(train):
        end = np.repeat(episode["state"][-1:], 40, 0)
        train[i] = {"state": episode["state"], "end": end, "action": episode["action"]}


def camera(**changes):
    config = cases.make_config()
    config.cameras.cam = cases.ConfigDict(dict(size=(480, 640), resize=(), crop=()) | changes)
    return config


def observing(key):
    config = cases.make_config()
    config.data.columns[key] = f"observation/{key}"
    return config


def pretrained():
    config = camera()
    config.encoder.weights = "resnet18"
    return config


def relative():
    config = cases.make_config()
    config.representation.relative = "state"
    return config


BY_CONFIG = {
    "small_crops": (camera(crop=(84, 84)), None),
    "batch_size": (cases.make_config(train__batch=4096), None),
    "warmup": (cases.make_config(optim__warmup=500), None),
    "few_passes": (cases.make_config(train__steps=3), None),
    "pretrained_units": (pretrained(), None),
    "meanflow_time_scale": (cases.make_config(method="meanflow", schedule__num_levels=100), None),
    "little_motion": (cases.make_config(), rest_a_little),
    "heavy_tails": (cases.make_config(), squeeze),
    "flattened_by_quantile": (cases.make_config(normalize__action="quantile"), close_rarely),
    "large_inputs": (cases.make_config(normalize__obs="identity"), lambda t: scale(t, 100)),
    "binary_actions": (cases.make_config(normalize__action="quantile"), close),
    "clipped_actions": (cases.make_config(normalize__action="gaussian"), None),
    "action_type": (relative(), to_changes),
    "future_observed": (observing("end"), show_the_end),
    "padded_windows": (cases.make_config(), shorten),
    "short_episodes": (cases.make_config(horizon=dict(obs=1, predict=8, act=1)), shorten_one),
}


def scale(train, factor):
    for episode in train:
        episode["state"] *= factor


@pytest.mark.parametrize("rule", BY_CONFIG)
def test_a_change_of_the_config_mends_it(rule, tmp_path):
    config, change = BY_CONFIG[rule]

    def context(config):
        train = cases.episodes()
        val = cases.episodes(cases.VAL, seed=1)
        for part in (train, val):
            if change:
                change(part)
        # What the config does not name is not read.
        keys = config.data.columns
        parts = [[{k: x[k] for k in x if k in keys} for x in part] for part in (train, val)]
        return cases.context(*parts, config=config)

    before = cases.found(context(config))
    assert before[rule].changes, before[rule]
    for part in before[rule].changes:
        assert part in before[rule].remedy or rule == "future_observed" or part.endswith("=")
    after = cases.found(context(with_changes(config, before[rule].changes, tmp_path)))
    cases.assert_mended(rule, before, after)
