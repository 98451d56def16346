"""An unfinished evaluation is read back if it has the same settings, otherwise not."""

import numpy as np

from dpjax.evaluation import resume
from dpjax.evaluation.rollout import Episode


def test_an_unfinished_evaluation_of_other_settings_is_not_used(tmp_path, caplog):
    path = tmp_path / "partial.jsonl"
    resume.start(path, {"checkpoint": 1})
    progress = np.array([0.1, 0.4], np.float32)
    resume.add(path, Episode(7, 2, progress, {}, np.zeros((2, 2)), 0.4, False))
    (episode,) = resume.start(path, {"checkpoint": 1})
    assert (episode.seed, episode.score, episode.broken) == (7, 0.4, None)
    np.testing.assert_array_equal(episode.progress, progress)
    assert resume.start(path, {"checkpoint": 2}) == []
    assert "of other settings" in caplog.text
    path.write_text("no json\n")
    assert resume.start(path, {"checkpoint": 2}) == [] and "is damaged" in caplog.text
