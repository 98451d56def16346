"""Diffusion Policy in JAX and Flax.

    run = dpjax.load("pusht_demo")                    # a run folder, or a policy that is shipped
    actions = run.sample_actions(key, observations)   # {name: [B, To, ...]} -> [B, Tp, Da]

`Policy` is three pure functions, `Run` a trained one, and a `Controller` executes its action
chunks on a robot. docs/architecture.md draws the package.
"""

import ast
import importlib
from importlib import metadata
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # The public names, written once: type checkers and editors read them here, and so does
    # `__getattr__` below, which imports a name when it is first used. So a program loads only the
    # parts that it needs.

    # A trained policy, and acting with it.
    from dpjax.runs.run import Run as Run, load as load
    from dpjax.inference.controller import Controller as Controller
    from dpjax.inference.compiled import CompiledPolicy as CompiledPolicy
    from dpjax.inference.exported import load as load_exported
    from dpjax.serving.client import RemotePolicy as RemotePolicy

    # What a policy is, and how one is built.
    from dpjax.policies.base import Denoiser as Denoiser, Encoder as Encoder, Policy as Policy
    from dpjax.policies.diffusion import diffusion_policy as diffusion_policy
    from dpjax.policies.meanflow import meanflow_policy as meanflow_policy
    from dpjax.core.errors import UserError as UserError
    from dpjax.core.normalizer import Normalizer as Normalizer
    from dpjax.core.types import Batch as Batch

    # The diffusion process.
    from dpjax.diffusion.schedules import Level as Level, Path as Path, Schedule as Schedule
    from dpjax.diffusion.schedules import cosine as cosine, linear as linear
    from dpjax.diffusion.schedules import rectified_flow as rectified_flow, sigmoid as sigmoid
    from dpjax.diffusion.schedules import scaled_linear as scaled_linear
    from dpjax.diffusion.samplers import Sampler as Sampler, ddim as ddim, ddpm as ddpm
    from dpjax.diffusion.samplers import dpm_solver as dpm_solver, heun as heun

    # Networks.
    from dpjax.nets.dit import DiT as DiT
    from dpjax.nets.transformer import Transformer as Transformer
    from dpjax.nets.unet1d import UNet1D as UNet1D

    # Training.
    from dpjax.training.state import TrainState as TrainState, create as create_state
    from dpjax.training.step import train_step as train_step

    # Demonstrations.
    from dpjax.data.episodes import Episodes as Episodes
    from dpjax.data.rlds import read as read_rlds, write as write_rlds

    # Tasks and their evaluation.
    from dpjax.tasks.base import Simulator as Simulator, Task as Task
    from dpjax.evaluation.rollout import rollout as rollout
    from dpjax.evaluation.scores import summarize as summarize

# Public name -> (module, name in it), read from the imports above.
_HOMES = {
    alias.asname: (node.module, alias.name)
    for node in ast.walk(ast.parse(_Path(__file__).read_text(encoding="utf-8")))
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dpjax.")
    for alias in node.names
}
__all__ = [*filter(None, _HOMES), "__version__"]

try:
    __version__ = metadata.version("dpjax")
except metadata.PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """A public name, imported from its module when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dpjax' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
