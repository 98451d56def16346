"""A result names the commit of dpjax's own checkout, and never that of another repository."""

from pathlib import Path
import re
import shutil
import subprocess
import sys

import pytest

from dpjax.evaluation import provenance

ROOT = Path(__file__).parents[2]


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def commit_of(folder):
    """What dpjax reports if it is imported from that folder."""
    code = "from dpjax.evaluation import provenance; print(provenance.commit())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def copy_of_the_package(folder):
    """What `provenance` needs of the package, in folder/dpjax."""
    for name in ("__init__.py", "evaluation/__init__.py", "evaluation/provenance.py"):
        (folder / "dpjax" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "dpjax" / name, folder / "dpjax" / name)


@pytest.fixture
def repository(tmp_path):
    """Somebody's repository, with a commit."""
    git(tmp_path, "init", "-q")
    (tmp_path / "setup.cfg").write_text("[metadata]\nname = theirs\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "theirs")
    return tmp_path


def test_an_environment_inside_a_repository_is_not_of_its_commit(repository):
    packages = repository / ".venv" / "lib" / "python3" / "site-packages"
    copy_of_the_package(packages)
    assert re.fullmatch(r"installed [\w.+ ]+", commit_of(packages))
    # Not even if that repository tracks the copy, at the place where a checkout has it.
    copy_of_the_package(repository)
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "with a copy")
    assert commit_of(repository).startswith("installed")


def test_a_checkout_of_dpjax_is_of_its_commit(repository):
    copy_of_the_package(repository)
    (repository / "setup.cfg").write_text("[metadata]\nname = dpjax\n")
    assert commit_of(repository).startswith("installed")  # the package is not tracked
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "dpjax")
    assert re.fullmatch("[0-9a-f]{12}", commit_of(repository))
    (repository / "dpjax" / "evaluation" / "__init__.py").write_text("# changed\n")
    assert re.fullmatch(r"[0-9a-f]{12}\+changes", commit_of(repository))


def test_no_repository_is_no_commit(tmp_path):
    copy_of_the_package(tmp_path)
    assert commit_of(tmp_path).startswith("installed")


def test_versions_name_dpjax():
    assert list(provenance.versions())[:2] == ["dpjax", "jax"]
