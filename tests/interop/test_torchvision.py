"""torchvision's ResNet weights: folded norms, names, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

from dpjax.core.errors import UserError
from dpjax.interop import torchvision
from dpjax.nets import layers, resnet
from dpjax.training import optim

STAGES = (64, 128, 256, 512)


def state_dict(depth=18, seed=0):
    """Arrays with torchvision's names and shapes (its resnet.py), drawn at random."""
    rng = np.random.default_rng(seed)
    arrays = {}

    def conv(name, outputs, inputs, size):
        shape = (outputs, inputs, size, size)
        arrays[f"{name}.weight"] = rng.normal(0, 0.05, shape).astype(np.float32)

    def norm(name, features):
        for part in ("weight", "bias", "running_mean"):
            arrays[f"{name}.{part}"] = rng.normal(0.5, 0.3, features).astype(np.float32)
        arrays[f"{name}.running_var"] = rng.uniform(0.5, 2, features).astype(np.float32)
        arrays[f"{name}.num_batches_tracked"] = np.array(7)

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    inputs = 64
    for stage, (features, blocks) in enumerate(zip(STAGES, resnet.BLOCKS[depth]), start=1):
        for i in range(blocks):
            name = f"layer{stage}.{i}"
            conv(f"{name}.conv1", features, inputs, 3)
            norm(f"{name}.bn1", features)
            conv(f"{name}.conv2", features, features, 3)
            norm(f"{name}.bn2", features)
            if stage > 1 and not i:
                conv(f"{name}.downsample.0", features, inputs, 1)
                norm(f"{name}.downsample.1", features)
            inputs = features
    arrays["fc.weight"] = np.zeros((1000, 512))
    arrays["fc.bias"] = np.zeros(1000)
    return arrays


def saved(path, state):
    np.savez(path, **state)
    return path.with_suffix(".npz")


@pytest.mark.parametrize("depth", [18, 34])
def test_the_params_have_the_networks_names_and_shapes(tmp_path, depth):
    params = torchvision.resnet(saved(tmp_path / "w", state_dict(depth)), depth)
    network = resnet.ResNet(depth, 64, "frozen")
    like = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda x: x.shape, like["params"])


def test_a_folded_norm_is_batch_norm_with_its_statistics(tmp_path):
    state = state_dict()
    params = torchvision.resnet(saved(tmp_path / "w", state), 18)
    x = np.random.default_rng(1).normal(size=(2, 3, 3, 64)).astype(np.float32)
    got = layers.FrozenNorm().apply({"params": params["norm"]}, x)
    part = lambda name: state[f"bn1.{name}"]
    z = (x - part("running_mean")) / np.sqrt(part("running_var") + 1e-5)
    np.testing.assert_allclose(got, z * part("weight") + part("bias"), rtol=1e-4, atol=1e-5)


def test_kernels_have_the_channels_last(tmp_path):
    state = state_dict()
    params = torchvision.resnet(saved(tmp_path / "w", state), 18)
    kernel = params["stage2_0"]["conv0"]["kernel"]
    assert kernel[2, 1, 5, 7] == state["layer3.0.conv1.weight"][7, 5, 2, 1]


def test_safetensors_and_npz_are_the_same(tmp_path):
    state = state_dict()
    save_file(state, tmp_path / "w.safetensors")
    a = torchvision.resnet(tmp_path / "w.safetensors", 18)
    b = torchvision.resnet(saved(tmp_path / "w", state), 18)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_what_does_not_fit_is_named(tmp_path):
    state = state_dict()
    with pytest.raises(UserError, match="arrays are not of a ResNet-18, the first is 'layer1.2"):
        torchvision.resnet(saved(tmp_path / "a", state_dict(34)), 18)
    del state["layer4.1.bn2.running_var"]
    with pytest.raises(UserError, match="no array 'layer4.1.bn2.running_var': not the weights"):
        torchvision.resnet(saved(tmp_path / "b", state), 18)
    (tmp_path / "c.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="c.npz: can't be read as weights"):
        torchvision.resnet(tmp_path / "c.npz", 18)
    with pytest.raises(UserError, match="no such file"):
        torchvision.resnet(tmp_path / "d.npz", 18)


def test_scales_slow_an_item_down_and_hold_the_frozen():
    params = {
        "encoder": {"kernel": jnp.ones(3), "frozen_scale": jnp.ones(3)},
        "denoiser": {"kernel": jnp.ones(3)},
    }
    options = dict(lr=0.1, steps=10, warmup=0, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0)
    tx = optim.adamw(**options, scales={"encoder": 0.25})
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(grads, tx.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(1 - after["denoiser"]["kernel"], 0.1, rtol=1e-5)
    np.testing.assert_allclose(1 - after["encoder"]["kernel"], 0.025, rtol=1e-5)
    np.testing.assert_array_equal(after["encoder"]["frozen_scale"], 1)
