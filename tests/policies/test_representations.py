"""Representations: the network sees another form of the same actions, there and back."""

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
    draw = lambda *shape: Rotation.random(int(np.prod(shape)), random_state=seed)
    quats = draw(batch, 2).as_quat().reshape(batch, 2, 4)
    vectors = draw(batch, steps).as_rotvec().reshape(batch, steps, 3)
    pose = np.concatenate([rng.normal(size=(batch, 2, 3)), quats], -1)
    ends = rng.normal(size=(batch, steps, 4))
    actions = np.concatenate([ends[..., :3], vectors, ends[..., 3:]], -1)
    return pose.astype(np.float32), actions.astype(np.float32)


@pytest.mark.parametrize("relative", ["", "pose"])
def test_there_and_back(relative):
    representation = representations.parse(POSE, relative, 2)
    pose, actions = random()
    at = representations.latest_pose(representation, {"pose": pose})
    learned = representations.encode_actions(representation, actions, at)
    assert learned.shape == (4, 5, 10)
    np.testing.assert_allclose(
        representations.decode_actions(representation, learned, at), actions, atol=1e-5
    )


def test_relative_actions_are_the_transforms_from_the_newest_pose():
    representation = representations.parse(POSE, "pose", 2)
    pose, actions = random()
    learned = representations.encode_actions(
        representation, actions, representations.latest_pose(representation, {"pose": pose})
    )
    base = Rotation.from_quat(pose[:, 1, 3:])
    target = Rotation.from_rotvec(actions[:, 3, 3:6])
    want = (base.inv() * target).as_matrix()[:, :2].reshape(-1, 6)
    np.testing.assert_allclose(learned[:, 3, 3:9], want, atol=1e-5)
    np.testing.assert_allclose(learned[:, 3, :3], actions[:, 3, :3] - pose[:, 1, :3], atol=1e-6)
    np.testing.assert_array_equal(learned[..., 9], actions[..., 6])  # the gripper is absolute


def test_an_action_equal_to_the_pose_is_the_identity():
    representation = representations.parse(
        {"pose": "3 axis_angle", ACTION: "3 axis_angle"}, "pose", 1
    )
    pose = random()[1][:, :1, :6]
    learned = representations.encode_actions(representation, pose, pose[:, 0])
    still = np.broadcast_to([0, 0, 0, 1, 0, 0, 0, 1, 0], learned.shape)
    np.testing.assert_allclose(learned, still, atol=1e-5)


def test_plain_columns_need_no_layout():
    representation = representations.parse({}, "state", 1)
    actions, state = np.ones((2, 3, 4), np.float32), np.full((2, 1, 3), 5, np.float32)
    learned = representations.encode_actions(representation, actions, state[:, 0])
    np.testing.assert_array_equal(learned[..., :3], -4)
    np.testing.assert_array_equal(learned[..., 3], 1)


def echo():
    """A policy whose functions return the batch or the params that they get."""
    return Policy(
        init=lambda rng, batch: batch,
        loss=lambda params, rng, batch: batch,
        sample=lambda params, rng, obs, previous=None, committed=None: params,
    )


def test_a_wrapped_policy_learns_one_form_and_samples_the_other():
    representation = representations.parse(POSE, "pose", 2)
    pose, actions = random()
    batch = Batch({"pose": pose}, actions, np.ones((4, 5)), np.arange(4))
    wrapped = representations.wrap(echo(), representation)
    encoded = wrapped.loss(None, None, batch)
    assert encoded.obs["pose"].shape == (4, 2, 9) and encoded.actions.shape == (4, 5, 10)
    sample = jax.jit(wrapped.sample)
    sampled = sample(jnp.asarray(encoded.actions), None, {"pose": jnp.asarray(pose)})
    np.testing.assert_allclose(sampled, actions, atol=1e-5)


def test_the_last_chunk_is_expressed_relative_to_the_present_pose():
    seen = []

    def sample(params, rng, obs, previous=None, committed=None):
        seen.append((previous, committed))
        return previous  # a policy that repeats the last chunk

    representation = representations.parse(POSE, "pose", 2)
    wrapped = representations.wrap(echo()._replace(sample=sample), representation)
    pose, last = random()  # absolute actions; the robot has moved since they were sampled
    last[:, -2:] = np.nan
    repeated = wrapped.sample(None, None, {"pose": pose}, last, np.arange(4))
    # What the network sees is relative to the newest pose, so the same motion in the world comes
    # out: no jump where the two chunks meet. Unknown steps stay unknown.
    want = representations.encode_actions(representation, last, pose[:, 1])
    np.testing.assert_allclose(seen[0][0], want, atol=1e-6)
    np.testing.assert_allclose(repeated, last, atol=1e-5)
    np.testing.assert_array_equal(seen[0][1], np.arange(4))


def test_unknown_steps_of_a_previous_chunk_stay_unknown():
    representation = representations.parse(POSE, "pose", 2)
    pose, actions = random()
    actions[:, -2:] = np.nan
    learned = representations.encode_actions(representation, actions, pose[:, 1])
    assert np.isnan(learned[:, -2:]).all() and np.isfinite(learned[:, :-2]).all()


def test_without_layouts_and_relative_actions_the_policy_is_the_same():
    policy = echo()
    assert representations.wrap(policy, representations.parse({}, "", 2)) is policy


def test_a_normalizer_is_fitted_to_the_relative_actions_of_every_window():
    representation = representations.parse({}, "state", 2)
    columns = {"state": np.arange(6.0)[:, None], ACTION: np.arange(6.0)[:, None] + 1}
    indices = np.array([[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(
        representations.learned_columns(representation, columns, indices)[ACTION][:, 0],
        [0, 1, 2, 0, 1, 2],
    )


def test_rotations_keep_their_units():
    representation = representations.parse(POSE, "", 2)
    dims = representations.rotation_dims(representation, ACTION, 7)
    np.testing.assert_array_equal(dims, [False] * 3 + [True] * 6 + [False])


@pytest.mark.parametrize(
    "layouts, relative, argument, message",
    [
        ({ACTION: "3 axis_angel"}, "", "layouts.action", "is neither a number of plain dims nor a"),
        ({ACTION: ""}, "", "layouts.action", "layouts.action='' names no parts"),
        (
            {ACTION: "3 axis_angle"},
            "",
            "layouts.action",
            "'3 axis_angle' describes 6 dims, but action has 7",
        ),
        ({"pos": "3"}, "", "layouts.pos", "'pos' is not an observation of numbers"),
        ({}, "image", "relative", "'image' is not an observation of numbers"),
        (
            {ACTION: "axis_angle 4"},
            "pose",
            "relative",
            "part 0 of pose is 7 and that of the action is axis_angle",
        ),
        ({}, "long", "relative", "part 0 of long is 9 and that of the action is 7"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(layouts, relative, argument, message):
    observations = {"pose": 7, "long": 9, "image": (8, 8, 3)}
    with pytest.raises(UserError) as error:
        representations.learned_sizes(representations.parse(layouts, relative, 2), observations, 7)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert error.value.argument == argument


def test_every_form_can_be_learned():
    for form, (size, _, from_matrix) in rotations.FORMS.items():
        x = from_matrix(Rotation.random(9, random_state=1).as_matrix())
        representation = representations.parse({ACTION: form}, "", 1)
        back = representations.decode_actions(
            representation, representations.encode_actions(representation, x, None), None
        )
        np.testing.assert_allclose(np.abs((back * x).sum(-1)), (x * x).sum(-1), atol=1e-6)
        assert back.shape == (9, size)
