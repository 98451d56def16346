"""A hostile or broken data set gets one line; nothing runs, nothing is written, little is read."""

from bad_inputs import child, data
import pytest
import tiny

MEMORY = 300 * 2**20  # bytes that a refusal may take


@pytest.mark.parametrize("make", data.MADE, ids=lambda make: make.__name__)
def test_refused_in_one_line(make, tmp_path):
    folder, out = tmp_path / "world", tmp_path / "out"
    folder.mkdir()
    case = make(folder)
    before = {path: content for path, content in tiny.files(folder).items()}
    if isinstance(case, data.ReadCase):
        outcome = child.run(child.read, case.directory, case.features, folder=tmp_path)
    else:
        name, source, *options = case.arguments
        outcome = child.run(child.convert, [name, source, out, *options], folder=tmp_path)
    assert outcome.code == 2, outcome.text
    assert "\n" not in outcome.text
    assert all(words in outcome.text for words in case.words), outcome.text
    assert not (folder / data.CANARY).exists() and not (tmp_path / data.CANARY).exists()
    assert tiny.files(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["world"], "something was written"
    assert outcome.grown < MEMORY, f"{outcome.grown / 2**20:.0f} MiB for a refusal"


def test_there_are_enough_of_them():
    assert len(data.MADE) >= 36
