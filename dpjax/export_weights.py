"""The former name of `python -m dpjax.export lerobot`; it works in this release only."""

import logging

from dpjax.config import flags
from dpjax.export import lerobot

log = logging.getLogger("dpjax")


def main(argv: list[str] | None = None) -> int:
    """Exports a run in LeRobot's layout, after a warning that names the new command."""
    # The arguments are the same: only the name of the command has changed.
    log.warning(
        "dpjax.export_weights is now dpjax.export lerobot: the old name works in this release only"
    )
    return lerobot.main(argv)


if __name__ == "__main__":
    flags.run(main)
