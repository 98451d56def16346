"""Old names of keys, tasks and recipes: for ever in run folders, for a release on command lines."""

import json

from support import tiny_custom

from dpjax.config import defaults, renamed
from dpjax.core.spec import Spec
from dpjax.runs import config_file, directory


def old_config() -> dict:
    """The tiny config as version 0.1 wrote it."""
    config = json.loads(json.dumps(tiny_custom.get_config().to_dict()))
    config["task"] = "own"
    config["spaces"] = {**config.pop("representation"), "layouts": {"action": "3 axis_angle"}}
    config["train"]["begin_with"] = config["train"].pop("init_from")
    return config


def test_a_run_folder_with_old_names_loads_and_is_the_same_run(tmp_path, caplog):
    config = tiny_custom.get_config()
    config.representation.layouts.action = "3 axis_angle"
    spec = Spec({"state": 5}, 2, "print")
    directory.claim(tmp_path, config, spec).close()
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": old_config(), "spec": spec._asdict()}))

    assert config_file.read_config(tmp_path)[0].to_dict() == config.to_dict()
    directory.claim(tmp_path, config, spec).close()  # neither refused nor reported as changed
    assert not caplog.records


def test_arguments_with_old_names_are_translated_and_one_line_names_the_new(caplog, tmp_path):
    argv = ["train", "--config", "configs/own.py", "--workdir=own", "--config.task=own"]
    argv += ["--config.train.begin_with=runs/own", "--config.spaces.layouts.pose=3 quaternion_wxyz"]
    assert renamed.arguments(argv) == [
        *("train", "--config", "configs/custom.py", "--workdir=own", "--config.task=custom"),
        *("--config.train.init_from=runs/own",),
        "--config.representation.layouts.pose=3 quaternion_wxyz",
    ]
    assert len(caplog.records) == 4
    assert "--config.task=own is now --config.task=custom" in caplog.text
    assert renamed.arguments(["train", "--config=own"])[1] == "--config=custom"


def test_a_users_own_config_of_an_old_name_is_left_alone(caplog, tmp_path):
    mine = tmp_path / "own.py"
    mine.write_text("")
    argv = ["train", f"--config={mine}", "--config.seed=3", "--profile"]
    assert renamed.arguments(argv) == argv and not caplog.records


def test_every_new_name_is_a_key():
    config = defaults.get_config()
    for new in renamed.RENAMED.values():
        assert new in config or new.split(".")[1] in config[new.split(".")[0]]
