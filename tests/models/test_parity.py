"""The models compute what the PyTorch port in `transformers` computes, under the same random float32 weights.

Run with `-s` for the table of largest differences. Everything is compared before an argmax is taken, and the
tests first assert that no near-tie decides a hard assignment: where groups are that close, either is right.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import torch
from port import PUBLISHED, SMALL, Port, make_ours, make_port

from groupvit_jax.errors import InputError
from groupvit_jax.interop.huggingface import from_state_dict, to_state_dict
from groupvit_jax.models.layers import unit
from groupvit_jax.models.two_towers import TwoTowers, build
from groupvit_jax.training.loss import caption_loss

Arrays = dict[str, np.ndarray]
VALUES, GRADIENTS = 1e-4, 1e-3  # allowed: largest absolute difference; norm of the difference / norm
START, END = 49406, 49407

# Each function here runs once: compile it quickly rather than well.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(autouse=True)
def exact_float32():
    torch.set_num_threads(1)
    with jax.default_matmul_precision("highest"):
        yield


def make_inputs(sizes: dict, hw: tuple[int, int], b: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images [b h w 3] with coarse structure, tokens [b l] of several lengths, zeros after end-of-text."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((b, hw[0] // 16, hw[1] // 16, 3)).repeat(16, axis=1).repeat(16, axis=2)
    images = coarse + 0.5 * rng.standard_normal((b, *hw, 3))
    tokens = np.zeros((b, sizes["text"]["length"]), np.int64)
    for row, n in zip(tokens, rng.integers(4, tokens.shape[1], b, endpoint=True)):
        row[:n] = [START, *rng.integers(1, START, n - 2), END]
    return images.astype(np.float32), tokens


def forward_port(port: Port, images: np.ndarray, tokens: np.ndarray):
    images = torch.from_numpy(images).permute(0, 3, 1, 2)
    return port(input_ids=torch.from_numpy(tokens), pixel_values=images, return_loss=True)


def run_port(port: Port, images: np.ndarray, tokens: np.ndarray) -> Arrays:
    """Every named value of one forward pass."""
    out, handles, vision = {}, [], port.vision_model

    def keep(name: str, module: torch.nn.Module) -> None:
        def hook(_, __, y):
            y = y if isinstance(y, tuple) else (y,)
            out[name] = y[0].detach().numpy().copy()
            if "grouping" in name:
                out[name.replace("grouping", "assignment")] = y[1].detach().numpy().copy()
        handles.append(module.register_forward_hook(hook))

    keep("patch embedding", vision.embeddings)
    for s, stage in enumerate(vision.encoder.stages):
        for i, layer in enumerate(stage.layers):
            keep(f"stage{s}_block{i}", layer)
        if stage.downsample is not None:
            keep(f"stage{s}_grouping", stage.downsample)
    for i, layer in enumerate(port.text_model.encoder.layers):
        keep(f"block{i}", layer)
    with torch.no_grad():
        y = forward_port(port, images, tokens)
        segments, pooled = y.vision_model_output.last_hidden_state, y.vision_model_output.pooler_output
        projected = port.visual_projection(segments.flatten(0, 1)).unflatten(0, segments.shape[:2])
        text = y.text_model_output.pooler_output
        out |= {"segment tokens": segments, "pooled image": pooled, "text feature": text,
                "image projection": port.visual_projection(pooled), "segment projection": projected,
                "text projection": port.text_projection(text), "logits": y.logits_per_image,
                "caption loss": y.loss}
    for handle in handles:
        handle.remove()
    return {name: np.asarray(x) for name, x in out.items()}


def run_ours(model: TwoTowers, variables: dict, images: np.ndarray, tokens: np.ndarray) -> Arrays:
    def wanted(module, method: str) -> bool:
        return method in ("__call__", "embed")

    def forward(variables, images, tokens):
        apply = functools.partial(model.apply, variables, capture_intermediates=wanted,
                                  mutable="intermediates")
        features, image_seen = apply(images, method="encode_image")
        text, text_seen = apply(tokens[:, None], method="encode_text")
        seen = image_seen["intermediates"]["image"] | text_seen["intermediates"]["text"]
        out = {name: x["__call__"][0] for name, x in seen.items() if "block" in name}
        for s, soft in enumerate(features.assignments):
            out[f"stage{s}_grouping"] = seen[f"stage{s}_grouping"]["__call__"][0][0]
            out[f"stage{s}_assignment"] = soft
        image = model.apply(variables, features.pooled, method="project_image")
        words = model.apply(variables, text[:, 0], method="project_text")
        scale = model.apply(variables, method="logit_scale")
        return out | {"patch embedding": seen["embed"][0], "segment tokens": features.segments,
                      "pooled image": features.pooled, "text feature": text[:, 0], "image projection": image,
                      "segment projection": model.apply(variables, features.segments, method="project_image"),
                      "text projection": words, "logits": scale * unit(image) @ unit(words).T,
                      "caption loss": caption_loss(image, words, scale)}

    return jax.tree.map(np.asarray, jit(forward)(variables, images, tokens))


def assert_decided(a: np.ndarray, b: np.ndarray) -> None:
    """The soft assignments [b g n] are far from uniform, and no argmax hangs on rounding."""
    entropy = -(a * np.log(a + 1e-30)).sum(axis=1).mean() / np.log(a.shape[1])
    assert a.max() > 0.5 and entropy < 0.9, (a.max(), entropy)
    second, first = np.sort(a, axis=1)[:, -2:].swapaxes(0, 1)
    assert (first - second).min() > 2 * np.abs(a - b).max(), "a near-tie: choose another seed"


def assert_close(ours: Arrays, port: Arrays, title: str) -> None:
    assert ours.keys() == port.keys()
    for name in (name for name in ours if name.endswith("assignment")):
        assert_decided(port[name], ours[name])
    worst = {name: float(np.abs(ours[name] - port[name]).max()) for name in sorted(port)}
    print(f"\n{title}: largest absolute difference (and largest value)")
    for name, difference in worst.items():
        print(f"  {name:20s} {difference:.1e}  ({np.abs(port[name]).max():.2g})")
    assert {name: x for name, x in worst.items() if not x <= VALUES} == {}


@pytest.fixture(scope="module")
def published():
    port = make_port(PUBLISHED)
    return port, *make_ours(PUBLISHED, port)


@pytest.fixture(scope="module")
def small():
    port = make_port(SMALL)
    return port, *make_ours(SMALL, port)


@pytest.mark.parametrize("hw", [(224, 224), (448, 448), (224, 320)], ids=str)
def test_published_sizes_give_the_ports_values(published, hw):
    port, model, variables, _ = published
    images, tokens = make_inputs(PUBLISHED, hw, b=2)
    ours = run_ours(model, variables, images, tokens)
    assert ours["stage0_assignment"].shape == (2, 64, hw[0] * hw[1] // 256)
    assert len(ours) == 1 + 12 + 2 * 2 + 12 + 8
    assert_close(ours, run_port(port, images, tokens), f"published, {hw[0]}x{hw[1]}")


@pytest.mark.parametrize("hw", [(64, 128), (192, 160)], ids=str)
def test_small_sizes_give_the_ports_values(small, hw):
    port, model, variables, _ = small
    images, tokens = make_inputs(SMALL, hw, b=4)
    ours = run_ours(model, variables, images, tokens)
    assert_close(ours, run_port(port, images, tokens), f"small, {hw[0]}x{hw[1]}")


def one_stage() -> dict:
    return SMALL | {"image": SMALL["image"] | dict(depths=(2, 2), group_tokens=(12, 0), output_groups=(4, 0))}


def test_the_one_stage_variant_gives_the_ports_values():
    port = make_port(one_stage())
    model, variables, _ = make_ours(one_stage(), port)
    images, tokens = make_inputs(SMALL, (96, 96), b=4)
    assert_close(run_ours(model, variables, images, tokens), run_port(port, images, tokens), "one stage")


# Gradients that are zero whatever the weights are, so that only rounding is left of them: a bias of the keys
# adds the same to all logits of a query, and one of the assignment's queries to all groups of a token; the
# last bias of an MLP over tokens shifts all channels of a token, which every following norm takes away.
ZERO = ("self_attn.k_proj.bias", "pre_assign_attn.attn.k_proj.bias", "assign.q_proj.bias",
        "mlp_inter.fc2.bias", "group_projector.1.fc2.bias")


def port_gradients(port: Port, images: np.ndarray, tokens: np.ndarray) -> Arrays:
    port.zero_grad()
    forward_port(port, images, tokens).loss.backward()
    return {name: x.grad.numpy() for name, x in port.named_parameters()}


def our_gradients(model: TwoTowers, variables: dict, config, images: np.ndarray, tokens: np.ndarray,
                  batch_statistics: bool) -> tuple[Arrays, tuple[np.ndarray, ...]]:
    """Gradients under the port's names, and the soft assignments they passed through."""
    def loss(params, batch_stats):
        v = {"params": params, "batch_stats": batch_stats}
        features = model.apply(v, images, method="encode_image")
        text = model.apply(v, tokens[:, None], method="encode_text")[:, 0]
        train = dict(train=batch_statistics, mutable=["batch_stats"])
        image, _ = model.apply(v, features.pooled, method="project_image", **train)
        words, _ = model.apply(v, text, method="project_text", **train)
        return caption_loss(image, words, model.apply(v, method="logit_scale")), features.assignments

    gradients, assignments = jit(jax.grad(loss, has_aux=True))(variables["params"], variables["batch_stats"])
    return to_state_dict(variables | {"params": gradients}, config), assignments


