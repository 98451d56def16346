"""A missing optional library is one line that names the extra which installs it."""

import sys

import pytest

from dpjax.core import extras
from dpjax.core.errors import UserError


def test_an_installed_library_is_returned():
    assert extras.require("json", extra="data") is sys.modules["json"]


def test_a_submodule_is_returned_itself():
    assert extras.require("os.path", extra="data") is sys.modules["os.path"]


@pytest.mark.parametrize(
    "name, missing",
    [
        ("no_such_library", "no_such_library"),
        ("no_such_library.part", "no_such_library"),
        ("json.no_such_part", "json.no_such_part"),
    ],
)
def test_a_missing_library_names_the_extra(name, missing):
    with pytest.raises(UserError) as caught:
        extras.require(name, extra="data")
    assert str(caught.value) == f"{missing} is not installed: pip install 'dpjax[data]'."


def test_a_library_that_lacks_a_library_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        extras.require("half_installed", extra="data")
