"""Pairs the frames of a film with the rows of a table: which frame shows which step.

Films and tables say twice how they belong together: by their counts, and by their times. Counts
are the stronger evidence, because a recorder writes one frame with each row, while clocks drift,
jump, or begin at another time. So equal counts are paired by index, and it is said if the clocks
disagree. Where the counts differ, the times decide if they fit, and everything else is refused: a
frame of another step is worse than no frame.

Pure functions of numbers; `video` opens the films.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dpjax.core.errors import UserError

# A frame is of a step if it lies within this share of a step from the step's time.
LIMIT = 0.25
# Clocks disagree if they differ by more than this share of a step. Less is rounding: tables keep
# times in float32, and films count them in ticks.
ROUNDING = 0.05


class Part(NamedTuple):
    """One episode of a film that several share.

    number: of the episode. length: its rows.
    start, end: in the film, s, as stored. end None: not stored.
    """

    number: int
    length: int
    start: float
    end: float | None


class Span(NamedTuple):
    """The frames of one episode in its film: first to stop - 1."""

    first: int
    stop: int


class Spans(NamedTuple):
    """Where the episodes of a film lie in it.

    spans: {number: its frames}. problems: {number: why its frames can't be told}.
    notes: {kind: line}, what is said about the film.
    """

    spans: Mapping[int, Span]
    problems: Mapping[int, str]
    notes: Mapping[str, str]


class Pairing(NamedTuple):
    """The frame of each row.

    indices: [T] increasing indices of frames. notes: {kind: line}, what is said about it.
    """

    indices: np.ndarray
    notes: Mapping[str, str]


def pair(times: np.ndarray | None, frame_times: np.ndarray, fps: float) -> Pairing:
    """The frame of each row of an episode.

    times: [T] of the rows, in s; None if the table has none. frame_times: [F] ascending, in s
    from the same zero, of the frames that can be the episode's. fps: rows per second.

    Raises a UserError (without the file's name) if there are too few frames, if the times fall,
    or if the counts differ and the times don't fit either.
    """
    frames = len(frame_times)
    rows = frames if times is None else len(times)
    if times is not None:
        _check_order(times, strictly=frames > rows)
    if frames < rows:
        raise UserError(
            f"{frames} frames for {rows} rows: the film is shorter than the data, or cut."
        )
    if times is None or frames == rows:
        return Pairing(np.arange(rows), {} if times is None else _clocks(times, frame_times, fps))
    # More frames than rows: a film that began earlier, ended later, or runs at a multiple of the
    # rows' rate. Its times are right if every row has a frame of its own, close to its time.
    indices = nearest(times, frame_times)
    distances = np.abs(times - frame_times[indices])
    if distances.max() > LIMIT / fps or (np.diff(indices) < 1).any():
        t = int(np.argmax(distances > LIMIT / fps))
        raise UserError(
            f"{frames} frames for {rows} rows, and the clocks differ: {_ranges(times, frame_times)}"
            f"; at step {t} the nearest frame is {distances[t]:.4f} s away, more than {LIMIT:g} of "
            f"a step of {1 / fps:.4f} s. Write one frame per row, or times that are the film's."
        )
    text = (
        f"{frames} frames for {rows} rows: frames {indices[0]} to {indices[-1]} are taken by their "
        "times, the others are left out"
    )
    return Pairing(indices, {"more frames than rows": text})


def _check_order(times: np.ndarray, *, strictly: bool) -> None:
    """Raises a UserError if times [T] fall; with `strictly`, also if two are equal."""
    steps = np.diff(times)
    # Comparisons with NaN are False.
    good = (steps > 0 if strictly else steps >= 0) & np.isfinite(steps)
    if not np.isfinite(times).all() or not good.all():
        t = int(np.argmax(~good)) if len(good) else 0
        raise UserError(
            f"expected times that increase, got {times[t]} s and then "
            f"{times[min(t + 1, len(times) - 1)]} s at step {t}."
        )


def _clocks(times: np.ndarray, frame_times: np.ndarray, fps: float) -> dict[str, str]:
    """A note if as many rows as frames differ in their times."""
    distance = np.abs(times - frame_times)
    if not len(times) or distance.max() <= ROUNDING / fps:
        return {}
    text = (
        f"the clocks of rows and film disagree by up to {distance.max():.4f} s "
        f"({_ranges(times, frame_times)}); as many frames as rows, {len(times)}: paired by index"
    )
    return {"clocks disagree": text}


def _ranges(times: np.ndarray, frame_times: np.ndarray) -> str:
    """Where two clocks begin and how fast they run, for a message."""
    rows = f"rows from {times[0]:.6g} s at {_rate(times):.4g} Hz"
    return f"{rows}, frames from {frame_times[0]:.6g} s at {_rate(frame_times):.4g} Hz"


def _rate(times: np.ndarray) -> float:
    """Steps per second of ascending times [T]; 0 if they don't tell."""
    duration = float(times[-1] - times[0])
    return (len(times) - 1) / duration if duration > 0 else 0.0


def nearest(times: np.ndarray, frame_times: np.ndarray) -> np.ndarray:
    """[T] the index of the frame [F] that is nearest to each time [T]; F is at least 1."""
    # The two frames around each time; beyond the film's ends, its last two or first two.
    after = np.searchsorted(frame_times, times).clip(1, max(len(frame_times) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(frame_times) - 1)
    is_after = np.abs(frame_times[after] - times) < np.abs(frame_times[before] - times)
    return np.where(is_after, after, before)


def find_spans(parts: Sequence[Part], frame_times: np.ndarray, fps: float) -> Spans:
    """Where all episodes of a film lie in it.

    parts: every episode that is stored in the film. frame_times: [F] ascending, in s.

    Raises a UserError (without the file's name) if the film has fewer frames than its episodes
    have rows, or if its order can't be told.
    """
    # Python's sort is stable, so episodes that claim the same start keep the order of numbers.
    parts = sorted(parts, key=lambda part: (part.start, part.number))
    rows = sum(part.length for part in parts)
    if len(frame_times) < rows:
        raise UserError(
            f"{len(frame_times)} frames for the {rows} rows of its {len(parts)} episodes: the film "
            "is shorter than the data, or cut."
        )
    if len(frame_times) == rows:
        return _tiled(parts, frame_times, fps)
    return _stored(parts, frame_times, fps)


def _tiled(parts: Sequence[Part], frame_times: np.ndarray, fps: float) -> Spans:
    """The spans of episodes that fill the film: one after the other, without a gap."""
    for part, other in zip(parts, parts[1:]):
        if not other.start - part.start > 0.5 / fps:
            raise UserError(
                f"episodes {part.number} and {other.number} both begin at from_timestamp "
                f"{part.start:.4f} s and {other.start:.4f} s: their frames can't be told apart."
            )
    # Each episode begins where the one before it ends.
    firsts = np.cumsum([0, *(part.length for part in parts)])
    spans = {
        part.number: Span(int(first), int(first) + part.length)
        for part, first in zip(parts, firsts)
    }
    # What meta/ says is compared with the counts, which are right either way.
    wrong = [
        text
        for part in parts
        if part.length
        for text in _disagreements(part, frame_times[spans[part.number].first], fps)
    ]
    if not wrong:
        return Spans(spans, {}, {})
    text = (
        f"{'; '.join(wrong[:2])}: {len(wrong)} stored times of {len(parts)} episodes (they overlap "
        f"or leave gaps); as many frames as rows, {firsts[-1]}: paired by index"
    )
    return Spans(spans, {}, {"stored times disagree": text})


def _disagreements(part: Part, start: float, fps: float) -> Iterator[str]:
    """How an episode's stored times differ from its first frame's time, in s, and its length."""
    if abs(part.start - start) > ROUNDING / fps:
        yield (
            f"episode {part.number}: from_timestamp is {part.start:.4f} s where its frames begin "
            f"at {start:.4f} s"
        )
    if part.end is not None and abs(part.end - part.start - part.length / fps) > LIMIT / fps:
        yield (
            f"episode {part.number}: from_timestamp {part.start:.4f} s to to_timestamp "
            f"{part.end:.4f} s are {(part.end - part.start) * fps:.2f} steps for {part.length} rows"
        )


def _stored(parts: Sequence[Part], frame_times: np.ndarray, fps: float) -> Spans:
    """The spans of episodes that leave frames over, by their stored times."""
    spans, problems = {}, {}
    # A frame belongs to the span in which it begins; half of its duration allows for rounding.
    half = 0.5 * float(np.median(np.diff(frame_times))) if len(frame_times) > 1 else 0.5 / fps
    for part in parts:
        end = part.start + part.length / fps if part.end is None else part.end
        first = int(nearest(np.array([part.start]), frame_times)[0])
        stop = int(np.searchsorted(frame_times, end - half))
        spans[part.number] = Span(first, stop)
        distance = abs(frame_times[first] - part.start)
        if not distance <= LIMIT / fps:
            problems[part.number] = (
                f"from_timestamp {part.start:.4f} s is {distance:.4f} s from the nearest frame, "
                f"more than {LIMIT:g} of a step of {1 / fps:.4f} s"
            )
        elif stop - first < part.length:
            problems[part.number] = (
                f"from_timestamp {part.start:.4f} s to to_timestamp {end:.4f} s hold "
                f"{stop - first} frames, and it has {part.length} rows"
            )
    # Neighbours that share frames: one of their stored times is wrong, and nothing says which.
    for part, other in zip(parts, parts[1:]):
        shared = spans[part.number].stop - spans[other.number].first
        if shared > 0:
            for one, two in ((part, other), (other, part)):
                text = f"it overlaps episode {two.number} by {shared} frames (from_timestamp)"
                problems.setdefault(one.number, text)
    rows = sum(part.length for part in parts)
    text = (
        f"{len(frame_times)} frames for the {rows} rows of its {len(parts)} episodes: the others "
        "are left out, and frames are found by from_timestamp"
    )
    return Spans(spans, problems, {"more frames than rows": text})
