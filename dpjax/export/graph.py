"""A graph of standard ONNX nodes, built one node after the other.

    graph = Graph()
    y = graph.node("Mul", "x", np.float32(2))          # the name of its output
    model = graph.model({"x": [None, 3]}, {y: "y"}, …)

A value is known by its name. Numpy arrays among a node's inputs become constants of the graph.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpjax.core.extras import require

# Opset 21 has GroupNormalization with a scale per channel. IR version 10 belongs to it, which
# runtimes from 2024 on read.
OPSET = 21
IR_VERSION = 10


class Graph:
    """The nodes and constants of a graph so far; `model` makes the ONNX model of them."""

    def __init__(self) -> None:
        self._onnx = require("onnx", "edge")
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def constant(self, array: np.ndarray, name: str = "") -> str:
        """Adds a constant; returns its name."""
        # Two constants of one name would silently be one of them.
        name = name or f"constant#{len(self._constants)}"
        assert name not in self._constants, name
        # ONNX reads arrays in row order, also those that are transposed views.
        array = np.asarray(array, order="C")
        self._constants[name] = self._onnx.numpy_helper.from_array(array, name)
        return name

    def nodes(
        self, op: str, *inputs: str | np.ndarray, outputs: int, **attributes: Any
    ) -> list[str]:
        """Adds a node with several outputs; returns their names.

        inputs: names of values, or arrays, which become constants; "" for an input left out.
        attributes: those of the operation, see ONNX.
        """
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        # The number makes the names unique; "#" keeps them apart from those of observations.
        number = len(self._nodes)
        made = [f"{op}#{number}.{i}" for i in range(outputs)]
        node = self._onnx.helper.make_node(op, names, made, name=f"{op}#{number}", **attributes)
        self._nodes.append(node)
        return made

    def node(self, op: str, *inputs: str | np.ndarray, **attributes: Any) -> str:
        """Adds a node with one output; returns its name. See `nodes`."""
        return self.nodes(op, *inputs, outputs=1, **attributes)[0]

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        """x cut into parts of these sizes along an axis."""
        return self.nodes("Split", x, np.array(sizes, np.int64), outputs=len(sizes), axis=axis)

    def combine(self, terms: Sequence[tuple[float, str]]) -> str:
        """Σ c x over pairs (c, x), added in their order; terms with c = 0 are left out.

        All x have one shape, and at least one c is not 0.
        """
        total = ""
        for factor, x in terms:
            if factor == 0.0:
                continue
            # No node for a factor of 1, which most schedules have in their last step.
            term = x if factor == 1.0 else self.node("Mul", x, np.float32(factor))
            total = self.node("Add", total, term) if total else term
        return total

    def model(
        self,
        inputs: Mapping[str, Sequence[str | int]],
        outputs: Mapping[str, tuple[str, Sequence[str | int]]],
        metadata: Mapping[str, str],
    ) -> Any:
        """The checked ONNX model; all inputs and outputs are float32.

        inputs: {name: shape}, where a text is a size that is open.
        outputs: {name: (value, shape)}, the values under the names that a user sees.
        metadata: {key: text}, kept inside of the model.
        """
        helper = self._onnx.helper
        info = lambda name, shape: helper.make_tensor_value_info(
            name, self._onnx.TensorProto.FLOAT, list(shape)
        )
        # A value gets another name by a node that copies it.
        renamed = [
            helper.make_node("Identity", [value], [name]) for name, (value, _) in outputs.items()
        ]
        graph = helper.make_graph(
            [*self._nodes, *renamed],
            "policy",
            [info(name, shape) for name, shape in inputs.items()],
            [info(name, shape) for name, (_, shape) in outputs.items()],
            initializer=list(self._constants.values()),
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, producer_name="dpjax", opset_imports=[opset], ir_version=IR_VERSION
        )
        helper.set_model_props(model, dict(metadata))
        # Wrong shapes and unknown attributes are found here and not on the robot.
        self._onnx.checker.check_model(model, full_check=True)
        return model
