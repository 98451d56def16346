"""The stack machine that pickles are programs for, without the part that calls anything."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Refused(Exception):
    """Why a pickle is not read."""


class Global(NamedTuple):
    """A name that a pickle mentions, such as "os.system"; it is never imported."""

    name: str


class InertCall:
    """The record of a call that a pickle asked for and that was not made.

    name: of the function or class. args: its arguments. state: the attributes that would have
    been set, or None. items: what would have been appended, or (key, value) pairs.
    """

    __slots__ = ("name", "args", "state", "items")

    def __init__(self, name: str, args: tuple):
        self.name = name
        self.args = args
        self.state = None
        self.items = []


class Persistent(NamedTuple):
    """A reference to something outside of the pickle (in torch: the bytes of a tensor)."""

    pid: Any


class Machine(NamedTuple):
    """The state of the stack machine.

    marks: sizes of the stack where a mark was set. memo: values by their number.
    known: the caller's functions by name. unknown: names in calls that were not made, as the
    keys of a dict, which keeps their order.
    """

    stack: list
    marks: list
    memo: dict
    known: Mapping[str, Callable]
    unknown: dict

    def pop(self) -> Any:
        """Removes and returns the value on top, which must lie above the last mark."""
        # Values below a mark belong to an instruction that is still to come.
        if not self.stack or (self.marks and len(self.stack) <= self.marks[-1]):
            raise Refused("an instruction without its operands")
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        """Removes and returns all values above the last mark."""
        if not self.marks:
            raise Refused("an instruction without its mark")
        # Marks lie beside the stack, so that no value can be taken for one.
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def call(self, function: Any, args: Any) -> Any:
        """The caller's own value for a known name, and an InertCall for any other."""
        if not isinstance(args, tuple):
            raise Refused("a call whose arguments are not a tuple")
        # The function may itself be the result of a call that was not made.
        named = isinstance(function, (Global, InertCall))
        name = function.name if named else type(function).__name__
        if isinstance(function, Global) and name in self.known:
            return self.known[name](*args)
        # The only effect of an unknown call: its name is listed, once.
        self.unknown[name] = None
        return InertCall(name, args)
