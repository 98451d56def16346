"""Recipes are found by name wherever the command is started, and config files by path."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

from dpjax.config import flags, recipes
from dpjax.core.errors import UserError

ROOT = Path(__file__).parents[2]
COUNTING = """
from pathlib import Path
from dpjax.config import recipes

def get_config():
    with open(Path(__file__).with_name("calls"), "a") as file:
        file.write("x")
    return recipes.load("pusht_state_small")
"""


def parse(*args):
    """The config of a command line."""
    from absl import flags as absl_flags

    values = absl_flags.FlagValues()
    config = flags.parse(["command", *args], "usage", values)
    assert values.config is config
    return config


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_what_it_is(name):
    text = recipes.path(name).read_text()
    assert text.startswith('"""') and "from configs import" not in text


def test_a_config_file_is_executed_once(tmp_path):
    (tmp_path / "mine.py").write_text(COUNTING)
    config = parse(f"--config={tmp_path}/mine.py", "--config.train.steps=7")
    assert config.train.steps == 7 and config.is_locked
    assert (tmp_path / "calls").read_text() == "x"


def test_a_recipe_is_found_by_name_and_a_file_by_its_path(tmp_path):
    (tmp_path / "pusht_demo.py").write_text(COUNTING)
    assert parse("--config=pusht_demo").sampler.name == "ddim"
    assert parse("--config", str(tmp_path / "pusht_demo.py")).sampler.name == "ddpm"


def test_a_file_may_take_an_argument(tmp_path):
    text = COUNTING.replace("get_config()", "get_config(name)").replace(
        '"pusht_state_small"', "name"
    )
    (tmp_path / "by_name.py").write_text(text)
    assert parse(f"--config={tmp_path}/by_name.py:custom").task == "custom"


def test_a_file_that_returns_no_config_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("def get_config():\n    return {}\n")
    with pytest.raises(UserError, match="returned dict, not a ConfigDict"):
        parse(f"--config={tmp_path}/mine.py")


def test_without_config_the_flag_is_none():
    assert parse() is None


def test_a_project_may_have_its_own_configs_package(tmp_path):
    """Recipes load each other by name, not through a package `configs` that anybody may have."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise ImportError('the wrong configs')\n")
    (tmp_path / "configs" / "mine.py").write_text(COUNTING)
    code = """
from dpjax.config import recipes
assert recipes.read("configs/mine.py").task == "pusht"
for name in recipes.names():
    recipes.load(name)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)


def test_the_demonstrations_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = Path(recipes.load("pusht_demo").data.dir)
    assert directory.is_absolute() and list(directory.glob("*/dataset_info.json"))
    (tmp_path / "demonstrations" / "pusht").mkdir(parents=True)
    assert recipes.load("pusht_demo").data.dir == "demonstrations/pusht"
