"""The input (Context) and output (Finding) of rules, with helpers for both.

A rule is a pure function `(context) -> list[Finding]`; it returns an empty list if all is well.
Rules compare a step with the next one only within an episode, see `Context.same_episode`.
"""

from collections.abc import Mapping, Sequence
import re
from typing import NamedTuple

from ml_collections import ConfigDict
import numpy as np

from dpjax.check.looks import Looks
from dpjax.config import normalization as settings
from dpjax.core.dims import describe_dims as describe_dims
from dpjax.core.dims import enumerate_some as enumerate_some
from dpjax.core.normalizer import Normalizer, to_network
from dpjax.core.scaling import Scaling
from dpjax.core.types import ACTION
from dpjax.data import frames
from dpjax.data.episodes import Episodes
from dpjax.data.rlds.reader import Feature
from dpjax.policies import representations

SEVERITIES = ("error", "warning", "note")  # the worst first


class Finding(NamedTuple):
    """One problem of the data or the config, and what to do about it.

    severity: "error": training would be refused, or the policy would learn something other than
        intended; "warning": the policy probably succeeds less often; "note": worth knowing.
    rule: name of the rule function.
    reason: what is wrong, in one sentence without a full stop.
    remedy: what to do about it, in the same form, with the config key to change and its new value.
    changes: the same for a program, if one line mends it: "config.key=value", or an option of
        dpjax.convert such as "--trim-idle". Empty if a person has to decide or to record.
    """

    severity: str
    rule: str
    reason: str
    remedy: str
    changes: tuple[str, ...] = ()


class Context(NamedTuple):
    """Data and config as training would use them.

    config: the config, with columns and cameras filled in from the data.
    train, val: episodes with the policy's observations and "action", without mirrored ones.
    labels: names of the episodes for messages, those of train first, then those of val.
    represented: the columns {key: [M, D]} of train in the policy's representation (rotations
        as 6-D, relative actions), not yet normalized.
    normalizer: fitted to `represented`.
    representation: how the policy's columns differ from the recorded ones.
    num_windows: W, the number of training windows.
    padded_share: share of the windows' steps that are copies of an episode's first or last step.
    refusal: the message with which training would refuse the config, or "".
    features: {path inside a step: Feature} of all columns of the data sets.
    skipped: one line per episode that could not be read.
    clocks: {path: Episodes} of recorded times; train and val together, in the order of the data.
    fps: steps per second according to the data set; 0 if unknown.
    frames: {camera: (steps [n], uint8 [n, 2, H, W, 3])}: a sample of the training steps, and for
        each of them the camera's frame and the next frame.
    looks: {camera: Looks}: what a few frames of every episode show.
    rates: {directory: steps per second} of each data set; 0 if unknown.
    """

    # Shapes: N recorded training steps. M rows of `represented`: relative actions have one row per
    # step of a window, so M may exceed N. D dims as recorded, D' dims as represented.

    config: ConfigDict
    train: Episodes
    val: Episodes
    labels: Sequence[str]
    represented: Mapping[str, np.ndarray]
    normalizer: Normalizer
    representation: representations.Representation
    num_windows: int
    padded_share: float
    refusal: str = ""
    features: Mapping[str, Feature] = {}
    skipped: Sequence[str] = ()
    clocks: Mapping[str, Episodes] = {}
    fps: float = 0.0
    frames: Mapping[str, tuple[np.ndarray, np.ndarray]] = {}
    looks: Mapping[str, Looks] = {}
    rates: Mapping[str, float] = {}

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """The training columns {key: [N, D]} that are not images, as recorded."""
        return frames.split(self.train.columns)[0]

    @property
    def represented_numbers(self) -> dict[str, np.ndarray]:
        """The same columns {key: [M, D']} in the policy's representation, not normalized."""
        return {key: self.represented[key] for key in self.numbers}

    @property
    def observed(self) -> dict[str, np.ndarray]:
        """The training columns {key: [N, D]} of numbers that the policy observes."""
        return {key: x for key, x in self.numbers.items() if key != ACTION}

    @property
    def action(self) -> np.ndarray:
        """[N, Da]: the training actions, as recorded."""
        return self.train.columns[ACTION]

    @property
    def same_episode(self) -> np.ndarray:
        """bool [N - 1]: whether training steps t and t + 1 belong to one episode."""
        return same_episode(self.train.ends)


def same_episode(ends: np.ndarray) -> np.ndarray:
    """bool [N - 1]: whether steps t and t + 1 belong to one of the episodes with ends [E]."""
    together = np.ones(max(int(ends[-1]) - 1, 0), bool)
    # The last step of each episode but the last is followed by another episode's first step.
    together[ends[:-1] - 1] = False
    return together


