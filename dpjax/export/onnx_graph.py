"""A policy's whole plan as one ONNX graph: observations and noise -> actions, in data units.

    noise [S + 1, B, Tp, D], {name: [B, To, D]} -> actions [B, Tp, Da]

The noise replaces the keys: row 0 is x at the start, row i + 1 the fresh noise of step i, which
samplers without any do not read. D is Da, or Da + F with inpainting. The loop is unrolled.
"""

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict
import numpy as np

from dpjax.config import build
from dpjax.core.errors import UserError
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION, Params
from dpjax.export import onnx_nets, onnx_plan
from dpjax.export.graph import Graph
from dpjax.export.onnx_plan import UnrolledSampler

NOISE = "noise"
OUTPUT = "actions"
BATCH = "batch"  # the name of the open size

# {config.denoiser.name: the network as nodes}
NETWORKS = {"unet1d": onnx_nets.unet1d}


def check(config: ConfigDict, spec: Spec) -> None:
    """Raises UserError, with the config key, for what the graph does not cover."""
    settings = config.sampler
    representation = build.representation(config)
    refused = {
        f"config.cameras ({', '.join(spec.cameras)})": bool(spec.cameras),
        f"config.denoiser.name={config.denoiser.name!r}": config.denoiser.name not in NETWORKS,
        "config.representation.layouts": bool(representation.layouts),
        f"config.representation.relative={representation.relative!r}": bool(
            representation.relative
        ),
        f"config.compute.dtype={config.compute.dtype!r}": config.compute.dtype != "float32",
        f"config.sampler.warm_start={settings.warm_start:g} (give --warm-start 0)": bool(
            settings.warm_start
        ),
        f"config.sampler.agree={settings.agree!r}": settings.agree != "none",
    }
    for what, is_refused in refused.items():
        if is_refused:
            raise UserError(
                f"{what} is not covered by onnx and openvino: python -m dpjax.export stablehlo "
                "writes every policy."
            )
    # Inputs and the output share one list of names.
    for name in (NOISE, OUTPUT):
        if name in spec.observations:
            raise UserError(f"an observation is called {name!r}, as the graph's own {name}.")


def build_graph(
    config: ConfigDict, spec: Spec, params: Params, metadata: dict[str, str]
) -> tuple[Any, UnrolledSampler]:
    """(the ONNX model, its plan) of a policy.

    Raises UserError for what is not covered, see `check`.
    """
    check(config, spec)
    params = jax.device_get(params)
    plan = onnx_plan.plan_of(config, spec, params)
    graph = Graph()
    # 1. The features, and what of the network does not depend on x.
    features = encode(graph, spec, params)
    cond, known, x0 = condition(graph, config, spec, plan, features)
    flat = dict(_paths(params["denoiser"]))
    module = build.denoiser(config, spec)
    denoise = NETWORKS[config.denoiser.name](graph, module, flat, cond)
    # 2. The loop. With inpainting every evaluation sees the known observations.
    insert = lambda x: graph.node("Where", known, x0, x) if x0 else x
    x = unrolled_loop(graph, plan, denoise, insert)
    # 3. Back to data units.
    actions = restore(graph, spec, params, x)
    steps, horizon, size = plan.noise_shape
    inputs = {NOISE: (steps, BATCH, horizon, size)}
    inputs |= {name: (BATCH, config.horizon.obs, dims) for name, dims in spec.numbers.items()}
    outputs = {OUTPUT: (actions, (BATCH, horizon, spec.action))}
    return graph.model(inputs, outputs, metadata), plan


