"""The README's first lines of Python run as they stand there."""

from pathlib import Path
import re

README = Path(__file__).parents[2] / "README.md"


def test_the_library_example_runs(capsys, short_episodes):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    exec(compile(code, "README.md", "exec"), {})
    assert "coverage" in capsys.readouterr().out
