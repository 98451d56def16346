"""The bad episodes of a conversion: remembered when it is interrupted, and reported together."""

from collections.abc import Mapping
import json
import logging
from pathlib import Path

from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.data.rlds.conversion import Conversion

LISTED = 20  # bad episodes in a message; the others are counted

log = logging.getLogger("dpjax")


def report(conversion: Conversion, bad: Mapping[int, str], folder: Path) -> None:
    """Warns of bad episodes that were left out, or raises a UserError that lists them."""
    reasons = [bad[number].rstrip(".") for number in sorted(bad)]
    more = f" (and {len(reasons) - LISTED} more)" if len(reasons) > LISTED else ""
    text = f"{len(bad)} of {conversion.num_episodes} episodes are bad: "
    text += "; ".join(reasons[:LISTED]) + more
    if not conversion.skip_bad:
        raise UserError(
            f"{text}. on_bad=skip leaves them out; what is converted is kept in {folder}.",
            argument="on_bad",
        )
    log.warning("left out: %s", text)


def load(folder: Path) -> dict[int, str]:
    """{number: reason} of the episodes that an interrupted conversion left out."""
    file = folder / "skipped.json"
    if not file.exists():
        return {}
    try:
        return {int(number): str(reason) for number, reason in json.loads(file.read_text()).items()}
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file}: can't be read ({error}). Remove {folder}.") from error


def save(folder: Path, bad: Mapping[int, str]) -> None:
    """Writes skipped.json."""
    files.write_atomically(folder / "skipped.json", json.dumps(bad))