def _paths(tree: Any) -> list[tuple[str, np.ndarray]]:
    """(path with slashes, array) of every param."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [("/".join(str(key.key) for key in path), np.asarray(leaf)) for path, leaf in leaves]


def encode(graph: Graph, spec: Spec, params: Params) -> str:
    """Normalized observations side by side: [B, To, F]."""
    normalizer = params["normalizer"]
    columns = []
    for name in spec.observations:
        scale = normalizer.scale[name]
        # A constant is 0 to the network, as in `normalizer.to_network`.
        factor = np.where(scale == 0, 0, 1 / np.where(scale == 0, 1, scale)).astype(np.float32)
        centered = graph.node("Sub", name, np.asarray(normalizer.offset[name]))
        columns.append(graph.node("Mul", centered, factor))
    return graph.node("Concat", *columns, axis=2)


def condition(
    graph: Graph, config: ConfigDict, spec: Spec, plan: UnrolledSampler, features: str
) -> tuple[str | None, np.ndarray | str, str | None]:
    """(cond, known [Tp, D], the known x0 [B, Tp, D]) of `policies.conditioning`.

    cond is None, and the others are set, with inpainting only.
    """
    _, horizon, size = plan.noise_shape
    observed = config.horizon.obs
    missing = horizon - observed
    if config.condition == "features":
        return features, "", None
    # Zeros after the observed steps; with inpainting also in place of the actions.
    before = size - sum(spec.numbers.values()) if config.condition == "inpaint" else 0
    pads = np.array([0, 0, before, 0, missing, 0])
    padded = graph.node("Pad", features, pads)
    if config.condition == "local":
        return padded, "", None
    is_observation = np.arange(size) >= spec.action
    known = (np.arange(horizon) < observed)[:, None] & is_observation
    return None, graph.constant(known), padded


def unrolled_loop(
    graph: Graph, plan: UnrolledSampler, denoise: onnx_nets.Denoise, insert: Callable[[str], str]
) -> str:
    """`sampling.sample` as nodes: the name of x [B, Tp, D] at the end."""
    steps = plan.evaluations.step
    x = graph.node("Gather", NOISE, np.array(0), axis=0)
    before = ""
    for i, factors in enumerate(onnx_plan.coefficients(plan)):
        # 1. The network's estimates; its x holds what is known.
        step = i if steps is None else int(steps[i])
        level = jax.tree.map(lambda leaf, step=step: leaf[step], plan.per_level)
        seen = insert(x)
        y = denoise(seen, level)
        raw = _estimate(graph, factors.x0, seen, y)
        x0 = _clip(graph, raw, plan.clip)
        # 2. What the sampler extrapolates before the step (5).
        latest = x0
        if plan.sampler.extrapolate == "x0" and factors.weight:
            x0 = graph.combine([(1 + factors.weight, x0), (-factors.weight, before)])
        # 3. The step (4). Fresh noise has the number of the evaluation.
        of_x, of_x0, of_eps, of_z = factors.step
        terms = [(of_x, x), (of_x0, x0)]
        if of_eps:
            eps = raw if plan.sampler.x0_as_eps else _estimate(graph, factors.eps, seen, y)
            terms.append((of_eps, eps))
        if of_z:
            terms.append((of_z, graph.node("Gather", NOISE, np.array(1 + i), axis=0)))
        new = graph.combine(terms)
        # 4. What it extrapolates after the step (6).
        if plan.sampler.extrapolate == "x":
            latest = x
            if factors.weight:
                new = graph.combine([(1 + factors.weight, new), (-factors.weight, before)])
        x = new
        before = latest
    return _clip(graph, x, plan.last_clip)


def _estimate(graph: Graph, factors: np.ndarray, x: str, y: str) -> str:
    """Equation (3), in dpjax's order: near pure noise both factors are large, and x - σ y is not
    to be rounded after a multiplication by 1/α."""
    of_x, of_y = factors
    if abs(of_x) <= 1:
        return graph.combine([(of_x, x), (of_y, y)])
    return graph.combine([(of_x, graph.combine([(1.0, x), (of_y / of_x, y)]))])


def _clip(graph: Graph, x: str, bound: float) -> str:
    """x within ± bound; infinity does not clip."""
    return graph.node("Clip", x, np.float32(-bound), np.float32(bound)) if bound < np.inf else x


def restore(graph: Graph, spec: Spec, params: Params, x: str) -> str:
    """`Normalizer.restore` as nodes: a constant comes back as its offset."""
    offset = np.asarray(params["normalizer"].offset[ACTION])
    scale = np.asarray(params["normalizer"].scale[ACTION])
    # With inpainting x also holds observations, which are dropped.
    bounds = (np.array([0]), np.array([spec.action]), np.array([2]))
    x = graph.node("Add", graph.node("Mul", graph.node("Slice", x, *bounds), scale), offset)
    return graph.node("Where", scale == 0, offset, x) if (scale == 0).any() else x
