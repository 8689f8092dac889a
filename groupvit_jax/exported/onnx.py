"""The model as ONNX, by `jax2onnx`: the same programs as files that ONNX runtimes take, each with its weights inside.

A folder holds image_encoder.onnx, text_encoder.onnx, segmenter.onnx and manifest.json, which says what each takes and
gives. Converter and runtime are extras: pip install -e ".[onnx]".
"""

import functools
import importlib
import json
import logging
import pathlib
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from groupvit_jax.errors import InputError
from groupvit_jax.exported import programs
from groupvit_jax.exported.proof_programs import compare
from groupvit_jax.inference import Model
from groupvit_jax.interop import huggingface
from groupvit_jax.interop.proof import Difference
from groupvit_jax.models.attention import portable

OPSET = 20  # the first with Gelu; many runtimes do not have the newest


def export(model: Model, folder: pathlib.Path) -> None:
    """Writes the files named above into `folder`, which exists. InputError without the extra."""
    jax2onnx, onnx = extra("jax2onnx"), extra("onnx")
    for name in ("jax2onnx", "onnx_ir"):  # they warn of shapes that they could not name
        logging.getLogger(name).setLevel(logging.ERROR)
    model = programs.in_float32(model)
    made, weights = programs.make(model), jax.tree.map(jnp.asarray, huggingface.flat(model.variables))
    for name, program in made.items():
        with programs.exact(), portable():
            converted = jax2onnx.to_onnx(
                functools.partial(program.call, weights), program.takes, model_name=name, opset=OPSET,
                input_names=[value.name for value in program.takes], output_names=[program.gives.name])
        # Notes on shapes within the program, some of them wrong where a size is open; runtimes find them themselves.
        del converted.graph.value_info[:]
        onnx.save(converted, folder / f"{name}.onnx")
    text = json.dumps(programs.manifest(model, made, ".onnx") | {"opset": OPSET}, indent=2)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def extra(name: str) -> ModuleType:
    """A module of the extra; InputError that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"ONNX needs {name}, which is not installed: pip install jax2onnx onnx onnxruntime") from None


def differences(model: Model, folder: pathlib.Path) -> list[Difference]:
    """The programs in `folder`, run by onnxruntime on the CPU, against the model computing in float32."""
    runtime, model = extra("onnxruntime"), programs.in_float32(model)
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    calls = {}
    for name in programs.make(model):
        session = runtime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        calls[name] = functools.partial(run, session)
    with programs.exact():
        return compare(model, calls)


def run(session: Any, *inputs: np.ndarray) -> np.ndarray:
    names = [value.name for value in session.get_inputs()]
    return session.run(None, {name: np.asarray(x) for name, x in zip(names, inputs, strict=True)})[0]
