"""Chooses which keys of a source are converted, and names them in the data set."""

from collections.abc import Mapping, Sequence
import logging
import math
import re
from typing import NamedTuple

import numpy as np

from dpjax.convert.source import ACTION, COUNTERS, Feature, Source, key_fault
from dpjax.core.errors import UserError, choices
from dpjax.data.rlds.columns import MATRIX_LIMIT

# No slash, which separates the levels of an RLDS step, and no dot, which separates those of a
# config.
VALID_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]*")

log = logging.getLogger("dpjax")


class Selection(NamedTuple):
    """The keys that are converted, and those that are not.

    names: {key: name in the data set} of the keys to convert.
    joins: {name in the data set: keys that are joined to it, in this order}.
    following: the joined action is what its parts are in the next step.
    left_out: {key: reason} of the others that the user should know of.
    lengths: [E] steps of each episode, those of the action.
    """

    names: dict[str, str]
    joins: dict[str, tuple[str, ...]]
    following: bool
    left_out: dict[str, str]
    lengths: list[int]


def select(
    source: Source,
    keys: Sequence[str] | None,
    mapping: Mapping[str, str],
    joins: Mapping[str, Sequence[str]] = {},
    *,
    following: bool = False,
) -> Selection:
    """Chooses and names the keys to convert.

    keys: convert only these and the action, each given as its key or its name; None: the
        source's defaults.
    mapping: {key or name: new name}.
    joins: {new name: keys or names that are joined to it}.
    following: the joined action is what its parts are in the next step.

    Raises a UserError if there is no action, or if a required key can't be converted. Only what is
    wanted is looked at: whatever is wrong with other keys leaves them out.
    """
    # 1. Names come from the source first. `key_of` finds a key by itself or by that name.
    known = [*source.features, *source.problems, *source.damage]
    names = {key: source.names.get(key, key) for key in known}
    key_of = {**{name: key for key, name in names.items()}, **{key: key for key in names}}
    # The user's names replace them. `key_of` keeps the old ones, so that two keys can swap their
    # names: a=b,b=a.
    for old, new in mapping.items():
        names[_lookup(key_of, old, source, "mapping")] = new
    joined = {
        new: tuple(_lookup(key_of, part, source, "joins") for part in parts)
        for new, parts in joins.items()
    }
    # 2. The action: a key, a join, or what a source without actions proposes.
    action = [key for key, name in names.items() if name == ACTION]
    if not action and ACTION not in joined:
        joined[ACTION] = _following_action(source, names)
        following = True

    # 3. A required key that can't be converted is an error; any other one is left out.
    # New names ask for keys too; those of joins are there anyway.
    known_names = {**{name: key for key, name in names.items()}, **key_of}
    asked = {_lookup(known_names, key, source, "keys") for key in keys or () if key not in joined}
    asked.update(action)
    parts = {part for keys_of_join in joined.values() for part in keys_of_join}
    if keys is None:
        wanted = {*_defaults(source, names), *asked}
    else:
        wanted = asked
    of_action = action or joined[ACTION]
    # As many steps as the action has.
    source = source._replace(lengths=source.key_lengths.get(of_action[0], source.lengths))
    broken = _broken(source, of_action)
    left_out = {}
    for key in names:
        problem = _problem(source, key, broken, is_required=key in asked | parts)
        if problem and (key in asked | parts or (key in wanted and key in source.damage)):
            raise UserError(f"{source.path}: {key} can't be converted: {problem}.", argument="keys")
        if key not in wanted and key not in parts:
            left_out[key] = problem or "not an observation; keys= selects it"
            if keys is not None:
                left_out[key] = "not asked for"
        elif problem and key in wanted:
            left_out[key] = problem
    selected = {key: name for key, name in names.items() if key in wanted and key not in left_out}
    _check_names({**selected, **{new: new for new in joined}}, source)
    if not any(name != ACTION for name in selected.values()):
        reasons = "; ".join(f"{key}: {reason}" for key, reason in left_out.items())
        raise UserError(f"{source.path}: no observation is left ({reasons}).", argument="keys")
    return Selection(selected, joined, following, left_out, list(source.lengths))


def _following_action(source: Source, names: Mapping[str, str]) -> tuple[str, ...]:
    """The keys whose next step is the action. Raises a UserError if the source proposes none."""
    if source.actions:
        log.warning(
            "%s: no action in it: the action is %s of the next step, and the last step of each "
            "episode, which has none, is left out",
            source.path, "+".join(source.actions),
        )  # fmt: skip
        return tuple(source.actions)
    # openpi and others call it "actions".
    near = next((key for key in names if ACTION in key.lower()), "NAME")
    raise UserError(
        f"{source.path}: no key {ACTION!r} among its data ({', '.join(sorted(names))}). If it has "
        f"another name: mapping={near}={ACTION}. If it is what the robot reached a step later: "
        f"joins=POSE+GRIPPER={ACTION} following=True.",
        argument="mapping",
    )


def _defaults(source: Source, names: Mapping[str, str]) -> list[str]:
    """The keys that are converted unless the user names keys."""
    if source.defaults is not None:
        return [*source.defaults, *source.damage]
    # A mapping to another name asks for a key.
    return [key for key in names if key not in COUNTERS or names[key] not in COUNTERS]


