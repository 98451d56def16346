"""python -m dpjax.check from end to end, and what training says of the same."""

import re

import numpy as np
import pytest
from support import doctor_cases as cases
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


def write(directory, made=None):
    """An RLDS set of the walks that are well; returns its folder."""
    made = cases.walks() if made is None else made
    rlds.write(directory, made, observations=("state",), description="walks")
    return directory


def of_own(directory, *changes):
    """The arguments that check a set of one's own."""
    config = tiny.CONFIG.with_name("tiny_own.py")
    return (f"--config={config}", f"--config.data.dir={directory}", "--config.train.steps=600",
            *(f"--config.{change}" for change in changes))  # fmt: skip


def test_what_is_well_passes_strictly_and_leaves_a_page(tmp_path, capsys):
    out = tmp_path / "page.html"
    assert run(*of_own(write(tmp_path / "set"), "data.val_fraction=0.1"), "--strict",
               f"--out={out}") == 0  # fmt: skip
    text = capsys.readouterr().out
    assert "0 errors, 0 warnings, 1 note" in text and "page: " in text
    assert re.search(r"^state +\[3\] +float32", text, re.MULTILINE)
    page = out.read_text()
    sources = re.findall(r'src="([^"]{0,22})', page)
    assert len(sources) == 2 and all(x.startswith("data:image/png;base64") for x in sources)
    assert "state[2]" in page and "width=device-width" in page and "http" not in page


def test_a_warning_is_an_error_only_where_it_is_strict(tmp_path, capsys):
    made = cases.walks()
    made[3] = made[2]
    args = (*of_own(write(tmp_path / "set", made)), f"--out={tmp_path / 'page.html'}")
    assert run(*args) == 0
    assert "warning: duplicates: 2 of 24 episodes share most" in capsys.readouterr().out
    assert run(*args, "--strict") == 1


def test_nan_is_a_finding_and_the_rest_is_looked_at_all_the_same(tmp_path, capsys):
    directory = write(tmp_path / "set")

    def spoil(examples):
        examples[5].features.feature["steps/action"].float_list.value[14] = np.nan

    rlds_sets.rewrite(directory, spoil)
    out = f"--out={tmp_path / 'page.html'}"
    assert run(*of_own(directory), out) == 1
    text = " ".join(capsys.readouterr().out.split())  # it is wrapped
    assert "error: unreadable: 1 of 24 episodes" in text and "episode 5, step 7, action[0]" in text
    assert "note: meaning" in text and "18 episodes to train on" in text
    assert "unreadable" in (tmp_path / "page.html").read_text()
    assert run(*of_own(directory, "data.on_bad=skip"), out) == 0


def test_where_no_episode_is_good_the_first_fault_is_said(tmp_path):
    directory = write(tmp_path / "set", cases.walks(2))

    def spoil(examples):
        for example in examples:
            example.features.feature["steps/action"].float_list.value[3] = np.nan

    rlds_sets.rewrite(directory, spoil)
    with pytest.raises(UserError, match=r"episode 0, step 1, action\[1\]: expected finite"):
        run(*of_own(directory))


def test_numbers_of_episodes_are_those_of_the_data_set_not_of_what_is_left(tmp_path, capsys):
    made = cases.walks()
    made[20]["action"][7, 1] = 1e6
    directory = write(tmp_path / "set", made)

    def spoil(examples):
        examples[5].features.feature["steps/action"].float_list.value[14] = np.nan

    rlds_sets.rewrite(directory, spoil)
    out = f"--out={tmp_path / 'page.html'}"
    assert run(*of_own(directory, "data.val_fraction=0.0"), out) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "action[1] is 1e+06 at episode 20, step 7" in text


def test_a_config_that_training_refuses_is_a_finding(tmp_path, capsys):
    directory = write(tmp_path / "set")
    changes = ("normalize.action=gaussian", "horizon.predict=7")
    assert run(*of_own(directory, *changes), f"--out={tmp_path / 'page.html'}") == 1
    text = capsys.readouterr().out
    assert "error: refusal: config.horizon.predict=7 cannot be halved" in text
    assert "warning: clipped" in text


