"""The tasks, by name.

A new task is a file of this folder that fills in `Task` (and `Simulator`, if it has one), and a
line in `TASKS`. A family of tasks that share one file is a function `name -> Task` in `FAMILIES`;
its members are called <family>/<name>. The files are imported when a task is asked for.
"""

from collections.abc import Iterable
import functools

from dpjax.core.errors import UserError, choices
from dpjax.tasks.base import Columns, Simulator, Task

__all__ = ["Columns", "Simulator", "Task", "get", "observed_columns", "require_simulator"]


def _pusht() -> Task:
    from dpjax.tasks import pusht

    return pusht.TASK


def _pusht_image() -> Task:
    from dpjax.tasks import pusht

    return pusht.IMAGE_TASK


def _metaworld(name: str, camera: bool = False) -> Task:
    from dpjax.tasks import metaworld

    return metaworld.task(name, camera)


def _custom() -> Task:
    from dpjax.tasks import custom

    return custom.TASK


# {name: a function that imports and returns the task}.
TASKS = {"pusht": _pusht, "pusht_image": _pusht_image, "custom": _custom}
# {name of the family: a function from the name of a member to its task}.
FAMILIES = {
    "metaworld": _metaworld,
    "metaworld_image": functools.partial(_metaworld, camera=True),
}
# Former names, which run folders hold.
RENAMED = {"own": "custom"}


def get(name: str) -> Task:
    """Returns the task `name`; raises UserError if there is none of that name."""
    name = RENAMED.get(name, name)
    # A member of a family: metaworld/push.
    family, slash, member = name.partition("/")
    if slash and family in FAMILIES:
        return FAMILIES[family](member)
    # Every other name has no slash.
    if name not in TASKS:
        known = [*TASKS, *(f"{family}/<name>" for family in FAMILIES)]
        raise UserError(f"task={name!r} is unknown; {choices(name, known)}.", argument="task")
    return TASKS[name]()


def observed_columns(task: Task, columns: Iterable[str]) -> tuple[str, ...]:
    """The names of the raw columns that the task observes in data that has these `columns`."""
    # A task without columns of its own takes what the data has.
    return task.columns or tuple(key for key in columns if key != task.action)


def require_simulator(task: Task, *, instead: str = "") -> Simulator:
    """Returns the task's simulator; raises UserError if it has none.

    instead: what the caller offers in place of a rollout; the error names it first.
    """
    if task.simulator is None:
        offer = f"{instead}, " if instead else ""
        raise UserError(
            f"task={task.name!r} has no simulator to roll out in: {offer}validate the run on "
            "held-out demonstrations (python -m dpjax.validate), or name another task of "
            "dpjax/tasks.",
            argument="task",
        )
    return task.simulator
