"""Files that are not what their names say."""

from pathlib import Path

from dpjax.core.errors import UserError


def refuse_pointer(path: Path) -> None:
    """Refuses a Git LFS pointer, which stands where the data should be."""
    with open(path, "rb") as file:
        if file.read(64).startswith(b"version https://git-lfs"):
            raise UserError(f"{path}: a Git LFS pointer, not the data. Run git lfs pull.")
