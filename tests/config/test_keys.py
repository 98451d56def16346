"""The table of keys makes the config, its checks, the list of --help and the page of docs."""

import math
from pathlib import Path

import pytest

from dpjax.config import checks, components, defaults, keys, page
from dpjax.core.errors import UserError

TABLE = dict(keys.entries(defaults.KEYS))
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", TABLE)
def test_every_key_has_a_meaning_and_a_default_that_is_allowed(path):
    key = TABLE[path]
    assert key.doc and "\n" not in key.doc
    if not isinstance(key.default, dict):
        keys.check_range(path, key.default, key.range)


def test_the_default_config_is_good():
    checks.check(defaults.get_config())


def test_two_configs_share_nothing():
    config = defaults.get_config()
    config.data.columns.extra = "x"
    config.cameras.top = {"size": (4, 4)}
    assert "extra" not in defaults.get_config().data.columns
    assert not defaults.get_config().cameras


@pytest.mark.parametrize("interval, inside, outside, text", [
    (keys.ABOVE_0, [1e-9, 5], [0, -1, math.inf, math.nan], "above 0"),
    (keys.AT_LEAST_0, [0, 5], [-1, math.inf, math.nan], "0 or more"),
    (keys.below(1), [0, 0.999], [1, -0.1, math.nan], "in [0, 1)"),
    (keys.up_to(0.5), [0, 0.5], [0.6, math.nan], "in [0, 0.5]"),
    (keys.ABOVE_0._replace(infinite=True), [1, math.inf], [0, math.nan], "above 0"),
])  # fmt: skip
def test_intervals(interval, inside, outside, text):
    assert all(value in interval for value in inside)
    assert not any(value in interval for value in outside)
    assert str(interval) == text


def test_choices_are_the_parts_that_there_are():
    assert TABLE["sampler.name"].range == tuple(components.SAMPLERS)
    with pytest.raises(UserError, match="config.sampler.name='ddmi' is unknown; did you mean"):
        keys.check_range("sampler.name", "ddmi", TABLE["sampler.name"].range)


def test_the_page_of_docs_is_up_to_date():
    written = (ROOT / "docs" / "config.md").read_text()
    assert written == page.markdown(), "python -m dpjax.config.page > docs/config.md"


def test_help_lists_values_units_and_the_keys_of_another_network():
    from dpjax.config import recipes

    text = page.terminal(recipes.load("pusht_state_dit").to_dict())
    (line,) = [line for line in text.splitlines() if line.startswith("train.batch ")]
    assert line.split()[:4] == ["train.batch", "256", "above", "0"]
    assert "denoiser.layers" in text and "denoiser.widths" not in text
