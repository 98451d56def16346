"""Writes a run in a format that other programs read.

    python -m dpjax.export [stablehlo] --run R [--out F]    one file for jax, without dpjax's code
    python -m dpjax.export lerobot --run R --out D          a folder of LeRobot's

The first word is the format; without one it is stablehlo.
"""

import sys

from dpjax.config import flags
from dpjax.core.errors import UserError, choices
from dpjax.export import lerobot, stablehlo

FORMATS = {"stablehlo": stablehlo.main, "lerobot": lerobot.main}


def main(argv: list[str] | None = None) -> int:
    """Exports in the format that the first argument names."""
    argv = sys.argv[1:] if argv is None else argv
    # Options only: the command as it was before there were several formats.
    if not argv or argv[0].startswith("-"):
        return stablehlo.main(argv)
    name, *options = argv
    if name not in FORMATS:
        raise UserError(f"format {name!r} is unknown; {choices(name, FORMATS)}.")
    return FORMATS[name](options)


if __name__ == "__main__":
    flags.run(main)
