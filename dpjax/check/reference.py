"""Writes docs/check.md, a table of all rules, from the docstrings of the rules.

python -m dpjax.check.reference > docs/check.md
"""

import inspect
import sys

from dpjax.check import rules

HEAD = """\
# What the check sees

`python -m dpjax.check --data data/mine` looks for what is listed here, and names each finding with
numbers and with what to type. What is an option below (`--trim-idle`) is one of
`python -m dpjax.convert`; what is `config.key=value` is given to the training. `dpjax.check`
changes nothing by itself. See [data.md](data.md) for the command.

Numbers are examined at every step. Of images, a sample of pairs and three frames of every episode
are decoded; the report says how many. Training applies the same rules to the numbers when it
starts.

Written by `python -m dpjax.check.reference > docs/check.md` from the rules in `dpjax/check/rules`.
"""


def markdown() -> str:
    """The page: a table for each file of rules, in their order."""
    lines = [HEAD]
    module = ""
    for rule in rules.RULES:
        # A rule of another file than its predecessor begins a table.
        if rule.__module__ != module:
            module = rule.__module__
            title = inspect.getdoc(sys.modules[module]).splitlines()[0]
            lines += [f"## {title}\n".replace(".\n", "\n"), "| rule | sees | why | remedy |"]
            lines += ["|---|---|---|---|"]
        lines.append(_row(rule))
    # An empty line before every title but the first.
    text = "\n".join(lines) + "\n"
    return text.replace("|\n## ", "|\n\n## ")


def _row(rule: rules.Rule) -> str:
    """A line of the table: the parts of the rule's docstring."""
    # A rule's docstring has the same three parts everywhere; "Why:" may be left out.
    what, _, rest = (inspect.getdoc(rule) or "").partition("\n\n")
    why, _, remedy = rest.partition("Remedy:")
    cells = [f"`{rule.__name__}`", what, why.replace("Why:", ""), remedy]
    # One line each, and no bar that would end a cell.
    return "| " + " | ".join(" ".join(x.replace("|", "/").split()) for x in cells) + " |"


if __name__ == "__main__":
    print(markdown(), end="")
