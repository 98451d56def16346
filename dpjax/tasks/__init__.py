"""What a task is: a NamedTuple of functions over an environment, and its numbers.

One file a task. Commands take a task by `get(name)` and hand it on; the rollout reads
its fields and imports nothing from here.
"""

from collections.abc import Iterable
import functools

from dpjax.core.errors import UserError, choices
from dpjax.tasks.base import Columns, Task

__all__ = ["Columns", "Task", "get", "observed"]


def _pusht() -> Task:
    from dpjax.tasks import pusht  # here, for pusht imports Task from this file

    return pusht.TASK


def _pusht_image() -> Task:
    from dpjax.tasks import pusht

    return pusht.IMAGE_TASK


def _metaworld(name: str, camera: bool = False) -> Task:
    from dpjax.tasks import metaworld

    return metaworld.task(name, camera)


def _own() -> Task:
    from dpjax.tasks import custom

    return custom.TASK


TASKS = {"pusht": _pusht, "pusht_image": _pusht_image, "own": _own}
FAMILIES = {  # their tasks are called <family>/<name>
    "metaworld": _metaworld,
    "metaworld_image": functools.partial(_metaworld, camera=True),
}


def get(name: str) -> Task:
    """The task of that name."""
    family, slash, member = name.partition("/")
    if slash and family in FAMILIES:
        return FAMILIES[family](member)
    if name not in TASKS:
        known = [*TASKS, *(f"{family}/<name>" for family in FAMILIES)]
        raise UserError(f"task {name!r} (config.task, --task) is unknown; {choices(name, known)}.")
    return TASKS[name]()


def observed(task: Task, columns: Iterable[str]) -> tuple[str, ...]:
    """The raw columns that the task observes, where the data has these."""
    return task.columns or tuple(key for key in columns if key != task.action)
