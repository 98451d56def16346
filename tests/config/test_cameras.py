"""Image encoders: LeRobot's numbers, any camera sizes, crops that reach everywhere."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import lerobot_weights, torch_unet

from dpjax.core.normalizer import Normalizer
from dpjax.core.types import ACTION
from dpjax.diffusion import samplers, sampling, schedules
from dpjax.nets import augment, resnet
from dpjax.nets.encoders import Cameras
from dpjax.policies import base
from dpjax.policies import diffusion as policies

FILES = ("lerobot_image_one_camera", "lerobot_image_two_cameras")


@pytest.fixture(scope="module", params=FILES)
def reference(golden, request):
    """(meta, arrays, encoder, U-Net, (params of both, observations), views)."""
    arrays = golden(request.param)
    meta = json.loads(str(arrays["meta"]))
    made = lerobot_weights.weights(meta)
    names = tuple(meta["cameras"])
    encoder = Cameras(("state",), names, not meta["separate_encoders"])
    views = {name: augment.CameraView(crop=tuple(meta["crop"])) for name in names}
    net = torch_unet.network(lerobot_weights.unet_meta(meta, arrays["cond"].shape[-1]))
    params = {
        "encoder": lerobot_weights.cameras(made, meta),
        "denoiser": lerobot_weights.unet(made, meta),
    }
    images = np.moveaxis(arrays["images"].astype(np.float32), 3, -1)  # channels last
    obs = {"state": arrays["state"], **{n: images[:, :, i] for i, n in enumerate(names)}}
    return meta, arrays, encoder, net, jax.tree.map(jnp.asarray, (params, obs)), views


@pytest.mark.slow
def test_features_and_noise_equal_lerobots(reference):
    _, arrays, encoder, net, (params, obs), views = reference

    @jax.jit
    def both(params):
        cond = encoder.apply({"params": params["encoder"]}, augment.view_observation(views, obs))
        inputs = arrays["noise"], jnp.asarray(arrays["timestep"]), cond
        return cond, net.apply({"params": params["denoiser"]}, *inputs)

    cond, eps = both(params)
    np.testing.assert_allclose(cond.reshape(len(cond), -1), arrays["cond"], atol=1e-4)
    np.testing.assert_allclose(eps, arrays["eps"], atol=1e-4)


@pytest.mark.slow
def test_ten_ddim_steps_equal_lerobots(reference, monkeypatch):
    meta, arrays, encoder, net, (params, obs), views = reference
    keys = ("state", *meta["cameras"])
    same = {key: (jnp.zeros(1), jnp.ones(1)) for key in keys}
    same[ACTION] = (jnp.zeros(meta["action_dim"]), jnp.ones(meta["action_dim"]))
    units = Normalizer(*({key: pair[i] for key, pair in same.items()} for i in range(2)))
    policy = policies.diffusion_policy(
        base.encoder_of(encoder, functools.partial(augment.view_observation, views)),
        base.denoiser_of(net),
        schedules.cosine(100),
        units,
        horizon=16,
        sampler=samplers.ddim(),
        num_steps=meta["num_inference_steps"],
        spacing="leading",
    )
    noise = jnp.asarray(arrays["noise"])
    monkeypatch.setattr(sampling, "draw_noise", lambda keys, shape: noise)
    got = jax.jit(policy.sample)({**params, "normalizer": units}, jax.random.key(0), obs)
    np.testing.assert_allclose(got, arrays["sample"], atol=1e-3)


def test_params_have_the_imported_shapes(reference):
    _, _, encoder, _, (params, obs), _ = reference
    made = jax.eval_shape(encoder.init, jax.random.key(0), obs)["params"]
    shapes = jax.tree.map(lambda leaf: leaf.shape, made)
    assert jax.tree.map(jnp.shape, params["encoder"]) == shapes


@pytest.mark.parametrize("pool", resnet.POOLS)
def test_cameras_may_have_sizes_of_their_own(pool):
    encoder = Cameras(("state",), ("top", "hand"), width=16, pool=pool, keypoints=4, features=5)
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
    got = augment.random_crop(jax.random.split(jax.random.key(0), 400), x, (4, 4))
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
    assert augment.center_crop(x, (part, part))[0, 0, 0, 0, 0] == start


def images(count=6, height=12, width=10):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.integers(0, 256, (count, 2, height, width, 3)), jnp.uint8)


def rows(count=6, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_without_keys_nothing_is_random():
    view = augment.CameraView(
        (), (8, 8), shift=2, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5
    )
    got = augment.view_images(view, images(), None)
    np.testing.assert_array_equal(got, augment.center_crop(images(), (8, 8)))


@pytest.mark.slow
def test_a_row_is_augmented_the_same_whatever_batch_it_is_in():
    colors = dict(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1)
    view = augment.CameraView((9, 9), (8, 8), shift=1, **colors)
    both = augment.view_images(view, images(), rows())
    one = augment.view_images(view, images()[3:4], rows()[3:4])
    np.testing.assert_allclose(both[3:4], one, atol=1e-3)
    assert both.shape == (6, 2, 8, 8, 3) and 0 <= both.min() and both.max() <= 255


def test_resizing_keeps_a_plane_of_colour_and_a_ramp():
    plane = jnp.full((1, 1, 12, 12, 3), 77, jnp.uint8)
    np.testing.assert_allclose(
        augment.view_images(augment.CameraView((5, 7)), plane, None), 77, rtol=1e-6
    )
    ramp = jnp.broadcast_to(jnp.arange(16, dtype=jnp.uint8)[:, None, None], (1, 1, 16, 16, 3))
    half = augment.view_images(augment.CameraView((8, 8)), ramp, None)[0, 0, 1:-1, 0, 0]
    np.testing.assert_allclose(half, np.arange(2, 14, 2) + 0.5, atol=1e-4)


def test_shifts_reach_every_offset_and_repeat_the_edge():
    x = jnp.broadcast_to(jnp.arange(20, dtype=jnp.uint8)[:, None, None], (300, 1, 20, 5, 3))
    first = augment.view_images(augment.CameraView(shift=2), x, rows(300))[:, 0, :, 0, 0]
    starts = np.asarray(first[:, 10], int) - 10
    assert set(starts) == {-2, -1, 0, 1, 2}
    np.testing.assert_array_equal(first[:, 0], np.maximum(starts, 0))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_each_colour_change_does_what_it_says(name):
    x = jnp.broadcast_to(jnp.array([120, 100, 90], jnp.uint8), (200, 1, 2, 2, 3))
    x = x.at[:, :, 0].add(20)
    got = np.asarray(
        augment.view_images(augment.CameraView(**{name: 0.3}), x, rows(200)), np.float64
    )
    gray = lambda x: np.asarray(x, np.float64) @ [0.299, 0.587, 0.114]
    assert got.std(0).max() > 1, "nothing changed"
    if name == "brightness":
        factors = (got / np.asarray(x)).reshape(200, -1)
        np.testing.assert_allclose(factors, factors[:, :1].repeat(12, 1), rtol=1e-4)
        assert 0.7 <= factors.min() < 0.75 and 1.25 < factors.max() <= 1.3001
    elif name == "contrast":
        np.testing.assert_allclose(gray(got).mean((1, 2, 3)), gray(x[0]).mean(), rtol=1e-4)
    else:  # hue and saturation leave the brightness
        np.testing.assert_allclose(gray(got), gray(x), atol=0.3)
