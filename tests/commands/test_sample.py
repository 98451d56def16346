"""python -m dpjax.sample: an action chunk, its time, and what is wrong with an observation."""

import json
import re

import pytest

from dpjax import sample
from dpjax.core.errors import UserError


def test_it_prints_an_action_chunk_and_its_time(policy, tmp_path, capsys):
    path = tmp_path / "obs.json"
    path.write_text(json.dumps({"state": [100, 100, 256, 256, 0.5]}))
    assert (
        sample.main(["--run", policy, "--steps", "2", "--observation", str(path), "--repeat", "2"])
        == 0
    )
    out = capsys.readouterr().out
    assert "actions (1, " in out and "median" in out
    assert re.search(r"2 calls, the first \d+\.\d ms; compilation \d+\.\d s before", out)


def test_without_an_observation_the_simulator_gives_one(policy, capsys):
    assert sample.main(["--run", policy, "--steps", "2", "--repeat", "1", "--batch", "2"]) == 0
    assert "actions (2, " in capsys.readouterr().out


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"stat": [1]}', "lacks"),
        ("[1, 2", "not a JSON object"),
        ('{"state": [1, 2, 3, 4, null]}', "not a JSON object|finite"),
        ('{"state": [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]}', "expected one step"),
    ],
)
def test_what_is_wrong_with_an_observation_is_one_line(policy, tmp_path, content, message):
    path = tmp_path / "obs.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        sample.main(["--run", policy, "--steps", "2", "--observation", str(path)])
    assert "\n" not in str(error.value)
