"""Pickles as plain data: nothing that one asks for is imported, called or run.

A pickle is a program for a stack machine, and some of its instructions import a name and
call it. This is such a machine without those: what would have been a call becomes a
`Made`, an inert record of the name and of what it would have been given, and only names
that the caller knows are turned into something, by the caller's own functions.

    load(data, known)    known: {"collections.OrderedDict": lambda *args: {}, …}
"""

from collections.abc import Callable, Mapping
import pickletools
import struct
from typing import Any, NamedTuple

MAX_OPS = 2_000_000  # a checkpoint of a thousand tensors has 100,000
KEYS = (str, int, float, bytes, type(None))  # of dicts: hashing others may recurse without end


class Refused(Exception):
    """Why these bytes are not read."""


class Global(NamedTuple):
    """A name that a pickle mentions; never imported."""

    name: str


class Made:
    """What a pickle would have got from a call: never called, only written down.

    name: what would have been called. args: with what. state: its attributes, or None.
    items: what would have been appended to it, or pairs that would have been set.
    """

    __slots__ = ("name", "args", "state", "items")

    def __init__(self, name: str, args: tuple):
        self.name, self.args, self.state, self.items = name, args, None, []


class Persistent(NamedTuple):
    """Something outside the pickle (torch: the bytes of a tensor)."""

    pid: Any


class Machine(NamedTuple):
    """The stack, where its marks are, the memo, what is known, and the names that were not."""

    stack: list
    marks: list
    memo: dict
    known: Mapping[str, Callable]
    refused: dict

    def pop(self) -> Any:
        if not self.stack or (self.marks and len(self.stack) <= self.marks[-1]):
            raise Refused("an instruction without its operands")
        return self.stack.pop()

    def since_mark(self) -> list:
        if not self.marks:
            raise Refused("an instruction without its mark")
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def call(self, called: Any, args: Any) -> Any:
        """The caller's own value for a known name; a Made for any other."""
        if not isinstance(args, tuple):
            raise Refused("a call whose arguments are no tuple")
        name = called.name if isinstance(called, (Global, Made)) else type(called).__name__
        if isinstance(called, Global) and name in self.known:
            return self.known[name](*args)
        self.refused[name] = None
        return Made(name, args)


def _mark(m, _):
    m.marks.append(len(m.stack))


def _push(m, arg):
    m.stack.append(arg)


def _pop(m, _):
    if m.marks and m.marks[-1] == len(m.stack):
        m.marks.pop()
    else:
        m.pop()


def _dup(m, _):
    m.stack.append(m.pop())
    m.stack.append(m.stack[-1])


def _get(m, arg):
    if int(arg) not in m.memo:
        raise Refused(f"memo {arg} is read before it is written")
    m.stack.append(m.memo[int(arg)])


def _put(m, arg):
    value = m.pop()
    m.stack.append(value)
    m.memo[len(m.memo) if arg is None else int(arg)] = value


def _tuple(size):
    def make(m, _):
        m.stack.append(tuple(reversed([m.pop() for _ in range(size)])))

    return make


def _extend(m, values):
    """Appends to the list on top of the stack, or to what would have been one."""
    target = m.pop()
    m.stack.append(target)
    if not isinstance(target, (list, Made)):
        raise Refused("items for what is no list")
    (target.items if isinstance(target, Made) else target).extend(values)


def _set_items(m, pairs):
    target = m.pop()
    m.stack.append(target)
    if len(pairs) % 2:
        raise Refused("a key without its value")
    for key, value in zip(pairs[::2], pairs[1::2]):
        if isinstance(target, Made):
            target.items.append((key, value))
        elif not isinstance(target, dict) or not isinstance(key, KEYS):
            raise Refused(f"a key of type {type(key).__name__} for a {type(target).__name__}")
        else:
            target[key] = value


def _dict(m, pairs):
    m.stack.append({})
    _set_items(m, pairs)


def _global(m, arg):
    module, _, name = arg.partition(" ")
    m.stack.append(Global(f"{module}.{name}"))


def _stack_global(m, _):
    name, module = m.pop(), m.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise Refused("a name that is no text")
    m.stack.append(Global(f"{module}.{name}"))


def _reduce(m, _):
    args, called = m.pop(), m.pop()
    m.stack.append(m.call(called, args))


def _new_with_names(m, _):
    _, args, called = m.pop(), m.pop(), m.pop()
    m.stack.append(m.call(called, args))


def _inst(m, arg):
    module, _, name = arg.partition(" ")
    m.stack.append(m.call(Global(f"{module}.{name}"), tuple(m.since_mark())))


def _obj(m, _):
    called, *args = m.since_mark() or [None]
    m.stack.append(m.call(called, tuple(args)))


def _build(m, _):
    state, target = m.pop(), m.pop()
    if isinstance(target, Made):
        target.state = state
    m.stack.append(target)  # of a dict: attributes, such as torch's versions of its modules


def _persistent(m, pid):
    m.stack.append(Persistent(pid))


LITERALS = "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING"
LITERALS += " BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"
LITERALS += " FLOAT BINFLOAT"
ACTIONS = {
    **{name: _push for name in LITERALS.split()},
    **{name: lambda m, _: None for name in ("PROTO", "FRAME")},
    **{name: _put for name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")},
    **{name: _get for name in ("GET", "BINGET", "LONG_BINGET")},
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": lambda m, _: m.since_mark(),
    "DUP": _dup,
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append([]),  # as a list: nothing is hashed
    "LIST": lambda m, _: m.stack.append(m.since_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "FROZENSET": lambda m, _: m.stack.append(m.since_mark()),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": lambda m, _: _extend(m, [m.pop()]),
    "APPENDS": lambda m, _: _extend(m, m.since_mark()),
    "ADDITEMS": lambda m, _: _extend(m, m.since_mark()),
    "DICT": lambda m, _: _dict(m, m.since_mark()),
    "SETITEM": lambda m, _: _set_items(m, [m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: _set_items(m, m.since_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_with_names,
    "INST": _inst,
    "OBJ": _obj,
    "BUILD": _build,
    "PERSID": _persistent,
    "BINPERSID": lambda m, _: _persistent(m, m.pop()),
}


def load(data: bytes, known: Mapping[str, Callable]) -> tuple[Any, list[str]]:
    """(what the pickle holds, names in calls that are not `known`); else Refused."""
    m = Machine([], [], {}, known, {})
    try:
        for count, (opcode, arg, position) in enumerate(pickletools.genops(data)):
            if count > MAX_OPS:
                raise Refused(f"more than {MAX_OPS:,} instructions")
            if opcode.name == "STOP":
                return m.pop(), list(m.refused)
            if opcode.name not in ACTIONS:
                raise Refused(f"instruction {opcode.name} at byte {position} is not read")
            ACTIONS[opcode.name](m, arg)
    except (ValueError, TypeError, IndexError, OverflowError, struct.error) as error:
        raise Refused(f"{type(error).__name__}: {str(error)[:120]}") from error
    raise Refused("it has no end")
