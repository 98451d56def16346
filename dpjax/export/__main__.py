"""Writes a run in a format that other programs read.

    python -m dpjax.export [stablehlo] --run R [--out F]    one file that jax runs without dpjax
    python -m dpjax.export lerobot --run R --out D          a folder that LeRobot loads

The first word is the format; the default is stablehlo.
"""

import functools
import sys

from dpjax.config import flags
from dpjax.core.errors import UserError, choices
from dpjax.export import lerobot, onnx, stablehlo

# {format: its command}; each has options of its own.
FORMATS = {
    "stablehlo": stablehlo.main,
    "lerobot": lerobot.main,
    "onnx": functools.partial(onnx.main, "onnx"),
    "openvino": functools.partial(onnx.main, "openvino"),
}


def main(argv: list[str] | None = None) -> int:
    """Exports in the format that the first argument names."""
    argv = sys.argv[1:] if argv is None else argv
    # Without a format, as in the time when there was only one.
    if not argv or argv[0].startswith("-"):
        return stablehlo.main(argv)
    # The format takes all options that follow it.
    name, *options = argv
    if name not in FORMATS:
        raise UserError(f"format {name!r} is unknown; {choices(name, FORMATS)}.")
    return FORMATS[name](options)


if __name__ == "__main__":
    flags.run(main)
