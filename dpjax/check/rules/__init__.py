"""All rules, and what they say of a case."""

from collections.abc import Callable, Sequence
import logging

from dpjax.check.context import SEVERITIES, Case, Finding
from dpjax.check.rules import actions, config, data, images, motion, split, time

Rule = Callable[[Case], list[Finding]]

RULES: tuple[Rule, ...] = (
    *config.RULES,
    *data.RULES,
    *motion.RULES,
    *actions.RULES,
    *time.RULES,
    *split.RULES,
    *images.RULES,
)
# What reading the data and fitting the normalizer say themselves when training starts.
SAID = (data.outliers, data.constant, time.short)

log = logging.getLogger("dpjax")


def examine(case: Case, rules: Sequence[Rule] = RULES) -> list[Finding]:
    """What the rules say, the worst first, else in their order."""
    found = [finding for rule in rules for finding in rule(case)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def warn(case: Case) -> None:
    """A log line on each error and warning, for the start of a training."""
    for finding in examine(case, [rule for rule in RULES if rule not in SAID]):
        if finding.severity != "note":
            log.warning("doctor: %s. Remedy: %s.", finding.reason, finding.remedy)


def exit_code(findings: Sequence[Finding], strict: bool) -> int:
    """1 where there is an error, or a warning and it is strict; else 0."""
    bad = ("error", "warning") if strict else ("error",)
    return int(any(finding.severity in bad for finding in findings))
