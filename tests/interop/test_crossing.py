"""Weights cross the border between PyTorch and this code in every form, each way, with the same outputs."""

import json
import logging
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import original
import port
import pytest
import safetensors.torch
import tiny_run
import torch
import transformers

from groupvit_jax.errors import InputError
from groupvit_jax.inference import load
from groupvit_jax.interop import huggingface, nvlabs, proof, proof_port, reading, writing
from groupvit_jax.interop.inert import Global, Inert
from groupvit_jax.training import checkpoint

HEADS = (3, 2)  # of port.SMALL, whose widths tell nothing


@pytest.fixture(scope="module")
def small():
    return port.make_port(port.SMALL)


@pytest.fixture(scope="module")
def expected(small):
    """Our variables with the port's weights, by the table alone."""
    return port.make_ours(port.SMALL, small)[1]


def state_of(model):
    return {name: x.clone() for name, x in model.state_dict().items()}


def original_state(model):
    """As the original code names and shapes it."""
    state = {name: x.numpy() for name, x in model.state_dict().items()}
    return {name: torch.from_numpy(x.copy()) for name, x in original.state_dict(state).items()}


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def training_checkpoint(path, state, legacy, **more):
    """What a training run in PyTorch leaves: the state, AdamW's, a scheduler's, and a configuration object of a module
    that is not there afterwards."""
    module = types.ModuleType("departed_config")
    exec("class Config(dict):\n    pass", module.__dict__)
    sys.modules[module.__name__] = module
    config = module.Config(model=module.Config(
        type="MultiLabelContrastive", img_encoder=module.Config(embed_dim=48, num_heads=[3, 3, 3])))
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    saved = {"model": state, "optimizer": optimizer.state_dict(), "lr_scheduler": {"last_epoch": 29}, "epoch": 29,
             "max_metrics": {"max_miou": np.float64(52.3)}, "config": config} | more
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    del sys.modules[module.__name__]


# ---------------------------------------------------------------- in


def save_folder(folder, model, form):
    if form == "bin":
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    elif form == "old bin":
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    else:
        model.save_pretrained(folder, max_shard_size="1MB" if form == "sharded" else "5GB")
        assert (folder / "model.safetensors.index.json").exists() == (form == "sharded")
    return folder


@pytest.mark.parametrize("form", ["safetensors", "sharded", "bin", "old bin"])
def test_a_hugging_face_folder_is_read_whole(small, expected, tmp_path, form):
    weights = reading.read(str(save_folder(tmp_path, small, form)))
    assert_same(weights.variables, expected)
    assert weights.config.model.image.heads == 3 and weights.config.model.text.heads == 2
    assert weights.ignored == [f"{tower}_projection.1.num_batches_tracked []" for tower in ("text", "visual")]


def test_a_file_of_a_folder_knows_what_lies_beside_it(small, expected, tmp_path):
    save_folder(tmp_path, small, "safetensors")
    assert_same(reading.read(str(tmp_path / "model.safetensors")).variables, expected)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_training_checkpoint_of_the_original_code_is_read_whole(small, expected, tmp_path, legacy):
    file, state = tmp_path / "group_vit.pth", original_state(small) | {"multi_label_logit_scale": torch.tensor(2.5)}
    training_checkpoint(file, state, legacy)
    weights = reading.read(str(file), (None, 2))  # the image tower's 3 heads are in the pickled configuration
    assert weights.config.model.image.heads == 3
    variables = {"params": dict(weights.variables["params"]), "batch_stats": weights.variables["batch_stats"]}
    assert variables["params"].pop("multi_label_scale") == 2.5 and weights.config.data.prompts == 3
    assert_same(variables, expected)
    assert {"optimizer", "lr_scheduler", "epoch", "config", "max_metrics"} <= set(weights.ignored)


def of(name, **parts):
    return Inert(Global("some.library", name), **{"args": ()} | parts)


@pytest.mark.parametrize("wrap", [
    lambda x: x,
    lambda x: of("CfgNode", entries=x),  # yacs, addict
    lambda x: of("Namespace", state=x),
    lambda x: of("DictConfig", state={"_metadata": of("Metadata"), "_content": x}),  # omegaconf
    lambda x: of("Config", state=(of("ConfigDict", args=(x,)), "file.py", "text")),  # mmengine; mmcv's hold entries
    lambda x: of("ConfigDict", state={"_fields": x, "_locked": False}),  # ml_collections
])
@pytest.mark.parametrize("heads", [3, [3, 3, 3]])
def test_heads_are_found_in_configurations_of_many_libraries(wrap, heads):
    config = wrap({"model": wrap({"type": "x", "img_encoder": wrap({"num_heads": heads})})})
    assert nvlabs.heads_of(config) == (3, None)


