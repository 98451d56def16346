"""What is not read is listed in one line."""

from dpjax.core.unread import warn_unread


def test_one_line_that_counts_the_rest(caplog):
    warn_unread("set", [f"k{i}" for i in range(20)] + ["k3"], "only numbers are read")
    warn_unread("set", [], "nothing")
    [record] = caplog.records
    names = ", ".join(f"k{i}" for i in range(12))
    assert record.message == f"set: left out: {names} (and 8 more): only numbers are read"
