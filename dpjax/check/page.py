"""Writes the result of a check: as text for the terminal, and as an HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
import textwrap
from typing import Any

from dpjax.check import plots, summary
from dpjax.check.context import SEVERITIES, Context, Finding, count
from dpjax.core.types import ACTION
from dpjax.evaluation import html

WIDTH = 100  # characters per line in the terminal


def count_findings(findings: Sequence[Finding]) -> str:
    """The number of findings of each severity: "1 error, 0 warnings, 3 notes"."""
    # In the order of SEVERITIES; a severity without findings counts 0.
    numbers = [sum(finding.severity == name for finding in findings) for name in SEVERITIES]
    return ", ".join(count(n, name) for n, name in zip(numbers, SEVERITIES))


def as_text(context: Context, findings: Sequence[Finding]) -> str:
    """Overview, table of keys and findings, as text for the terminal."""
    lines = [
        *summary.overview(context),
        "",
        *summary.align(summary.key_table(context)),
        "",
        count_findings(findings),
    ]
    # Findings arrive sorted, the worst first. Each has its remedy below it, indented.
    for finding in findings:
        lines += _wrap(f"{finding.severity}: {finding.rule}: {finding.reason}", 0, 4)
        lines += _wrap(f"-> {finding.remedy}", 4, 7)
    return "\n".join(lines)


def _wrap(text, first, later):
    """Wraps a text to WIDTH. first, later: indents of its first line and of the others."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * first,
        subsequent_indent=" " * later,
        # Paths and config keys are not broken, so that they can be copied.
        break_long_words=False,
        break_on_hyphens=False,
    )


def write(
    path: str | Path, context: Context, findings: Sequence[Finding], provenance: Mapping[str, Any]
) -> None:
    """Writes the HTML page.

    provenance: {name: value} of the command, machine and commit, printed at the end of the page.
    """
    # The overview and the findings.
    parts = [f'<p class="summary">{html.text(line)}</p>' for line in summary.overview(context)]
    parts.append(html.heading(f"Findings: {count_findings(findings)}"))
    parts += [_finding(finding) for finding in findings]
    # The data, from the table of all keys down to single dims.
    parts += [html.heading("Keys"), html.table(summary.key_table(context))]
    if context.frames:
        # After an error the crops may not fit the frames, so only recorded frames are drawn.
        crops = not any(finding.severity == "error" for finding in findings)
        caption = "A first batch: frames as recorded, and as the network sees them in training"
        image = plots.first_batch(context, crops)
        parts += [html.heading("Cameras"), html.picture(caption, image, kind="still")]
    parts += [html.heading("Actions"), *_action_plots(context)]
    parts += [html.heading("Dims"), html.table(summary.dim_table(context))]
    parts += [html.heading("Made with"), html.properties(provenance)]
    html.write(path, f"Check of {context.config.data.dir}", parts)


def _action_plots(context):
    """Histograms and traces of the actions, each with its caption."""
    # Actions with very many dims are cut off in the plots; the table has all of them.
    size = context.action.shape[1]
    part = f", the first {plots.DIMS} of {size} dims" if size > plots.DIMS else ""
    clip = "the sampler's clip as lines"
    caption = f"In the network's units: {ACTION} after normalization, {clip}{part}"
    return [
        html.picture(caption, plots.histograms(context)),
        html.picture(f"A few episodes, step by step{part}", plots.traces(context)),
    ]


def _finding(finding):
    """A finding as HTML."""
    # Texts may contain paths and names from the data, so they are escaped.
    reason = html.text(finding.reason)
    remedy = html.text(finding.remedy)
    rule = html.text(finding.rule)
    return (
        f'<div class="finding {finding.severity}"><p class="kind">{finding.severity} · {rule}</p>'
        f"<p>{reason}</p><p>→ {remedy}</p></div>"
    )
