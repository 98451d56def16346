"""The sizes of a policy's observations and actions."""

from typing import NamedTuple


class Spec(NamedTuple):
    """The sizes of a policy's data. It is saved in the run folder; a resumed run must match it.

    observations: {key: size of the last axis, or (H, W, 3) for images}, in the policy's order.
    action: Da, the size of an action.
    data: the fingerprint of the training data.
    """

    observations: dict[str, int | tuple[int, int, int]]
    action: int
    data: str

    @property
    def cameras(self) -> dict[str, tuple[int, int, int]]:
        """{key: (H, W, 3)} of the observations that are images."""
        # The sizes of images are tuples (H, W, 3), those of vectors are integers.
        return {key: x for key, x in self.observations.items() if isinstance(x, tuple)}

    @property
    def numbers(self) -> dict[str, int]:
        """{key: D} of the observations that are vectors of numbers."""
        return {key: x for key, x in self.observations.items() if not isinstance(x, tuple)}