def assert_gradients_close(ours: Arrays, port: Arrays, zero: tuple[str, ...]) -> None:
    whole = np.sqrt(sum((x**2).sum() for x in port.values()))
    worst = {}
    for name, x in port.items():
        if name.endswith(zero):
            assert max(np.linalg.norm(x), np.linalg.norm(ours[name])) < 1e-5 * whole, name
        else:
            assert np.linalg.norm(x) > 1e-6 * whole, f"{name} gets no gradient: nothing would be compared"
            worst[name] = float(np.linalg.norm(ours[name] - x) / np.linalg.norm(x))
    print("\nlargest relative differences of gradients")
    for name in sorted(worst, key=worst.get)[-5:]:
        print(f"  {name:80s} {worst[name]:.1e}")
    assert {name: x for name, x in worst.items() if not x <= GRADIENTS} == {}


@pytest.mark.parametrize("batch_statistics", [False, True], ids=["running statistics", "batch statistics"])
def test_gradients_of_the_caption_loss_are_the_ports(small, batch_statistics):
    """Without Gumbel noise and drop-path: both sides evaluate, or only their BatchNorms train."""
    port, model, variables, config = small
    images, tokens = make_inputs(SMALL, (64, 128), b=8)
    ours, assignments = our_gradients(model, variables, config, images, tokens, batch_statistics)
    soft = run_port(port, images, tokens)
    for s, assignment in enumerate(assignments):
        assert_decided(soft[f"stage{s}_assignment"], assignment)
    saved = {name: x.clone() for name, x in port.state_dict().items()}
    for module in (port.visual_projection[1], port.text_projection[1]):
        module.train(batch_statistics)
    theirs = port_gradients(port, images, tokens)
    port.eval().load_state_dict(saved)
    # What shifts every row in front of a BatchNorm that takes away the batch's own mean does nothing either.
    shifts = ("projection.0.bias", "text_model.final_layer_norm.bias", "vision_model.layernorm.bias")
    zero = ZERO + (shifts if batch_statistics else ())
    assert_gradients_close(ours, theirs, zero)


