"""Cases for the doctor's tests: one that is well, and what spoils it.

The robot walks smoothly in three dims; an action is where it shall be next, in two of them.
"""

from ml_collections import ConfigDict
import numpy as np

from dpjax.check.context import Case
from dpjax.config import build, dataset
from dpjax.data.episodes import Episodes, stack
from dpjax.data.frames import Frames
from support import tiny_own

TRAIN, VAL, STEPS = 24, 3, 40


def walks(count=TRAIN, length=STEPS, seed=0):
    """`count` episodes {"state": [T, 3], "action": [T, 2]}, none of which rests or jumps."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        turn = rng.normal(0, 0.2, (length, 3)).cumsum(0) + rng.uniform(0, 6, 3)
        state = np.cos(turn).cumsum(0) * 0.1 + rng.normal(0, 1, 3)
        action = state[:, :2] + 0.1 * np.cos(turn[:, :2] + 0.1) + rng.normal(0, 0.02, (length, 2))
        made.append({"state": state.astype(np.float32), "action": action.astype(np.float32)})
    return made


def config(**changes) -> ConfigDict:
    """The tiny config of that data; changes as train__batch=4."""
    made = tiny_own.get_config()
    made.data.dir = "made up"
    made.train.steps = 600
    made.data.columns = ConfigDict(dict(state="observation/state", action="action"))
    for path, value in changes.items():
        section, *last = path.split("__")
        if last:
            made[section][last[0]] = value
        else:
            made[section] = value
    return made


def case(train=None, val=None, given=None, **fields) -> Case:
    """A case of those episodes; fields: of Case, in place of what follows from them."""
    given = given or config()
    train = stack(walks() if train is None else train, "made up")
    val = stack(walks(VAL, seed=1) if val is None else val, "made up")
    labels = [f"episode {e}" for e in range(len(train.ends) + len(val.ends))]
    mask = dataset.windows_of(given, train)[1]
    return Case(
        given,
        train,
        val,
        labels,
        dataset.learned(given, train),
        dataset.fit(given, train)[0],
        build.spaces_of(given),
        len(mask),
        1 - float(mask.mean()),
    )._replace(**fields)


def spoiled(change, seed=0, **options) -> Case:
    """The case of walks that `change(episode)` has altered in place, one after the other."""
    made = walks(seed=seed)
    for episode in made:
        change(episode)
    return case(made, **options)


def clock(times, ends) -> Episodes:
    """A column "t" of times."""
    return Episodes({"t": np.asarray(times, np.float32)}, np.asarray(ends), "made up")


def camera(made: Case, pixels, name="cam") -> Case:
    """The case with sampled frames of a camera: pixels uint8 [n, 2, H, W, 3]."""
    rows = np.arange(len(pixels)) * 2
    whole = np.zeros((made.train.ends[-1], *pixels.shape[2:]), np.uint8)
    frames = Frames(whole, np.arange(len(whole)), np.zeros(len(whole), bool), "")
    train = made.train._replace(columns={**made.train.columns, name: frames})
    return made._replace(train=train, frames={**made.frames, name: (rows, pixels)})


def only(findings):
    """The one finding there must be."""
    (finding,) = findings
    assert finding.reason and finding.remedy
    assert not finding.reason.endswith(".") and not finding.remedy.endswith(".")
    return finding
