"""What the check finds about padded windows, waiting."""

import re

import numpy as np
import pytest
from support import check_cases as cases

from dpjax.check.rules import time


def test_windows_that_are_mostly_copies_are_named_unless_they_are_masked():
    context = cases.context(cases.episodes(length=6))
    assert context.padded_share > time.PADDED_SHARE
    finding = cases.only(time.padded_windows(context))
    assert "mask_padding=True" in finding.remedy
    config = cases.make_config(loss__mask_padding=True)
    assert not time.padded_windows(cases.context(cases.episodes(length=6), config=config))


def waiting(first, last, share=1.0):
    """Episodes in which nothing moves in steps first to last, in that share of them."""
    train = cases.episodes()
    for episode in train[: round(share * len(train))]:
        for x in episode.values():
            x[last:] -= x[last - 1] - x[first]  # the motion goes on from where it waited
            x[first:last] = x[first]
    return cases.context(train)


@pytest.mark.parametrize("first, last, word", [(0, 9, "begin"), (15, 24, "in their middle")])
def test_waiting_longer_than_a_chunk_is_named(first, last, word):
    finding = cases.only(time.idle_steps(waiting(first, last)))
    assert word in finding.reason and "24 of 24" in finding.reason
    assert re.search("longest [89]", finding.reason)  # one of them may go on slowly


def test_waiting_that_is_short_rare_or_at_the_end_is_not_a_warning():
    assert not time.idle_steps(waiting(0, 4))
    assert not time.idle_steps(waiting(0, 9, share=0.05))
    assert not time.idle_steps(waiting(32, 40))
    assert cases.only(time.idle_steps(waiting(20, 40))).severity == "note"


def test_slow_is_not_still():
    def crawl(episode):
        for x in episode.values():
            slow = x[0] + np.linspace(0, 0.2, 20)[:, None]  # a tenth of the usual step
            x[20:] -= x[19] - slow[19]
            x[:20] = slow

    assert not time.idle_steps(cases.changed(crawl))
