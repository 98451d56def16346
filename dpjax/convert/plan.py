"""What a conversion does to the episodes of a source, from the command's options."""

import argparse
from collections.abc import Iterator, Sequence
import math

from tqdm import tqdm

from dpjax.convert import edits
from dpjax.convert import source as sources
from dpjax.convert.edits import Edits
from dpjax.convert.selection import Selection
from dpjax.convert.source import ACTION, Columns, Source
from dpjax.core.errors import UserError
from dpjax.core.extras import MissingExtra


def names_to_read(selected: Selection) -> dict[str, str]:
    """{key: name} of what is read: what is stored, and what is joined."""
    parts = {part: part for keys in selected.joins.values() for part in keys}
    return {**parts, **selected.names}


def edits_of(source: Source, selected: Selection, every: int, actions: str) -> Edits:
    """What is done to every episode.

    every: n steps become one. actions: the option of that name.
    """
    names = names_to_read(selected)
    for new, keys in selected.joins.items():
        for key in keys:
            if len(source.features[key].shape) == 3:
                raise UserError(f"joins={new}: {key} has images, not numbers.", argument="joins")
    # The action is a key of the source, or joined of several.
    action = [key for key, name in selected.names.items() if name == ACTION]
    dims = sum(_dims(source, key) for key in action or selected.joins[ACTION])
    return Edits(
        joins={new: [names[key] for key in keys] for new, keys in selected.joins.items()},
        following=selected.following,
        keep=frozenset((*selected.names.values(), *selected.joins)),
        every=every,
        deltas=edits.parse_deltas(actions, dims) if actions else None,
    )


def with_rests(
    chosen: Edits, source: Source, episodes: Sequence[int], selected: Selection
) -> Edits:
    """The edits, with how far each dim moves at rest. It reads all numbers of the episodes."""
    # Images do not tell whether anything moves, and take long to read.
    names = names_to_read(selected)
    numbers = {key: name for key, name in names.items() if len(source.features[key].shape) != 3}

    def columns() -> Iterator[Columns]:
        for e in tqdm(episodes, desc="ranges", unit=" episodes"):
            try:
                yield edits.choose(sources.as_columns(source, e, numbers), chosen)
            except MissingExtra:
                raise
            except UserError:
                continue  # reported when it is converted

    return chosen._replace(rest=edits.rests(columns()))


def describe_every(chosen: Edits, actions: str) -> str:
    """One line about the actions of a block of steps."""
    last = f"the last of the {chosen.every}"
    total = f"the sum of the {chosen.every}"
    dims = actions.partition(":")[2]
    text = total if actions == "deltas" else last
    if dims:
        text = f"{total} in dims {dims}, {last} in the others"
    return (
        f"every {chosen.every} steps become one: the observations of the first, and of the "
        f"actions {text}"
    )


def about(
    args: argparse.Namespace, source: Source, selected: Selection, every: int
) -> dict[str, str | int]:
    """What was done to the source, for the data set's metadata."""
    # Only what was asked for: a set that was converted as it is has none of these entries.
    done: dict[str, str | int] = {}
    for new, keys in selected.joins.items():
        done[f"{new} is"] = _joined(source, keys)
    if selected.following:
        done["following"] = 1
    if every > 1:
        done |= {"every": every, "actions": args.actions}
    for name in ("drop_first", "drop_last", "shift_actions", "trim_idle"):
        if value := int(getattr(args, name)):
            done[name] = value
    if args.episodes:
        done["episodes"] = args.episodes
    return done


def _joined(source: Source, keys: Sequence[str]) -> str:
    """The dims that each part has in a joined column: "pose 0-5, gripper 6"."""
    texts = []
    first = 0
    for key in keys:
        last = first + _dims(source, key) - 1
        texts.append(f"{key} {first}" if first == last else f"{key} {first}-{last}")
        first = last + 1
    return ", ".join(texts)


def _dims(source: Source, key: str) -> int:
    """How many numbers a key has per step."""
    return math.prod(source.features[key].shape)
