"""The list of all rules, and functions that apply them to a Context."""

from collections.abc import Callable, Sequence
import logging

from dpjax.check.context import SEVERITIES, Context, Finding
from dpjax.check.rules import (
    actions,
    clocks,
    config,
    copies,
    data,
    edges,
    grippers,
    images,
    lag,
    motion,
    split,
    time,
)

Rule = Callable[[Context], list[Finding]]

# To add a rule, add its function here. Findings of equal severity are reported in this order.
RULES: tuple[Rule, ...] = (
    # The config: what training would refuse, and settings that do not suit the data.
    config.refused_config,
    config.unreadable_columns,
    config.unused_columns,
    config.small_crops,
    config.changed_aspect_ratio,
    config.batch_size,
    config.warmup,
    config.few_passes,
    config.pretrained_units,
    config.meanflow_time_scale,
    # Values of single dims.
    data.bad_episodes,
    data.constant_dims,
    data.little_motion,
    data.constant_in_training,
    data.outliers,
    data.heavy_tails,
    data.flattened_by_quantile,
    data.large_inputs,
    grippers.binary_actions,
    grippers.rare_values,
    edges.dummy_steps,
    # Motion from step to step.
    motion.angle_wraps,
    motion.turns_apart,
    motion.action_jumps,
    motion.quaternions,
    # Actions: what they mean, and what sampling does to them.
    actions.clipped_actions,
    actions.action_observed,
    actions.copied_observation,
    actions.action_type,
    actions.leader_offset,
    lag.state_lag,
    lag.future_observed,
    # Time: padding, waiting, clocks and rates.
    time.padded_windows,
    time.idle_steps,
    clocks.clock_observed,
    clocks.irregular_clock,
    clocks.short_chunks,
    clocks.rate_mismatch,
    clocks.mixed_rates,
    # The set of episodes: number, lengths, copies, the split.
    split.few_episodes,
    split.odd_lengths,
    split.short_episodes,
    copies.duplicate_episodes,
    copies.near_duplicates,
    split.one_held_out,
    # Cameras.
    images.image_size,
    images.unscaled_pixels,
    images.blank_frames,
    images.frozen_camera,
    images.duplicate_cameras,
)
# Rules that are not applied when training starts, since reading the data and fitting the normalizer
# log the same.
LOGGED_ELSEWHERE = (data.outliers, data.constant_dims, data.little_motion, split.short_episodes)

log = logging.getLogger("dpjax")


def check_data_and_config(context: Context, rules: Sequence[Rule] = RULES) -> list[Finding]:
    """The findings of the rules, the worst first, then in the order of the rules."""
    findings = [finding for rule in rules for finding in rule(context)]
    # `sorted` is stable: findings of equal severity keep their order.
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def log_warnings(context: Context) -> None:
    """Logs one line per error and warning; called when a training starts."""
    rules = [rule for rule in RULES if rule not in LOGGED_ELSEWHERE]
    for finding in check_data_and_config(context, rules):
        if finding.severity != "note":
            log.warning("check: %s. Remedy: %s.", finding.reason, finding.remedy)


def exit_code(findings: Sequence[Finding], strict: bool) -> int:
    """The exit code of the command: 1 after an error, or with `strict` a warning; otherwise 0."""
    failing = ("error", "warning") if strict else ("error",)
    return int(any(finding.severity in failing for finding in findings))
