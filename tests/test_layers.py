"""Imports go one way: a package imports packages above it in PACKAGES, and nothing else."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "dpjax"
# From what knows nothing to what knows everything; the drawing is in docs/architecture.md.
PACKAGES = (
    *("core", "ops", "diffusion", "nets", "data", "inference", "policies", "tasks", "convert"),
    *("interop", "training", "evaluation", "serving", "robot", "config", "runs", "check", "export"),
)
COMMANDS = (
    *("train", "evaluate", "validate", "sample", "demos", "serve"),
    *("import_weights", "export_weights"),
)
OTHERS = ("__init__", "__main__")  # the public API and `dpjax <command>`; not imported from below
TREES = {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def part(path: Path) -> str:
    """The package or file right under dpjax that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path):
    """Every module that a file imports, wherever in it: `dpjax.ops.conv1d`, `jax`, …."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def names(path: Path):
    """Every name and attribute that a file's code (not its prose) mentions."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_the_root_holds_packages_and_commands_only():
    found = {part(path) for path in TREES}
    assert found <= {*PACKAGES, *COMMANDS, *OTHERS}, "name new ones here and in the drawing"


def test_a_package_imports_only_packages_above_it():
    level = {name: i for i, name in enumerate((*PACKAGES, *COMMANDS))}
    wrong = []
    for path in TREES:
        here = part(path)
        for module in imports(path):
            other = module.split(".")[1] if module.startswith("dpjax.") else here
            command = here in COMMANDS and other in COMMANDS
            if here not in OTHERS and (level[other] > level[here] or (command and other != here)):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_files_of_a_package_do_not_import_each_other_in_a_circle():
    modules = {
        ".".join(("dpjax", *path.relative_to(ROOT).with_suffix("").parts)): path for path in TREES
    }
    edges = {
        name: {
            other
            for module in imports(path)
            for other in (module, module.rpartition(".")[0])
            if other in modules and other != name
        }
        for name, path in modules.items()
    }
    while leaves := [name for name, others in edges.items() if not others & edges.keys()]:
        for name in leaves:
            del edges[name]
    assert not edges, "these import each other in a circle"


@pytest.mark.parametrize("library", ["tensorflow", "torch", "diffusers", "configs"])
def test_is_imported_nowhere(library):
    wrong = [path for path in TREES if library in {x.split(".")[0] for x in imports(path)}]
    assert not wrong


def test_diffusion_knows_no_framework():
    allowed = {"jax", "numpy", "flax", "typing", "functools", "math", "collections", "dpjax"}
    for path in (ROOT / "diffusion").glob("*.py"):
        for module in imports(path):
            assert module.split(".")[0] in allowed, f"{path} imports {module}"


def test_pmap_is_named_in_one_file():
    assert [path for path in TREES if "pmap" in names(path)] == [ROOT / "training/parallel.py"]


def test_config_keys_are_read_only_in_config_runs_and_the_commands():
    """Neither as config.x nor as a text "section.key"."""
    from dpjax.config import defaults
    from dpjax.config import keys as key_lib

    keys = {key for key in key_lib.flatten(defaults.get_config().to_dict()) if "." in key}
    wrong = []
    for path, tree in TREES.items():
        if part(path) not in PACKAGES[: PACKAGES.index("config")]:
            continue
        for node in ast.walk(tree):
            of = getattr(node, "value", None)
            attribute = isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(
                of, ast.Name
            )
            if (attribute and of.id == "config") or (isinstance(node, ast.Constant) and of in keys):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {of}")
    assert not wrong


# `python -m dpjax.config.page > docs/config.md`, and that of check.md
PAGES = (ROOT / "config" / "page.py", ROOT / "check" / "reference.py")


def test_only_commands_run_as_programs():
    for path in TREES:
        runs = 'if __name__ == "__main__":' in path.read_text()
        is_program = path.name == "__main__.py" or path in PAGES
        assert not runs or part(path) in COMMANDS or is_program, path


def test_every_folder_is_a_package():
    """Otherwise a wheel would leave it out, and nobody in a checkout would notice."""
    for path in TREES:
        assert (path.parent / "__init__.py").exists(), path.parent
