"""The Python interface, on tiny models with random weights."""

import subprocess
import sys

import numpy as np
import pytest
import tiny_run
from PIL import Image

import groupvit_jax as gv
from groupvit_jax.data.images import classification_transform
from groupvit_jax.drawn import scenes
from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes
from groupvit_jax.evals.datasets import open_masked
from groupvit_jax.evals.runner import Evaluator


@pytest.fixture(scope="module", autouse=True)
def _quickly(quick_compilation):
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_run.load(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def pictures():
    return np.stack([scenes.draw(0, i, size=32).image for i in range(33)])


def test_importing_the_package_and_tokenizing_does_not_import_jax():
    code = "import sys, groupvit_jax as gv; assert gv.tokenize('a cat').shape == (1, 77); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr


def test_tokenize_takes_one_text_or_several_and_a_length():
    assert gv.tokenize(["a photo of a cat"])[0, :7].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert gv.tokenize(["a", "b c"], 5).shape == (2, 5) and gv.tokenize("a").dtype == np.int32


def test_load_finds_the_newest_checkpoint_and_the_whole_configuration(model):
    assert model.config.model.image.width == 16 and model.config.optim.clip_norm == 5.0
    assert model.module.image.width == 16 and set(model.variables) == {"params", "batch_stats"}


def test_load_names_what_it_wanted(tmp_path):
    with pytest.raises(InputError, match="--workdir of a training run"):
        gv.load(str(tmp_path))


def test_image_embeddings_have_unit_length_and_no_neighbour_matters(model, pictures):
    out = model.encode_image(pictures)
    assert out.shape == (33, 16) and out.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-5)
    alone = np.concatenate([model.encode_image(pictures[i : i + 1]) for i in range(33)])
    np.testing.assert_allclose(out, alone, atol=1e-5)
    assert np.ptp(out, axis=0).max() > 0.01  # they do differ


def test_pil_images_embed_as_their_pixels(model, pictures):
    as_pil = [Image.fromarray(pixels) for pixels in pictures[:3]]
    np.testing.assert_array_equal(model.encode_image(as_pil), model.encode_image(pictures[:3]))
    grey = as_pil[0].convert("L")
    np.testing.assert_array_equal(model.encode_image([grey]), model.encode_image([grey.convert("RGB")]))


def test_other_sizes_go_through_the_evaluation_transform(model):
    wide = scenes.draw(0, 3, size=96).image[:50]
    expected = classification_transform(wide, resize=37, crop=32)  # 32 * 256 / 224, rounded
    np.testing.assert_array_equal(model.encode_image([wide]), model.encode_image([expected]))
    both = model.encode_image([wide, expected])  # of different sizes in one call
    np.testing.assert_array_equal(both[0], both[1])


@pytest.mark.parametrize("images", [
    np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 32, 32, 4), np.uint8), np.zeros((0, 32, 32, 3), np.uint8),
    [np.zeros((32, 32), np.uint8)], [np.zeros((0, 32, 3), np.uint8)], [], ["photo.jpg"],
    np.zeros((32, 32, 3), np.uint8), Image.new("RGB", (32, 32)),
], ids=lambda images: f"{getattr(images, 'shape', images)}"[:30])  # fmt: skip
def test_what_is_no_list_of_pictures_is_refused(model, images):
    with pytest.raises(InputError, match="image"):
        model.encode_image(images)


def test_text_embeddings_have_unit_length_and_no_neighbour_matters(model):
    texts = [f"a photo of {n} cats" for n in range(70)]
    out = model.encode_text(texts)
    assert out.shape == (70, 16) and out.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(model.encode_text(texts[65]), out[65:66], atol=1e-5)
    with pytest.raises(InputError, match="no text"):
        model.encode_text([])


def test_similarity_is_the_scaled_product_of_embeddings(model, pictures):
    out = model.similarity(pictures[:2], ["a", "a cat on sand", "b"])
    scale = min(np.exp(model.variables["params"]["caption_scale"]), 100)
    expected = scale * model.encode_image(pictures[:2]) @ model.encode_text(["a", "a cat on sand", "b"]).T
    np.testing.assert_allclose(out, expected, rtol=1e-5)
    assert out.shape == (2, 3) and out.dtype == np.float32


@pytest.mark.parametrize("h, w", [(32, 32), (37, 53), (71, 30), (19, 23), (20, 60)])
def test_labels_have_the_images_own_size(model, h, w):
    image = Image.fromarray(scenes.draw(0, 9, size=400).image[:h, :w])
    out = model.segment(image, ["cat", "sofa", "grass"])
    assert out.labels.shape == out.groups.shape == (h, w) and out.scores.shape == (h, w, 3)
    assert out.labels.dtype == out.groups.dtype == np.int32 and out.scores.dtype == np.float32
    np.testing.assert_array_equal(out.labels, out.scores.argmax(axis=-1))
    assert out.names == ("cat", "sofa", "grass") and len(out.stages) == 1
    assert len(np.unique(out.groups)) > 1


