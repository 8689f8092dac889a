"""The recipes: complete, of the published numbers, and each of them a step away from training."""

import importlib

import numpy as np
import pytest
import tiny
from absl import flags
from ml_collections import config_flags

from groupvit_jax.errors import InputError
from groupvit_jax.models import two_towers
from groupvit_jax.training import optim
from groupvit_jax.training import plan as plans
from groupvit_jax.training import state as states

RECIPES = {"scenes": (), "fashion": (), "gcc_yfcc_30e": (), "gcc_redcaps_30e": (),
           "cc12m_30e:two_stage": ("two_stage",), "cc12m_30e:one_stage": ("one_stage",)}
PARAMETERS = {"gcc_yfcc_30e": 55_726_610, "gcc_redcaps_30e": 55_726_609, "cc12m_30e:two_stage": 55_726_610}


def recipe(name):
    module = importlib.import_module("configs." + name.partition(":")[0])
    return module.get_config(*RECIPES[name])


def abstract(config, mesh):
    model = two_towers.build(config.model, multi_label=config.data.prompts > 0)
    tx, _ = optim.build(config.optim, config.data.batch, 1, 10)
    return states.abstract(model, tx, mesh)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_abstractly_on_a_mesh_of_all_three_axes(name):
    state = abstract(recipe(name), tiny.mesh(2, 2, 2))
    if name in PARAMETERS:
        assert states.count_parameters(state) == PARAMETERS[name]


def test_one_stage_is_the_published_size_less_what_the_second_grouping_has():
    one, two = (states.count_parameters(abstract(recipe(f"cc12m_30e:{n}_stage"), tiny.mesh(1, 1, 1)))
                for n in ("one", "two"))
    assert 0.9 * two < one < two


def shrunk(name):
    """The recipe with its own stages, loss and optimizer, and small widths, lengths and batch."""
    config = recipe(name).unlock()
    stages = len(config.model.image.depths)
    small = {key: value for key, value in tiny.SMALL.items()
             if key.startswith("model.") and not key.endswith(("group_tokens", "output_groups", "depths", "drop_path"))}
    groups = {"group_tokens": (4, 2), "output_groups": (4, 2)} if name not in ("scenes", "fashion") else {}
    for key, values in groups.items():
        kept = config.model.image[key]
        small[f"model.image.{key}"] = tuple(value if n else 0 for n, value in zip(kept, (*values, 0)))
    small |= {"model.image.depths": (1,) * stages, "data.batch": 8}
    config.update_from_flattened_dict(small)
    return config.lock()


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_a_tiny_step(name, quick_compilation, compiled_once):
    config = shrunk(name)
    metrics = tiny.Run(config, tiny.mesh(1, 1, 1))(tiny.batch(config))
    assert all(np.isfinite(value) for value in metrics.values())
    assert ("multi_label_loss" in metrics) == (config.data.prompts > 0) == (name != "gcc_redcaps_30e")


def test_base_has_the_published_numbers():
    config = tiny.base.get_config()
    published = {
        "data.batch": 4096, "data.prompts": 3, "train.epochs": 30, "train.warmup_epochs": 2,
        "optim.lr": 1.6e-3, "optim.lr_start": 4e-6, "optim.lr_end": 4e-5, "optim.lr_batch": 4096, "optim.b1": 0.9,
        "optim.b2": 0.999, "optim.eps": 1e-8, "optim.weight_decay": 0.05, "optim.clip_norm": 5.0,
        "augment.crop_area": (0.08, 1.0), "augment.crop_aspect": (3 / 4, 4 / 3), "augment.randaugment": 9,
        "augment.flip": 0.5, "augment.erase": 0.25, "model.text.length": 77, "model.image.image_size": 224,
        "model.image.drop_path": 0.1, "eval.size": 448, "eval.window": 448, "eval.stride": 224}
    for name, value in published.items():
        field = config
        for part in name.split("."):
            field = field[part]
        assert field == value, name


def test_model_a_trains_30_epochs_of_which_2_warm_up():
    pairs = 2_891_445 + 11_156_203 + 14_615_499
    lengths = plans.plan(recipe("gcc_yfcc_30e"), pairs)
    assert (lengths.steps, lengths.warmup) == (int(30 * pairs / 4096), int(2 * pairs / 4096))


def test_the_sets_of_the_published_models():
    names = lambda name: [entry.name for entry in recipe(name).data.train]  # noqa: E731
    assert names("gcc_yfcc_30e") == ["gcc3m", "gcc12m", "yfcc14m"]
    assert names("gcc_redcaps_30e") == ["gcc3m", "gcc12m", "redcap12m"]
    assert names("cc12m_30e:one_stage") == ["gcc12m"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_fields_of_base_and_no_others(name):
    fields = lambda config: {key for key, _ in config.items(preserve_field_references=False)}  # noqa: E731
    ours, base = recipe(name), tiny.base.get_config()
    assert fields(ours) == fields(base)
    for section in fields(base) - {"seed", "seeds"}:
        assert fields(ours[section]) == fields(base[section])
        assert not hasattr(base[section], "image") or all(
            fields(ours[section][part]) == fields(base[section][part]) for part in ("image", "text", "projector"))


def test_an_unknown_variant_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="one_stage and two_stage"):
        importlib.import_module("configs.cc12m_30e").get_config("three_stage")


def test_an_unknown_override_is_an_error():
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    with pytest.raises(Exception, match="bach"):
        values(["train", "--config=configs/scenes.py", "--config.data.bach=8"])
    with pytest.raises(KeyError, match="bach"):
        recipe("scenes").data.update({"bach": 8})


def test_an_unknown_field_of_the_model_is_an_error():
    config = tiny.config().unlock()
    config.model.image.depth = 3
    with pytest.raises(TypeError, match="depth"):
        two_towers.build(config.model, multi_label=True)


@pytest.mark.parametrize("changes, message", [
    ({"train__epochs": 0.0}, "gives no step"),
    ({"train__steps": 5, "train__log_every": 0}, "train.log_every=0"),
    ({"train__steps": 5, "checkpoint__every": 0}, "checkpoint.every=0"),
])
def test_lengths_that_cannot_work_are_input_errors(changes, message):
    with pytest.raises(InputError, match=message):
        plans.plan(tiny.config(**changes), pairs=100)


def test_epochs_become_steps_once_and_steps_go_before_epochs():
    by_epochs = tiny.config(train__epochs=2.5, train__warmup_epochs=0.5, data__batch=16)
    plan = plans.plan(by_epochs, 100)
    assert (plan.steps, plan.warmup) == (15, 3)  # 2.5 * 6.25 and 0.5 * 6.25, whole steps
    plan = plans.plan(tiny.config(train__steps=7, train__warmup_steps=2), 10**6)
    assert (plan.steps, plan.warmup) == (7, 2)


def test_a_shape_that_does_not_divide_over_the_mesh_is_named_before_anything_is_made():
    with pytest.raises(InputError, match="parameter .* does not divide"):
        abstract(recipe("gcc_yfcc_30e"), tiny.mesh(1, 1, 8))  # six heads
