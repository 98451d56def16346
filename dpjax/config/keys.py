"""`Key`: the default, allowed values, unit and meaning of one key of a config.

`dpjax.config.defaults` has the table of all keys: nested dicts of `Key`s.
"""

from collections.abc import Iterator, Mapping
import math
from typing import Any, NamedTuple

from dpjax.core.errors import UserError, choices


class Interval(NamedTuple):
    """The numbers from `low` to `high`.

    open_low, open_high: whether the bound itself is excluded.
    infinite: whether infinity is allowed, in an interval without an upper bound.
    """

    low: float = 0
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    infinite: bool = False

    def __contains__(self, value: object) -> bool:
        """Whether a number lies in the interval."""
        # NaN lies in no interval, since comparisons with it are false.
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and (self.infinite or math.isfinite(value))

    def __str__(self) -> str:
        """The interval in words: "above 0", "0 or more", "in [0, 1)"."""
        # Short forms for intervals without an upper bound.
        if self.high == math.inf:
            return f"above {self.low}" if self.open_low else f"{self.low} or more"
        left = "(" if self.open_low else "["
        right = ")" if self.open_high else "]"
        return f"in {left}{self.low}, {self.high}{right}"


# The intervals of most keys.
ABOVE_0 = Interval(open_low=True)
AT_LEAST_0 = Interval()


def below(high: float) -> Interval:
    """The interval 0 <= value < high."""
    return Interval(high=high, open_high=True)


def share(high: float = 1) -> Interval:
    """The interval 0 < value <= high."""
    return Interval(high=high, open_low=True)


def up_to(high: float) -> Interval:
    """The interval 0 <= value <= high."""
    return Interval(high=high)


class Key(NamedTuple):
    """A key of the config.

    default: the value that a config has if nobody sets another. Other values must have its type.
        A dict makes an open section, in which users choose the keys.
    range: the interval of allowed numbers, or a tuple of all allowed values; None for any value.
    unit: the unit of the value, such as "steps" or "px"; "" for none.
    doc: what the key means, for --help and docs/config.md.
    """

    default: Any
    range: Interval | tuple | None = None
    unit: str = ""
    doc: str = ""


# The keys of a config. A section is a table inside the table.
Table = Mapping[str, "Key | Table"]


def defaults(table: Table) -> dict[str, Any]:
    """{key: default} of a table, with sections as nested dicts."""
    return {
        name: entry.default if isinstance(entry, Key) else defaults(entry)
        for name, entry in table.items()
    }


def entries(table: Table, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Yields (dotted path, key) for every key, in the order of the table."""
    for name, entry in table.items():
        # An entry is a key, or a section with entries of its own.
        if isinstance(entry, Key):
            yield prefix + name, entry
        else:
            yield from entries(entry, f"{prefix}{name}.")


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}, with tuples as lists."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            # A tuple never equals a list, and JSON has lists only.
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def check_type(path: str, value: Any, example: Any) -> None:
    """Raises UserError if a value does not have the type of the example.

    An int is accepted where the example is a float. True and False are not numbers.
    """
    if not _has_type(value, example):
        raise UserError(
            f"config.{path}={value!r} must be {type_name(example)}, such as {example!r}."
        )


def _has_type(value: Any, example: Any) -> bool:
    # Choices and switches: exactly the type of the example.
    if isinstance(example, (bool, str)):
        return isinstance(value, type(example))
    if isinstance(example, tuple):
        # JSON has no tuples, so a list is accepted. The default's first element gives the type of
        # all elements.
        return isinstance(value, (tuple, list)) and all(_has_type(x, example[0]) for x in value)
    # bool is a subclass of int, so it is excluded here.
    numbers = (int, float) if isinstance(example, float) else (int,)
    return isinstance(value, numbers) and not isinstance(value, bool)


def type_name(example: Any) -> str:
    """The type of a value in words, such as "a whole number"."""
    if isinstance(example, tuple):
        return f"a tuple, each element {type_name(example[0])}"
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    return names.get(type(example), type(example).__name__)


def check_range(path: str, value: Any, allowed: Interval | tuple | None) -> None:
    """Raises UserError for a value outside of the interval, or not among the choices."""
    # `in` works for both: an Interval has __contains__.
    if allowed is None or value in allowed:
        return
    # A number outside of its interval.
    if isinstance(allowed, Interval):
        # "must be above 0" would not explain what is wrong with infinity or NaN.
        finite = "" if allowed.infinite or math.isfinite(value) else "finite and "
        raise UserError(f"config.{path}={value!r} must be {finite}{allowed}.")
    # An unknown name: the error has a similar one, or all.
    names = [str(choice) for choice in allowed]
    raise UserError(f"config.{path}={value!r} is unknown; {choices(str(value), names)}.")


def describe_range(allowed: Interval | tuple | None) -> str:
    """The allowed values in words: "above 0", "cosine | linear", or "" for any value."""
    if isinstance(allowed, Interval):
        return str(allowed)
    return " | ".join(map(str, allowed or ()))