# Normalization and representation of a key.


def normalization(context: Context, key: str) -> str:
    """The mode that normalizes a key: "limits", "gaussian", "quantile" or "identity"."""
    return settings.mode(context.config, key)


def normalization_key(context: Context, key: str) -> str:
    """The config key that decides how a key of the data is normalized."""
    return settings.deciding_key(context.config, key)


def scaling_of(context: Context, key: str) -> Scaling:
    """Which represented dims [D'] of a key are constant or move little, as the normalizer does."""
    rotations = represented_rotations(context, key)
    return settings.measure(context.config, key, context.represented[key], rotations)


def normalize(context: Context, key: str, x: np.ndarray) -> np.ndarray:
    """Normalizes represented values [..., D'] of a key."""
    # In numpy: the normalizer's arrays may be on a device.
    normalizer = context.normalizer
    return to_network(x, np.asarray(normalizer.offset[key]), np.asarray(normalizer.scale[key]))


def recorded_rotations(context: Context, key: str) -> np.ndarray:
    """bool [D]: recorded dims that the config declares to be part of a rotation."""
    size = context.numbers[key].shape[1]
    # A layout such as "3 axis_angle 1" splits the dims into parts; rotations are the parts with a
    # form, such as "axis_angle".
    parts = representations.parts_of(context.representation, key, size)
    return np.repeat([bool(part.form) for part in parts], [part.size for part in parts])


def represented_rotations(context: Context, key: str) -> np.ndarray:
    """bool [D']: represented dims that are rotations, which no normalizer scales."""
    # D' differs from the recorded D: a quaternion of 4 dims becomes 6.
    size = context.numbers[key].shape[1]
    return representations.rotation_dims(context.representation, key, size)


# Motion.


def step_sizes(context: Context, x: np.ndarray) -> np.ndarray:
    """|x[t + 1] - x[t]| [N - 1, D] of a training column [N, D]; 0 between two episodes."""
    # [N - 1, D] * [N - 1, 1]: the change to another episode's first step is not motion.
    return np.abs(np.diff(x, axis=0)) * context.same_episode[:, None]


def is_binary(x: np.ndarray) -> np.ndarray:
    """bool [D]: dims of a column [N, D] with exactly two values, such as a gripper command."""
    # Only the minimum and the maximum occur.
    low = x.min(0)
    high = x.max(0)
    # A column of two steps has at most two values whatever it means, so it does not count.
    return (high > low) & ((x == low) | (x == high)).all(0) & (len(x) > 2)


# Texts of findings.


def leave_out(context: Context, episodes: Sequence[int]) -> tuple[str, tuple[str, ...]]:
    """How to convert again without some episodes: (a remedy, the same as `Finding.changes`).

    episodes: indices into `Context.labels`, which number them as in the data set.
    """
    numbers = [re.fullmatch(r"episode (\d+)", label) for label in context.labels]
    if not all(numbers):
        # Several data sets, or episodes that training has already split.
        return "leave them out when you convert the data (--episodes)", ()
    # The bad episodes that were not read at all are left out, too.
    kept = sorted(int(x[1]) for i, x in enumerate(numbers) if i not in set(map(int, episodes)))
    if not kept:
        return "record the data again", ()
    breaks = [i for i in range(1, len(kept)) if kept[i] != kept[i - 1] + 1]
    parts = [kept[a:b] for a, b in zip([0, *breaks], [*breaks, len(kept)])]
    ranges = ",".join(f"{x[0]}" if len(x) == 1 else f"{x[0]}-{x[-1]}" for x in parts)
    option = f"--episodes={ranges}"
    # A message stays one line; the page and the changes have all of it.
    shown = option if len(option) < 200 else f"{option[:200]}…"
    return f"convert the data again without them: {shown}", (option,)


def describe_step(context: Context, step: int) -> str:
    """Names a training step by its episode and its number in it: "episode 3, step 17"."""
    return describe_step_of(context.train, step, context.labels)


def describe_step_of(episodes: Episodes, step: int, labels: Sequence[str] = ()) -> str:
    """Names a step of some episodes, by their labels or by their numbers."""
    # side="right": the first episode that ends after the step.
    e = int(np.searchsorted(episodes.ends, step, side="right"))
    return f"{labels[e] if labels else f'episode {e}'}, step {step - episodes.starts[e]}"


def count(number: int, noun: str) -> str:
    """A number and its noun: "1 window", "2,000 windows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
