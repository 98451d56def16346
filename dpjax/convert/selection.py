"""Which keys of a source are converted, and what they are called in the data set."""

from collections.abc import Mapping, Sequence
import re
from typing import NamedTuple

import numpy as np

from dpjax.convert.source import ACTION, Feature, Source
from dpjax.core.errors import UserError, choices

# A slash would be a level of RLDS, and a dot a level of a config.
VALID_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]*")


class Selection(NamedTuple):
    """names: {key: name in the data set} of what is converted. left_out: {key: reason}."""

    names: dict[str, str]
    left_out: dict[str, str]


def select(source: Source, keys: Sequence[str] | None, mapping: Mapping[str, str]) -> Selection:
    """Chooses and names what is converted.

    keys: convert these and the action only, each by its key or its name; None: the defaults.
    mapping: {key or name: new name}.
    Raises a UserError if there is no action, or if a key that was asked for can't be converted.
    """
    # Names: the source's own, then the user's. `key_of` takes keys and the source's names.
    names = {key: source.names.get(key, key) for key in source.features}
    key_of = {**{name: key for key, name in names.items()}, **{key: key for key in names}}
    # It keeps the old names, so that two keys can swap theirs: a=b,b=a.
    for old, new in mapping.items():
        names[_lookup(key_of, old, source, "mapping")] = new
    action = [key for key, name in names.items() if name == ACTION]
    if not action:
        raise UserError(
            f"{source.path}: no key {ACTION!r} among its data ({', '.join(sorted(names))}). "
            f"If it has another name: mapping=NAME={ACTION}.",
            argument="mapping",
        )

    # Keys: a required key that can't be converted is an error, any other one is left out.
    required = {*(_lookup(key_of, key, source, "keys") for key in keys or ()), *action}
    if keys is None:
        wanted = {*names} & {*(source.defaults or names), *action}
    else:
        wanted = required
    # Keys that the format doesn't convert by default are listed too, so that nobody misses one. If
    # the user named the keys, the others are no surprise.
    left_out = {}
    for key in names:
        problem = conversion_problem(source.features[key])
        if key not in wanted:
            if keys is None:
                left_out[key] = "not an observation; keys= selects it"
        elif problem and key in required:
            raise UserError(f"{source.path}: {key} can't be converted: {problem}.", argument="keys")
        elif problem:
            left_out[key] = problem
    selected = {key: name for key, name in names.items() if key in wanted and key not in left_out}
    _check_names(selected, source)
    return Selection(selected, left_out)


def _lookup(key_of: Mapping[str, str], name: str, source: Source, argument: str) -> str:
    """The key of a name that the user gave in `argument`."""
    if name not in key_of:
        raise UserError(
            f"{argument}={name} is not a key of {source.path}; {choices(name, key_of)}.",
            argument=argument,
        )
    return key_of[name]


def _check_names(names: Mapping[str, str], source: Source) -> None:
    """Raises a UserError if RLDS can't have a name, or if two keys have the same one."""
    for key, name in names.items():
        if not VALID_NAME.fullmatch(name):
            raise UserError(
                f"{source.path}: {key}: {name!r} is not a name for RLDS (letters, digits, _ and "
                f"-). Give another: mapping={key}=NEW.",
                argument="mapping",
            )
        if twins := [other for other, same in names.items() if same == name and other != key]:
            raise UserError(
                f"{source.path}: {key} and {twins[0]} would both be {name!r}. Rename one: "
                f"mapping={key}=NEW.",
                argument="mapping",
            )


def conversion_problem(feature: Feature) -> str:
    """Why a key can't be converted, or ""."""
    shape = feature.shape
    dtype = np.dtype(feature.dtype)  # a type such as np.float32 has no `kind`
    if 0 in shape:
        return f"a step of it is empty: shape {list(shape)}"
    # Three dimensions per step are an image: uint8, or floats that may be whole numbers from 0 to
    # 255. `as_columns` looks at the numbers.
    if len(shape) == 3:
        if shape[-1] == 3 and (dtype == np.uint8 or dtype.kind == "f"):
            return ""
        hint = ": channels come last, transpose it" if shape[0] == 3 else ""
        return f"images are uint8 [T, H, W, 3], and it has shape {[None, *shape]} of {dtype}{hint}"
    if len(shape) > 3:
        return f"a step has at most 3 dimensions, and it has shape {list(shape)}"
    # Floats, integers with and without sign, and bools; not complex numbers, texts or objects.
    if dtype.kind not in "fiub":
        return f"only numbers are converted, and it is {dtype}"
    return ""


def describe_casts(source: Source, selection: Selection) -> list[str]:
    """One line per key that does not keep its type or shape."""
    lines = []
    for key, name in selection.names.items():
        shape, dtype = source.features[key]
        # Images that are uint8 stay as they are, and so do float32 numbers.
        image = len(shape) == 3
        if (image and dtype == np.uint8) or (shape and dtype == np.float32):
            continue
        # RLDS holds float32 [T, n]; integers beyond 2^24 may not fit, which is checked per step.
        target = "uint8, whole numbers from 0 to 255" if image else "float32"
        wider = "" if shape else " of shape [1]"
        condition = ", where exact" if dtype.kind in "iub" else ""
        lines.append(f"{name}: {dtype} is cast to {target}{wider}{condition}")
    return lines
