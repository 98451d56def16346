"""MetaWorld: 50 tasks for one arm and its gripper (Yu et al. 2019), with scripted experts.

The simulator is metaworld 3.1.1 (its "v3" tasks) on mujoco 3.3.0. Control runs at 80 Hz. An
action [4] in [-1, 1] moves the hand's target by 1 cm a unit along x, y and z, and closes
(1) or opens (-1) the gripper. MetaWorld's observation, the raw column "state", has 39 numbers, m:

    hand 3 | gripper 1 | object 3 + 4 | second object 3 + 4 | the step before: 18 | goal 3

of which objects are positions and quaternions, zeros where there is none. The goal is zeros
too unless it is asked for: here it is shown, since in some tasks nothing else tells it.

Success is MetaWorld's own flag, which differs by task, at any step of the episode, which
ends there. It has no graded score that is customary: score is success, as 0 or 1.

A seed gives the same episode each time, bit for bit, whatever the simulator did before.
"""

from collections.abc import Callable
import ctypes.util
import functools
import os
import sys
import warnings

import numpy as np

from dpjax.core.errors import UserError, choices
from dpjax.tasks.base import Columns, Task

VERSION = "-v3"
# The paper that made ten demonstrations customary (DP3, Ze et al. 2024) stops there too.
# Of ten episodes a task the experts' median is 118 steps at most, their longest 195.
MAX_STEPS = 200
FRAME = 192  # px, side of a frame of a film
IMAGE = 96  # px, side of the camera image that a policy sees
CAMERA = "corner2"
CAMERA_PLACE = (0.75, 0.075, 0.7)  # m; nearer than the model's (Seo et al. 2022)
CAMERA_ANGLE = 40.0  # degrees; the model's 60 leave an object 2 px at 96

# fmt: off
NAMES = (
    "assembly", "basketball", "bin-picking", "box-close", "button-press",
    "button-press-topdown", "button-press-topdown-wall", "button-press-wall",
    "coffee-button", "coffee-pull", "coffee-push", "dial-turn", "disassemble",
    "door-close", "door-lock", "door-open", "door-unlock", "drawer-close", "drawer-open",
    "faucet-close", "faucet-open", "hammer", "hand-insert", "handle-press",
    "handle-press-side", "handle-pull", "handle-pull-side", "lever-pull",
    "peg-insert-side", "peg-unplug-side", "pick-out-of-hole", "pick-place",
    "pick-place-wall", "plate-slide", "plate-slide-back", "plate-slide-back-side",
    "plate-slide-side", "push", "push-back", "push-wall", "reach", "reach-wall",
    "shelf-place", "soccer", "stick-pull", "stick-push", "sweep", "sweep-into",
    "window-close", "window-open",
)
# fmt: on


def observe(columns: Columns) -> Columns:
    """{"state": [..., 39]} -> hand [..., 4], objects [..., 14], goal and relative, float32.

    m, but for the gripper's opening in [0, 1] and the quaternions. The step before is left
    out: the policy sees To steps anyway. relative [..., 9] is object - hand, second object -
    hand, goal - object: grasps and pushes look alike wherever they happen, which ten
    demonstrations do not show. (experiments/metaworld has what they change.)
    """
    state = np.asarray(columns["state"], np.float32)
    hand, first, second = state[..., :3], state[..., 4:7], state[..., 11:14]
    goal = state[..., 36:]
    relative = np.concatenate([first - hand, second - hand, goal - first], axis=-1)
    return {
        "hand": state[..., :4],
        "objects": state[..., 4:18],
        "goal": goal,
        "relative": relative,
    }


def see(columns: Columns) -> Columns:
    """{"image": [..., 96, 96, 3], "state": [..., 39]} -> the image, and the hand [..., 4]."""
    return {
        "image": columns["image"],
        "hand": np.asarray(columns["state"], np.float32)[..., :4],
    }


class World:
    """MetaWorld's simulator of one task, and what renders it, by the side of its frames in px.

    camera: side of the camera image among its raw columns; 0 for none.
    """

    def __init__(self, env, camera: int = 0):
        self.env, self.camera, self.renderers = env, camera, {}

    def close(self):
        for renderer in self.renderers.values():
            renderer.close()
        self.env.close()


def make(name: str, camera: int = 0) -> World:
    """The simulator of that task, without a window. camera: see `World`."""
    env = _package().env_dict.ALL_V3_ENVIRONMENTS[name + VERSION]()
    env._partially_observable = False  # shows the goal
    env.__dict__.pop("sawyer_observation_space", None)  # cached with the goal hidden
    # `reset` draws from `seed`, instead of repeating one of 50 layouts fixed at the start.
    env._set_task_called, env._freeze_rand_vec, env.seeded_rand_vec = True, False, True
    return World(env, camera)


