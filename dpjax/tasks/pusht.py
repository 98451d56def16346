"""Push-T: push a T-shaped block onto its outline (Florence et al. 2021; Chi et al. 2023).

The scene is 512 x 512 px, control runs at 10 Hz, an action is the wanted position of the
agent in px. The simulator is gym-pusht 0.1.8, whose physics is that of the human data:
replayed open loop from their first frames, 182 of the 206 episodes stay within 1e-3 px of
the recorded block (median 3e-5 px), the worst within 1 px.

The policy does not see the block's angle, which jumps from 2π to 0, but nine points fixed
to the block, which do not:

    keypoint_i = block_xy + R(angle) local_i                                  (1)

Progress is coverage, the share of the goal outline under the block. Both metrics of an
episode come from the largest coverage c on its way (and neither replaces the other):

    score = clip(c / 0.95, 0, 1)        success = c > 0.95                    (2)
"""

import os

import numpy as np
from PIL import Image, ImageDraw

from dpjax.core.errors import UserError
from dpjax.data.frames import antidiagonal
from dpjax.tasks.base import Columns, Task

SIZE = 512.0  # px, side of the scene
FRAME = 384  # px, side of a rendered frame
IMAGE = 96  # px, side of the paper's camera image
ENOUGH = 0.95  # coverage that counts as solved

# local_i of (1), px: the median over the 25,650 frames of pusht_cchi_v7_replay of
# R(angle)^T (data/keypoint - block_xy). The middle frame is within 2e-5 px of it, 99.76 %
# are within 0.1 px; the rest (at most 2.2 px) were recorded while a contact was resolved.
LOCAL_KEYPOINTS = np.array(
    [
        [9.26979, 90.04097],
        [-60.98347, -1.18673],
        [60.91276, -1.39336],
        [-0.27050, 25.54363],
        [-14.06493, 122.81585],
        [39.00274, 32.85740],
        [-39.96641, 32.72966],
        [-16.82434, 62.86318],
        [23.54146, -1.70029],
    ]
)


def keypoints(block: np.ndarray) -> np.ndarray:
    """Equation (1): block pose [..., 3] (x, y, angle) -> points [..., 9, 2]."""
    block = np.asarray(block, np.float64)
    cos, sin = np.cos(block[..., 2:]), np.sin(block[..., 2:])
    x, y = LOCAL_KEYPOINTS.T
    turned = np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
    return block[..., None, :2] + turned


def observe(columns: Columns) -> Columns:
    """{"state": [..., 5]} -> {"keypoints": [..., 18], "agent_pos": [..., 2]}, float32, px.

    The paper's 20 numbers: x and y of the nine points in turn, and of the agent.
    """
    state = np.asarray(columns["state"])
    points = keypoints(state[..., 2:])
    return {
        "keypoints": points.reshape(*points.shape[:-2], 18).astype(np.float32),
        "agent_pos": state[..., :2].astype(np.float32),
    }


def mirror(columns: Columns) -> Columns:
    """{"state": [..., 5], "action": [..., 2]} -> the same, seen in a mirror along the goal's stem.

    The goal lies at (256, 256) px, turned by π/4; its stem's line x + y = 512 is a diagonal
    of the scene. So is everything its own mirror image: goal, walls (within 1 px) and T.

        (x, y) -> (512 - y, 512 - x),    angle -> π/2 - angle                 (3)
    """
    state, action = np.asarray(columns["state"]), np.asarray(columns["action"])
    flip = lambda xy: SIZE - xy[..., ::-1]
    angle = np.mod(np.pi / 2 - state[..., 4:], 2 * np.pi)
    state = np.concatenate([flip(state[..., :2]), flip(state[..., 2:4]), angle], axis=-1)
    return {"state": state.astype(columns["state"].dtype), "action": flip(action)}


