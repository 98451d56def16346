"""Checks data and config before training: describes each key, and reports problems and remedies.

    python -m dpjax.check --config pusht_demo [--config.key=value …]
    python -m dpjax.check --data data/mine

--config: a recipe (a file in configs/) or a config file; --config.key=value changes a key.
--data: an RLDS directory; the same as --config custom --config.data.dir=…
--out: the page to write; check.html by default.
--strict: count warnings as errors.
The exit code is 0 without errors, 1 with an error, 2 if the data cannot be read at all.
"""

import logging
from pathlib import Path
import sys

from absl import flags
from ml_collections import ConfigDict

from dpjax.check import collect, page, rules
from dpjax.config import flags as flags_lib
from dpjax.core.errors import UserError
from dpjax.evaluation import provenance


def main(argv: list[str]) -> int:
    """Prints the findings, writes the page and returns the exit code."""
    # Only warnings are logged. `force` replaces the handler of `flags_lib.run`, which logs more.
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    command = " ".join(["python -m dpjax.check", *argv[1:]])
    config, args = parse_args(list(argv))
    # A wrong --out is refused now: reading the data may take minutes.
    out = Path(args.out)
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: folder {out.parent} does not exist.")

    # Everything that the rules examine is read here; the rules themselves read no files.
    if config is None:
        context = collect.from_directory(args.data)
    else:
        context = collect.from_config(config)
    findings = rules.check_data_and_config(context)

    # Printed first, so that the findings are not lost if the page cannot be drawn or written.
    print(page.as_text(context, findings))
    # The page names the command and the machine that produced it.
    about = {"command": command, **provenance.machine(), "commit": provenance.commit()}
    try:
        page.write(out, context, findings, about)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}.") from error
    print(f"page: {out}")
    return rules.exit_code(findings, args.strict)


def parse_args(argv: list[str]) -> tuple[ConfigDict | None, flags.FlagValues]:
    """The config of the command line (None with --data), and the other options."""
    # Flags of their own, not absl's global ones: dpjax.train may define the same names there.
    args = flags.FlagValues()
    flags.DEFINE_string("data", None, "An RLDS directory.", flag_values=args)
    flags.DEFINE_string("out", "check.html", "The page to write.", flag_values=args)
    flags.DEFINE_boolean("strict", False, "Warnings count as errors.", flag_values=args)
    # Exactly one of --config and --data.
    config = flags_lib.parse(argv, __doc__, args)
    if (config is None) == (args.data is None):
        raise UserError("give --config (a recipe or a file) or --data (RLDS), and not both.")
    return config, args


if __name__ == "__main__":
    flags_lib.run(lambda: main(sys.argv))
