import jax
import numpy as np

from groupvit_jax.data.tokenizer import tokenize
from groupvit_jax.evals.prompts import TextEncoder, class_embeddings, fill


def test_templates_of_one_name_stand_together():
    assert fill(["cat", "dog"], ["a {}.", "the {}."]) == ["a cat.", "the cat.", "a dog.", "the dog."]


def test_the_mean_is_taken_before_normalising():
    vectors = {"a x": [3.0, 0.0], "b x": [0.0, 4.0]}
    out = class_embeddings(lambda texts: np.array([vectors[t] for t in texts]), ["x"], ["a {}", "b {}"])
    np.testing.assert_allclose(out, [[0.6, 0.8]])  # normalised one by one it would be [.71, .71]
    assert out.dtype == np.float32


def test_batches_of_one_shape_give_each_text_its_own_projection(model, variables):
    texts = ["a cat", "two dogs on the sand", "night", "x", "a kite"]
    encoder = TextEncoder(model, batch=2)
    got = encoder(variables, texts)
    tokens = np.asarray(tokenize(texts, 16))
    features = jax.jit(lambda v, t: model.apply(v, t, method="encode_text"))(variables, tokens[:, None])[:, 0]
    np.testing.assert_allclose(got, model.apply(variables, features, method="project_text"), rtol=1e-5)
    assert encoder.project._cache_size() == 1
