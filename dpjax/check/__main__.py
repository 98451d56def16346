"""Looks at data and config before training: what each key is, what will go wrong, what to do.

    python -m dpjax.check --config configs/pusht_demo.py [--config.key=value …]
    python -m dpjax.check --data data/mine

--config: a file of configs/, as for dpjax.train, and what to change in it.
--data: an RLDS directory alone; the same as --config configs/own.py --config.data.dir=…
--out: the page that is written; check.html where none is given.
--strict: warnings count as errors.
The exit code is 0 without errors, 1 with one, 2 where the data cannot be read at all.
"""

import logging
from pathlib import Path
import sys

from absl import flags
from ml_collections import config_flags

from dpjax.check import collect, page, rules
from dpjax.check.context import Case
from dpjax.config import defaults
from dpjax.config import flags as flags_lib
from dpjax.core.errors import UserError
from dpjax.evaluation import provenance


def main(argv: list[str]) -> int:
    """Prints the findings, writes the page, returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    command = " ".join(["python -m dpjax.check", *argv[1:]])
    given = arguments(list(argv))
    out = Path(given.out)
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}.")
    case = look(given)
    findings = rules.examine(case)
    print(page.terminal(case, findings))
    about = {"command": command, **provenance.machine(), "commit": provenance.commit()}
    try:
        page.write(out, case, findings, about)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}.") from error
    print(f"page: {out}")
    return rules.exit_code(findings, given.strict)


def arguments(argv: list[str]) -> flags.FlagValues:
    """The command line, parsed into flags of its own: train's have the same names."""
    values = flags.FlagValues()
    define = dict(flag_values=values)
    config_flags.DEFINE_config_file("config", None, "A file of configs/.", sys_argv=argv, **define)
    flags.DEFINE_string("data", None, "An RLDS directory.", **define)
    flags.DEFINE_string("out", "check.html", "The page.", **define)
    flags.DEFINE_boolean("strict", False, "Warnings count as errors.", **define)
    flags_lib.parse(argv, __doc__, defaults.get_config().to_dict(), values)
    if (values.config is None) == (values.data is None):
        raise UserError("give --config (a file of configs/) or --data (RLDS), and not both.")
    return values


def look(given: flags.FlagValues) -> Case:
    """The case that the command line describes."""
    if given.config is None:
        return collect.of_directory(given.data)
    return collect.of_config(given.config)


if __name__ == "__main__":
    flags_lib.run(lambda: main(sys.argv))
