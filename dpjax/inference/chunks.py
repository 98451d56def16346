"""Functions of action chunks: shifted to another time, and checked before they are executed."""

import numpy as np

from dpjax.core.errors import UserError


def advance(chunk: np.ndarray, steps: int) -> np.ndarray:
    """Shifts a chunk [..., Tp, Da] by `steps` into the past; the last steps become NaN."""
    unknown = np.full_like(chunk[..., :steps, :], np.nan)
    return np.concatenate([chunk[..., steps:, :], unknown], axis=-2)


def from_now(chunk: np.ndarray, observed: int) -> np.ndarray:
    """The actions [B, Tp - To + 1, Da] of chunks [B, Tp, Da] from the present on, by (1)."""
    return chunk[:, observed - 1 :]


def is_finite(chunk: np.ndarray) -> np.ndarray:
    """For each of the chunks [B, Tp, Da], whether all its numbers are finite: bool [B]."""
    return np.isfinite(chunk.reshape(len(chunk), -1)).all(axis=1)


def check(
    chunk: np.ndarray, needs: np.ndarray, *, observed: int, executed: int, delay: int
) -> None:
    """Raises UserError if chunks [B, Tp, Da] have a wrong shape or a used one is not finite."""
    batch_size = len(needs)
    if chunk.ndim != 3 or len(chunk) != batch_size:
        raise UserError(
            f"sample_actions returned actions of shape {list(chunk.shape)} for {batch_size} "
            f"environments: it must return [{batch_size}, Tp, Da].",
            argument="sample_actions",
        )
    # By (1), the last executed action is number To - 2 + d + Ta.
    needed = observed - 1 + delay + executed
    if needed > chunk.shape[1]:
        more = f" + delay={delay}" if delay else ""
        raise UserError(
            f"executed={executed} does not fit: observed - 1{more} + executed = {needed} "
            f"steps are needed, but Tp = {chunk.shape[1]} are predicted. Lower executed.",
            argument="executed",
        )
    # NaN or infinity must not reach a robot. Chunks that are not used may contain them.
    broken = np.flatnonzero(needs & ~is_finite(chunk))
    if broken.size:
        raise UserError(
            f"the sampled actions of environments {broken.tolist()} are not finite: none is "
            "executed."
        )
