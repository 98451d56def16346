"""The stack machine that runs a pickle's instructions, without the ability to call code."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Refused(Exception):
    """A pickle that cannot be read; the text says why."""


class Global(NamedTuple):
    """A name that a pickle mentions, such as "os.system"; it is never imported."""

    name: str


class InertCall:
    """The record of a call that a pickle contains and that was not executed.

    name: of the function or class. args: its arguments. state: the attributes that the pickle
    sets on the result, or None. items: what it appends to the result, or (key, value) pairs.
    """

    # Slots: a pickle may create a million of these.
    __slots__ = ("name", "args", "state", "items")

    def __init__(self, name: str, args: tuple):
        self.name = name
        self.args = args
        # Filled by the pickle's later instructions.
        self.state = None
        self.items = []


class Persistent(NamedTuple):
    """A reference to data outside the pickle; in torch's files, to the bytes of a tensor."""

    pid: Any  # torch's is a tuple, see `archive._tensor`


class Machine(NamedTuple):
    """The state of the stack machine.

    marks: size of the stack at each mark. memo: {number: value} of values that are used again.
    known: {name: the caller's function}. unknown: names of the calls that were not executed, as
    the keys of a dict, which keeps their order.
    """

    stack: list
    marks: list
    memo: dict
    known: Mapping[str, Callable]
    unknown: dict

    def pop(self) -> Any:
        """Removes and returns the value on top, which must lie above the last mark."""
        # Values below the last mark belong to a later instruction, `pop_to_mark`.
        if not self.stack or (self.marks and len(self.stack) <= self.marks[-1]):
            raise Refused("an instruction without its operands")
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        """Removes and returns all values above the last mark."""
        if not self.marks:
            raise Refused("an instruction without its mark")
        # Marks are kept beside the stack, so that no value can be mistaken for a mark.
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def call(self, function: Any, args: Any) -> Any:
        """Calls the caller's function for a known name; returns an InertCall for any other."""
        # A hostile pickle may have any value in the place of the arguments.
        if not isinstance(args, tuple):
            raise Refused("a call whose arguments are not a tuple")
        # The function may be the result of a call that was not executed, which has a name too.
        named = isinstance(function, (Global, InertCall))
        name = function.name if named else type(function).__name__
        if isinstance(function, Global) and name in self.known:
            # The only code that a pickle can reach, all of it the caller's.
            return self.known[name](*args)
        # An unknown call has one effect: its name is listed, once.
        self.unknown[name] = None
        return InertCall(name, args)
