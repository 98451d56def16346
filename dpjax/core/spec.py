"""The observations that a policy takes and the size of its actions."""

from typing import NamedTuple


class Spec(NamedTuple):
    """The shape of a policy's data. It is saved with a run and compared when one is loaded.

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
        # Sizes of images are tuples (H, W, 3), sizes of vectors are whole numbers.
        return {key: x for key, x in self.observations.items() if isinstance(x, tuple)}

    @property
    def numbers(self) -> dict[str, int]:
        """{key: D} of the observations that are vectors of numbers."""
        return {key: x for key, x in self.observations.items() if not isinstance(x, tuple)}
