"""Spaces: what the network learns is another form of the same actions, there and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dpjax.core import rotations
from dpjax.core.errors import UserError
from dpjax.core.types import ACTION, Batch
from dpjax.policies import representations
from dpjax.policies.base import Policy

POSE = {"pose": "3 quaternion_xyzw", ACTION: "3 axis_angle 1"}


def random(seed=0, batch=4, steps=5):
    """Poses [B, To, 7] and actions [B, T, 7] that are rotations where POSE says so."""
    rng = np.random.default_rng(seed)
    turn = lambda *shape: Rotation.random(int(np.prod(shape)), random_state=seed)
    quats = turn(batch, 2).as_quat().reshape(batch, 2, 4)
    vectors = turn(batch, steps).as_rotvec().reshape(batch, steps, 3)
    pose = np.concatenate([rng.normal(size=(batch, 2, 3)), quats], -1)
    ends = rng.normal(size=(batch, steps, 4))
    actions = np.concatenate([ends[..., :3], vectors, ends[..., 3:]], -1)
    return pose.astype(np.float32), actions.astype(np.float32)


@pytest.mark.parametrize("relative", ["", "pose"])
def test_there_and_back(relative):
    known = representations.parse(POSE, relative, 2)
    pose, actions = random()
    at = representations.pose_of(known, {"pose": pose})
    learned = representations.encode_actions(known, actions, at)
    assert learned.shape == (4, 5, 10)
    np.testing.assert_allclose(
        representations.decode_actions(known, learned, at), actions, atol=1e-5
    )


def test_relative_actions_are_the_transforms_from_the_newest_pose():
    known = representations.parse(POSE, "pose", 2)
    pose, actions = random()
    learned = representations.encode_actions(
        known, actions, representations.pose_of(known, {"pose": pose})
    )
    base, turned = Rotation.from_quat(pose[:, 1, 3:]), Rotation.from_rotvec(actions[:, 3, 3:6])
    want = (base.inv() * turned).as_matrix()[:, :2].reshape(-1, 6)
    np.testing.assert_allclose(learned[:, 3, 3:9], want, atol=1e-5)
    np.testing.assert_allclose(learned[:, 3, :3], actions[:, 3, :3] - pose[:, 1, :3], atol=1e-6)
    np.testing.assert_array_equal(learned[..., 9], actions[..., 6])  # the gripper is absolute


def test_the_pose_itself_is_no_movement():
    known = representations.parse({"pose": "3 axis_angle", ACTION: "3 axis_angle"}, "pose", 1)
    pose = random()[1][:, :1, :6]
    learned = representations.encode_actions(known, pose, pose[:, 0])
    still = np.broadcast_to([0, 0, 0, 1, 0, 0, 0, 1, 0], learned.shape)
    np.testing.assert_allclose(learned, still, atol=1e-5)


def test_plain_columns_need_no_layout():
    known = representations.parse({}, "state", 1)
    actions, state = np.ones((2, 3, 4), np.float32), np.full((2, 1, 3), 5, np.float32)
    learned = representations.encode_actions(known, actions, state[:, 0])
    np.testing.assert_array_equal(learned[..., :3], -4)
    np.testing.assert_array_equal(learned[..., 3], 1)


def probe():
    """A policy that shows what it was given."""
    return Policy(
        init=lambda rng, batch: batch,
        loss=lambda params, rng, batch: batch,
        sample=lambda params, rng, obs, previous=None: params,
    )


def test_a_wrapped_policy_learns_one_form_and_plans_in_the_other():
    known = representations.parse(POSE, "pose", 2)
    pose, actions = random()
    batch = Batch({"pose": pose}, actions, np.ones((4, 5)), np.arange(4))
    seen = representations.wrap(probe(), known).loss(None, None, batch)
    assert seen.obs["pose"].shape == (4, 2, 9) and seen.actions.shape == (4, 5, 10)
    plan = jax.jit(representations.wrap(probe(), known).sample)
    made = plan(jnp.asarray(seen.actions), None, {"pose": jnp.asarray(pose)})
    np.testing.assert_allclose(made, actions, atol=1e-5)


def test_a_previous_plan_says_nothing_where_it_said_nothing():
    known = representations.parse(POSE, "pose", 2)
    pose, actions = random()
    actions[:, -2:] = np.nan
    learned = representations.encode_actions(known, actions, pose[:, 1])
    assert np.isnan(learned[:, -2:]).all() and np.isfinite(learned[:, :-2]).all()


def test_without_spaces_the_policy_is_the_same():
    policy = probe()
    assert representations.wrap(policy, representations.parse({}, "", 2)) is policy


def test_flat_gives_the_normalizer_every_relative_action_of_every_window():
    known = representations.parse({}, "state", 2)
    columns = {"state": np.arange(6.0)[:, None], ACTION: np.arange(6.0)[:, None] + 1}
    rows = np.array([[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(
        representations.flat(known, columns, rows)[ACTION][:, 0], [0, 1, 2, 0, 1, 2]
    )


def test_rotations_keep_their_units():
    known = representations.parse(POSE, "", 2)
    dims = representations.rotation_dims(known, ACTION, 7)
    np.testing.assert_array_equal(dims, [False] * 3 + [True] * 6 + [False])


@pytest.mark.parametrize(
    "layouts, relative, said",
    [
        ({ACTION: "3 axis_angel"}, "", "'axis_angel' is no number of plain dims, nor a rotation"),
        ({ACTION: ""}, "", "config.representation.layouts.action is empty"),
        ({ACTION: "3 axis_angle"}, "", "describes 6 dims (3 axis_angle), and action has 7"),
        ({"pos": "3"}, "", "config.representation names 'pos', which is no observation of numbers"),
        ({}, "image", "config.representation names 'image', which is no observation of numbers"),
        ({ACTION: "axis_angle 4"}, "pose", "whose part 0 is 7; the action's is axis_angle"),
        ({}, "long", "whose part 0 is 9; the action's is 7"),
    ],
)
def test_what_does_not_fit_is_one_line(layouts, relative, said):
    observations = {"pose": 7, "long": 9, "image": (8, 8, 3)}
    with pytest.raises(UserError) as caught:
        representations.learned_sizes(representations.parse(layouts, relative, 2), observations, 7)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_every_form_can_be_learned():
    for form, (size, _, from_matrix) in rotations.FORMS.items():
        x = from_matrix(Rotation.random(9, random_state=1).as_matrix())
        known = representations.parse({ACTION: form}, "", 1)
        back = representations.decode_actions(
            known, representations.encode_actions(known, x, None), None
        )
        np.testing.assert_allclose(np.abs((back * x).sum(-1)), (x * x).sum(-1), atol=1e-6)
        assert back.shape == (9, size)
