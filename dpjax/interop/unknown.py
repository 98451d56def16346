"""Keys of another library's files that dpjax does not read: refused, or listed.

A policy computes what its file says, so a key that nobody here knows may change its actions. Each
reader has a table of what it reads, of what never changes an action, and of keys with the one
value that leaves the actions as they are here. All other keys go through `check`.
"""

from collections.abc import Collection, Mapping
import re
from typing import Any

from dpjax.core.unread import warn_unread
from dpjax.interop.imported import refuse

# Parts of the names of options that change what a policy computes, in the libraries that are read.
CHANGES_NUMBERS = re.compile(
    r"relative|delta|residual|offset|scale|ratio|resiz|crop|pad|norm|clip|quantil|tokeniz|"
    r"ensembl|smooth|rotation|repr|rename|(^|_)ema(_|$)|peft|lora|dtype|guidance|temperature|"
    r"latency|down_?sample"
)


def is_neutral(value: Any) -> bool:
    """Whether a value switches nothing on: null, false, 0, or an empty text, list or object."""
    return value is None or value is False or value == 0 or value in ("", [], {})


def check(
    source: str,
    entries: Mapping[str, Any],
    known: Collection[str],
    neutral: Mapping[str, Collection[Any]] = {},
    where: str = "",
) -> None:
    """Refuses keys that may change a policy's actions, and lists the other unknown ones.

    Args:
        source: the file. where: the section in it, for messages.
        known: keys that are read, or that never change an action.
        neutral: {key: its values that leave the actions as they are here}.

    Raises a UserError for a key of `neutral` with another value, and for an unknown key whose name
    is that of an option that changes numbers, unless it is switched off.
    """
    prefix = f"{where}." if where else ""
    unknown = []
    for key, value in entries.items():
        name = str(key)
        if name in neutral:
            # `in` compares by ==, which lists and objects of a file may have too.
            if not any(value == allowed for allowed in (*neutral[name], None)):
                expected = " or ".join(repr(allowed) for allowed in neutral[name]) or "null"
                raise refuse(source, prefix + name, f"{expected}, which is what dpjax has", value)
        elif name in known:
            continue
        elif CHANGES_NUMBERS.search(name.lower()) and not is_neutral(value):
            raise refuse(
                source, prefix + name, "none of it: dpjax does not know what it changes", value
            )
        else:
            unknown.append(f"{prefix}{name}={str(value)[:40]}")
    warn_unread(source, unknown, "dpjax does not know these keys; their actions may differ")
