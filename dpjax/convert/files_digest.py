"""Notices that the files of a source have changed between two starts of a conversion."""

import hashlib
import os
from pathlib import Path


def files_digest(path: Path) -> str:
    """A hash of the names, sizes and modification times of a source's files, in 16 hex digits."""
    # Contents are not hashed: reading them would take as long as the conversion. A file that was
    # changed has another modification time.
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    for file in files:
        if file.is_file():
            stat = os.stat(file)
            text = f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns};"
            digest.update(text.encode(errors="surrogateescape"))  # names need not be UTF-8
    return digest.hexdigest()[:16]
