"""What one key of a config is: its default, the values that it may take, its unit, what it means.

`dpjax.config.defaults` is the table of all keys, made of `Key`s in nested dicts.
"""

from collections.abc import Iterator, Mapping
import math
from typing import Any, NamedTuple

from dpjax.core.errors import UserError, choices


class Interval(NamedTuple):
    """The numbers from `low` to `high`.

    open_low, open_high: whether the bound itself is excluded. infinite: whether inf is allowed.
    """

    low: float = 0
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    infinite: bool = False

    def __contains__(self, value: object) -> bool:
        """Whether a number lies in the interval; NaN lies in none."""
        # Comparisons with NaN are false, so NaN lies outside.
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and (self.infinite or math.isfinite(value))

    def __str__(self) -> str:
        """In words: "above 0", "0 or more", "in [0, 1)"."""
        if self.high == math.inf:
            return f"above {self.low}" if self.open_low else f"{self.low} or more"
        left = "(" if self.open_low else "["
        right = ")" if self.open_high else "]"
        return f"in {left}{self.low}, {self.high}{right}"


# The two intervals that most keys have.
ABOVE_0 = Interval(open_low=True)
AT_LEAST_0 = Interval()


def below(high: float) -> Interval:
    """0 <= value < high."""
    return Interval(high=high, open_high=True)


def up_to(high: float) -> Interval:
    """0 <= value <= high."""
    return Interval(high=high)


class Key(NamedTuple):
    """A key of the config.

    default: its value in a config that does not set it; the type of every other value, too. A
        dict makes an open section, whose keys are the user's own.
    range: the numbers that are allowed, or a tuple of all values that are; None for any.
    unit: of the value, such as "steps" or "px"; "" where it has none.
    doc: what the key means, for --help and docs/config.md.
    """

    default: Any
    range: Interval | tuple | None = None
    unit: str = ""
    doc: str = ""


Table = Mapping[str, "Key | Table"]  # a config's keys, section by section


def defaults(table: Table) -> dict[str, Any]:
    """{key: default} of a table, sections as nested dicts."""
    return {
        name: entry.default if isinstance(entry, Key) else defaults(entry)
        for name, entry in table.items()
    }


def entries(table: Table, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """(dotted path, key) of every key, in the order of the table."""
    for name, entry in table.items():
        if isinstance(entry, Key):
            yield prefix + name, entry
        else:
            yield from entries(entry, f"{prefix}{name}.")


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}, tuples as lists."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def check_type(path: str, value: Any, example: Any) -> None:
    """Raises UserError for a value of another type than the example's.

    A whole number is a number, too; True and False are not numbers.
    """
    if not _has_type(value, example):
        raise UserError(
            f"config.{path}={value!r} must be {type_name(example)}, such as {example!r}."
        )


def _has_type(value: Any, example: Any) -> bool:
    # bool first: Python counts True and False among the whole numbers.
    if isinstance(example, (bool, str)):
        return isinstance(value, type(example))
    if isinstance(example, tuple):
        # JSON has lists only; the elements have the type of the default's first one.
        return isinstance(value, (tuple, list)) and all(_has_type(x, example[0]) for x in value)
    numbers = (int, float) if isinstance(example, float) else (int,)
    return isinstance(value, numbers) and not isinstance(value, bool)


def type_name(example: Any) -> str:
    """The type of a value, in words."""
    if isinstance(example, tuple):
        return f"a tuple, each element {type_name(example[0])}"
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    return names.get(type(example), type(example).__name__)


def check_range(path: str, value: Any, allowed: Interval | tuple | None) -> None:
    """Raises UserError for a value that is not allowed: outside of an interval or of choices."""
    if allowed is None or value in allowed:
        return
    # What is wrong, for numbers and for names.
    if isinstance(allowed, Interval):
        # Infinity and NaN get a word of their own: "above 0" alone would not explain them.
        finite = "" if allowed.infinite or math.isfinite(value) else "finite and "
        raise UserError(f"config.{path}={value!r} must be {finite}{allowed}.")
    names = [str(choice) for choice in allowed]
    raise UserError(f"config.{path}={value!r} is unknown; {choices(str(value), names)}.")


def describe_range(allowed: Interval | tuple | None) -> str:
    """The allowed values, in words: "above 0", "cosine | linear"; "" for any."""
    if isinstance(allowed, Interval):
        return str(allowed)
    return " | ".join(map(str, allowed or ()))
