"""Operations of the model's matrix products, counted in its program: nothing runs and no device is asked."""

import math
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

from groupvit_jax.models.two_towers import TwoTowers
from groupvit_jax.training import state as states

METHODS = {"image": "encode_image", "text": "encode_text", "image_projector": "project_image",
           "text_projector": "project_text"}  # part of the model -> the method that is its products


def forward_flops(model: TwoTowers, batch: dict[str, Any]) -> float:
    """Floating-point operations (a multiplication and an addition are two) of the towers' and projectors' products in
    one forward pass of a batch. A batch is arrays or their shapes: {"image": [b h w 3], "text": [b t l] or Packed}.

    The loss's products are left out, as they are no part of the model. A training step is counted as three times this
    (the backward pass multiplies by inputs and by weights), whatever is recomputed: what is usual for "model FLOPs".
    """
    return sum(of_parts(model, batch).values())


def of_parts(model: TwoTowers, batch: dict[str, Any]) -> dict[str, float]:
    """The same of each tower and projector."""
    shape = lambda x, dtype=None: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype)  # noqa: E731
    variables = jax.tree.map(shape, states.abstract_variables(model))

    def call(part: str) -> Any:
        return lambda variables, x: model.apply(variables, x, method=METHODS[part])

    inputs = {"image": shape(batch["image"], "float32"), "text": jax.tree.map(shape, batch["text"])}
    inputs |= {"image_projector": jax.eval_shape(call("image"), variables, inputs["image"]).pooled,
               "text_projector": jax.eval_shape(call("text"), variables, inputs["text"])}
    return {part: count(jax.make_jaxpr(call(part))(variables, inputs[part]).jaxpr) for part in METHODS}


def count(jaxpr: Any) -> float:
    """Operations of all products and convolutions in a jaxpr; loops count as often as they run, of a conditional the
    branch with most."""
    return sum(of_equation(equation) for equation in jaxpr.eqns)


def of_equation(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        return 2.0 * equation.outvars[0].aval.size * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, out = equation.invars[1].aval, equation.outvars[0].aval
        outputs = kernel.shape[parameters["dimension_numbers"].rhs_spec[0]]  # the others: inputs a group, and window
        return 2.0 * out.size * kernel.size / outputs
    if name == "cond":
        return max(count(branch.jaxpr) for branch in parameters["branches"])
    times = parameters["length"] if name == "scan" else 1
    return times * sum(count(inner) for inner in jaxprs_in_params(parameters))
