"""How the code reads, in figures: retired words, comments, one statement per line."""

import ast
import io
from pathlib import Path
import re
import tokenize

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {path: path.read_text() for path in sorted((ROOT / "dpjax").rglob("*.py"))}
LINES = sum(text.count("\n") for text in SOURCES.values())

# Participles and adjectives that stood for things: a name says what the thing is.
VAGUE = (
    *("found", "given", "said", "own", "made", "begun", "held", "owed", "whole", "acting"),
    *("judges", "beginning", "eyes", "pieces"),
)
# Names that another one replaced: {retired: what is said now}.
RETIRED = {
    "Actor": "CompiledPolicy",
    "Plan": "SampleActions",
    "Rows": "Transposed",
    "Turns": "Evaluations",
    "Way": "Strategy",
    "WAYS": "STRATEGIES",
    "Judge": "Evaluator",
    "Job": "TrainingRun",
    "MIXTURES": "PREDICTION_TYPES",
    "Spaces": "Representation",
    "Found": "ImportedPolicy",
    "Case": "Context",
    "row_keys": "example_keys",
    "draw_rows": "draw_noise",
    "window_rows": "window_indices",
    "begin_with": "init_from",
    "doctor": "check",
    "pose_of": "a name of the representation",
}
# Forms of prose: a pattern, and what is written in its place.
FORMS = {
    r"(?<![Tt]here )\bis no (?!longer|more|such)": "is not a",
    r", else ": "otherwise",
    r"\bdoctor\b": "check",
    r"\bbegin_with\b": "init_from",
    r"\bjudges?\b": "evaluators",
    r"\ba product a tap\b": "one product per tap",
    r"\blent\b": "the machine's name",
}
# Old names that still work are listed in one place.
ALLOWED = {ROOT / "dpjax" / "config" / "renamed.py"}


def tokens(text: str):
    return tokenize.generate_tokens(io.StringIO(text).readline)


def places(pattern: str, kinds: tuple[int, ...]) -> list[str]:
    """Where tokens of these kinds match, as file:line."""
    return [
        f"{path.relative_to(ROOT)}:{token.start[0]}"
        for path, text in SOURCES.items()
        if path not in ALLOWED
        for token in tokens(text)
        if token.type in kinds and re.search(pattern, token.string)
    ]


def test_names_say_what_the_thing_is():
    count = sum(
        token.type == tokenize.NAME and token.string in VAGUE
        for text in SOURCES.values()
        for token in tokens(text)
    )
    assert 1000 * count / LINES <= 6


@pytest.mark.parametrize("name", RETIRED)
def test_a_retired_name_does_not_come_back(name):
    assert not places(rf"^{name}$", (tokenize.NAME,)), f"write {RETIRED[name]}"


@pytest.mark.parametrize("form", FORMS)
def test_a_retired_form_does_not_come_back(form):
    prose = (tokenize.COMMENT, tokenize.STRING)
    assert not places(form, prose), f"write {FORMS[form]}"


def test_comments_narrate():
    """About twelve lines of comments per hundred lines, as the anchors have."""
    comments = sum(
        token.type == tokenize.COMMENT for text in SOURCES.values() for token in tokens(text)
    )
    assert 100 * comments / LINES >= 10


def test_a_line_is_one_statement():
    packed = sum(
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
        for text in SOURCES.values()
        for node in ast.walk(ast.parse(text))
    )
    assert 1000 * packed / LINES < 2
