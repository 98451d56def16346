"""MetaWorld: 50 tasks for one arm and its gripper (Yu et al. 2019), with scripted experts.

The simulator is metaworld 3.1.1 (its "v3" tasks) on mujoco 3.3.0. Control runs at 80 Hz. An
action [4] in [-1, 1] moves the hand's target by 1 cm per unit along x, y and z, and closes (1) or
opens (-1) the gripper. MetaWorld's observation, the raw column "state", has 39 numbers, in m:

    hand 3 | gripper 1 | object 3 + 4 | second object 3 + 4 | the step before: 18 | goal 3

An object is a position and a quaternion; a missing object is zeros. By default MetaWorld hides the
goal (zeros). Here it is visible, since in some tasks no other number tells where it is.

An episode succeeds, and ends, at the first step at which MetaWorld sets its success flag, whose
meaning differs by task. There is no customary graded score: the score is success, as 0 or 1.
A seed always gives the same episode, bit for bit, whatever the simulator did before.
"""

from collections.abc import Callable
import ctypes.util
import functools
import os
import sys
from typing import Any
import warnings

import numpy as np

from dpjax.core.errors import UserError, choices
from dpjax.tasks.base import Columns, Simulator, Task

VERSION = "-v3"  # ends MetaWorld's names of tasks
# The limit of the paper that made ten demonstrations customary (DP3, Ze et al. 2024). The experts
# need fewer steps: over ten episodes per task their median is at most 118, and the longest 195.
MAX_STEPS = 200
FRAME = 192  # px, side of a film's frame
IMAGE = 96  # px, side of the camera image that a policy sees
CAMERA = "corner2"  # the name of a camera in MetaWorld's model
CAMERA_PLACE = (0.75, 0.075, 0.7)  # m; nearer than in the model (Seo et al. 2022)
CAMERA_ANGLE = 40.0  # degrees; with the model's 60 an object is only 2 of 96 px wide

# fmt: off
NAMES = (
    "assembly", "basketball", "bin-picking", "box-close", "button-press", "button-press-topdown",
    "button-press-topdown-wall", "button-press-wall", "coffee-button", "coffee-pull",
    "coffee-push", "dial-turn", "disassemble", "door-close", "door-lock", "door-open",
    "door-unlock", "drawer-close", "drawer-open", "faucet-close", "faucet-open", "hammer",
    "hand-insert", "handle-press", "handle-press-side", "handle-pull", "handle-pull-side",
    "lever-pull", "peg-insert-side", "peg-unplug-side", "pick-out-of-hole", "pick-place",
    "pick-place-wall", "plate-slide", "plate-slide-back", "plate-slide-back-side",
    "plate-slide-side", "push", "push-back", "push-wall", "reach", "reach-wall", "shelf-place",
    "soccer", "stick-pull", "stick-push", "sweep", "sweep-into", "window-close", "window-open",
)
# fmt: on


def observe(columns: Columns) -> Columns:
    """{"state": [..., 39]} -> hand [..., 4], objects [..., 14], goal and relative, float32.

    All in m, except the gripper's opening in [0, 1] and the quaternions. The step before is left
    out, since the policy observes To steps anyway. relative [..., 9] is object - hand, second
    object - hand, goal - object. With these differences a grasp or a push looks the same wherever
    it happens; ten demonstrations are too few to learn that (measured in experiments/metaworld).
    """
    # Positions [..., 3], in the order of the module's docstring.
    state = np.asarray(columns["state"], np.float32)
    hand = state[..., :3]
    first = state[..., 4:7]  # object
    second = state[..., 11:14]
    goal = state[..., 36:]
    relative = np.concatenate([first - hand, second - hand, goal - first], axis=-1)
    return {
        "hand": state[..., :4],  # with the gripper
        "objects": state[..., 4:18],  # both, with their quaternions
        "goal": goal,
        "relative": relative,
    }


def observe_image(columns: Columns) -> Columns:
    """{"image": [..., 96, 96, 3], "state": [..., 39]} -> the image and the hand [..., 4]."""
    return {
        "image": columns["image"],
        "hand": np.asarray(columns["state"], np.float32)[..., :4],
    }


class World:
    """MetaWorld's simulator of one task, with one renderer per image size.

    camera: side of the camera image in the raw columns, px; 0 for no image.
    """

    def __init__(self, env, camera: int = 0):
        self.env = env
        self.camera = camera
        self.renderers: dict[int, Any] = {}  # {side in px: renderer}

    def close(self) -> None:
        """Frees the renderers and the simulator."""
        for renderer in self.renderers.values():
            renderer.close()
        self.env.close()


def make(name: str, camera: int = 0) -> World:
    """The simulator of a task, without a window. camera: see `World`."""
    # The class itself, not gymnasium.make: only the class can show the goal and take any seed.
    env = _package().env_dict.ALL_V3_ENVIRONMENTS[name + VERSION]()
    env._partially_observable = False  # shows the goal
    env.__dict__.pop("sawyer_observation_space", None)  # cached with the goal hidden
    # With these, `reset` draws a layout from its seed, instead of repeating one of 50 fixed ones.
    env._set_task_called = True
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    return World(env, camera)


