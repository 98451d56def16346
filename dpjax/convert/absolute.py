"""Absolute actions, poses with axis-angle rotations, as poses with 6-D rotations."""

from collections.abc import Sequence
import logging

import numpy as np

from dpjax.convert.source import ACTION, Columns, Feature, Source
from dpjax.core.errors import UserError

POSE = 7  # numbers in an arm's absolute action: position 3, axis-angle 3, gripper 1
POSE_6D = 10  # the same with a 6-D rotation: 3 + 6 + 1

log = logging.getLogger("dpjax")


def with_6d_rotations(source: Source, key: str, unused: Sequence[str] = ()) -> Source:
    """The same source with its poses' axis-angle rotations converted to 6-D (Zhou et al. 2019).

    key: the actions, float [T, 7] per arm, which become float32 [T, 10] per arm.
    unused: other actions, which are not converted.
    """
    # Imported here, because it imports jax, which takes a second.
    from dpjax.core import rotations

    # An arm's 7 numbers are consecutive; two arms have 14.
    if key not in source.features:
        reason = source.damage.get(key) or source.problems.get(key) or "missing"
        raise UserError(f"{source.path}: {key} can't be converted: {reason}.")
    shape, dtype = source.features[key]
    if len(shape) != 1 or shape[0] % POSE or not shape[0] or dtype.kind != "f":
        raise UserError(
            f"{source.path}: {key}: absolute=True expects floats [T, 7] or [T, 14] (position 3, "
            f"axis-angle 3, gripper 1, per arm), got {dtype} {[None, *shape]}.",
            argument="absolute",
        )
    arms = shape[0] // POSE

    def read(e: int, keys: Sequence[str]) -> Columns:
        columns = source.read(e, keys)
        if key in columns:
            # [T, arms * 7] -> [T, arms, 7], in float64 to round only once, in the cast below.
            poses = columns[key].astype(np.float64).reshape(len(columns[key]), arms, POSE)
            rotation = rotations.convert(poses[..., 3:6], "axis_angle", "rotation_6d")
            # [T, arms, 3 + 6 + 1] -> [T, arms * 10]
            parts = [poses[..., :3], rotation, poses[..., 6:]]
            actions = np.concatenate(parts, -1).reshape(len(poses), -1)
            columns[key] = actions.astype(np.float32)
        return columns

    features = {name: feature for name, feature in source.features.items() if name not in unused}
    features[key] = Feature((arms * POSE_6D,), np.dtype(np.float32))
    log.info(
        "%s: read as poses, axis-angle converted to 6-D rotations: %d numbers -> %d",
        key, shape[0], arms * POSE_6D,
    )  # fmt: skip
    return source._replace(
        features=features,
        read=read,
        names={key: ACTION},
        defaults=[*features, *source.problems],
        problems={name: text for name, text in source.problems.items() if name not in unused},
        damage={name: text for name, text in source.damage.items() if name not in unused},
    )