def test_an_array_is_segmented_as_its_picture(model, pictures):
    one, two = (model.segment(image, ["a", "b"]) for image in (pictures[0], Image.fromarray(pictures[0])))
    np.testing.assert_array_equal(one.scores, two.scores)


def test_a_background_is_label_zero_and_its_threshold_counts(model, pictures):
    names = ["zebra", "coin", "sand", "road"]
    plain, none, most, usual = (model.segment(pictures[1], names, background=b) for b in (False, 0.0, 1.0, True))
    assert none.names == most.names == ("background", *names) and none.scores.shape == (32, 32, 5)
    np.testing.assert_array_equal(none.labels, plain.labels + 1)  # nothing is below a threshold of zero
    assert (most.labels == 0).any() and (most.labels > 0).any()  # all but the best group
    np.testing.assert_array_equal(usual.labels, model.segment(pictures[1], names, background=0.95).labels)
    np.testing.assert_array_equal(model.segment(pictures[1], names, True, "tcl").labels,
                                  model.segment(pictures[1], names, 0.5, "tcl").labels)


def test_the_protocol_chooses_the_templates(model, pictures):
    groupvit, tcl = (model.segment(pictures[2], ["cat", "dog"], protocol=p) for p in ("groupvit", "tcl"))
    assert np.abs(groupvit.scores - tcl.scores).max() > 1e-4


def test_one_class_takes_every_pixel(model, pictures):
    out = model.segment(pictures[3], [" cat "])
    assert out.names == ("cat",) and not out.labels.any()


@pytest.mark.parametrize("more, words", [
    ({"classes": []}, "class name"), ({"classes": ["cat", " "]}, "class name"), ({"classes": ""}, "class name"),
    ({"classes": ["cat;"]}, "empty name"), ({"background": "sky;;"}, "empty name"),
    ({"background": 1.5}, "between 0 and 1"), ({"background": float("nan")}, "between 0 and 1"),
    ({"protocol": "clip"}, "groupvit, tcl"), ({"image": np.zeros((8, 8), np.uint8)}, "RGB"),
    ({"image": np.zeros((8, 400, 3), np.uint8)}, "an image is too narrow"),
])  # fmt: skip
def test_segment_says_what_is_wrong(model, more, words):
    with pytest.raises(InputError, match=words):
        model.segment(**{"image": np.zeros((8, 8, 3), np.uint8), "classes": ["cat"]} | more)


def test_one_class_may_be_given_as_a_string(model, pictures):
    assert model.segment(pictures[0], "cat").names == ("cat",)


def test_segment_labels_pixels_as_the_evaluation_counts_them(model, tmp_path):
    scenes.write(tmp_path, train=0, val=1, seed=3, size=50, workers=1)
    names, c = classes.names("scenes"), 15
    _, image, mask = open_masked("scenes", tmp_path, None, c)[0]
    counts = Evaluator.from_config(model.module, model.config.eval, data_root=str(tmp_path))(model.variables)
    labels = model.segment(image, names).labels
    expected = np.bincount((mask.astype(int) * c + labels).ravel(), minlength=c * c).reshape(c, c)
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(counts["scenes"]["confusion"], expected)


def test_one_program_serves_images_of_all_sizes_and_lists_of_all_lengths(model):
    program, before = model._score, model._score._cache_size()
    for h, w, number in ((32, 32, 2), (37, 80, 5), (90, 33, 200), (64, 64, 1)):
        image = Image.fromarray(scenes.draw(0, 7, size=128).image[:h, :w])
        assert model.segment(image, [f"thing {i}" for i in range(number)], background=True).scores.shape[:2] == (h, w)
    assert program._cache_size() <= before + 1


def test_the_best_of_several_names_counts_and_the_first_is_shown(model, pictures):
    out = model.segment(pictures[0], ["zebra; striped horse", "sand"], background="night; the sky")
    assert out.names == ("background", "zebra", "sand") and out.scores.shape == (32, 32, 3)
    apart = model.segment(pictures[0], ["night", "the sky", "zebra", "striped horse", "sand"])
    best = np.stack([apart.scores[..., :2].max(-1), apart.scores[..., 2:4].max(-1), apart.scores[..., 4]], axis=-1)
    np.testing.assert_allclose(out.scores, best, atol=1e-5)  # five names: the rule of five takes none away


def test_more_classes_than_any_data_set_has(model, pictures):
    out = model.segment(pictures[0], [f"thing {i}" for i in range(700)])
    assert out.scores.shape == (32, 32, 700) and ((out.scores > 0).any(axis=(0, 1)).sum()) <= 5 * 9


def test_a_model_of_two_stages_gives_the_groups_of_both(tmp_path):
    tiny_run.save(tmp_path, tiny_run.config(**tiny_run.TWO_STAGES))
    out = gv.load(str(tmp_path)).segment(scenes.draw(0, 5, size=32).image, ["cat", "sand"])
    first, last = out.stages
    np.testing.assert_array_equal(last, out.groups)
    assert first.shape == (32, 32) and first.max() < 6 and last.max() < 3
    assert len(np.unique(first)) > len(np.unique(last)) >= 1
