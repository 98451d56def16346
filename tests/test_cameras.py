"""Image encoders: LeRobot's numbers, any camera sizes, crops that reach everywhere."""

import json

import jax
import jax.numpy as jnp
import lerobot
import numpy as np
import pytest
import torch_unet

from dpjax import policy as policies
from dpjax.diffusion import samplers, schedules
from dpjax.nets import crop, resnet
from dpjax.nets.encoders import Cameras
from dpjax.normalizer import Normalizer
from dpjax.policy import ACTION

FILES = ("lerobot_image_one_camera", "lerobot_image_two_cameras")


@pytest.fixture(scope="module", params=FILES)
def reference(golden, request):
    """(meta, arrays, encoder, U-Net, params of both, observations)."""
    arrays = golden(request.param)
    meta = json.loads(str(arrays["meta"]))
    made = lerobot.weights(meta)
    names = tuple(meta["cameras"])
    encoder = Cameras(
        ("state",), names, (tuple(meta["crop"]),) * len(names), not meta["separate_encoders"]
    )
    net = torch_unet.network(lerobot.unet_meta(meta, arrays["cond"].shape[-1]))
    params = {"encoder": lerobot.cameras(made, meta), "denoiser": lerobot.unet(made, meta)}
    images = np.moveaxis(arrays["images"].astype(np.float32), 3, -1)  # channels last
    obs = {"state": arrays["state"], **{n: images[:, :, i] for i, n in enumerate(names)}}
    return meta, arrays, encoder, net, jax.tree.map(jnp.asarray, (params, obs))


def test_features_and_noise_equal_lerobots(reference):
    _, arrays, encoder, net, (params, obs) = reference

    @jax.jit
    def both(params):
        cond = encoder.apply({"params": params["encoder"]}, obs)
        inputs = arrays["noise"], jnp.asarray(arrays["timestep"]), cond
        return cond, net.apply({"params": params["denoiser"]}, *inputs)

    cond, eps = both(params)
    np.testing.assert_allclose(cond.reshape(len(cond), -1), arrays["cond"], atol=1e-4)
    np.testing.assert_allclose(eps, arrays["eps"], atol=1e-4)


def test_ten_ddim_steps_equal_lerobots(reference, monkeypatch):
    meta, arrays, encoder, net, (params, obs) = reference
    keys = ("state", *meta["cameras"])
    same = {key: (jnp.zeros(1), jnp.ones(1)) for key in keys}
    same[ACTION] = (jnp.zeros(meta["action_dim"]), jnp.ones(meta["action_dim"]))
    units = Normalizer(*({key: pair[i] for key, pair in same.items()} for i in range(2)))
    policy = policies.diffusion_policy(
        policies.encoder_of(encoder),
        policies.denoiser_of(net),
        schedules.cosine(100),
        units,
        horizon=16,
        sampler=samplers.ddim(),
        num_steps=meta["num_inference_steps"],
        spacing="leading",
    )
    noise = jnp.asarray(arrays["noise"])
    monkeypatch.setattr(samplers, "draw_rows", lambda keys, shape: noise)
    got = jax.jit(policy.sample)({**params, "normalizer": units}, jax.random.key(0), obs)
    np.testing.assert_allclose(got, arrays["sample"], atol=1e-3)


def test_params_have_the_imported_shapes(reference):
    _, _, encoder, _, (params, obs) = reference
    made = jax.eval_shape(encoder.init, jax.random.key(0), obs)["params"]
    shapes = jax.tree.map(lambda leaf: leaf.shape, made)
    assert jax.tree.map(jnp.shape, params["encoder"]) == shapes


@pytest.mark.parametrize("pool", resnet.POOLS)
def test_cameras_may_have_sizes_of_their_own(pool):
    encoder = Cameras(
        ("state",), ("top", "hand"), ((32, 40), None), width=16, pool=pool, keypoints=4, features=5
    )
    obs = {"state": jnp.ones((2, 3, 4)), "top": jnp.ones((2, 3, 48, 64, 3))}
    obs["hand"] = jnp.ones((2, 3, 33, 37, 3))
    features, params = jax.eval_shape(encoder.init_with_output, jax.random.key(0), obs)
    assert features.shape == (2, 3, 4 + 2 * 5)
    assert set(params["params"]) == {"encoders_0", "encoders_1"}


def test_the_points_are_where_the_maps_are_bright():
    maps = np.full((1, 5, 9, 2), -1e3, np.float32)
    maps[0, 0, 8, 0] = maps[0, 4, 2, 1] = 0
    points = resnet.spatial_softmax(jnp.asarray(maps))
    np.testing.assert_allclose(points, [[[1, -1], [-0.5, 1]]], atol=1e-6)


def test_every_crop_offset_is_reached_and_frames_of_a_sample_agree():
    image = np.arange(6 * 5).reshape(6, 5, 1)  # the first pixel says where the crop was
    x = jnp.broadcast_to(jnp.asarray(image, jnp.uint8), (400, 2, 6, 5, 1))
    got = crop.random(jax.random.split(jax.random.key(0), 400), x, (4, 4))
    assert got.shape == (400, 2, 4, 4, 1) and got.dtype == jnp.uint8
    np.testing.assert_array_equal(got[:, 0], got[:, 1])
    offsets, counts = np.unique(got[:, 0, 0, 0, 0], return_counts=True)
    np.testing.assert_array_equal(offsets, [0, 1, 5, 6, 10, 11])
    assert counts.min() > 40  # of 67 expected
    first = x[0, 0, ..., 0]
    for window in got[:20, 0, ..., 0]:
        top, left = divmod(int(window[0, 0]), 5)
        np.testing.assert_array_equal(window, first[top : top + 4, left : left + 4])


@pytest.mark.parametrize("full, part, start", [(96, 84, 6), (7, 4, 2), (5, 4, 0), (4, 4, 0)])
def test_the_centre_is_torchvisions(full, part, start):
    x = jnp.broadcast_to(jnp.arange(full)[:, None, None], (1, 1, full, full, 1))
    assert crop.center(x, (part, part))[0, 0, 0, 0, 0] == start
