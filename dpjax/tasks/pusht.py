"""Push-T: push a T-shaped block onto its outline (Florence et al. 2021; Chi et al. 2023).

The scene is 512 x 512 px and control runs at 10 Hz. An action is the target position of the
agent, in px. The simulator is gym-pusht 0.1.8. Its physics is that of the human demonstrations:
when their actions are replayed open loop from the first frames, the block stays within 1e-3 px of
the recorded one in 182 of the 206 episodes (median 3e-5 px) and within 1 px in all.

The block's angle jumps from 2π to 0. Instead of it the policy observes the positions of nine
points that are fixed to the block, which do not jump:

    keypoint_i = block_xy + R(angle) local_i                                  (1)

Progress is coverage: the share of the goal's area that the block covers. Both metrics of an
episode are functions of its largest coverage c, and both are reported:

    score = clip(c / 0.95, 0, 1)        success = c > 0.95                    (2)
"""

import os

import numpy as np

from dpjax.core.errors import UserError
from dpjax.data.frames import antidiagonal
from dpjax.tasks.base import Columns, Simulator, Task

SIZE = 512.0  # px, side of the scene
FRAME = 384  # px, side of a rendered frame
IMAGE = 96  # px, side of the paper's camera image
ENOUGH = 0.95  # the coverage that counts as success, in (2)

# local_i of (1), in px: the median of R(angle)^T (data/keypoint - block_xy) over the 25,650 frames
# of pusht_cchi_v7_replay. Half of the frames agree with it within 2e-5 px and 99.76 % within
# 0.1 px. The others (at most 2.2 px off) were recorded while the simulator resolved a contact.
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
    # cos and sin [..., 1] broadcast over the nine points' x and y [9].
    cos = np.cos(block[..., 2:])
    sin = np.sin(block[..., 2:])
    x, y = LOCAL_KEYPOINTS.T
    rotated = np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)  # [..., 9, 2]
    return block[..., None, :2] + rotated


def observe(columns: Columns) -> Columns:
    """{"state": [..., 5]} -> {"keypoints": [..., 18], "agent_pos": [..., 2]}, float32, px.

    These are the paper's 20 numbers: x and y of each of the nine points, and of the agent.
    """
    # The state is agent x, y, block x, y and angle.
    state = np.asarray(columns["state"])
    points = keypoints(state[..., 2:])  # [..., 9, 2]
    return {
        "keypoints": points.reshape(*points.shape[:-2], 18).astype(np.float32),
        "agent_pos": state[..., :2].astype(np.float32),
    }


def mirror(columns: Columns) -> Columns:
    """{"state": [..., 5], "action": [..., 2]} -> the same, mirrored along the goal's stem.

    The goal lies at (256, 256) px, rotated by π/4. The line of its stem, x + y = 512, is a diagonal
    of the scene. Goal, block and walls (the walls within 1 px) are symmetric about it:

        (x, y) -> (512 - y, 512 - x),    angle -> π/2 - angle                 (3)
    """
    state = np.asarray(columns["state"])
    action = np.asarray(columns["action"])
    # Equation (3), first for positions, then for the angle, which stays in [0, 2π).
    flip = lambda xy: SIZE - xy[..., ::-1]
    angle = np.mod(np.pi / 2 - state[..., 4:], 2 * np.pi)
    state = np.concatenate([flip(state[..., :2]), flip(state[..., 2:4]), angle], axis=-1)
    return {"state": state.astype(columns["state"].dtype), "action": flip(action)}


def make(camera: int = FRAME):
    """An environment without a window. camera: side of the camera image, px.

    Raises UserError if the simulator is not installed.
    """
    # pygame reads both variables when it is imported: needs no display, prints no greeting.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        from gym_pusht.envs.pusht import PushTEnv
    except ImportError as error:
        raise UserError(
            f"task pusht needs its simulator ({error}); install it: pip install 'dpjax[sim]'"
        ) from error
    # The class itself, not gym.make, which would end episodes at its own step limit.
    return PushTEnv(
        "state",  # observations are numbers; images come from `render` and `with_image`
        visualization_width=FRAME,
        visualization_height=FRAME,
        observation_width=camera,
        observation_height=camera,
    )


def initial_state(seed: int) -> np.ndarray:
    """The state [5] that the paper draws for a seed: agent x, y and block x, y in px, block angle.

    numpy guarantees the numbers of this legacy generator, so these states are the published ones.
    """
    # Five draws, in the order of the original code: another order gives other states.
    rng = np.random.RandomState(seed)
    agent = [rng.randint(50, 450), rng.randint(50, 450)]
    block = [rng.randint(100, 400), rng.randint(100, 400)]
    return np.array([*agent, *block, rng.randn() * 2 * np.pi - np.pi])


