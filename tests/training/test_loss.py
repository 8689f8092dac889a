"""The contrastive losses against PyTorch's cross-entropy, and the metrics beside them."""

import re

import jax
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from groupvit_jax import parallel
from groupvit_jax.training import vitals
from groupvit_jax.training.loss import caption_loss, contrastive, log_sums, multi_label_loss, similarity

B, K, D, SCALE = 6, 3, 5, 7.0


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    shapes = {"image": (B, D), "text": (B, D), "prompts": (B, K, D)}
    return {name: (3 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


def torch_caption_loss(image, text):
    image, text = (F.normalize(torch.from_numpy(x), dim=-1) for x in (image, text))
    logits, own = SCALE * image @ text.T, torch.arange(len(image))
    return float((F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2)


def torch_multi_label_loss(image, prompts):
    b, k, _ = prompts.shape
    image, prompts = (F.normalize(torch.from_numpy(x), dim=-1) for x in (image, prompts))
    logits = SCALE * image @ prompts.reshape(b * k, -1).T
    owner = torch.arange(b * k) // k  # of each prompt
    targets = (owner == torch.arange(b)[:, None]).float() / k  # [b b*k], 1/K on an image's own prompts
    return float((F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, owner)) / 2)


def test_the_caption_loss_is_the_mean_of_two_cross_entropies_of_cosines(arrays):
    ours = caption_loss(arrays["image"], arrays["text"], SCALE)
    np.testing.assert_allclose(ours, torch_caption_loss(arrays["image"], arrays["text"]), rtol=1e-5)


def test_the_multi_label_loss_has_target_1_over_k_on_each_of_an_images_own_prompts(arrays):
    ours = multi_label_loss(arrays["image"], arrays["prompts"], SCALE)
    np.testing.assert_allclose(ours, torch_multi_label_loss(arrays["image"], arrays["prompts"]), rtol=1e-5)


def test_with_one_prompt_the_multi_label_loss_is_the_caption_loss(arrays):
    ours = multi_label_loss(arrays["image"], arrays["text"][:, None], SCALE)
    np.testing.assert_allclose(ours, caption_loss(arrays["image"], arrays["text"], SCALE), rtol=1e-5)


def test_losses_do_not_depend_on_the_order_of_pairs_or_of_an_images_prompts(arrays):
    order = np.random.default_rng(1).permutation(B)
    image, text, prompts = (arrays[name] for name in ("image", "text", "prompts"))
    np.testing.assert_allclose(caption_loss(image[order], text[order], SCALE), caption_loss(image, text, SCALE), 1e-5)
    np.testing.assert_allclose(multi_label_loss(image[order], prompts[order][:, ::-1], SCALE),
                               multi_label_loss(image, prompts, SCALE), 1e-5)


def test_the_loss_depends_on_which_text_belongs_to_which_image(arrays):
    image, text, prompts = (arrays[name] for name in ("image", "text", "prompts"))
    assert abs(caption_loss(image, text[::-1], SCALE) - caption_loss(image, text, SCALE)) > 1e-2
    assert abs(multi_label_loss(image, prompts[::-1], SCALE) - multi_label_loss(image, prompts, SCALE)) > 1e-2


def test_a_zero_embedding_gives_a_finite_loss_and_gradient(arrays):
    arrays["image"][0] = 0
    loss, gradient = jax.value_and_grad(caption_loss)(arrays["image"], arrays["text"], SCALE)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def outputs(arrays, multi_label=True):
    """As the model's: text 0 is the caption."""
    texts = np.concatenate([arrays["text"][:, None], arrays["prompts"]], axis=1)
    made = {"image": arrays["image"], "texts": texts, "scale": np.float32(SCALE)}
    return made | ({"multi_label_scale": np.float32(2 * SCALE)} if multi_label else {})


def test_the_whole_loss_is_the_sum_of_both_each_with_its_own_scale(arrays):
    loss, metrics = contrastive(outputs(arrays))
    caption = caption_loss(arrays["image"], arrays["text"], SCALE)
    extra = multi_label_loss(arrays["image"], arrays["prompts"], 2 * SCALE)
    np.testing.assert_allclose([loss, metrics["caption_loss"], metrics["multi_label_loss"]],
                               [caption + extra, caption, extra], rtol=1e-6)


def test_without_the_second_scale_only_the_caption_loss_counts(arrays):
    loss, metrics = contrastive(outputs(arrays, multi_label=False))
    np.testing.assert_allclose(loss, caption_loss(arrays["image"], arrays["text"], SCALE), rtol=1e-6)
    assert "multi_label_loss" not in metrics


def test_metrics_are_the_scales_and_the_share_of_captions_found(arrays):
    arrays["text"] = arrays["image"].copy()
    arrays["text"][[0, 1]] = arrays["image"][[1, 0]]  # two of six images find another's caption
    _, metrics = contrastive(outputs(arrays))
    np.testing.assert_allclose(metrics["accuracy"], 4 / 6, rtol=1e-6)
    np.testing.assert_allclose([metrics["logit_scale"], metrics["multi_label_scale"]], [SCALE, 2 * SCALE])


def test_the_spread_of_texts_is_that_of_captions(arrays):
    arrays["prompts"][:] = 1
    _, metrics = contrastive(outputs(arrays))
    np.testing.assert_allclose(metrics["text_spread"], vitals.spread(arrays["text"]), rtol=1e-6)
    np.testing.assert_allclose(metrics["image_spread"], vitals.spread(arrays["image"]), rtol=1e-6)


@pytest.mark.parametrize("parts, block", [(1, 1 << 24), (1, 12), (1, 1), (3, 1 << 24), (3, 13), (9, 6)])
def test_sums_in_parts_and_chunks_are_those_of_the_whole_matrix(arrays, parts, block):
    image, text = arrays["image"], arrays["prompts"].reshape(B * K, D)
    text[[14, 15]] = text[[3, 2]]  # of equal texts the first is nearest
    weights = np.random.default_rng(3).normal(size=(2, B * K)).astype(np.float32)

    def in_parts(image, text, scale):
        of_images, of_texts, nearest = log_sums(image, text, scale, parts=parts, block=block)
        return of_images @ weights[0, :B] + of_texts @ weights[1], (of_images, of_texts, nearest)

    def plain(image, text, scale):
        logits = scale * similarity(image, text)
        sums = jax.nn.logsumexp(logits, axis=1), jax.nn.logsumexp(logits, axis=0)
        return sums[0] @ weights[0, :B] + sums[1] @ weights[1], (*sums, logits.argmax(axis=1))

    ours, theirs = (jax.value_and_grad(f, argnums=(0, 1, 2), has_aux=True)(image, text, 30.0)
                    for f in (in_parts, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, theirs)


@pytest.mark.parametrize("block, largest", [(1 << 24, 64 * 256 // 8), (64 * 8, 64 * 8)])
def test_no_device_holds_more_logits_than_a_block_of_its_own_texts(block, largest):
    """In the compiled gradient for 8 devices there is no larger array with a side for all images."""
    mesh = tiny.mesh(8, 1, 1)
    image, text = (jax.ShapeDtypeStruct((n, 2), np.float32, sharding=parallel.batch_sharding(mesh)) for n in (64, 256))
    gradient = jax.grad(lambda image, text: sum(
        x.sum() for x in log_sums(image, text, 30.0, parts=8, block=block)[:2]), argnums=(0, 1))
    with parallel.use(mesh):
        compiled = jax.jit(gradient).lower(image, text).compile().as_text()
    shapes = [[int(n) for n in shape.split(",")] for shape in re.findall(r"f32\[([\d,]+)\]", compiled)]
    with_all_images = [np.prod(shape) for shape in shapes if 64 in shape and np.prod(shape) > 64 * 2]
    assert max(with_all_images) == largest
