"""What a rule sees, and what it says.

A rule is a pure function `(case) -> list[Finding]`; it says nothing about what is well.
Steps are compared within episodes only: row t with row t + 1 where both are of one.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict
import numpy as np

from dpjax.core.normalizer import Normalizer
from dpjax.core.types import ACTION
from dpjax.data import frames
from dpjax.data.episodes import Episodes
from dpjax.data.rlds.reader import Feature
from dpjax.policies import representations

SEVERITIES = ("error", "warning", "note")
SHOWN = 6  # dims or episodes that a line names; the rest is counted


class Finding(NamedTuple):
    """What is the matter, and what to do about it.

    severity: "error": training is refused, or learns something else than was meant;
        "warning": it probably costs success; "note": worth knowing.
    rule: the name of the function that said so.
    reason, remedy: a sentence each; the remedy names the key to change, and to what.
    """

    severity: str
    rule: str
    reason: str
    remedy: str


class Case(NamedTuple):
    """Data and config as training will take them.

    config: the resolved config.
    train, val: Episodes with the policy's observations and "action"; no mirror images.
    labels: what the episodes of train, then of val, are called in the data.
    learned: the columns {key: [M, D]} of train in the network's spaces (`dataset.learned`).
    normalizer: fitted on them.
    spaces: what of the columns is learned in another form.
    windows: W of the training data; padding: the share of their steps that are copies.
    refusal: why training would refuse the config, or "".
    features: {path inside a step: Feature} of all that the data sets keep.
    skipped: a line on each episode that was left out at reading.
    clocks: {path: Episodes}: columns of time, of all that could be read.
    fps: steps a second, as the data set says; 0 where it does not.
    frames: {camera: (rows [n], uint8 [n, 2, H, W, 3])}: sampled frames and the next ones.
    """

    config: ConfigDict
    train: Episodes
    val: Episodes
    labels: Sequence[str]
    learned: Mapping[str, np.ndarray]
    normalizer: Normalizer
    representation: representations.Representation
    windows: int
    padding: float
    refusal: str = ""
    features: Mapping[str, Feature] = {}
    skipped: Sequence[str] = ()
    clocks: Mapping[str, Episodes] = {}
    fps: float = 0.0
    frames: Mapping[str, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """The training columns {key: [N, D]} that are no images."""
        return frames.split(self.train.columns)[0]

    @property
    def observed(self) -> dict[str, np.ndarray]:
        """Those of them that are observed."""
        return {key: x for key, x in self.numbers.items() if key != ACTION}

    @property
    def action(self) -> np.ndarray:
        """[N, Da] the training actions."""
        return self.train.columns[ACTION]

    @property
    def inside(self) -> np.ndarray:
        """bool [N - 1]: whether rows t and t + 1 of train are of one episode."""
        return inside(self.train.ends)


def inside(ends: np.ndarray) -> np.ndarray:
    """bool [N - 1]: whether rows t and t + 1 are of one episode, of ends [E]."""
    together = np.ones(max(int(ends[-1]) - 1, 0), bool)
    together[ends[:-1] - 1] = False
    return together


def mode(case: Case, key: str) -> str:
    """How a key is normalized."""
    config = case.config.normalize
    return config.per_key.get(key, config.action if key == ACTION else config.obs)


def mode_key(key: str) -> str:
    """The config key that says how a key is normalized."""
    return f"config.normalize.{ACTION if key == ACTION else f'per_key.{key}'}"


def numbers_learned(case: Case) -> dict[str, np.ndarray]:
    """The columns [M, D] of numbers in the network's spaces, not yet normalized."""
    return {key: case.learned[key] for key in case.numbers}


def rotated(case: Case, key: str) -> np.ndarray:
    """bool [D]: dims of a column that config.representation.layouts makes rotations of."""
    parts = representations.parts_of(case.representation, key, case.numbers[key].shape[1])
    return np.repeat([bool(part.form) for part in parts], [part.size for part in parts])


def network(case: Case, key: str, x: np.ndarray) -> np.ndarray:
    """Numbers [..., D] of a key, in the network's spaces, in its units."""
    units = case.normalizer
    return (x - np.asarray(units.offset[key])) / np.asarray(units.scale[key])


def steps(case: Case, x: np.ndarray) -> np.ndarray:
    """|x[t + 1] - x[t]| [N - 1, D], 0 between episodes."""
    return np.abs(np.diff(x, axis=0)) * case.inside[:, None]


def two_valued(x: np.ndarray) -> np.ndarray:
    """bool [D]: dims of a column [N, D] that know two numbers only, such as a gripper's."""
    low, high = x.min(0), x.max(0)
    return (high > low) & ((x == low) | (x == high)).all(0) & (len(x) > 2)


def fixed(case: Case, key: str) -> np.ndarray:
    """bool [D']: learned dims that are rotations, which no normalizer scales."""
    return representations.rotation_dims(case.representation, key, case.numbers[key].shape[1])


def place(case: Case, row: int) -> str:
    """Where a row of the training data lies, in words."""
    e = int(np.searchsorted(case.train.ends, row, side="right"))
    return f"{case.labels[e]}, step {row - case.train.starts[e]}"


def named(key: str, dims: Sequence[int]) -> str:
    """Dims of a key, runs shortened: "state[0-3, 7]"."""
    dims = sorted(int(d) for d in dims)
    cuts = [i for i in range(1, len(dims)) if dims[i] != dims[i - 1] + 1]
    runs = [dims[a:b] for a, b in zip([0, *cuts], [*cuts, len(dims)])]
    texts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"{key}[{listed(texts)}]"


def counted(number: int, noun: str) -> str:
    """The number and what is counted: "1 window", "2,000 windows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence) -> str:
    """The first SHOWN items, and how many more there are."""
    more = [f"… ({len(items) - SHOWN} more)"] if len(items) > SHOWN else []
    return ", ".join([*map(str, items[:SHOWN]), *more])
