"""The same step by other ways: micro-batches, rematerialization, one compiled block for all of a tower."""

import re

import jax
import numpy as np
import pytest
import tiny

from groupvit_jax import parallel
from groupvit_jax.data.packing import Packed, pack
from groupvit_jax.errors import InputError
from groupvit_jax.training import flops


def packed(batch):
    """The batch with its texts in packed rows, of groups of two pictures."""
    texts = batch["text"].reshape(8, 2, 3, -1).tolist()
    made = [pack(group, rows=4, length=16)[0] for group in texts]
    return batch | {"text": Packed(*(np.concatenate(parts) for parts in zip(*made)))}


@pytest.fixture(scope="module")
def first_step():
    """(changes of config.train, mesh, packed) -> the run's metrics of its first step and its state after it; every
    noise is on."""
    made = {}

    def run(changes=(), mesh=(1, 1, 1), pack=False):
        if (changes, mesh, pack) not in made:
            config = tiny.config(**{f"train__{name}": value for name, value in changes}, model__text__depth=2)
            run, batch = tiny.Run(config, tiny.mesh(*mesh)), tiny.batch(config)
            metrics = run(packed(batch) if pack else batch)
            made[changes, mesh, pack] = metrics, jax.device_get(run.state)
        return made[changes, mesh, pack]

    return run


WAYS = [((("microbatches", 4),), (1, 1, 1), False), ((("microbatches", 2),), (2, 2, 2), True),
        ((("remat", "dots"), ("scan", True)), (1, 1, 1), True), ((("remat", "full"), ("microbatches", 2)), (2, 2, 1))]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_losses_and_metrics_are_those_of_one_shot(first_step, way):
    ours, one_shot = first_step(*way)[0], first_step()[0]
    assert ours.keys() == one_shot.keys()
    for name, value in one_shot.items():
        rtol = 1e-4 if name == "update_ratio" else 1e-5  # Adam's update of the smallest gradients keeps fewer digits
        np.testing.assert_allclose(ours[name], value, rtol=rtol, err_msg=name)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_gradients_are_those_of_one_shot(first_step, way):
    """After one step Adam's first moment is a tenth of the clipped gradient."""
    ours, one_shot = (first_step(*w)[1].opt_state[1][0].mu for w in (way, ()))
    whole = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(one_shot)))
    for (path, a), b in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(one_shot), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * whole, err_msg=jax.tree_util.keystr(path))


def test_the_statistics_of_batch_norm_are_those_of_the_whole_batch(first_step):
    ours, one_shot = first_step(*WAYS[0])[1].batch_stats, first_step()[1].batch_stats
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), ours, one_shot)


def test_only_one_micro_batch_has_activations_in_memory():
    def temporary(microbatches):
        config = tiny.config(train__microbatches=microbatches, data__batch=64, model__image__depths=(6, 1, 1))
        run = tiny.program(config, tiny.mesh(1, 1, 1)).trace().lower().compile()
        return run.memory_analysis().temp_size_in_bytes

    assert temporary(8) < temporary(1) / 4


def test_products_of_attention_are_computed_again_by_dots_and_all_of_a_block_by_full():
    programs = (tiny.program(tiny.config(train__remat=r), tiny.mesh(1, 1, 1)) for r in ("none", "dots", "full"))
    none, dots, full = (flops.count(program.trace().jaxpr.jaxpr) for program in programs)
    assert none < dots < full


def test_an_unknown_policy_is_an_input_error():
    with pytest.raises(InputError, match="config.train.remat='most': use 'none', 'dots' or 'full'"):
        tiny.program(tiny.config(train__remat="most"), tiny.mesh(1, 1, 1))


def test_no_device_sends_pictures_to_another():
    """Every k-th group is a micro-batch: each device has its share of it already."""
    config = tiny.config(train__microbatches=2, data__batch=32)
    text = tiny.program(config, tiny.mesh(8, 1, 1)).trace().lower().compile().as_text()
    moved = re.findall(r"= (u8\[[\d,]+\])\S* (?:all-gather|all-to-all|collective-permute|all-reduce)", text)
    assert "u8[" in text and not moved


@pytest.mark.parametrize("microbatches", [0, -1, 3, 8])
def test_a_number_that_does_not_divide_the_groups_of_a_device_is_an_input_error(microbatches):
    with pytest.raises(InputError, match=f"microbatches={microbatches} does not divide the 4 groups"):
        parallel.check_batch(tiny.mesh(2, 1, 1), 16, 2, microbatches)
