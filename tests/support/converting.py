"""Runs conversions, for the tests of dpjax.convert."""

import pytest

from dpjax.convert import __main__ as convert
from dpjax.core.errors import UserError


def convert_to(folder, name, source, *options):
    """Converts `source` from the format `name` to folder/out, and returns that path."""
    out = folder / "out"
    assert convert.main([name, str(source), str(out), *options]) == 0
    return out


def refusal(folder, name, source, *options):
    """The one line with which a conversion is refused; checks that there is no data set.

    Episodes that were written before a bad one are kept in out.incomplete.
    """
    with pytest.raises(UserError) as caught:
        convert.main([name, str(source), str(folder / "out"), *options])
    assert not (folder / "out").exists(), "something was written"
    return " ".join(str(caught.value).split())