def reset(env, seed: int) -> Columns:
    """Starts the episode of a seed; returns the raw columns of its first step."""
    # gym-pusht sets the block's position before its angle, as the original code does. The angle
    # rotates the block about its centre of mass, so that it does not start at the drawn position.
    state, _ = env.reset(options={"reset_to_state": initial_state(seed)})
    return _columns(state)


def place(env, state: np.ndarray) -> Columns:
    """Puts the environment into exactly this state [5], such as a recorded one, at rest."""
    # env.reset would set the angle last, as `reset` explains, and would run a step of the physics.
    env._setup()
    agent_x, agent_y, block_x, block_y, angle = (float(x) for x in state)
    env.agent.position = (agent_x, agent_y)
    env.block.angle = angle  # first, since the rotation changes the position
    env.block.position = (block_x, block_y)
    # pymunk moves the shapes of a body, which are drawn, only in a step or on request.
    for body in (env.agent, env.block):
        env.space.reindex_shapes_for_body(body)
    return _columns(env.get_obs())


def step(env, action: np.ndarray) -> tuple[Columns, float, bool]:
    """Executes one action [2] in px, without clipping -> (raw columns, coverage, success)."""
    state, _, done, _, info = env.step(np.array(action, np.float64))
    return _columns(state), float(info["coverage"]), bool(done)


def _columns(state):
    return {"state": np.asarray(state, np.float32)}


def render(env) -> np.ndarray:
    """uint8 [384, 384, 3]."""
    env._last_action = None  # its red cross would cover the action chunk
    return np.asarray(env.render(), np.uint8)


def draw_actions(frame: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """A copy of the frame [H, W, 3] with an action chunk [Tp, 2], from blue (now) to orange."""
    from PIL import Image, ImageDraw  # here, since a policy runs without Pillow

    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    points = np.asarray(actions, np.float64) / SIZE * image.size  # scene -> frame, px
    # One colour per step [Tp, 3], between the two ends.
    early = np.array([0, 90, 255])
    late = np.array([255, 120, 0])
    colors = np.round(early + (late - early) * np.linspace(0, 1, len(points))[:, None])
    thick = max(1, image.width // 128)  # px
    # Lines first, then the points on top of them.
    for start, end, color in zip(points[:-1], points[1:], colors):
        draw.line([*start, *end], fill=tuple(color.astype(int)), width=thick)
    for (x, y), color in zip(points, colors):
        box = [x - thick, y - thick, x + thick, y + thick]
        draw.ellipse(box, fill=tuple(color.astype(int)))
    return np.asarray(image)


def with_image(env, columns: Columns) -> Columns:
    """The raw columns of a step with the camera image uint8 [96, 96, 3] added.

    Its pixels equal those of the paper's data, except for 0.4 % that lie on edges.
    """
    # env.render would draw at FRAME; this private method draws at the camera's size.
    return {"image": np.asarray(env._render(visualize=False), np.uint8), **columns}


def step_with_image(env, action: np.ndarray) -> tuple[Columns, float, bool]:
    """`step`, with the camera image in the raw columns."""
    columns, coverage, done = step(env, action)
    return with_image(env, columns), coverage, done


def observe_image(columns: Columns) -> Columns:
    """{"image": [..., 96, 96, 3], "state": [..., 5]} -> the image and the agent's position, px."""
    agent_pos = np.asarray(columns["state"])[..., :2].astype(np.float32)
    return {"image": columns["image"], "agent_pos": agent_pos}


SIMULATOR = Simulator(
    make=make,
    reset=reset,
    step=step,
    render=render,
    draw_actions=draw_actions,
    # Equation (2).
    score=lambda coverage: float(np.clip(coverage / ENOUGH, 0.0, 1.0)),
    success=lambda coverage: bool(coverage > ENOUGH),
    max_steps=300,  # 30 s, the paper's limit
    action_low=0.0,
    action_high=SIZE,
    place=lambda env, columns: place(env, columns["state"]),
)

TASK = Task(
    name="pusht",
    observe=observe,
    columns=("state",),
    mirror=mirror,
    simulator=SIMULATOR,
)

# The same scene seen by a camera. The policy observes the image and the agent's position; the
# block's pose stays in the raw columns, for `place` and `mirror`.
IMAGE_TASK = Task(
    name="pusht_image",
    observe=observe_image,
    columns=("image", "state"),
    # The mirror line of (3) is the antidiagonal of the image.
    mirror=lambda columns: {"image": antidiagonal(columns["image"]), **mirror(columns)},
    simulator=SIMULATOR._replace(
        make=lambda: make(IMAGE),
        reset=lambda env, seed: with_image(env, reset(env, seed)),
        step=step_with_image,
    ),
)
