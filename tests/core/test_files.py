"""Files: a write is all or nothing, and a Git LFS pointer is not data."""

import os

import pytest

from dpjax.core import files
from dpjax.core.errors import UserError


@pytest.mark.parametrize("content, stored", [("α\n", "α\n".encode()), (b"\x00\xff", b"\x00\xff")])
def test_text_and_bytes_are_written_and_replace_what_was_there(tmp_path, content, stored):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    files.write_atomically(path, content)
    assert path.read_bytes() == stored
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_git_lfs_pointer_is_refused_in_one_line(tmp_path):
    path = tmp_path / "data.hdf5"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match=r"data.hdf5: a Git LFS pointer, .* Run git lfs pull"):
        files.refuse_pointer(path)
    path.write_bytes(b"\x89HDF")
    files.refuse_pointer(path)
