"""Imports go down only, siblings do not meet, and a few names have one home."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "dpjax"
LAYERS = [
    {"types", "normalizer", "errors", "rotations", "cpu"},
    {"diffusion", "nets", "data"},
    {"policy", "inpainting", "control", "actor"},
    {"meanflow", "spaces"},
    {"training", "tasks", "evaluation", "serving", "interop"} | {"exported"},
    {"build", "cameras", "compilation", "config_check", "dataset", "jobs", "judges"}
    | {"beginning", "doctor", "mixture", "pictures", "run_config", "run_folder"},
    {"command_line"},
    {"train", "evaluate", "sample", "export", "demos", "convert", "check", "serve", "validate"}
    | {"import_weights", "export_weights"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ONE_PACKAGE = {LEVEL["types"], LEVEL["build"]}  # layers whose files may import each other
FILES = sorted(ROOT.rglob("*.py"))


def part(path):
    """The package or file right under dpjax that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path):
    """Every module that a file imports, wherever in it: `dpjax.nets.conv`, `jax`, …."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def names(path):
    """Every name and attribute that a file's code (not its prose) mentions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


@pytest.fixture(params=FILES, ids=lambda path: str(path.relative_to(ROOT)))
def path(request):
    return request.param


def test_every_file_has_a_layer(path):
    assert path == ROOT / "__init__.py" or part(path) in LEVEL, (
        "name its layer in LAYERS, and in the architecture's picture"
    )


def test_imports_go_down_only(path):
    own = part(path)
    for module in imports(path):
        if not module.startswith("dpjax."):
            continue
        other = module.split(".")[1]
        inside = other == own or LEVEL[other] == LEVEL[own] in ONE_PACKAGE
        assert inside or LEVEL[other] < LEVEL[own], f"{path}: {own} imports {module}"


def test_diffusion_knows_no_framework():
    allowed = {"jax", "numpy", "flax", "typing", "functools", "math", "dpjax"}
    for path in (ROOT / "diffusion").glob("*.py"):
        for module in imports(path):
            assert module.split(".")[0] in allowed, f"{path} imports {module}"


def test_tensorflow_is_imported_nowhere(path):
    assert "tensorflow" not in {module.split(".")[0] for module in imports(path)}


def test_torch_is_imported_nowhere(path):
    assert not {"torch", "diffusers"} & {module.split(".")[0] for module in imports(path)}


def test_pmap_is_named_in_one_file():
    assert [path for path in FILES if "pmap" in names(path)] == [ROOT / "training/parallel.py"]


def test_config_keys_are_read_only_in_build_and_the_commands(path):
    if LEVEL.get(part(path), 0) >= LEVEL["build"]:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            of = node.value
            assert not (isinstance(of, ast.Name) and of.id == "config"), (
                f"{path}:{node.lineno}: config keys are read by build, its helpers and commands"
            )


def test_only_commands_run_as_programs(path):
    runs = 'if __name__ == "__main__":' in path.read_text()
    assert not runs or LEVEL[part(path)] == len(LAYERS) - 1


def test_every_folder_is_a_package():
    """Else `pip install .` would leave it out, and nobody in a checkout would notice."""
    for path in FILES:
        assert (path.parent / "__init__.py").exists(), path.parent
