"""Tasks by name, and tasks without a simulator."""

import numpy as np
import pytest

from dpjax import tasks
from dpjax.core.errors import UserError
from dpjax.tasks import pusht


def test_an_unknown_task_is_named_with_the_nearest():
    with pytest.raises(UserError, match="task='push' is unknown; did you mean 'pusht'") as error:
        tasks.get("push")
    assert error.value.argument == "task"
    assert tasks.get("pusht") is pusht.TASK


def test_the_former_name_of_the_custom_task_works():
    task = tasks.get("own")
    assert task is tasks.get("custom") and task.name == "custom"


def test_a_task_without_a_simulator_says_what_to_do_instead():
    task = tasks.get("custom")
    assert task.simulator is None
    with pytest.raises(UserError, match="task='custom' has no simulator .*dpjax.validate"):
        tasks.require_simulator(task)
    with pytest.raises(UserError, match="roll out in: give an --observation, validate the run"):
        tasks.require_simulator(task, instead="give an --observation")
    assert tasks.require_simulator(pusht.TASK) is pusht.SIMULATOR


def test_the_custom_task_observes_all_columns_as_they_are():
    task = tasks.get("custom")
    names = tasks.observed_columns(task, ["pose", "action", "camera"])
    assert names == ("pose", "camera")
    image = np.zeros((2, 4, 4, 3), np.uint8)
    obs = task.observe({"pose": np.ones((2, 3), np.float64), "camera": image})
    assert obs["pose"].dtype == np.float32 and obs["camera"] is image
    assert tasks.observed_columns(pusht.TASK, ["pose", "action"]) == ("state",)
