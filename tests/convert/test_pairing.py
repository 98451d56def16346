"""Which frame belongs to which row: by counts, by times, or refused with the numbers."""

import numpy as np
import pytest

from dpjax.convert import pairing
from dpjax.convert.pairing import Part, Span
from dpjax.core.errors import UserError

FPS = 10.0
FILM = np.arange(60) / FPS  # times of 60 frames


def refusal(call, *args):
    with pytest.raises(UserError) as caught:
        call(*args)
    return str(caught.value)


@pytest.mark.parametrize(
    "times",
    [
        np.arange(60) / 10.4,
        np.arange(60) / 9.1,
        0.4 + FILM,
        1.7e9 + FILM,
        np.where(np.arange(60) == 7, 0.6, FILM),
        np.sort(FILM + np.random.default_rng(0).uniform(0, 0.08, 60)),
    ],
    ids=["fast clock", "slow clock", "begins late", "since 1970", "equal times", "jitter"],
)
def test_as_many_frames_as_rows_are_paired_by_index_and_the_clocks_are_said(times):
    indices, notes = pairing.pair(times, FILM, FPS)
    np.testing.assert_array_equal(indices, np.arange(60))
    assert list(notes) == ["clocks disagree"]
    assert f"{np.abs(times - FILM).max():.4f} s" in notes["clocks disagree"]


def test_clocks_that_agree_up_to_rounding_are_not_mentioned():
    indices, notes = pairing.pair(FILM.astype(np.float32), FILM, FPS)
    np.testing.assert_array_equal(indices, np.arange(60))
    assert notes == {}
    # Without times the count is all that there is.
    assert pairing.pair(None, FILM, FPS).notes == {}


@pytest.mark.parametrize("stride", [1, 3])
def test_a_longer_film_is_paired_by_times_and_its_other_frames_are_said(stride):
    film = np.arange(200) / (FPS * stride)
    times = 0.2 + np.arange(40) / FPS
    indices, notes = pairing.pair(times, film, FPS)
    np.testing.assert_array_equal(indices, stride * (2 + np.arange(40)))
    assert "200 frames for 40 rows" in notes["more frames than rows"]


def test_a_longer_film_of_another_clock_is_refused_with_the_numbers():
    # After 8 steps the nearest frame is more than a quarter of a step away.
    text = refusal(pairing.pair, np.arange(59) / 10.4, FILM, FPS)
    assert "60 frames for 59 rows, and the clocks differ" in text
    assert "rows from 0 s at 10.4 Hz, frames from 0 s at 10 Hz" in text
    assert "at step 7" in text
    assert "clocks differ" in refusal(pairing.pair, 1.7e9 + np.arange(59) / FPS, FILM, FPS)


def test_times_that_fall_and_short_films_are_refused():
    falling = np.where(np.arange(60) == 7, 0.1, FILM)
    text = refusal(pairing.pair, falling, FILM, FPS)
    assert text == "expected times that increase, got 0.6 s and then 0.1 s at step 6."
    equal = np.where(np.arange(59) == 7, 0.6, FILM[:59])
    assert "increase" in refusal(pairing.pair, equal, FILM, FPS)
    assert "60 frames for 61 rows" in refusal(pairing.pair, np.arange(61) / FPS, FILM, FPS)
    assert "increase" in refusal(pairing.pair, np.full(60, np.nan), FILM, FPS)


def test_the_nearest_frame():
    frames = np.array([0.0, 1.0, 4.0])
    nearest = pairing.nearest(np.array([-9.0, 0.4, 0.6, 2.4, 2.6, 9.0]), frames)
    np.testing.assert_array_equal(nearest, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(pairing.nearest(np.array([5.0]), np.array([1.0])), [0])


LENGTHS = (28, 40, 31, 30)
STARTS = np.cumsum([0, *LENGTHS[:-1]])
SHARED = np.arange(sum(LENGTHS)) / FPS


def parts(starts=None, ends=True):
    """The episodes of the shared film; starts: in steps."""
    starts = STARTS if starts is None else starts
    return [
        Part(number, length, start / FPS, (start + length) / FPS if ends else None)
        for number, (length, start) in enumerate(zip(LENGTHS, starts))
    ]


def as_spans(firsts):
    return {e: Span(int(f), int(f) + n) for e, (f, n) in enumerate(zip(firsts, LENGTHS))}


@pytest.mark.parametrize("ends", [True, False])
def test_episodes_that_fill_their_film(ends):
    assert pairing.find_spans(parts(ends=ends), SHARED, FPS) == (as_spans(STARTS), {}, {})


@pytest.mark.parametrize("error", [(0, 1, 0, 0), (0, -1, 0, 0), (0, -5, 0, 0), (0, 0.4, 0.8, 1.2)])
def test_wrong_starts_in_a_film_that_is_filled_are_mended_and_said(error):
    spans = pairing.find_spans(parts(STARTS + np.array(error)), SHARED, FPS)
    assert spans.spans == as_spans(STARTS) and not spans.problems
    text = spans.notes["stored times disagree"]
    assert f"episode 1: from_timestamp is {(28 + error[1]) / FPS:.4f} s" in text
    assert "paired by index" in text


def test_a_stored_end_that_contradicts_the_start_is_said():
    wrong = parts()
    wrong[1] = wrong[1]._replace(start=wrong[1].start + 0.2)  # its end stays
    notes = pairing.find_spans(wrong, SHARED, FPS).notes
    assert "from_timestamp 3.0000 s to to_timestamp 6.8000 s are 38.00 steps for 40 rows" in str(
        notes
    )


def test_two_episodes_at_one_place_and_a_short_film_are_refused():
    text = refusal(pairing.find_spans, parts((0, 28, 28, 99)), SHARED, FPS)
    assert "episodes 1 and 2 both begin at from_timestamp 2.8000 s" in text
    text = refusal(pairing.find_spans, parts(), SHARED[:-1], FPS)
    assert "128 frames for the 129 rows of its 4 episodes" in text


def test_a_film_with_gaps_is_read_by_its_stored_times():
    """Episode 1 was deleted, its frames were not."""
    kept = [part for part in parts() if part.number != 1]
    spans = pairing.find_spans(kept, SHARED, FPS)
    assert spans.spans == {e: span for e, span in as_spans(STARTS).items() if e != 1}
    assert not spans.problems
    assert "129 frames for the 89 rows of its 3 episodes" in spans.notes["more frames than rows"]
    # The others' frames are wrong, or nobody knows: refused, and only theirs.
    early = [kept[0], kept[1]._replace(start=2.3, end=5.4), kept[2]]
    problems = pairing.find_spans(early, SHARED, FPS).problems
    assert set(problems) == {0, 2} and "overlaps episode 0 by 5 frames" in problems[2]
    between = [kept[0], kept[1]._replace(start=6.84, end=9.94), kept[2]]
    problems = pairing.find_spans(between, SHARED, FPS).problems
    assert "from_timestamp 6.8400 s is 0.0400 s from the nearest frame" in problems[2]
    short = [kept[0], kept[1]._replace(start=7.0), kept[2]]
    problems = pairing.find_spans(short, SHARED, FPS).problems
    assert "hold 29 frames, and it has 31 rows" in problems[2]