def make(seen: int = FRAME):
    """A simulator without a window. seen: px, side of the image observation."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        from gym_pusht.envs.pusht import PushTEnv
    except ImportError as error:
        raise UserError(
            f"task pusht needs its simulator ({error}); install it: pip install .[sim]"
        ) from error
    # The class itself: gym.make would end episodes by its own count of steps.
    return PushTEnv(
        "state",
        visualization_width=FRAME,
        visualization_height=FRAME,
        observation_width=seen,
        observation_height=seen,
    )


def initial_state(seed: int) -> np.ndarray:
    """The paper's draw [5] for a seed, from numpy's legacy generator, which is frozen."""
    rng = np.random.RandomState(seed)
    agent = [rng.randint(50, 450), rng.randint(50, 450)]
    block = [rng.randint(100, 400), rng.randint(100, 400)]
    return np.array([*agent, *block, rng.randn() * 2 * np.pi - np.pi])


def reset(env, seed: int) -> Columns:
    """Starts the episode of a seed."""
    # As the original does, gym-pusht sets the position before the angle. The block turns
    # about its centre of mass, so it does not start at the drawn position.
    state, _ = env.reset(options={"reset_to_state": initial_state(seed)})
    return _columns(state)


def place(env, state: np.ndarray) -> Columns:
    """Sets the exact state [5], at rest: a recorded frame rather than a seed's draw."""
    env._setup()  # env.reset would go on to a physics step, with the legacy order's contacts
    agent_x, agent_y, block_x, block_y, angle = (float(x) for x in state)
    env.agent.position = (agent_x, agent_y)
    env.block.angle = angle  # before the position, which turning would move
    env.block.position = (block_x, block_y)
    for body in (env.agent, env.block):  # what is drawn moves along in a step, or when told
        env.space.reindex_shapes_for_body(body)
    return _columns(env.get_obs())


def step(env, action: np.ndarray) -> tuple[Columns, float, bool]:
    """One action [2], px, not clipped -> (raw columns, coverage, solved)."""
    state, _, done, _, info = env.step(np.array(action, np.float64))
    return _columns(state), float(info["coverage"]), bool(done)


def _columns(state):
    return {"state": np.asarray(state, np.float32)}


def render(env) -> np.ndarray:
    """uint8 [384, 384, 3]."""
    env._last_action = None  # or its red cross hides the plan that is drawn
    return np.asarray(env.render(), np.uint8)


def draw_actions(frame: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """A copy of the frame [H, W, 3] with a plan [Tp, 2] on it, from blue (now) to orange."""
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    points = np.asarray(actions, np.float64) / SIZE * image.size
    early, late = np.array([0, 90, 255]), np.array([255, 120, 0])
    colors = np.round(early + (late - early) * np.linspace(0, 1, len(points))[:, None])
    thick = max(1, image.width // 128)
    for start, end, color in zip(points[:-1], points[1:], colors):
        draw.line([*start, *end], fill=tuple(color.astype(int)), width=thick)
    for (x, y), color in zip(points, colors):
        box = [x - thick, y - thick, x + thick, y + thick]
        draw.ellipse(box, fill=tuple(color.astype(int)))
    return np.asarray(image)


def look(env, columns: Columns) -> Columns:
    """The raw columns of a step, and the camera's image uint8 [96, 96, 3].

    Within 0.4 % of its pixels that of the paper's data: the rest lie on edges.
    """
    return {"image": np.asarray(env._render(visualize=False), np.uint8), **columns}


def see(columns: Columns) -> Columns:
    """{"image": [..., 96, 96, 3], "state": [..., 5]} -> the image, and where the agent is, px."""
    agent_pos = np.asarray(columns["state"])[..., :2].astype(np.float32)
    return {"image": columns["image"], "agent_pos": agent_pos}


def step_and_look(env, action: np.ndarray) -> tuple[Columns, float, bool]:
    columns, coverage, done = step(env, action)
    return look(env, columns), coverage, done


TASK = Task(
    name="pusht",
    make=make,
    reset=reset,
    step=step,
    place=lambda env, columns: place(env, columns["state"]),
    observe=observe,
    render=render,
    draw_actions=draw_actions,
    score=lambda coverage: float(np.clip(coverage / ENOUGH, 0.0, 1.0)),
    success=lambda coverage: bool(coverage > ENOUGH),
    max_steps=300,
    action_low=0.0,
    action_high=SIZE,
    columns=("state",),
    mirror=mirror,
)

# The same with a camera: the policy sees the scene, and of the state only the agent.
IMAGE_TASK = TASK._replace(
    name="pusht_image",
    make=lambda: make(IMAGE),
    reset=lambda env, seed: look(env, reset(env, seed)),
    step=step_and_look,
    observe=see,
    columns=("image", "state"),
    mirror=lambda columns: {"image": antidiagonal(columns["image"]), **mirror(columns)},
)
