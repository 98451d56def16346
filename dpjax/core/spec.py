"""What a run observes and does."""

from typing import NamedTuple


class Spec(NamedTuple):
    """What a run observes and does, in its order: saved with it, checked at load.

    observations: {key: size of the last axis, or (H, W, 3) of images}. action: Da.
    data: the data's fingerprint.
    """

    observations: dict[str, int | tuple[int, int, int]]
    action: int
    data: str

    @property
    def cameras(self) -> dict[str, tuple[int, int, int]]:
        """The observations that are images."""
        return {key: x for key, x in self.observations.items() if isinstance(x, tuple)}

    @property
    def numbers(self) -> dict[str, int]:
        """The observations that are not."""
        return {key: x for key, x in self.observations.items() if not isinstance(x, tuple)}
