"""Contexts for the tests of the check: one without findings, and changed ones.

The robot moves smoothly in three dims; an action is the next target in two of them.
"""

from ml_collections import ConfigDict
import numpy as np

from dpjax.check import rules
from dpjax.check.context import SEVERITIES, Context, Finding
from dpjax.config import build, dataset
from dpjax.data.episodes import Episodes, stack
from dpjax.data.frames import Frames
from support import tiny_custom

TRAIN = 24  # episodes
VAL = 3
STEPS = 40  # per episode


def episodes(count=TRAIN, length=STEPS, seed=0):
    """`count` episodes {"state": [T, 3], "action": [T, 2]} that neither rest nor jump."""
    rng = np.random.default_rng(seed)
    walks = []
    for _ in range(count):
        # A random walk of the direction in each dim, and its smooth sum.
        direction = rng.normal(0, 0.2, (length, 3)).cumsum(0) + rng.uniform(0, 6, 3)
        state = np.cos(direction).cumsum(0) * 0.1 + rng.normal(0, 1, 3)
        noise = rng.normal(0, 0.02, (length, 2))
        action = state[:, :2] + 0.1 * np.cos(direction[:, :2] + 0.1) + noise
        walks.append({"state": state.astype(np.float32), "action": action.astype(np.float32)})
    return walks


def make_config(**changes) -> ConfigDict:
    """The tiny config for these data; changes are given as train__batch=4."""
    config = tiny_custom.get_config()
    config.data.dir = "made up"
    config.train.steps = 600
    config.data.columns = ConfigDict(dict(state="observation/state", action="action"))
    for path, value in changes.items():
        section, *key = path.split("__")
        if key:
            config[section][key[0]] = value
        else:
            config[section] = value
    return config


def context(train=None, val=None, config=None, **fields) -> Context:
    """The context of lists of episodes; fields: of Context, in place of the computed ones."""
    config = config or make_config()
    train = stack(episodes() if train is None else train, "made up")
    val = stack(episodes(VAL, seed=1) if val is None else val, "made up")
    mask = dataset.window_indices(config, train)[1]
    return Context(
        config=config,
        train=train,
        val=val,
        labels=[f"episode {e}" for e in range(len(train.ends) + len(val.ends))],
        represented=dataset.learned_columns(config, train),
        normalizer=dataset.normalizer(config, train),
        representation=build.representation(config),
        num_windows=len(mask),
        padded_share=1 - float(mask.mean()),
    )._replace(**fields)


def changed(change, seed=0, **options) -> Context:
    """The context of episodes each of which `change(episode)` has altered in place."""
    train = episodes(seed=seed)
    for episode in train:
        change(episode)
    return context(train, **options)


def clock(times, ends) -> Episodes:
    """Episodes with one column "t" of times."""
    return Episodes({"t": np.asarray(times, np.float32)}, np.asarray(ends), "made up")


def with_camera(context: Context, pixels, name="cam") -> Context:
    """The context with sampled frames of a camera: pixels uint8 [n, 2, H, W, 3]."""
    steps = np.arange(len(pixels)) * 2
    store = np.zeros((context.train.ends[-1], *pixels.shape[2:]), np.uint8)
    column = Frames(store, np.arange(len(store)), np.zeros(len(store), bool), "")
    train = context.train._replace(columns={**context.train.columns, name: column})
    return context._replace(train=train, frames={**context.frames, name: (steps, pixels)})


def only(findings):
    """The one finding that there must be."""
    (finding,) = findings
    assert finding.reason and finding.remedy
    assert not finding.reason.endswith(".") and not finding.remedy.endswith(".")
    return finding


def found(context) -> dict[str, Finding]:
    """{rule: its worst finding}; the worst come first."""
    findings = rules.check_data_and_config(context)
    return {finding.rule: finding for finding in reversed(findings)}


def assert_mended(rule, before, after):
    """The finding is gone, or a milder one (a note: nothing has to be done); none has come."""
    left = after.get(rule)
    if left is not None:
        milder = SEVERITIES.index(left.severity) > SEVERITIES.index(before[rule].severity)
        assert milder or left.remedy.startswith("nothing"), left
    new = {name for name, x in after.items() if x.severity != "note"} - set(before)
    assert not new, [after[name] for name in new]
