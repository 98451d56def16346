"""Chooses which keys of a source are converted, and names them in the data set."""

from collections.abc import Mapping, Sequence
import re
from typing import NamedTuple

import numpy as np

from dpjax.convert.source import ACTION, Feature, Source
from dpjax.core.errors import UserError, choices

# No slash, which separates the levels of an RLDS step, and no dot, which separates those of a
# config.
VALID_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]*")


class Selection(NamedTuple):
    """The keys that are converted, and those that are not.

    names: {key: name in the data set} of the keys to convert.
    left_out: {key: reason} of the others that the user should know of.
    """

    names: dict[str, str]
    left_out: dict[str, str]


def select(source: Source, keys: Sequence[str] | None, mapping: Mapping[str, str]) -> Selection:
    """Chooses and names the keys to convert.

    keys: convert only these and the action, each given as its key or its name; None: the
        source's defaults.
    mapping: {key or name: new name}.
    Raises a UserError if there is no action, or if a required key can't be converted.
    """
    # Names come from the source first. `key_of` finds a key by itself or by that name.
    names = {key: source.names.get(key, key) for key in source.features}
    key_of = {**{name: key for key, name in names.items()}, **{key: key for key in names}}
    # The user's names replace them. `key_of` keeps the old ones, so that two keys can swap their
    # names: a=b,b=a.
    for old, new in mapping.items():
        names[_lookup(key_of, old, source, "mapping")] = new
    action = [key for key, name in names.items() if name == ACTION]
    if not action:
        raise UserError(
            f"{source.path}: no key {ACTION!r} among its data ({', '.join(sorted(names))}). "
            f"If it has another name: mapping=NAME={ACTION}.",
            argument="mapping",
        )

    # A required key that can't be converted is an error; any other one is left out.
    required = {*(_lookup(key_of, key, source, "keys") for key in keys or ()), *action}
    if keys is None:
        wanted = {*names} & {*(source.defaults or names), *action}
    else:
        wanted = required
    # Without `keys`, what is not converted by default is reported as well, so that users see what
    # they could select. With `keys`, leaving out the others is what they asked for.
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
        # Unchanged: images of uint8, and float32 numbers with at least one dimension.
        image = len(shape) == 3
        if (image and dtype == np.uint8) or (shape and dtype == np.float32):
            continue
        # Everything else is written as float32 [T, n]. Integers beyond 2^24 may not be exact in
        # float32; `source.as_columns` checks each of them.
        target = "uint8, whole numbers from 0 to 255" if image else "float32"
        wider = "" if shape else " of shape [1]"
        condition = ", where exact" if dtype.kind in "iub" else ""
        lines.append(f"{name}: {dtype} is cast to {target}{wider}{condition}")
    return lines
