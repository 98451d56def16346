"""Reads pickles as plain data, without importing or running anything that they name.

A pickle is a program for a stack machine, and some of its instructions import a name and
call it. Here such a call becomes an `InertCall`, a record of the name and the arguments. Only
names that the caller lists become values, which the caller's functions compute.
"""

from collections.abc import Callable, Mapping
import pickletools
import struct
from typing import Any

from dpjax.interop.torch.machine import Global, InertCall, Machine, Persistent, Refused

MAX_INSTRUCTIONS = 2_000_000  # a checkpoint of a thousand tensors has 100,000
# Allowed types of a dict's keys. Hashing a nested tuple could exceed Python's stack.
KEY_TYPES = (str, int, float, bytes, type(None))


# One function per kind of instruction. `m` is the machine, `arg` the instruction's argument.


def _push(m, arg):
    m.stack.append(arg)


def _pop(m, _):
    # In a pickle, POP also removes a mark if that is on top.
    if m.marks and m.marks[-1] == len(m.stack):
        m.marks.pop()
    else:
        m.pop()


def _get(m, arg):
    # The old text protocol has the number as text.
    if int(arg) not in m.memo:
        raise Refused(f"memo {arg} is read before it is written")
    m.stack.append(m.memo[int(arg)])


def _put(m, arg):
    value = m.pop()
    m.stack.append(value)  # it stays on the stack
    # MEMOIZE counts the values, the other instructions have a number. The memo is a dict, since
    # in a list a huge number would allocate memory.
    m.memo[len(m.memo) if arg is None else int(arg)] = value


def _tuple(size):
    def build(m, _):
        m.stack.append(tuple(reversed([m.pop() for _ in range(size)])))

    return build


def _extend(m, values):
    """Appends to the list or the InertCall on top of the stack."""
    target = m.pop()
    m.stack.append(target)  # it stays on the stack
    if not isinstance(target, (list, InertCall)):
        raise Refused("items for what is not a list")
    (target.items if isinstance(target, InertCall) else target).extend(values)


def _set_items(m, pairs):
    target = m.pop()
    m.stack.append(target)
    # Keys and values alternate on the stack.
    if len(pairs) % 2:
        raise Refused("a key without its value")
    for key, value in zip(pairs[::2], pairs[1::2]):
        # For a dict of a class that was not called, the pairs are recorded.
        if isinstance(target, InertCall):
            target.items.append((key, value))
        elif not isinstance(target, dict) or not isinstance(key, KEY_TYPES):
            raise Refused(f"a key of type {type(key).__name__} for a {type(target).__name__}")
        else:
            target[key] = value


def _dict(m, pairs):
    m.stack.append({})
    _set_items(m, pairs)


def _global(arg: str) -> Global:
    return Global(arg.replace(" ", ".", 1))  # "os system" -> os.system


def _stack_global(m, _):
    # The name was pushed last, so it comes first.
    name = m.pop()
    module = m.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise Refused("a name that is not text")
    m.stack.append(Global(f"{module}.{name}"))


def _reduce(m, _):
    args = m.pop()  # on top of the function
    function = m.pop()
    m.stack.append(m.call(function, args))


def _new_with_keywords(m, _):
    m.pop()  # the keyword arguments, which no known function takes
    _reduce(m, None)


def _obj(m, _):
    # The function and its arguments all lie above the mark.
    function, *args = m.pop_to_mark() or [None]
    m.stack.append(m.call(function, tuple(args)))


def _build(m, _):
    state = m.pop()
    target = m.pop()
    # Attributes of a dict are dropped; in a state dict these are torch's versions of modules.
    if isinstance(target, InertCall):
        target.state = state
    m.stack.append(target)


# Instructions that push a constant, which pickletools has already decoded.
LITERALS = "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING"
LITERALS += " BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"
LITERALS += " FLOAT BINFLOAT"
# {pickletools' name: function}. Any other instruction is refused.
INSTRUCTIONS = {
    # Constants, and values kept in the memo.
    **{name: _push for name in LITERALS.split()},
    **{name: lambda m, _: None for name in ("PROTO", "FRAME")},
    **{name: _put for name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")},
    **{name: _get for name in ("GET", "BINGET", "LONG_BINGET")},
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    # The stack.
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": _pop,
    "POP_MARK": lambda m, _: m.pop_to_mark(),
    "DUP": lambda m, _: m.stack.extend([m.pop()] * 2),
    # Containers.
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append([]),  # sets become lists: nothing is hashed
    "LIST": lambda m, _: m.stack.append(m.pop_to_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "FROZENSET": lambda m, _: m.stack.append(m.pop_to_mark()),
    **{f"TUPLE{size}": _tuple(size) for size in (1, 2, 3)},
    "APPEND": lambda m, _: _extend(m, [m.pop()]),
    "APPENDS": lambda m, _: _extend(m, m.pop_to_mark()),
    "ADDITEMS": lambda m, _: _extend(m, m.pop_to_mark()),
    "DICT": lambda m, _: _dict(m, m.pop_to_mark()),
    "SETITEM": lambda m, _: _set_items(m, [m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: _set_items(m, m.pop_to_mark()),
    # Names and calls. The class of a new object is called like a function.
    "GLOBAL": lambda m, arg: m.stack.append(_global(arg)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_with_keywords,
    "INST": lambda m, arg: m.stack.append(m.call(_global(arg), tuple(m.pop_to_mark()))),
    "OBJ": _obj,
    "BUILD": _build,
    # References to data outside the pickle.
    "PERSID": lambda m, pid: m.stack.append(Persistent(pid)),
    "BINPERSID": lambda m, _: m.stack.append(Persistent(m.pop())),
}


def load(data: bytes, known: Mapping[str, Callable]) -> tuple[Any, list[str]]:
    """(the pickle's value, names of the calls that were not executed); raises Refused.

    known: {name: function that computes its value}, such as
        {"collections.OrderedDict": lambda: {}}.
    """
    m = Machine([], [], {}, known, {})
    # genops decodes one instruction at a time and runs nothing. It never allocates more than
    # the pickle has bytes.
    try:
        for count, (opcode, arg, position) in enumerate(pickletools.genops(data)):
            if count > MAX_INSTRUCTIONS:
                raise Refused(f"more than {MAX_INSTRUCTIONS:,} instructions")
            if opcode.name == "STOP":
                return m.pop(), list(m.unknown)
            # For example EXT1, which refers to a registry in the process that wrote the pickle.
            if opcode.name not in INSTRUCTIONS:
                raise Refused(f"instruction {opcode.name} at byte {position} is not read")
            INSTRUCTIONS[opcode.name](m, arg)
    except (ValueError, TypeError, IndexError, OverflowError, struct.error) as error:
        raise Refused(f"{type(error).__name__}: {str(error)[:120]}") from error
    raise Refused("it has no end")