@pytest.mark.parametrize("names", ["port", "original"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_bare_state_dict_is_read_whole(small, expected, tmp_path, names, suffix, prefix):
    state = state_of(small) if names == "port" else original_state(small)
    state = {prefix + name: x for name, x in state.items()}
    file = tmp_path / f"weights.{suffix}"
    safetensors.torch.save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    assert_same(reading.read(str(file), HEADS).variables, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_other_precisions_become_float32(small, tmp_path, dtype, suffix):
    state = {name: x.to(dtype) for name, x in state_of(small).items()}
    file = tmp_path / f"weights.{suffix}"
    safetensors.torch.save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    found = reading.read(str(file), HEADS).variables["params"]["image"]["positions"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, state["vision_model.embeddings.position_embeddings"].float().numpy())


@pytest.mark.parametrize("sizes", [
    {"image": {"depths": (2, 1), "group_tokens": (12, 0), "output_groups": (5, 0), "width": 32, "heads": 2}},
    {"image": {"depths": (1, 0), "group_tokens": (6, 0), "output_groups": (4, 0), "patch_size": 8}},
    {"image": {"mlp_ratio": 2.0, "image_size": 64}, "text": {"depth": 3, "width": 48, "heads": 4, "length": 20}},
    {"projector": {"hidden": 40, "features": 12}},
], ids=["one_stage", "empty_stage", "shapes", "projectors"])
def test_sizes_are_read_from_the_file(tmp_path, sizes):
    sizes = {key: {**value, **sizes.get(key, {})} if isinstance(value, dict) else value
             for key, value in port.SMALL.items()}
    model = port.make_port(sizes)
    model.save_pretrained(tmp_path)
    weights = reading.read(str(tmp_path))
    assert all(row.small for row in proof_port.compare(weights.config.model, weights.variables, model))
    for section in ("image", "text", "projector"):
        found = weights.config.model[section]
        # A stage without blocks or grouping has no tensors: it is not in the file, and does nothing.
        wanted = {name: x[:len(found[name])] if isinstance(x, tuple) else x for name, x in sizes[section].items()}
        assert {name: tuple(x) if isinstance(x := found[name], list | tuple) else x for name in wanted} == wanted


@pytest.mark.slow
def test_a_checkpoint_of_the_published_size_is_imported_and_proved_and_needs_no_flags(groupvit, tmp_path):
    state = original_state(port.make_port(port.PUBLISHED)) | {"multi_label_logit_scale": torch.tensor(2.5)}
    torch.save({"model": state, "epoch": 29}, tmp_path / "group_vit.pth")
    ended = groupvit("import", f"--source={tmp_path}/group_vit.pth", f"--output={tmp_path}/out")
    assert ended.code == 0 and ended.out.count("  ok") == 8 and "epoch" in ended.out, ended.err
    config, variables, *_ = checkpoint.load(f"{tmp_path}/out")
    assert config.model.image.heads == 6 and config.model.text.heads == 4 and config.data.prompts == 3
    assert (config.eval.size, config.eval.stride) == (448, 224)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 55_726_610  # the paper's model A


def test_missing_tensors_fail_by_name_and_unknown_ones_are_named(small, tmp_path):
    state = state_of(small)
    safetensors.torch.save_file(state | {"head.weight": torch.zeros(10, 48)}, tmp_path / "more.safetensors")
    assert "head.weight [10, 48]" in reading.read(str(tmp_path / "more.safetensors"), HEADS).ignored
    for name in ("vision_model.layernorm.bias", "text_projection.1.running_var", "logit_scale",
                 "vision_model.encoder.stages.1.group_projector.1.fc1.weight"):
        left = {key: x for key, x in state.items() if key != name}
        safetensors.torch.save_file(left, tmp_path / "less.safetensors")
        with pytest.raises(InputError, match=f"less.safetensors.*{name}"):
            reading.read(str(tmp_path / "less.safetensors"), HEADS)


@pytest.mark.parametrize("name", ["{0}", "{s}.{rest}", "{{x}}", "{", "img_encoder.{x!r:>9}", ""])
def test_names_of_whatever_letters_are_ignored(small, tmp_path, name):
    torch.save(original_state(small) | {name: torch.zeros(3)}, tmp_path / "w.pth")
    assert f"{name} [3]" in reading.read(str(tmp_path / "w.pth"), HEADS).ignored


def test_a_tensor_of_another_shape_fails_by_name(small, tmp_path):
    torch.save(state_of(small) | {"vision_model.layernorm.bias": torch.zeros(47)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"vision_model.layernorm.bias has shape \(47,\)"):
        reading.read(str(tmp_path / "w.pth"), HEADS)


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("change, words", [
    (lambda c: c["vision_config"].update(hidden_act="relu"), "vision_config.hidden_act=relu"),
    (lambda c: c["text_config"].update(hidden_act="gelu"), "text_config.hidden_act=gelu"),
    (lambda c: c["vision_config"].update(layer_norm_eps=1e-6), "layer_norm_eps"),
    (lambda c: c.update(model_type="clip"), "type 'clip'"),
    (lambda c: c["vision_config"].update(num_attention_heads=5), "heads"),
    (lambda c: c.update(vision_config=[1]), "no object at vision_config"),
])
def test_a_config_that_asks_for_something_else_is_refused(small, tmp_path, change, words):
    save_folder(tmp_path, small, "safetensors")
    edit(tmp_path / "config.json", change)
    with pytest.raises(InputError, match=words):
        reading.read(str(tmp_path))


def test_a_config_that_was_changed_beside_our_facts_counts(exported, tmp_path):
    shutil.copytree(exported / "folder", tmp_path / "hf")
    edit(tmp_path / "hf" / "config.json", lambda c: c["text_config"].update(hidden_act="relu"))
    with pytest.raises(InputError, match="text_config.hidden_act=relu"):
        reading.read(str(tmp_path / "hf"))
    edit(tmp_path / "hf" / "config.json", lambda c: c["text_config"].update(hidden_act="quick_gelu",
                                                                            num_attention_heads=1))
    with pytest.raises(InputError, match="groupvit_jax.json is of another model"):
        reading.read(str(tmp_path / "hf"))


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/etc/passwd", "gone.safetensors", ""])
def test_a_shard_that_is_not_beside_its_index_is_refused(small, tmp_path, name):
    folder = tmp_path / "hf"
    save_folder(folder, small, "sharded")
    shutil.copy(next(folder.glob("model-*.safetensors")), tmp_path / "elsewhere.safetensors")
    edit(folder / "model.safetensors.index.json", lambda c: c["weight_map"].update(logit_scale=name))
    with pytest.raises(InputError, match="no file beside it"):
        reading.read(str(folder))


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x02.", b"PK\x03\x04", bytes(100), b"[1, 2]"])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "model.safetensors.index.json", "pytorch_model.bin"])
def test_what_is_no_weights_is_one_line(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_many_views_of_a_few_numbers_are_refused_before_they_take_memory(small, tmp_path):
    state = state_of(small) | {f"view{i}": torch.zeros(1).expand(10_000_000) for i in range(10)}  # 400 MB
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match="repeat its numbers many times"):
        reading.read(str(tmp_path / "w.pth"), HEADS)


def test_no_torch_is_needed_to_read(small, tmp_path):
    training_checkpoint(tmp_path / "w.pth", original_state(small), False)
    save_folder(tmp_path, small, "safetensors")
    code = ("import sys\nfor name in ('torch', 'transformers'): sys.modules[name] = None\n"
            "import groupvit_jax as gv\n"
            f"gv.load({str(tmp_path)!r})\n"
            "from groupvit_jax.interop import reading, proof\n"
            f"reading.read({str(tmp_path / 'w.pth')!r}, (3, 2))\n"
            "print('read', proof.installed())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout == "read False\n", done.stderr


# ---------------------------------------------------------------- the command, and out again


@pytest.fixture(scope="module", params=["one_stage", "two_stages"])
def run(request, tmp_path_factory):
    """A run with gains, both losses, and evaluation sizes of its own; or the published form in small."""
    workdir = tmp_path_factory.mktemp("run")
    more = {} if request.param == "one_stage" else tiny_run.TWO_STAGES | {
        "model__image__assignment_gain": 1.0, "model__image__residual_gain": 1.0, "data__prompts": 0}
    tiny_run.save(workdir, tiny_run.config(**more))
    return workdir


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The run as a folder, and as a checkpoint of the original code."""
    out, found = tmp_path_factory.mktemp("out"), checkpoint.load(str(run))
    (out / "folder").mkdir()
    writing.write_folder(out / "folder", *found, licence="apache-2.0")
    writing.write_checkpoint(out / "weights.pth", *found)
    return out


@pytest.mark.parametrize("form, name", [("hf", "folder"), ("nvlabs", "weights.pth")])
def test_the_command_writes_the_same_and_proves_it(run, exported, groupvit, tmp_path, form, name):
    ended = groupvit("export", f"--checkpoint={run}", f"--format={form}", f"--output={tmp_path}/{name}",
                     "--license=apache-2.0")
    assert ended.code == 0, ended.err
    assert ended.out.count("  ok") >= 7 and "DIFFERS" not in ended.out and f"wrote {tmp_path}/{name}" in ended.out
    for file in (tmp_path / name).iterdir() if form == "hf" else [tmp_path / name]:
        assert file.read_bytes() == (exported / file.relative_to(tmp_path)).read_bytes()


@pytest.mark.parametrize("name", ["folder", "weights.pth"])
def test_out_and_in_again_is_the_same_bit_for_bit(run, exported, groupvit, tmp_path, name):
    ended = groupvit("import", f"--source={exported}/{name}", f"--output={tmp_path}/again")
    assert ended.code == 0 and "DIFFERS" not in ended.out, ended.err
    before, after = checkpoint.load(str(run)), checkpoint.load(f"{tmp_path}/again")
    assert_same(before.variables, after.variables)
    assert checkpoint.to_json(before.config) == checkpoint.to_json(after.config)
    assert (after.step, after.metrics) == (before.step, before.metrics)


def test_every_form_is_loaded_as_the_run_is(run, exported):
    expected = load(str(run))
    for name in ("folder", "folder/model.safetensors", "weights.pth"):
        found = load(f"{exported}/{name}")
        assert_same(found.variables, expected.variables)
        assert found.geometry == expected.geometry and found.module == expected.module


def test_a_folder_loads_in_transformers_without_a_word(exported, caplog, recwarn):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.INFO):
        model, info = transformers.GroupViTModel.from_pretrained(exported / "folder", output_loading_info=True)
        processor = transformers.AutoProcessor.from_pretrained(exported / "folder")
    assert not any(info.values()), info
    assert not [r for r in caplog.records if r.name.startswith("transformers") and r.levelno >= logging.WARNING]
    assert not list(recwarn)
    found = model(**processor(text=["a cat", "a photo of two dogs"], images=np.zeros((40, 50, 3), np.uint8),
                              return_tensors="pt", padding=True))
    assert found.logits_per_image.shape == (1, 2)


def test_each_tensor_of_the_original_code_is_made_and_none_besides(small):
    """Names, order of queries, keys and values, shapes: by a table that `interop.nvlabs` has no part in."""
    state = {name: x.numpy() for name, x in small.state_dict().items()}
    found, expected = nvlabs.from_port(state), original.state_dict(state)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)


def test_torch_reads_the_checkpoint_and_knows_every_name(exported):
    state = torch.load(exported / "weights.pth", weights_only=True)["model"]
    assert {"img_encoder.pos_embed", "img_encoder.layers.0.blocks.0.attn.qkv.weight", "img_projector.linear_out.weight",
            "text_encoder.transformer.resblocks.0.attn.in_proj_weight", "logit_scale"} <= state.keys()
    assert not [name for name in state if "vision_model" in name or "_proj.weight" in name and "qkv" in name]
    assert state["img_projector.linear_hidden.0.weight"].shape == (32, 16, 1)


def test_the_card_says_what_the_weights_are(exported):
    card = (exported / "folder" / "README.md").read_text()
    for words in ("license: apache-2.0", "| training data | scenes |", "7 steps of 128 pairs", "segment.py"):
        assert words in card


def test_the_card_has_scores_of_evaluations_and_not_of_the_loss():
    config = tiny_run.config()
    told = writing.card(config, 7, {"accuracy": 0.1, "loss": 2.0, "voc/mIoU": 52.3, "voc/groups_used": 7.5}, "")
    assert "| voc mIoU | 52.3 |" in told and "accuracy" not in told and "groups_used" not in told


def test_in_and_out_again_is_the_same_bit_for_bit(small, tmp_path):
    save_folder(tmp_path / "hf", small, "safetensors")
    (tmp_path / "again").mkdir()
    writing.write_folder(tmp_path / "again", *checkpoint.load(f"{tmp_path}/hf"), licence="")
    before, after = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("hf", "again"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_weights_that_pytorch_changed_count(exported, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(exported / "folder", folder)
    model = transformers.GroupViTModel.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01
    model.save_pretrained(folder)
    weights = reading.read(str(folder))
    assert all(row.small for row in proof_port.compare(weights.config.model, weights.variables, model.eval()))
    assert weights.config.model.image.assignment_gain == 1.0


def test_the_sizes_files_may_be_left_behind(exported, tmp_path):
    for file in (exported / "folder").iterdir():
        if not file.name.startswith("groupvit_jax."):
            shutil.copy(file, tmp_path)
    weights = reading.read(str(tmp_path))
    assert weights.config.data.prompts == 0 and weights.step == 0
    rows = proof_port.compare(weights.config.model, weights.variables, proof_port.port_in(tmp_path))
    assert all(row.small for row in rows)


@pytest.mark.parametrize("place, value", [
    ("config/model/image/heads", -2), ("config/model/image/heads", 3), ("config/model/image/depths", [10**12, 0]),
    ("config/model/image/assignment_gain", "8"), ("config/model/image/residual_gain", 0), ("config/model", None),
    ("config/data/prompts", []), ("config/eval/size", 1.5), ("step", "7"), ("metrics", 3), ("config", []),
])
def test_damaged_facts_are_one_line(exported, tmp_path, place, value):
    shutil.copytree(exported / "folder", tmp_path / "hf")

    def change(content):
        *path, last = place.split("/")
        for key in path:
            content = content[key]
        content[last] = value

    edit(tmp_path / "hf" / "groupvit_jax.json", change)
    with pytest.raises(InputError) as caught:
        reading.read(str(tmp_path / "hf"))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- proof


def a_transposed_matrix_is_forgotten(row, tensors):
    """`huggingface.load` with a mistake that no shape shows."""
    part = tensors[0] if row.ours.endswith("stage0_grouping/k/kernel") else None
    return np.asarray(part) if part is not None else right_load(row, tensors)


right_load = huggingface.load


def test_a_wrong_conversion_fails_and_leaves_nothing(small, groupvit, refused, tmp_path, monkeypatch):
    save_folder(tmp_path / "hf", small, "safetensors")
    monkeypatch.setattr(huggingface, "load", a_transposed_matrix_is_forgotten)
    ended = groupvit("import", f"--source={tmp_path}/hf", f"--output={tmp_path}/out")
    assert ended.code == 2 and "DIFFERS" in ended.out and "differs in assignment 0" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    ended = groupvit("import", f"--source={tmp_path}/hf", f"--output={tmp_path}/out", "--verify=off")
    assert ended.code == 0 and "not verified: --verify=off" in ended.out and (tmp_path / "out").is_dir()


def test_nothing_of_a_folder_but_sizes_reaches_transformers(small, groupvit, tmp_path, monkeypatch):
    """`from_pretrained` fetches and runs an attention that the config names, and follows an adapter's."""
    save_folder(tmp_path / "hf", small, "safetensors")
    monkeypatch.setattr(transformers.GroupViTModel, "from_pretrained", None)
    elsewhere = {"attn_implementation": "some/kernel", "_attn_implementation": "some/kernel",
                 "auto_map": {"AutoModel": "x.X"}, "transformers_weights": "../x.safetensors",
                 "quantization_config": {"quant_method": "gptq", "bits": 4}}

    def change(content):
        for section in (content, content["vision_config"], content["text_config"]):
            section.update(elsewhere)

    edit(tmp_path / "hf" / "config.json", change)
    (tmp_path / "hf" / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    ended = groupvit("import", f"--source={tmp_path}/hf", f"--output={tmp_path}/out")
    assert ended.code == 0 and "  ok" in ended.out, ended.err


@pytest.mark.parametrize("change", [lambda c: c.update(projection_dim=7), lambda c: c.update(projection_dim="7"),
                                    lambda c: c["vision_config"].update(num_group_tokens=[9, 4, 0])])
def test_a_config_of_other_sizes_than_the_weights_is_one_line(small, groupvit, tmp_path, change):
    save_folder(tmp_path / "hf", small, "safetensors")
    edit(tmp_path / "hf" / "config.json", change)
    ended = groupvit("import", f"--source={tmp_path}/hf", f"--output={tmp_path}/out")
    assert ended.code == 2 and "transformers does not take these weights with their config.json" in ended.err
    assert len(ended.err.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_wrong_export_fails_and_leaves_nothing(run, groupvit, tmp_path, monkeypatch):
    def wrong(variables, config, multi_label=False):
        state = right_state(variables, config, multi_label)
        name = "text_model.encoder.layers.0.self_attn.k_proj.weight"
        return state | {name: np.ascontiguousarray(state[name].T)}

    right_state = huggingface.to_state_dict
    monkeypatch.setattr(huggingface, "to_state_dict", wrong)
    for form, name in (("hf", "folder"), ("nvlabs", "w.pth")):
        ended = groupvit("export", f"--checkpoint={run}", f"--format={form}", f"--output={tmp_path}/{name}")
        assert ended.code == 2 and "differs in text feature" in ended.err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("form, name", [("stablehlo", "segmenter.bin"), ("onnx", "segmenter.onnx")])
def test_programs_are_written_and_proved_or_nothing_is(groupvit, tmp_path, monkeypatch, form, name):
    tiny_run.save(tmp_path / "run", tiny_run.config())
    call = lambda: groupvit("export", f"--checkpoint={tmp_path}/run", f"--format={form}",  # noqa: E731
                            f"--output={tmp_path}/{form}")
    monkeypatch.setattr(proof, "ALLOWED", 1e-12)
    ended = call()
    assert ended.code == 2 and "the export differs in" in ended.err and len(list(tmp_path.iterdir())) == 1
    monkeypatch.undo()
    ended = call()
    assert ended.code == 0 and ended.out.count("  ok") == 4 and (tmp_path / form / name).is_file(), ended.err


def test_without_pytorch_the_command_says_that_nothing_was_compared(run, groupvit, tmp_path, monkeypatch):
    monkeypatch.setattr(proof, "installed", lambda: False)
    ended = groupvit("export", f"--checkpoint={run}", "--format=nvlabs", f"--output={tmp_path}/w.pth")
    assert ended.code == 0 and "not verified: PyTorch or transformers is not here: pip install" in ended.out


def test_images_whose_groups_hang_on_rounding_are_not_compared(small, expected):
    _, _, config = port.make_ours(port.SMALL, small)
    variables = jax.device_get(expected)
    two = np.array(variables["params"]["image"]["stage0_grouping"]["norm_post_tokens"]["scale"])
    variables["params"]["image"]["stage0_grouping"]["norm_post_tokens"]["scale"] = 0 * two
    with pytest.raises(InputError, match="two groups claim a patch equally"):
        state = huggingface.to_state_dict(variables, config)
        proof_port.compare(config, variables, proof_port.port_of(state, config))


def test_weights_that_are_no_numbers_are_the_files_fault(small, groupvit, refused, tmp_path):
    save_folder(tmp_path / "hf", small, "safetensors")
    state = state_of(small) | {"text_model.final_layer_norm.bias": torch.full((32,), torch.nan)}
    safetensors.torch.save_file(state, tmp_path / "hf" / "model.safetensors", {"format": "pt"})
    ended = groupvit("import", f"--source={tmp_path}/hf", f"--output={tmp_path}/out")
    assert ended.code == 2 and "hold NaN" in ended.err and not (tmp_path / "out").exists()


def test_heads_are_not_asked_for_against_the_file(small, groupvit, refused, tmp_path):
    save_folder(tmp_path / "hf", small, "safetensors")
    refused(groupvit("import", f"--source={tmp_path}/hf", f"--output={tmp_path}/out", "--heads=4,2"),
            "3 and 2 heads", "leave out --heads")
    torch.save(state_of(small), tmp_path / "w.pth")
    refused(groupvit("import", f"--source={tmp_path}/w.pth", f"--output={tmp_path}/out", "--heads=5,2"),
            "cannot have 5 and 2 heads", "--heads=IMAGE,TEXT")
    ended = groupvit("import", f"--source={tmp_path}/w.pth", f"--output={tmp_path}/out", "--heads=3,2")
    assert ended.code == 0 and "width 48 with 3 heads, text tower of 32 with 2" in ended.out


def test_another_size_of_images_is_asked_for(small, groupvit, tmp_path):
    save_folder(tmp_path / "hf", small, "safetensors")
    ended = groupvit("import", f"--source={tmp_path}/hf", f"--output={tmp_path}/out", "--image_size=160")
    assert ended.code == 0, ended.err
    found = checkpoint.load(f"{tmp_path}/out")
    assert found.config.model.image.image_size == 160
    grid = small.vision_model.embeddings.position_embeddings.detach().reshape(1, 6, 6, -1).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(grid, (10, 10), mode="bicubic", align_corners=False)
    np.testing.assert_allclose(found.variables["params"]["image"]["positions"].reshape(10, 10, -1),
                               theirs[0].permute(1, 2, 0).numpy(), atol=1e-5)
