"""What `transformers` makes of the processor's files is our tokenizer and our evaluation transform."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import port
import pytest
import torch
import transformers
from exported import photograph, write_processor
from PIL import Image

from groupvit_jax.data.images import MEAN, STD
from groupvit_jax.data.tokenizer import END, clean, tokenize
from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes
from groupvit_jax.evals.classification import fit
from groupvit_jax.interop.processor_files import processor_files

CASES = pathlib.Path(__file__).parent.parent / "data" / "tokenizer_cases.jsonl"
SETS = "voc voc20 context context59 coco_object coco_stuff cityscapes ade20k fashion scenes imagenet".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_processor(tmp_path_factory.mktemp("processor"), 224, 77)


@pytest.fixture(scope="module")
def processor(folder):
    return transformers.AutoProcessor.from_pretrained(folder)


def ours(texts: list[str], length: int = 77) -> list[list[int]]:
    """Our ids without the padding: up to the first end token, as the text tower reads them."""
    return [row[: row.index(END) + 1] for row in tokenize(texts, length).tolist()]


def theirs(tokenizer, texts: list[str]) -> list[list[int]]:
    return [row[: row.index(END) + 1] for row in tokenizer(texts, truncation=True)["input_ids"]]


def test_loading_says_nothing_and_gives_clips_classes(folder):
    code = ("import sys, transformers as t\n"
            "loaded = [x.from_pretrained(sys.argv[1]) for x in (t.AutoProcessor, t.AutoTokenizer, t.AutoImageProcessor,"
            " t.CLIPProcessor, t.CLIPTokenizer)]\n"
            "print([type(x).__name__.removesuffix('Pil') for x in loaded], loaded[1].model_max_length)")
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=120)
    assert done.stdout == ("['CLIPProcessor', 'CLIPTokenizer', 'CLIPImageProcessor', 'CLIPProcessor', 'CLIPTokenizer']"
                           " 77\n"), done.stderr
    assert done.stderr == ""


def test_prompts_of_all_data_sets_have_our_ids(processor):
    prompts = sorted({template.replace("{}", name) for key in SETS for protocol in classes.PROTOCOLS
                      for name in classes.names(key, protocol) for template in classes.templates(protocol)})
    assert len(prompts) > 10_000
    assert theirs(processor.tokenizer, prompts) == ours(prompts)


def test_of_recorded_cases_those_differ_that_clip_cleans_and_four_more(processor):
    """`transformers` repairs no mojibake and resolves no HTML entities."""
    texts = [json.loads(line)["text"] for line in CASES.read_text(encoding="utf-8").splitlines()]
    same = np.array([a == b for a, b in zip(theirs(processor.tokenizer, texts), ours(texts))])
    lower = [" ".join(text.split()).lower() for text in texts]
    cleaned = np.array([clean(text) != text for text in lower])
    print(f"{(~same).sum()} of {len(texts)} differ, {(~same & ~cleaned).sum()} of {(~cleaned).sum()} not cleaned")
    assert (~cleaned).sum() > 400
    # A long s, a final sigma, and letters of which one library's Unicode knows and the other's does not.
    assert (~same & ~cleaned).sum() <= 4


def test_a_special_token_in_a_text_is_one_also_in_capitals(processor):
    text = "a <|EndOfText|> b<|startoftext|>"
    assert processor.tokenizer(text)["input_ids"] == tokenize(text, 6)[0].tolist()


@pytest.mark.parametrize("length", [16, 77])
def test_long_texts_are_cut_to_the_models_length_and_keep_their_end(tmp_path, length):
    tokenizer = transformers.AutoTokenizer.from_pretrained(write_processor(tmp_path, 96, length))
    texts = ["a cat " * 100, "one dog"]
    assert theirs(tokenizer, texts) == ours(texts, length)
    assert len(tokenizer(texts, truncation=True)["input_ids"][0]) == length


def test_features_of_a_padded_batch_are_those_of_each_text_alone_and_of_our_ids(tmp_path):
    model = port.make_port(port.SMALL)
    tokenizer = transformers.AutoTokenizer.from_pretrained(write_processor(tmp_path, 96, 16))
    texts = ["a cat", "a photo of a very large dog.", "word " * 50]

    @torch.inference_mode()
    def features(**inputs):
        return model.text_model(**inputs).pooler_output.numpy()

    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    alone = [features(**tokenizer(text, truncation=True, return_tensors="pt"))[0] for text in texts]
    np.testing.assert_allclose(features(**batch), alone, atol=1e-5)
    np.testing.assert_allclose(features(input_ids=batch["input_ids"]), alone, atol=1e-5)  # causal: no mask is needed
    np.testing.assert_allclose(features(input_ids=torch.tensor(tokenize(texts, 16))), alone, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0.1


def expected(image: Image.Image, side: int = 224) -> np.ndarray:
    pixels = fit(np.asarray(image.convert("RGB")), side).astype(np.float32)
    return ((pixels / 255 - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)


def test_pixels_are_those_of_encode_image(processor):
    sizes = [(480, 640), (640, 480), (300, 256), (150, 100), (300, 1000), (225, 225)]
    images = [photograph(i, *size) for i, size in enumerate(sizes)]
    images += [images[0].convert("L"), images[1].convert("RGBA"), images[2].convert("P")]
    found = processor(images=images, return_tensors="np")["pixel_values"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [expected(image) for image in images], atol=1e-6)


def test_a_centre_between_two_pixels_may_be_one_pixel_off(processor):
    """`transformers` rounds it down, we to the even one as torchvision does: 343 - 224 leaves 59.5."""
    image = photograph(1, 256, 343)
    found = processor(images=image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(found[..., 1:], expected(image)[..., :-1], atol=1e-6)


def test_other_sizes_keep_the_proportion(tmp_path):
    own = transformers.AutoProcessor.from_pretrained(write_processor(tmp_path, 32, 16))
    images = [photograph(2, 64, 90), photograph(3, 90, 64)]
    np.testing.assert_allclose(own(images=images, return_tensors="np")["pixel_values"],
                               [expected(image, 32) for image in images], atol=1e-6)


def test_clips_licence_goes_along(folder):
    notice = (folder / "NOTICE").read_text()
    assert "vocab.json" in notice and "Copyright (c) 2021 OpenAI" in notice


@pytest.mark.parametrize(("side", "length"), [(0, 77), (224, 1)])
def test_sizes_that_are_none_are_an_input_error(side, length):
    with pytest.raises(InputError, match="no processor"):
        processor_files(side, length)
