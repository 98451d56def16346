"""One place that reports what a source holds and dpjax does not read."""

from collections.abc import Iterable
import logging

LISTED = 12  # names in a line; the others are counted

log = logging.getLogger("dpjax")


def warn_unread(source: str, names: Iterable[str], reason: str) -> None:
    """Logs one warning that lists what is left out of a source; nothing if there is nothing.

    source: the file or folder. names: in the order in which they are listed, without duplicates.
    """
    names = list(dict.fromkeys(names))
    if names:
        log.warning("%s: left out: %s: %s", source, listed(names), reason)


def listed(names: list[str]) -> str:
    """The names, separated by commas; beyond LISTED they are counted: "a, b (and 30 more)"."""
    more = f" (and {len(names) - LISTED} more)" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
