"""Newer versions are served from the next episode on; bad ones change nothing."""

import threading

import numpy as np
import pytest
from support import serving

from dpjax.core.errors import UserError
from dpjax.serving.client import RemotePolicy
from dpjax.serving.follow import Follower


def follower(service, versions):
    """Follows a dict {step: version, or an error to raise}."""

    def load(step):
        if isinstance(versions[step], Exception):
            raise versions[step]
        return versions[step]

    return Follower(service, lambda: max(versions, default=None), load, current=1)


NAN = serving.version(lambda keys, obs: np.full((len(keys), 8, 2), np.nan), 3)
SHAPE = serving.version(lambda keys, obs: obs["other"], 3)
BAD = {
    "damaged": (UserError("step 3: digest differs"), "3 is not served (step 3: digest differs)"),
    "gone": (OSError("no such file"), "OSError: no such file"),
    "not finite": (NAN, "not finite"),
    "other shapes": (SHAPE, "KeyError"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_version_is_said_and_the_old_one_stays(case, caplog):
    service = serving.service()
    old = service.version
    problem, message = BAD[case]
    versions = {1: old, 3: problem}
    follow = follower(service, versions)
    assert not follow.look() and not follow.look()
    assert service.version is old
    assert caplog.text.count(message) == 1 and "1 stays" in caplog.text
    # The next one is good.
    versions[4] = serving.version(checkpoint=4)
    assert follow.look() and service.version is versions[4]
    service.worker.stop()


def test_nothing_new_is_no_news():
    service = serving.service()
    assert not follower(service, {}).look()
    assert not follower(service, {1: service.version}).look()
    service.worker.stop()


def test_swapping_under_load_fails_no_request():
    """100 versions while four clients ask: every answer is of a whole version."""
    service = serving.service()

    def constant(step):
        sample = lambda keys, obs: np.full((len(keys), 8, 2), step, np.float32)
        return serving.version(sample, step)

    versions = {1: constant(1)}
    service.version = versions[1]
    follow = follower(service, versions)
    answers = []
    ended = threading.Event()

    def ask(url):
        policy = RemotePolicy(url)
        words = np.zeros((1, 2), np.uint32)
        while not ended.is_set():
            answers.append(policy(words, {"state": np.zeros((1, 2, 3), np.float32)}))
        policy.close()

    with serving.serving(service) as (_, url):
        threads = [threading.Thread(target=ask, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for step in range(2, 102):
            versions[step] = constant(step)
            assert follow.look()
        serving.wait_for(lambda: len(answers) and answers[-1][0, 0, 0] == 101)
        ended.set()
        for thread in threads:
            thread.join(5)
    assert all((answer == answer[0, 0, 0]).all() for answer in answers)
    assert answers[-1][0, 0, 0] == 101
    assert service.counts["refused"] == service.counts["errors"] == 0
