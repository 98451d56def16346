"""Which refusals the tests see: recorded in a run, compared with those of an earlier commit.

    DPJAX_RECORD_REFUSALS=/tmp/now.jsonl python -m pytest tests
    PYTHONPATH=.:tests python -m support.refusals /tmp/now.jsonl

The second command lists the refusals of commit cb7fdeb (`golden/cb7fdeb/refusals.json`) that have
no counterpart any more: each of them was reworded, or is lost. A text counts as the same if most
of its words are.
"""

import difflib
import json
import os
from pathlib import Path
import re
import sys

BEFORE = Path(__file__).parents[1] / "golden" / "cb7fdeb" / "refusals.json"
SAME = 0.75  # share of two texts' words that must agree


def record(error_class: type, path: str) -> None:
    """From now on every new error of this class appends its text to the file."""
    plain = error_class.__init__

    def recording(self, *args, **options):
        plain(self, *args, **options)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps([os.environ.get("PYTEST_CURRENT_TEST", ""), str(self)]) + "\n")

    error_class.__init__ = recording


def normalized(path: str | Path) -> list[str]:
    """The different texts of a recording, without the temporary folders of that run."""
    texts = [json.loads(line)[1] for line in Path(path).read_text().splitlines()]
    return sorted({re.sub(r"/tmp/[^\s:,;'\")]*", "<path>", text) for text in texts})


def lost(before: list[str], now: list[str]) -> list[str]:
    """The texts of `before` that resemble none of `now`."""
    missing = []
    for text in before:
        words = text.split()
        matcher = difflib.SequenceMatcher(autojunk=False)
        matcher.set_seq2(words)
        for other in now:
            matcher.set_seq1(other.split())
            if matcher.quick_ratio() >= SAME and matcher.ratio() >= SAME:
                break
        else:
            missing.append(text)
    return missing


if __name__ == "__main__":
    there = json.loads(BEFORE.read_text())
    here = normalized(sys.argv[1])
    gone = lost(there, here)
    print("\n".join(gone))
    print(f"{len(gone)} of {len(there)} refusals have no counterpart among {len(here)}")
