"""The tasks, by name.

To add a task, write a file in this folder that defines a `Task` (and its `Simulator`, if it has
one), and add a line to `TASKS`. Tasks that share one file form a family: a function `name -> Task`
in `FAMILIES`, whose members are called <family>/<name>. `get` imports a task's file when the task
is first needed.
"""

from collections.abc import Iterable
import functools

from dpjax.core.errors import UserError, choices
from dpjax.tasks.base import Columns, Simulator, Task

__all__ = ["Columns", "Simulator", "Task", "get", "observed_columns", "require_simulator"]

# The functions import in their bodies: `import dpjax` then loads no task's file, and a task's file
# may need libraries that are not installed.


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


# Single tasks, {name: a function that imports and returns the task}.
TASKS = {"pusht": _pusht, "pusht_image": _pusht_image, "custom": _custom}
# Families of tasks, {name of the family: a function from the name of a member to its task}.
FAMILIES = {
    "metaworld": _metaworld,
    # The same tasks, observed by a camera.
    "metaworld_image": functools.partial(_metaworld, camera=True),
}
# {former name: present name}. Configs in older run folders hold the former ones.
RENAMED = {"own": "custom"}


def get(name: str) -> Task:
    """Returns the task `name`; raises UserError if there is none of that name."""
    name = RENAMED.get(name, name)
    # A member of a family, such as metaworld/push. The family checks the name of the member.
    family, slash, member = name.partition("/")
    if slash and family in FAMILIES:
        return FAMILIES[family](member)
    # Every other name is that of a single task. The error shows each family as one pattern, since
    # the 50 names of metaworld would bury the others.
    if name not in TASKS:
        known = [*TASKS, *(f"{family}/<name>" for family in FAMILIES)]
        raise UserError(f"task={name!r} is unknown; {choices(name, known)}.", argument="task")
    return TASKS[name]()


def observed_columns(task: Task, columns: Iterable[str]) -> tuple[str, ...]:
    """The names of the raw columns that the task observes in data that has these `columns`."""
    # Task `custom` names no columns: every column but the action is an observation.
    return task.columns or tuple(key for key in columns if key != task.action)


def require_simulator(task: Task, *, instead: str = "") -> Simulator:
    """Returns the task's simulator; raises UserError if it has none.

    instead: what the caller offers in place of a rollout; the error names it first.
    """
    if task.simulator is None:
        # The message lists what the user can do: the caller's offer, validation, another task.
        offer = f"{instead}, " if instead else ""
        raise UserError(
            f"task={task.name!r} has no simulator to roll out in: {offer}validate the run on "
            "held-out demonstrations (python -m dpjax.validate), or name another task of "
            "dpjax/tasks.",
            argument="task",
        )
    return task.simulator