def test_a_directory_alone_is_enough_cameras_and_all(tmp_path, capsys):
    out = tmp_path / "page.html"
    images = tiny.write_images(tmp_path / "images")
    assert run("--data", images, "--out", out) == 0
    text = capsys.readouterr().out
    assert re.search(r"^image +\[96, 96, 3\] +uint8 +0 +255", text, re.MULTILINE)
    assert "frames looked at, and as many next ones: 48 of image" in text
    page = out.read_text()
    assert page.count("data:image/png") == 3 and "as the network sees them" in page


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
        (["--data", "nowhere", "--out", "no/such/folder.html"], "there is no folder no/such"),
        ([f"--config={tiny.CONFIG}"], "config.data.dir is empty"),
        ([f"--config={tiny.CONFIG}", "--config.train.stps=1"], "did you mean 'steps'"),
        ([f"--config={tiny.CONFIG}", "--data", "x"], "not both"),
        (["--dta", "x"], "dta"),
    ],
)
def test_what_cannot_be_looked_at_is_said_in_one_line(args, words):
    with pytest.raises(UserError) as caught:
        run(*args)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_an_action_that_cannot_be_read_is_said_in_one_line(tmp_path):
    made = [{key: x.astype(np.int64) if key == "action" else x for key, x in episode.items()}
            for episode in cases.walks()]  # fmt: skip
    with pytest.raises(UserError):  # the writer refuses whole numbers too
        write(tmp_path / "set", made)
    directory = write(tmp_path / "good")
    changes = of_own(directory, "data.columns={'state': 'observation/state', 'action': 'act'}")
    with pytest.raises(UserError, match="config.data.columns.action: 'act' is not in the data"):
        run(*changes, f"--out={tmp_path / 'page.html'}")


def test_the_shipped_demonstrations_are_given_no_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    out = tmp_path / "page.html"
    assert run("--config=configs/pusht_demo.py", "--strict", f"--out={out}") == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out


def test_training_says_each_warning_once_in_one_line_before_it_starts(
    tmp_path, monkeypatch, caplog
):
    class Enough(Exception):
        """What the doctor had to say has been said."""

    def said(case):
        warn(case)
        raise Enough

    warn = rules.warn
    monkeypatch.setattr(rules, "warn", said)
    made = list(tiny.episodes())
    made[3] = made[1]
    config = tiny_config.get_config()
    config.data.update(dir=str(tiny.write(tmp_path / "set", made)), val_fraction=0.0)
    with pytest.raises(Enough):
        train.train(config, tmp_path / "run")
    lines = [record.getMessage() for record in caplog.records if "doctor" in record.getMessage()]
    (line,) = [text for text in lines if "share most of their steps" in text]
    assert line.startswith("doctor: 2 of 6 episodes") and "Remedy: remove the copies" in line
    assert not any("correlation" in text or "6 episodes to train on" in text for text in lines)


def test_what_training_looks_at_is_bounded(tmp_path, monkeypatch):
    config = tiny_config.get_config()
    config.data.update(dir=str(tiny.write(tmp_path / "set")), val_fraction=0.0, mirror=True)
    data = dataset.read(config)
    placed = dataset.place(config, data)
    look = lambda: collect.of_training(config, data, dataset.normalizer(config, data.train), placed)
    assert len(look().train.ends) == 6 and look().windows == len(placed)  # without mirror images
    two = f"{config.data.dir},{tiny.write(tmp_path / 'other')}"
    config.data.dir = two
    both = dataset.read(config)
    looked = collect.of_training(config, both, dataset.normalizer(config, both.train), placed)
    assert looked.train.lengths.tolist() == [*tiny.LENGTHS, *tiny.LENGTHS]
    monkeypatch.setattr(collect, "STEPS", 60)
    thin = look()
    assert thin.labels == ["training episode 0", "training episode 3"]
    assert thin.train.ends.tolist() == [24, 24 + 33]
