"""The verb: training steps compiled for slices that are not there."""

import json
import math
import runpy

import jax
import pytest
import tiny
from jax import export

from groupvit_jax.aot import products, report
from groupvit_jax.models import two_towers
from groupvit_jax.training import state as states

pytest.importorskip("libtpu")


def parameters(config):
    model = two_towers.build(config.model, multi_label=True)
    return sum(math.prod(x.shape) for x in jax.tree.leaves(states.abstract_variables(model)["params"]))


@pytest.fixture(scope="module")
def done(compiling, small):
    return compiling(small, "v5e:2x2")


@pytest.mark.slow
def test_a_step_that_fits_is_reported_in_words_and_as_json(done):
    assert done.code == 0, done.err
    assert done.report.keys() >= {"topology", "chips", "fits", "peak_bytes", "estimated_cycles", "uncosted_fusions",
                                  "custom_calls", "collective_bytes", "model_flops_per_chip", "f32_matmuls",
                                  "compile_seconds"}
    assert done.report["fits"] and done.report["chips"] == 4 and done.report["topology"] == "v5e:2x2"
    assert 0 < done.report["peak_bytes"] < done.report["hbm_bytes"] == 16 * 2**30
    assert done.report["estimated_cycles"] > 0 and done.report["loops_of_unknown_length"] == 0
    assert f"{done.report['estimated_cycles']:.4g}" in done.out and report.CAVEATS in done.out


@pytest.mark.slow
def test_gathers_and_scatters_of_embeddings_are_among_the_fusions_without_cycles(done):
    fusions = [row for row in done.report["uncosted"] if row["what"] == "fusion"]
    assert sum(row["times"] for row in fusions) == done.report["uncosted_fusions"]
    assert {"gather", "scatter-add"} <= {row["op_name"].split("/")[-1] for row in fusions}
    assert all(row["bytes"] > 0 for row in fusions)


@pytest.mark.slow
def test_chips_exchange_the_gradient_and_little_else(done, small):
    number = parameters(runpy.run_path(small)["get_config"]())
    assert 2 * number < sum(done.report["collective_bytes"].values()) < 2 * 4 * number  # bfloat16; float32


@pytest.mark.slow
def test_towers_in_bfloat16_have_no_float32_products(done):
    assert done.report["f32_matmuls_by_place"]["towers"] == {} == done.report["f32_matmuls_by_place"]["grouping"]
    assert sum(done.report["f32_matmuls_by_place"]["loss"].values()) > 0


@pytest.mark.slow
def test_the_exported_step_can_be_read_again(done):
    step = export.deserialize(bytearray(done.exported.read_bytes()))
    config = tiny.config()
    assert step.platforms == ("tpu",) and step.nr_devices == 4
    images = (config.data.batch, config.model.image.image_size, config.model.image.image_size, 3)
    assert images in [x.shape for x in step.in_avals]
    arrays, metrics = jax.tree.unflatten(step.out_tree, step.out_avals)
    (state, batch), _ = jax.tree.unflatten(step.in_tree, step.in_avals)
    assert [x.shape for x in arrays] == [x.shape for x in state] and "loss" in metrics and len(batch) == 5


@pytest.mark.slow
def test_a_step_without_room_is_a_report_and_no_error(compiling, small):
    done = compiling(small, "v5e:2x2", "--config.model.projector.hidden=1048576",
                     "--config.data.batch=65536")  # each activation of the projectors is 34 GB a chip
    assert done.code == 0, done.err
    assert done.report["fits"] is False and "RESOURCE_EXHAUSTED" in done.report["why"]
    assert done.report["peak_bytes"] > 26e9 > 16 * 2**30 > done.report["hbm_bytes"] > 15 * 2**30
    assert done.report["estimated_cycles"] is None and done.report["model_flops_per_chip"] > 0
    assert "DOES NOT FIT" in done.out


@pytest.mark.parametrize("overrides, words", [
    (["--topology=v5e-64"], ["--topology=v5e-64", "v5e:8x8"]),
    (["--topology=v5e:2x4", "--config.mesh.fsdp=3"], ["config.mesh", "8 device"]),
    (["--topology=v5e:8x8"], ["config.data.batch=16", "64 devices", "a multiple of 64"]),
    (["--topology=v5e:2x4", "--config.data.group=4"], ["set config.data.group=2"]),
    (["--topology=v5e:2x2", "--output=report.txt"], ["report.txt", ".json"]),
    ([], ["--topology=v5e:8x8"]),
])
def test_what_cannot_be_compiled_is_an_input_error(groupvit, refused, small, overrides, words):
    refused(groupvit("compile", f"--config={small}", *overrides), *words)


def test_help_says_what_is_written(groupvit):
    done = groupvit("compile", "--help")
    assert done.code == 0 and all(word in done.out for word in ("--topology=", "--output=", ".stablehlo"))


@pytest.mark.parametrize("why, asked, room", [
    ("RESOURCE_EXHAUSTED: the memory required for HLO temporaries (454.50G) exceeds available HBM (15.75G).",
     454.5, 15.75),
    ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.05G of 15.75G hbm.", 21.05, 15.75),
    ("RESOURCE_EXHAUSTED: too much", None, None),
])
def test_the_sizes_in_the_compilers_words_are_read(why, asked, room):
    assert report.sizes(why) == (asked and int(asked * 2**30), room and int(room * 2**30))


def test_float32_products_are_told_by_their_part():
    config = tiny.config(model__dtype="float32")
    found = products.float32_products(tiny.program(config, tiny.mesh(1, 1, 1)).trace().jaxpr.jaxpr)
    blocks = sum(config.model.image.depths) + config.model.text.depth
    # Forward one, backward two: q, k, v, two of attention, out, two of the MLP; and, for TPUs, of three biases.
    of_blocks = [n for place, n in found["towers"].items() if "block*/" in place]
    assert sum(of_blocks) == blocks * (8 * 3 + 3)
    assert sum(found["projectors"].values()) == 2 * 2 * 3
    assert any("pre_assign" in place for place in found["grouping"]) and sum(found["loss"].values()) > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)  # minutes on idle cores, a quarter of an hour on busy ones
def test_the_published_recipe_fits_64_chips_with_room(published):
    assert published.code == 0, published.err
    assert published.report["fits"] and published.report["peak_bytes"] < 0.25 * published.report["hbm_bytes"]


@pytest.mark.slow
def test_it_costs_at_most_6_5e7_cycles_and_hides_no_work(published):
    """The step's target was 6.0e7, and it was 5.87e7 before its numbers were watched and steps could be skipped; it is
    6.43e7 with them, of which about 1.5e6 is explained. When this changes, only lower numbers are right."""
    assert published.report["estimated_cycles"] <= 6.5e7
    assert published.report["custom_calls"] == {} and published.report["uncosted_fusions"] <= 14  # as many as before


@pytest.mark.slow
def test_its_chips_exchange_gradients_and_embeddings_in_bfloat16_and_a_tenth_more_at_most(published):
    config = tiny.base.get_config()
    embeddings = config.data.batch * (2 + config.data.prompts) * config.model.projector.features
    least = 2 * (parameters(config) + embeddings)
    assert least < sum(published.report["collective_bytes"].values()) <= 1.1 * least


@pytest.mark.slow
def test_it_has_no_float32_products_outside_loss_and_grouping(published):
    assert published.report["f32_matmuls"] == 0, json.dumps(published.report["f32_matmuls_by_place"], indent=1)