def _broken(source: Source, action: Sequence[str]) -> set[int]:
    """The episodes without actions, or that can't be read at all."""
    tables = (source.damaged_in, source.differs_in)
    return {*source.bad, *(e for key in action for faults in tables for e in faults.get(key, {}))}


def _problem(source: Source, key: str, broken: set[int], *, is_required: bool) -> str:
    """Why a key can't be converted beside the action; "" if it can.

    broken: episodes that are bad anyway.
    is_required: somebody asked for the key: the episodes that lack it are the bad ones then.
    """
    if reason := source.damage.get(key) or source.problems.get(key):
        return reason
    # Broken episodes are reported when they are read, whatever is wanted of them.
    damaged = source.damaged_in.get(key, {})
    intact = [e for e in range(len(source.lengths)) if e not in broken and e not in damaged]
    faults = [reason for e in intact if (reason := key_fault(source, key, e))]
    # A key that most episodes have is wanted, and the others are bad. One that few have may be
    # something else, such as notes of a debugger.
    if faults and len(faults) == len(intact):
        return faults[0]
    if 2 * len(faults) > len(intact) and not is_required:
        return (
            f"{faults[0]}, and so in {len(faults)} of {len(source.lengths)} episodes; keys={key} "
            "with on_bad=skip converts it without them"
        )
    return conversion_problem(source.features[key])


def _lookup(key_of: Mapping[str, str], name: str, source: Source, argument: str) -> str:
    """The key that the user means by `name`, as passed in `argument`."""
    if name not in key_of:
        raise UserError(
            f"{argument}={name} is not a key of {source.path}; {choices(name, key_of)}.",
            argument=argument,
        )
    return key_of[name]


def _check_names(names: Mapping[str, str], source: Source) -> None:
    """Raises a UserError if a name is not valid in RLDS, or if two keys have the same name."""
    for key, name in names.items():
        if not VALID_NAME.fullmatch(name):
            raise UserError(
                f"{source.path}: {key}: {name!r} is not a name for RLDS (letters, digits, _ and "
                f"-). Give another: mapping={key}=NEW.",
                argument="mapping",
            )
        # Two columns of one name: the second would overwrite the first.
        if twins := [other for other, same in names.items() if same == name and other != key]:
            raise UserError(
                f"{source.path}: {key} and {twins[0]} would both be {name!r}. Rename one: "
                f"mapping={key}=NEW.",
                argument="mapping",
            )


def conversion_problem(feature: Feature) -> str:
    """The reason why a key can't be converted; "" if it can."""
    shape = feature.shape
    dtype = np.dtype(feature.dtype)  # a type such as np.float32 has no `kind`
    if 0 in shape:
        return f"a step of it is empty: shape {list(shape)}"
    # Three dimensions per step are an image. Floats are accepted, since replay buffers keep pixels
    # as floats; `source.as_columns` then refuses all but whole numbers from 0 to 255.
    if len(shape) == 3:
        if shape[-1] == 3 and (dtype == np.uint8 or dtype.kind == "f"):
            return ""
        hint = ": channels come last, transpose it" if shape[0] == 3 else ""
        return f"images are uint8 [T, H, W, 3], and it has shape {[None, *shape]} of {dtype}{hint}"
    if len(shape) > 3:
        return f"a step has at most 3 dimensions, and it has shape {list(shape)}"
    if len(shape) == 2 and math.prod(shape) > MATRIX_LIMIT:
        return f"depth or another image of one channel, shape {list(shape)}, is not read"
    # "f", "i", "u", "b": floats, signed and unsigned integers, bools. Complex numbers, strings and
    # objects are not converted.
    if dtype.kind not in "fiub":
        return f"only numbers are converted, and it is {dtype}"
    return ""


def describe_casts(source: Source, selection: Selection) -> list[str]:
    """One line per key whose type or shape changes."""
    lines = []
    for key, name in selection.names.items():
        shape, dtype = source.features[key]
        image = len(shape) == 3
        if len(shape) == 2:
            lines.append(f"{name}: {list(shape)} is flattened to [{math.prod(shape)}]")
        # Unchanged: images of uint8, and float32 numbers with at least one dimension.
        if (image and dtype == np.uint8) or (shape and dtype == np.float32):
            continue
        # Everything else is written as float32 [T, n]. Integers beyond 2^24 may not be exact in
        # float32; `source.as_columns` checks each of them.
        target = "uint8, whole numbers from 0 to 255" if image else "float32"
        wider = "" if shape else " of shape [1]"
        condition = ", where exact" if dtype.kind in "iub" else ""
        lines.append(f"{name}: {dtype} is cast to {target}{wider}{condition}")
    return lines


def describe_left_out(selection: Selection) -> list[str]:
    """One line per reason for which keys are left out."""
    keys_of: dict[str, list[str]] = {}
    for key, reason in selection.left_out.items():
        keys_of.setdefault(reason, []).append(key)
    return [f"left out: {', '.join(keys)} ({reason})" for reason, keys in keys_of.items()]
