"""A case and its findings as text for the terminal, and as one HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
import textwrap
from typing import Any

from dpjax.check import plots, summary
from dpjax.check.context import SEVERITIES, Case, Finding, counted
from dpjax.core.types import ACTION
from dpjax.evaluation import html

WIDTH = 100  # characters of a line in the terminal


def tally(findings: Sequence[Finding]) -> str:
    """How many there are of each severity: "1 error, 0 warnings, 3 notes"."""
    numbers = [sum(finding.severity == name for finding in findings) for name in SEVERITIES]
    return ", ".join(counted(n, name) for n, name in zip(numbers, SEVERITIES))


def terminal(case: Case, findings: Sequence[Finding]) -> str:
    """All of it as text, but the pictures."""
    parts = [*summary.lines(case), "", *summary.aligned(summary.keys(case)), "", tally(findings)]
    for finding in findings:
        title = f"{finding.severity}: {finding.rule}: "
        parts += _wrapped(title + finding.reason, 0, 4)
        parts += _wrapped(f"-> {finding.remedy}", 4, 7)
    return "\n".join(parts)


def _wrapped(text, first, later):
    """Lines of a text; paths and keys stay whole, so that they can be copied."""
    indents = dict(initial_indent=" " * first, subsequent_indent=" " * later)
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False, **indents)


def write(
    path: str | Path, case: Case, findings: Sequence[Finding], facts: Mapping[str, Any]
) -> None:
    """The page. facts: what it was made with."""
    parts = [f'<p class="summary">{html.text(line)}</p>' for line in summary.lines(case)]
    parts.append(html.heading(f"Findings: {tally(findings)}"))
    parts += [_finding(finding) for finding in findings]
    parts += [html.heading("Keys"), html.table(summary.keys(case))]
    seen = not any(finding.severity == "error" for finding in findings)
    if case.frames:
        words = "A first batch: frames as recorded, and as the network sees them in training"
        parts += [html.heading("Cameras"), _still(words, plots.first_batch(case, seen))]
    parts += [html.heading("Actions"), *_actions(case)]
    parts += [html.heading("Dims"), html.table(summary.dims(case))]
    parts += [html.heading("Made with"), html.facts(facts)]
    html.write(path, f"Check of {case.config.data.dir}", parts)


def _still(words, png):
    return html.picture(words, png, kind="still")


def _actions(case):
    """The plots of the action."""
    size = case.action.shape[1]
    part = f", the first {plots.DIMS} of {size} dims" if size > plots.DIMS else ""
    clip = "the sampler's clip as lines"
    words = f"The units of the network: {ACTION} after normalization, {clip}{part}"
    return [
        html.picture(words, plots.histograms(case)),
        html.picture(f"A few episodes over their steps{part}", plots.traces(case)),
    ]


def _finding(finding):
    """A finding as HTML."""
    reason, remedy, rule = (html.text(x) for x in (finding.reason, finding.remedy, finding.rule))
    return (
        f'<div class="finding {finding.severity}"><p class="kind">{finding.severity} · {rule}</p>'
        f"<p>{reason}</p><p>→ {remedy}</p></div>"
    )