def test_batch_statistics_normalise_as_the_ports_do_and_move_by_its_momentum(small):
    port, model, variables, _ = small
    x = np.random.default_rng(2).standard_normal((6, SMALL["image"]["width"])).astype(np.float32)
    y, updated = model.apply(variables, x, train=True, method="project_image", mutable=["batch_stats"])
    saved = {name: value.clone() for name, value in port.state_dict().items()}
    with torch.no_grad():
        theirs = port.visual_projection.train()(torch.from_numpy(x)).numpy()
        mean = port.visual_projection[1].running_mean.numpy().copy()
    port.eval().load_state_dict(saved)
    np.testing.assert_allclose(y, theirs, atol=VALUES)
    np.testing.assert_allclose(updated["batch_stats"]["image_projector"]["norm"]["mean"], mean, atol=1e-6)


def state_of(port: Port) -> Arrays:
    return {name: x.numpy() for name, x in port.state_dict().items()}


@pytest.mark.parametrize("sizes", [SMALL, one_stage()], ids=["two stages", "one stage"])
def test_a_state_dict_survives_the_way_there_and_back(sizes):
    state, config = state_of(make_port(sizes)), ml_collections.ConfigDict(sizes)
    back = to_state_dict(from_state_dict(state, config), config)
    assert back.keys() == state.keys()
    for name, x in state.items():
        np.testing.assert_array_equal(back[name], x, err_msg=name)
        assert back[name].shape == x.shape and back[name].dtype == x.dtype and back[name].flags.c_contiguous


