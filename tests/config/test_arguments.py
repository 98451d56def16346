"""Errors about arguments of the library are told in the names of config keys."""

import subprocess
import sys

import pytest

from dpjax.config import arguments, defaults, keys
from dpjax.core.errors import UserError


def told(text: str, argument: str | None, **others: str) -> str:
    """What a command's user reads of an error that the library raises."""
    with pytest.raises(UserError) as error, arguments.names_keys(**others):
        raise UserError(text, argument=argument)
    return str(error.value)


def test_every_argument_in_the_text_becomes_its_key():
    text = "num_steps=500 must be at most num_levels=100: lower num_steps."
    assert told(text, "num_steps") == (
        "config.sampler.num_steps=500 must be at most config.schedule.num_levels=100: "
        "lower num_steps."
    )


def test_a_key_that_the_text_lacks_is_added():
    text = "a chunk of 8 steps is too short."
    assert told(text, "horizon") == "a chunk of 8 steps is too short (config.horizon.predict)."


def test_an_argument_at_the_start_becomes_its_key():
    assert told("widths is empty.", "widths") == "config.denoiser.widths is empty."


def test_dots_after_an_argument_stay():
    assert told("layouts.pose='x' is unknown.", "layouts.pose").startswith(
        "config.representation.layouts.pose='x'"
    )


def test_a_caller_may_know_better():
    assert told("width=3 is odd.", "width", width="encoder.width") == (
        "config.encoder.width=3 is odd."
    )


@pytest.mark.parametrize("argument", [None, "which"])
def test_other_errors_are_left_alone(argument):
    assert told("which='x' is unknown; num_steps=3.", argument) == (
        "which='x' is unknown; num_steps=3."
    )


def test_the_table_names_keys_that_exist():
    known = {path for path, _ in keys.entries(defaults.KEYS)}
    of_transformers = {"denoiser.width", "denoiser.heads"}
    assert set(arguments.ARGUMENTS.values()) <= known | of_transformers


def test_errors_that_are_none_of_the_users_keep_their_class():
    with pytest.raises(KeyError), arguments.names_keys():
        raise KeyError("num_steps=3")


def test_checking_starts_no_backend_and_reads_nothing():
    code = """
from jax._src import xla_bridge
from dpjax.config import checks, recipes
for name in recipes.names():
    checks.check(recipes.load(name))
assert not xla_bridge.backends_are_initialized()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
