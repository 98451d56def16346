"""python -m dpjax.check from end to end, and the warnings that training logs."""

import re
import sys

import numpy as np
import pytest
from support import check_cases as cases
from support import rlds_sets, tiny, tiny_config

from dpjax import train
from dpjax.check import __main__ as check
from dpjax.check import collect, rules
from dpjax.config import dataset
from dpjax.core.errors import UserError
from dpjax.data import rlds

ROOT = tiny.CONFIG.parents[1]


def run(*args):
    """The exit code of the command."""
    return check.main(["dpjax.check", *map(str, args)])


def write(directory, episodes=None):
    """Writes episodes, by default those without findings, as RLDS; returns the folder."""
    episodes = cases.episodes() if episodes is None else episodes
    rlds.write(directory, episodes, observations=("state",), description="walks")
    return directory


def arguments(directory, *changes):
    """The arguments that check a data set of task custom, with changes of the config."""
    config = tiny.CONFIG.with_name("tiny_custom.py")
    return (
        f"--config={config}",
        f"--config.data.dir={directory}",
        "--config.train.steps=600",
        *(f"--config.{change}" for change in changes),
    )


def put_nan(directory, episodes, position):
    """Overwrites one number of the actions [T * 2] of some episodes in an RLDS set by NaN."""

    def change(examples):
        for episode in episodes:
            feature = examples[episode].features.feature["steps/action"]
            feature.float_list.value[position] = np.nan

    rlds_sets.rewrite(directory, change)


def test_good_data_pass_strictly_and_make_a_page(tmp_path, capsys):
    out = tmp_path / "page.html"
    args = arguments(write(tmp_path / "set"), "data.val_fraction=0.1")
    assert run(*args, "--strict", f"--out={out}") == 0
    text = capsys.readouterr().out
    assert "0 errors, 0 warnings, 1 note" in text and "page: " in text
    assert re.search(r"^state +\[3\] +float32", text, re.MULTILINE)
    page = out.read_text()
    sources = re.findall(r'src="([^"]{0,22})', page)
    assert len(sources) == 2 and all(x.startswith("data:image/png;base64") for x in sources)
    assert "state[2]" in page and "width=device-width" in page and "http" not in page


def test_a_warning_changes_the_exit_code_only_if_strict(tmp_path, capsys):
    episodes = cases.episodes()
    episodes[3] = episodes[2]
    args = (*arguments(write(tmp_path / "set", episodes)), f"--out={tmp_path / 'page.html'}")
    assert run(*args) == 0
    text = capsys.readouterr().out
    assert "warning: duplicate_episodes: 2 of 24 episodes share most" in text
    assert run(*args, "--strict") == 1


def test_nan_is_a_finding_and_the_other_episodes_are_checked(tmp_path, capsys):
    directory = write(tmp_path / "set")
    put_nan(directory, [5], position=14)
    out = f"--out={tmp_path / 'page.html'}"
    assert run(*arguments(directory), out) == 1
    text = " ".join(capsys.readouterr().out.split())  # without line breaks
    assert "error: bad_episodes: 1 of 24 episodes" in text
    assert "episode 5, step 7, action[0]" in text
    assert "note: action_type" in text and "18 episodes to train on" in text
    assert "bad_episodes" in (tmp_path / "page.html").read_text()
    assert run(*arguments(directory, "data.on_bad=skip"), out) == 0


def test_if_no_episode_is_good_the_first_fault_is_reported(tmp_path):
    directory = write(tmp_path / "set", cases.episodes(2))
    put_nan(directory, [0, 1], position=3)
    with pytest.raises(UserError, match=r"episode 0, step 1, action\[1\]: expected finite"):
        run(*arguments(directory))


def test_episodes_are_numbered_as_in_the_data_set(tmp_path, capsys):
    episodes = cases.episodes()
    episodes[20]["action"][7, 1] = 1e6
    directory = write(tmp_path / "set", episodes)
    put_nan(directory, [5], position=14)
    out = f"--out={tmp_path / 'page.html'}"
    assert run(*arguments(directory, "data.val_fraction=0.0"), out) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "action[1] is 1e+06 at episode 20, step 7" in text


def test_a_config_that_training_refuses_is_a_finding(tmp_path, capsys):
    directory = write(tmp_path / "set")
    changes = ("normalize.action=gaussian", "horizon.predict=7")
    assert run(*arguments(directory, *changes), f"--out={tmp_path / 'page.html'}") == 1
    text = capsys.readouterr().out
    assert "error: refused_config: config.horizon.predict=7 cannot be halved" in text
    assert "warning: clipped_actions" in text


def test_a_directory_is_enough_with_cameras_too(tmp_path, capsys):
    out = tmp_path / "page.html"
    images = tiny.write_images(tmp_path / "images")
    assert run("--data", images, "--out", out) == 0
    text = capsys.readouterr().out
    assert re.search(r"^image +\[96, 96, 3\] +uint8 +0 +255", text, re.MULTILINE)
    assert "frames looked at, each with the next one: 48 of image" in text
    page = out.read_text()
    assert page.count("data:image/png") == 3 and "as the network sees them" in page