def test_converted_weights_are_the_models_variables(small):
    _, model, variables, _ = small
    images, tokens = jnp.zeros((1, 96, 96, 3)), jnp.zeros((1, 1, 16), jnp.int32)
    want = jax.eval_shape(model.init, jax.random.key(0), images, tokens)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(lambda x: x.shape, nn.unbox(want))


def with_gains(a: float, r: float) -> dict:
    return SMALL | {"image": SMALL["image"] | dict(assignment_gain=a, residual_gain=r)}


def test_a_model_with_gains_exports_as_a_plain_groupvit_and_comes_back(small):
    port, _, variables, _ = small
    config = ml_collections.ConfigDict(with_gains(2.5, 0.4))
    model = build(config, multi_label=False)
    images, tokens = make_inputs(SMALL, (96, 96), b=4)
    ours = run_ours(model, variables, images, tokens)
    plain = Port(port.config).eval()
    plain.load_state_dict({name: torch.from_numpy(x) for name, x in to_state_dict(variables, config).items()})
    plain.vision_model.embeddings.forward = functools.partial(plain.vision_model.embeddings.forward,
                                                              interpolate_pos_encoding=True)
    assert_close(ours, run_port(plain, images, tokens), "gains folded into the weights")
    unfolded = run_port(port, images, tokens)
    effect = np.abs(ours["stage0_assignment"] - unfolded["stage0_assignment"]).max()
    assert effect > 0.1, "the gains did nothing"
    back = from_state_dict(state_of(plain), config)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), back, variables)


def renamed(state: dict) -> dict:
    state["vision_model.layernorm.gamma"] = state.pop("vision_model.layernorm.weight")
    return state


def extended(state: dict) -> dict:
    return state | {"vision_model.extra": np.zeros(3, np.float32)}


def wider(state: dict) -> dict:
    return state | {"text_projection.3.bias": np.zeros(25, np.float32)}


@pytest.mark.parametrize("change, name", [
    (renamed, "vision_model.layernorm.weight"), (extended, "vision_model.extra"),
    (wider, "text_projection.3.bias")])
def test_a_state_dict_that_does_not_fit_is_refused_by_the_tensors_name(small, change: Callable, name: str):
    port, _, _, config = small
    with pytest.raises(InputError, match=name):
        from_state_dict(change(state_of(port)), config)


def test_the_buffer_of_older_files_is_no_surprise(small):
    port, _, _, config = small
    from_state_dict(state_of(port) | {"text_model.embeddings.position_ids": np.arange(16)[None]}, config)


def test_the_multi_label_scale_passes_only_when_asked(small):
    _, _, variables, config = small
    variables = variables | {"params": variables["params"] | {"multi_label_scale": np.float32(1.5)}}
    assert "multi_label_logit_scale" not in to_state_dict(variables, config)
    state = to_state_dict(variables, config, multi_label=True)
    assert from_state_dict(state, config, multi_label=True)["params"]["multi_label_scale"] == 1.5
