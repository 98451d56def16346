"""ONNX Runtime and OpenVINO: they run a graph on this machine's CPU."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dpjax.core.extras import require
from dpjax.export.onnx_graph import NOISE, OUTPUT

# `(noise, {name: observations}) -> actions [B, Tp, Da]`
SampleActions = Callable[[np.ndarray, Mapping[str, np.ndarray]], np.ndarray]

# On processors with bfloat16, OpenVINO computes in it unless it is told not to.
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def onnxruntime(model: bytes) -> SampleActions:
    """The ONNX file `model` in ONNX Runtime."""
    session = require("onnxruntime", "edge").InferenceSession(
        model, providers=["CPUExecutionProvider"]
    )
    return lambda noise, obs: session.run([OUTPUT], {NOISE: noise, **obs})[0]


def openvino(model: bytes) -> SampleActions:
    """The ONNX file `model` in OpenVINO."""
    compiled = require("openvino", "edge").compile_model(openvino_model(model), "CPU", EXACT)
    return lambda noise, obs: compiled({NOISE: noise, **obs})[OUTPUT]


def openvino_model(model: bytes) -> Any:
    """OpenVINO's form of the ONNX file `model`."""
    return require("openvino", "edge").Core().read_model(model)


# {format: the runtime that checks it}
RUNTIMES: dict[str, Callable[[bytes], SampleActions]] = {
    "onnx": onnxruntime,
    "openvino": openvino,
}