def reset(world: World, seed: int) -> Columns:
    """Starts the episode of a seed; returns the raw columns of its first step."""
    world.env.seed(seed)  # env.reset(seed=…) ignores its argument
    state, _ = world.env.reset()
    space = world.env.sawyer_observation_space
    # env.step clips its observations, but env.reset does not: here both do.
    return _columns(world, np.clip(state, space.low, space.high))


def step(world: World, action: np.ndarray) -> tuple[Columns, float, bool]:
    """Executes one action [4] -> (raw columns, success as 0 or 1, whether the episode ends).

    MetaWorld clips the action to [-1, 1].
    """
    state, _, _, _, info = world.env.step(np.array(action, np.float64))
    success = float(info["success"]) > 0
    return _columns(world, state), float(success), success


def _columns(world, state):
    # An image is rendered for tasks of metaworld_image only.
    columns = {"state": np.asarray(state, np.float32)}
    if world.camera:
        columns["image"] = render(world, world.camera)
    return columns


def expert(name: str) -> Callable[[Columns], np.ndarray]:
    """MetaWorld's scripted policy: {"state": [39]} -> action [4].

    Far from its target it asks for more than the simulator's [-1, 1]; its actions are clipped.
    """
    policy = _package().policies.ENV_POLICY_MAP[name + VERSION]()
    # MetaWorld warns about actions that it will clip. Here they are clipped on purpose.
    warnings.filterwarnings("ignore", message="Constant.s. may be too high")

    def act(columns):
        action = policy.get_action(np.asarray(columns["state"], np.float64))  # as MetaWorld has it
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    return act


def render(world: World, side: int = FRAME) -> np.ndarray:
    """uint8 [side, side, 3]. Raises UserError if this machine cannot render."""
    import mujoco

    # MuJoCo fixes the size of a renderer, so there is one per size, made on first use.
    if side not in world.renderers:
        world.renderers[side] = _renderer(mujoco, world.env.model, side)
    renderer = world.renderers[side]
    renderer.update_scene(world.env.data, camera=CAMERA)
    return renderer.render()[::-1, ::-1]  # this camera hangs upside down


def _renderer(mujoco, model, side):
    """A renderer without the effects that are slow on a machine without a graphics card."""
    try:
        # A trial first: on a machine without OpenGL, Renderer prints a page of tracebacks.
        mujoco.gl_context.GLContext(side, side).free()
        model.vis.quality.offsamples = 0  # no antialiasing
        model.vis.quality.shadowsize = 0
        model.cam(CAMERA).pos = CAMERA_PLACE
        model.cam(CAMERA).fovy = CAMERA_ANGLE
        renderer = mujoco.Renderer(model, side, side)
    except Exception as error:
        raise UserError(
            f"MetaWorld cannot be rendered with MUJOCO_GL={os.environ.get('MUJOCO_GL')!r} "
            f"({type(error).__name__}: {error}); on Debian: apt install libegl1 libgl1-mesa-dri."
        ) from error
    # Effects of the scene that take time and show nothing of the task.
    for name in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE"):
        renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{name}")] = False
    return renderer


@functools.cache
def _package():
    """The package metaworld, imported so that it can render without a screen."""
    if sys.platform == "linux":  # mujoco reads the variable when it is imported
        os.environ.setdefault("MUJOCO_GL", _headless_gl())
    try:
        import metaworld
        import metaworld.env_dict
        import metaworld.policies
    except ImportError as error:
        raise UserError(
            f"tasks metaworld/… need their simulator ({error}); install it: "
            "pip install 'dpjax[metaworld]'"
        ) from error
    return metaworld


def _headless_gl() -> str:
    """The value of MUJOCO_GL for the first OpenGL library that is installed."""
    # EGL first, since it can use a graphics card. Without either, everything but rendering works.
    libraries = {"egl": "EGL", "osmesa": "OSMesa"}
    installed = [gl for gl, library in libraries.items() if ctypes.util.find_library(library)]
    return installed[0] if installed else "disable"


def task(name: str, camera: bool = False) -> Task:
    """The task metaworld/<name>; `push` and `push-v3` are the same task.

    camera: whether it is metaworld_image/<name>: an image instead of the positions of objects.
    """
    family = "metaworld_image" if camera else "metaworld"
    short = name.removesuffix(VERSION)
    # NAMES finds a misspelled name even where metaworld is not installed.
    if short not in NAMES:
        raise UserError(
            f"task='{family}/{name}' is unknown; {choices(short, NAMES)}.", argument="task"
        )
    simulator = Simulator(
        make=functools.partial(make, short, IMAGE if camera else 0),
        reset=reset,
        step=step,
        render=render,
        # Actions are displacements of the hand by at most 1 cm: too small to draw.
        draw_actions=lambda frame, actions: frame,
        score=float,  # progress is success, as 0 or 1
        success=lambda progress: progress > 0,
        max_steps=MAX_STEPS,
        action_low=-1.0,
        action_high=1.0,
        # No `place`: a reset also moves doors, boxes and pegs that no raw column describes.
        expert=functools.partial(expert, short),
    )
    return Task(
        name=f"{family}/{short}",
        observe=observe_image if camera else observe,
        columns=("image", "state") if camera else ("state",),
        simulator=simulator,
    )