def reset(world: World, seed: int) -> Columns:
    """Starts the episode of a seed."""
    world.env.seed(seed)  # reset(seed=…) ignores it
    state, _ = world.env.reset()
    space = world.env.sawyer_observation_space
    return _columns(world, np.clip(state, space.low, space.high))  # as `step` does it


def step(world: World, action: np.ndarray) -> tuple[Columns, float, bool]:
    """One action [4]; beyond [-1, 1] MetaWorld clips -> (raw columns, success 0 or 1, over)."""
    state, _, _, _, info = world.env.step(np.array(action, np.float64))
    success = float(info["success"]) > 0
    return _columns(world, state), float(success), success


def _columns(world, state):
    columns = {"state": np.asarray(state, np.float32)}
    if world.camera:
        columns["image"] = render(world, world.camera)
    return columns


def expert(name: str) -> Callable[[Columns], np.ndarray]:
    """MetaWorld's scripted policy: {"state": [39]} -> action [4].

    Clipped to what the simulator executes: a hand far from its target asks for more.
    """
    policy = _package().policies.ENV_POLICY_MAP[name + VERSION]()
    warnings.filterwarnings("ignore", message="Constant.s. may be too high")  # that same thing

    def act(columns):
        action = policy.get_action(np.asarray(columns["state"], np.float64))
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    return act


def render(world: World, side: int = FRAME) -> np.ndarray:
    """uint8 [side, side, 3]; UserError where this machine has nothing to render with."""
    import mujoco

    if side not in world.renderers:
        world.renderers[side] = _renderer(mujoco, world.env.model, side)
    renderer = world.renderers[side]
    renderer.update_scene(world.env.data, camera=CAMERA)
    return renderer.render()[::-1, ::-1]  # the camera hangs upside down


def _renderer(mujoco, model, side):
    """A renderer without what costs most where there is no graphics card."""
    try:
        mujoco.gl_context.GLContext(side, side).free()  # Renderer is noisy when this fails
        model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
        model.cam(CAMERA).pos, model.cam(CAMERA).fovy = CAMERA_PLACE, CAMERA_ANGLE
        renderer = mujoco.Renderer(model, side, side)
    except Exception as error:
        raise UserError(
            f"MetaWorld cannot be rendered with MUJOCO_GL={os.environ.get('MUJOCO_GL')!r} "
            f"({type(error).__name__}: {error}); on Debian: apt install libegl1 libgl1-mesa-dri."
        ) from error
    for name in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE"):
        renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{name}")] = False
    return renderer


@functools.cache
def _package():
    """The package metaworld, imported so that it finds a way to render without a screen."""
    if sys.platform == "linux":  # mujoco reads it once, at its import
        os.environ.setdefault("MUJOCO_GL", _headless())
    try:
        import metaworld
        import metaworld.env_dict
        import metaworld.policies
    except ImportError as error:
        raise UserError(
            f"tasks metaworld/… need their simulator ({error}); install it: "
            "pip install .[metaworld]"
        ) from error
    return metaworld


def _headless():
    """What MUJOCO_GL has to be, by the libraries that are there."""
    libraries = {"egl": "EGL", "osmesa": "OSMesa"}
    found = [gl for gl, library in libraries.items() if ctypes.util.find_library(library)]
    return (*found, "disable")[0]


def task(name: str, camera: bool = False) -> Task:
    """The task metaworld/<name>; `push` and `push-v3` are the same.

    camera: metaworld_image/<name>, which sees an image and the hand instead of the objects.
    """
    family = "metaworld_image" if camera else "metaworld"
    short = name.removesuffix(VERSION)
    if short not in NAMES:
        raise UserError(
            f"task '{family}/{name}' (config.task, --task) is unknown; {choices(short, NAMES)}."
        )
    return Task(
        name=f"{family}/{short}",
        make=functools.partial(make, short, IMAGE if camera else 0),
        reset=reset,
        step=step,
        observe=see if camera else observe,
        render=render,
        # Displacements of the hand are no places in a picture.
        draw_actions=lambda frame, actions: frame,
        score=float,
        success=lambda progress: progress > 0,
        max_steps=MAX_STEPS,
        action_low=-1.0,
        action_high=1.0,
        columns=("image", "state") if camera else ("state",),
        # No place: doors, boxes and pegs stand where their models were changed to, which
        # no column says.
        expert=functools.partial(expert, short),
    )