def test_two_data_sets_are_told_apart(tmp_path, capsys):
    episodes = cases.episodes()
    episodes[4]["action"][7, 1] = 1e6
    first = write(tmp_path / "a", cases.episodes(seed=1))
    second = write(tmp_path / "b", episodes)
    args = arguments(f"{first},{second}", "data.val_fraction=0.0")
    assert run(*args, f"--out={tmp_path / 'page.html'}") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "48 episodes to train on" in text
    assert f"action[1] is 1e+06 at {second}: episode 4, step 7" in text


def test_a_camera_of_another_size_is_an_error_and_its_frames_are_shown(tmp_path, capsys):
    images = tiny.write_images(tmp_path / "images")
    config = tiny.CONFIG.with_name("tiny_image.py")
    args = [f"--config={config}", f"--config.data.dir={images}", f"--out={tmp_path / 'p.html'}"]
    assert run(*args) == 0
    assert run(*args, "--config.cameras.image.size=(64, 64)") == 1
    assert "config.cameras.image.size=(96, 96)" in capsys.readouterr().out
    assert (tmp_path / "p.html").read_text().count("data:image/png") == 3


@pytest.mark.parametrize(
    "args, words",
    [
        ([], "give --config"),
        (["--data", "nowhere"], "nowhere: no such directory"),
        (["--data", "nowhere", "--out", "no/such/folder.html"], "folder no/such does not exist"),
        ([f"--config={tiny.CONFIG}"], "config.data.dir is empty"),
        ([f"--config={tiny.CONFIG}", "--config.train.stps=1"], "did you mean 'steps'"),
        ([f"--config={tiny.CONFIG}", "--data", "x"], "not both"),
        (["--dta", "x"], "dta"),
    ],
)
def test_what_cannot_be_checked_is_one_line(args, words):
    with pytest.raises(UserError) as caught:
        run(*args)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_an_action_that_cannot_be_read_is_one_line(tmp_path):
    integers = [
        {key: x.astype(np.int64) if key == "action" else x for key, x in episode.items()}
        for episode in cases.episodes()
    ]
    with pytest.raises(UserError):  # the writer refuses integers already
        write(tmp_path / "set", integers)
    directory = write(tmp_path / "good")
    columns = "data.columns={'state': 'observation/state', 'action': 'act'}"
    with pytest.raises(UserError, match="config.data.columns.action: 'act' is not in the data"):
        run(*arguments(directory, columns), f"--out={tmp_path / 'page.html'}")


def test_without_matplotlib_the_findings_are_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"pip install 'dpjax\[report\]'"):
        run(*arguments(write(tmp_path / "set")), f"--out={tmp_path / 'page.html'}")
    assert "0 errors, 0 warnings" in capsys.readouterr().out


def test_the_shipped_demonstrations_have_no_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    out = tmp_path / "page.html"
    assert run("--config=pusht_demo", "--strict", f"--out={out}") == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out


def test_training_logs_each_warning_once_before_it_starts(tmp_path, monkeypatch, caplog):
    class Stop(Exception):
        """Raised after the check's warnings, in place of the training."""

    log_warnings = rules.log_warnings

    def log_and_stop(context):
        log_warnings(context)
        raise Stop

    monkeypatch.setattr(rules, "log_warnings", log_and_stop)
    episodes = list(tiny.episodes())
    episodes[3] = episodes[1]
    config = tiny_config.get_config()
    config.data.update(dir=str(tiny.write(tmp_path / "set", episodes)), val_fraction=0.0)
    with pytest.raises(Stop):
        train.train(config, tmp_path / "run")
    messages = [record.getMessage() for record in caplog.records]
    lines = [text for text in messages if text.startswith("check: ")]
    (line,) = [text for text in lines if "share most of their steps" in text]
    assert line.startswith("check: 2 of 6 episodes") and "Remedy: remove the copies" in line
    # Notes are not logged.
    assert not any("correlation" in text or "6 episodes to train on" in text for text in lines)


def test_training_checks_a_bounded_number_of_steps(tmp_path, monkeypatch):
    config = tiny_config.get_config()
    config.data.update(dir=str(tiny.write(tmp_path / "set")), val_fraction=0.0, mirror=True)
    data = dataset.read(config)
    windows = dataset.train_windows(config, data)

    def context_of(data):
        normalizer = dataset.normalizer(config, data.train)
        return collect.from_training(config, data, normalizer, windows)

    context = context_of(data)
    assert len(context.train.ends) == 6  # without mirror images
    assert context.num_windows == len(windows)

    config.data.dir = f"{config.data.dir},{tiny.write(tmp_path / 'other')}"
    both = context_of(dataset.read(config))
    assert both.train.lengths.tolist() == [*tiny.LENGTHS, *tiny.LENGTHS]

    monkeypatch.setattr(collect, "MAX_STEPS", 60)
    thinned = context_of(data)
    assert thinned.labels == ["training episode 0", "training episode 3"]
    assert thinned.train.ends.tolist() == [24, 24 + 33]
