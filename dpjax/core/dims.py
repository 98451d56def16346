"""Names the dims of a column in a message of one line."""

from collections.abc import Sequence

SHOWN = 6  # number of dims or episodes that a message lists; it counts the others


def describe_dims(key: str, dims: Sequence[int]) -> str:
    """Lists dims of a key, consecutive ones as a range: "state[0-3, 7]"."""
    dims = sorted(int(d) for d in dims)
    # A new range starts at every dim that does not follow its predecessor.
    cuts = [i for i in range(1, len(dims)) if dims[i] != dims[i - 1] + 1]
    ranges = [dims[a:b] for a, b in zip([0, *cuts], [*cuts, len(dims)])]
    texts = [f"{part[0]}" if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in ranges]
    return f"{key}[{enumerate_some(texts)}]"


def enumerate_some(items: Sequence) -> str:
    """The first SHOWN items, separated by commas, and the number of the others."""
    # A message stays one line, however many dims or episodes a data set has.
    more = [f"… ({len(items) - SHOWN} more)"] if len(items) > SHOWN else []
    return ", ".join([*map(str, items[:SHOWN]), *more])
