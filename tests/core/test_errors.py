"""Errors: one line for a person, a traceback for a bug."""

import sys

import pytest

from dpjax.core import errors
from dpjax.core.errors import UserError


def exit_code(main, capsys):
    """The exit code of `errors.run(main)`, and what it wrote on stderr."""
    with pytest.raises(SystemExit) as exit:
        errors.run(main)
    return exit.value.code, capsys.readouterr().err


def raises(error):
    def main():
        raise error

    return main


@pytest.fixture(autouse=True)
def arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])


@pytest.mark.parametrize("returned, code", [(None, 0), (0, 0), (3, 3)])
def test_a_command_exits_with_what_main_returns(capsys, returned, code):
    assert exit_code(lambda: returned, capsys) == (code, "")


def test_a_user_error_is_one_line_and_code_2(capsys):
    code, said = exit_code(raises(UserError("no such\n  file: give another.")), capsys)
    assert code == 2
    assert said == "dpjax: error: no such file: give another.\n"


def test_debug_keeps_the_traceback_and_is_taken_off_the_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command", "--debug", "--run", "x"])
    with pytest.raises(UserError):
        errors.run(raises(UserError("no")))
    assert sys.argv == ["command", "--run", "x"]


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        errors.run(lambda: 1 // 0)


def test_the_keyboard_stops_a_command_with_code_130(capsys):
    code, said = exit_code(raises(KeyboardInterrupt()), capsys)
    assert code == 130 and len(said.splitlines()) == 1


def test_choices_name_the_nearest_and_then_all():
    assert errors.choices("unet", ["dit", "unet1d"]) == (
        "did you mean 'unet1d'? choose one of dit, unet1d"
    )
    assert errors.choices("xyz", ["b", "a"]) == "choose one of a, b"
    assert errors.choices("xyz", []) == "choose one of (there are none)"
