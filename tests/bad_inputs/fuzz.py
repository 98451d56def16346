"""Checkpoints changed at random: read, or refused in one line, and nothing else.

PYTHONPATH=.:tests python tests/bad_inputs/fuzz.py 10000
"""

import collections
import logging
from pathlib import Path
import resource
import sys
import tempfile
import time

from bad_inputs import weights
import numpy as np
from support import checkpoints
from tqdm import tqdm

from dpjax.core.errors import UserError
from dpjax.interop.chi2023 import checkpoint

NEAR = 4000  # bytes after the start of the pickle, where most changes are


def fuzz(count: int, folder: Path, seed: int = 0) -> tuple[dict[str, int], float]:
    """({outcome: how many files had it}, seconds that the slowest file took).

    Each file is a checkpoint, written by our tests or by torch, in which one byte is changed, cut
    out or repeated, or replaced by a few random ones.
    """
    state, cfg, _, _ = checkpoints.lowdim(weights.GOOD)
    small = {name: state[name] for name in list(state)[:3]}
    ours = checkpoints.save(folder / "a.ckpt", small, cfg).read_bytes()
    theirs = (checkpoints.GOLDEN / "original_small.ckpt").read_bytes()
    rng = np.random.default_rng(seed)
    path = folder / "b.ckpt"
    outcomes = collections.Counter()
    slowest = 0.0
    for i in tqdm(range(count), desc="fuzz", disable=None):
        data = (ours, theirs)[i % 2]
        # Two of three changes are near the start of the pickle, which is where a reader decides.
        start = data.index(b"\x80\x02")
        at = int(rng.integers(start, start + NEAR) if i % 3 else rng.integers(len(data)))
        drawn = bytes(rng.integers(0, 256, 5, dtype=np.uint8))
        part = (drawn[:1], b"", data[at : at + 7] * 2, drawn)[rng.integers(4)]
        path.write_bytes(data[:at] + part + data[at + 1 :])
        began = time.perf_counter()
        try:
            checkpoint.read(path, None, {})
            outcomes["read"] += 1
        except UserError as error:
            outcomes["refused" if "\n" not in str(error) else "refused in several lines"] += 1
        except Exception as error:  # must not happen
            outcomes[f"{type(error).__name__}: {str(error)[:200]}"] += 1
        slowest = max(slowest, time.perf_counter() - began)
    return dict(outcomes), slowest


if __name__ == "__main__":
    logging.getLogger("dpjax").setLevel(logging.ERROR)  # a warning per file would hide the result
    with tempfile.TemporaryDirectory() as name:
        counts, seconds = fuzz(int(sys.argv[1]), Path(name))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{counts}, slowest {seconds:.2f} s, {memory:.0f} MiB at most")
