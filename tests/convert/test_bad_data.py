"""A hostile or broken data set is refused in one line: no code runs, nothing is written."""

from bad_inputs import child, data
from bad_inputs.case import CANARY, ReadCase
import numpy as np
import pytest
from support import foreign_sets, tiny

MEMORY = 300 * 2**20  # bytes that a refusal may take

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("make", data.MAKERS, ids=lambda make: make.__name__)
def test_refused_in_one_line(make, tmp_path):
    folder, out = tmp_path / "world", tmp_path / "out"
    folder.mkdir()
    case = make(folder)
    before = tiny.files(folder)
    if isinstance(case, ReadCase):
        outcome = child.run(child.read, case.directory, case.features, folder=tmp_path)
    else:
        name, source, *options = case.arguments
        outcome = child.run(child.convert, [name, source, out, *options], folder=tmp_path)
    code = getattr(case, "code", 2)
    assert outcome.code == code, outcome.text
    assert "\n" not in outcome.text
    assert all(words in outcome.text for words in case.words), outcome.text
    assert not (folder / CANARY).exists() and not (tmp_path / CANARY).exists()
    assert tiny.files(folder) == before
    # Episodes before a bad one are kept, for the next start.
    assert {path.name for path in tmp_path.iterdir()} <= {"world", "out.incomplete", "out"}
    assert out.exists() == (code == 0)
    assert outcome.grown < MEMORY, f"{outcome.grown / 2**20:.0f} MiB for a refusal"


def test_there_are_enough_cases():
    assert len(data.MAKERS) >= 36


# Each writes a good data set, and returns its format, its path, and the file to spoil.


def _hdf5(folder):
    path = foreign_sets.write_robomimic(folder / "s.hdf5")
    return "robomimic", path, path


def _zip(folder):
    buffer = foreign_sets.write_zarr(folder / "buffer")
    path = foreign_sets.write_zip(folder / "s.zip", buffer)
    return "zarr", path, path


def _npz(folder):
    root = foreign_sets.write_npz(folder / "s")
    return "arrays", root, root / "episode_1.npz"


def _parquet(folder):
    root = foreign_sets.write_lerobot_v2(folder / "s", video=False)
    return "lerobot", root, root / "data" / "chunk-000" / "episode_000001.parquet"


def _mp4(folder):
    root = foreign_sets.write_lerobot_v2(folder / "s")
    videos = root / "videos" / "chunk-000" / "observation.images.top"
    return "lerobot", root, videos / "episode_000001.mp4"


def mutate(raw, rng):
    """Changes five bytes, or eight in a row, or puts in a large number, or cuts off the end."""
    changed = bytearray(raw)
    mutation = rng.integers(4)
    start = int(rng.integers(len(raw) - 64))
    if mutation == 0:
        for place in rng.integers(0, len(raw), 5):
            changed[place] = rng.integers(256)
    elif mutation == 1:
        changed[start : start + 8] = rng.integers(0, 256, 8, np.uint8).tobytes()
    elif mutation == 2:
        changed[start : start + 4] = b"\xff\xff\xff\x7f"
    else:
        del changed[start:]
    return bytes(changed)


@pytest.mark.parametrize("make", [_hdf5, _zip, _npz, _parquet, _mp4])
def test_a_spoilt_file_is_read_or_refused_in_one_line(make, tmp_path):
    """Whatever bytes are changed: no traceback, no crash, no more memory."""
    (tmp_path / "world").mkdir()
    name, source, file = make(tmp_path / "world")
    raw = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for i in range(12):
        file.write_bytes(mutate(raw, rng))
        out = tmp_path / f"out{i}"
        outcome = child.run(child.convert, [name, source, out], folder=tmp_path)
        assert outcome.code in (0, 2) and "\n" not in outcome.text, outcome.text
        assert out.exists() == (outcome.code == 0) and outcome.grown < MEMORY
        refused += outcome.code == 2
    assert refused > 0
