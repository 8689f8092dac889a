"""Packed texts are the same texts: equal features, equal gradients, on one device and split over eight."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from groupvit_jax import parallel
from groupvit_jax.data.examples import join
from groupvit_jax.data.packing import Packed, pack
from groupvit_jax.models.text import TextTower

GROUPS, PICTURES, TEXTS, LENGTH = 8, 4, 3, 16
END = 63


@pytest.fixture(scope="module")
def texts():
    """The same texts padded, int32 [b t l], and packed; some are equal, some as long as can be, one is empty."""
    rng = np.random.default_rng(0)
    padded = np.zeros((GROUPS * PICTURES, TEXTS, LENGTH), np.int32)
    for row in padded.reshape(-1, LENGTH):
        n = rng.integers(1, LENGTH)
        row[: n + 1] = *rng.integers(1, END, n), END
    padded[1] = padded[0]
    padded[2, 0] = [1, END] + [0] * (LENGTH - 2)
    padded[3, 0] = [*rng.integers(1, END, LENGTH - 1), END]
    groups = padded.reshape(GROUPS, PICTURES, TEXTS, LENGTH).tolist()
    packed, cut = zip(*(pack(group, rows=8, length=24) for group in groups))
    assert not any(cut)
    return padded, join(packed)


@pytest.fixture(scope="module")
def tower(texts):
    tower = TextTower(vocabulary=64, length=LENGTH, width=32, heads=4, depth=3)
    variables = jax.jit(tower.init)(jax.random.key(0), texts[0][:, 0])
    return tower, parallel.unbox(variables)


def features(tower, variables, text):
    """[b t c], as `TwoTowers.encode_text` shapes them."""
    flat = text if isinstance(text, Packed) else text.reshape(-1, LENGTH)
    return tower.apply(variables, flat).reshape(GROUPS * PICTURES, TEXTS, -1)


def test_features_are_those_of_padded_texts(tower, texts):
    padded, packed = (features(*tower, text) for text in texts)
    assert np.abs(padded).max() > 1
    np.testing.assert_allclose(packed, padded, atol=1e-5)


def test_gradients_are_those_of_padded_texts(tower, texts):
    module, variables = tower
    weight = jax.random.normal(jax.random.key(1), (GROUPS * PICTURES, TEXTS, 32))
    padded, packed = (jax.grad(lambda v, text=text: jnp.sum(weight * features(module, v, text)))(variables)
                      for text in texts)
    for a, b in zip(jax.tree.leaves(padded), jax.tree.leaves(packed), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5 * max(1.0, np.abs(a).max()))


def test_gradients_of_the_tables_in_bfloat16_are_those_in_float32_whatever_the_number_of_texts(tower, texts):
    """Thousands of terms fall on the row of the start token: added in bfloat16, a third of them would be lost."""
    many = Packed(*(np.tile(part, (128,) + (1,) * (part.ndim - 1)) for part in texts[1]))  # 12,288 texts
    gradients = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        module = tower[0].clone(dtype=dtype, depth=1)
        loss = lambda v, module=module: module.apply(v, many).astype(jnp.float32)[..., 0].sum()  # noqa: E731
        gradients[dtype] = jax.grad(loss)(tower[1])["params"]
    for name in ("positions", "tokens"):
        ours, exact = (jax.tree.leaves(gradients[dtype][name])[0] for dtype in (jnp.bfloat16, jnp.float32))
        assert np.linalg.norm(ours - exact) < 0.02 * np.linalg.norm(exact), name


def test_another_text_of_the_row_changes_nothing(tower, texts):
    _, packed = texts
    changed = packed.tokens.copy()
    row, column = packed.places[0, 0, 0]
    others = packed.segments[0, row] != packed.segments[0, row, column]
    changed[0, row, others] = (changed[0, row, others] + 7) % 60
    ours = features(*tower, packed)[0, 0]
    np.testing.assert_array_equal(features(*tower, packed._replace(tokens=changed))[0, 0], ours)


def test_groups_split_over_devices_read_their_own_rows_without_any_communication(tower, texts):
    module, variables = tower
    mesh = tiny.mesh(8, 1, 1)
    with parallel.use(mesh):
        packed = parallel.to_global(mesh, texts[1])
        compiled = jax.jit(module.apply).lower(jax.device_put(variables, parallel.replicated(mesh)), packed).compile()
    assert not re.findall(r"all-gather|all-reduce|all-to-all|collective-permute", compiled.as_text())
    np.testing.assert_allclose(compiled(jax.device_put(variables, parallel.replicated(mesh)), packed).reshape(-1, 32),
                               features(*tower, texts[0]).reshape(-1, 32), atol=1e-5)
