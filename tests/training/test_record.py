"""What a workdir says of its run, and what of a configuration may change when the run goes on."""

import datetime
import json
import re
import shutil
import subprocess

import pytest
import tiny

from groupvit_jax.data import sources
from groupvit_jax.drawn import scenes
from groupvit_jax.errors import InputError, RunAgain
from groupvit_jax.training import loop, record
from groupvit_jax.training.checkpoint import to_json

# ---------------------------------------------------------------- run.json


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    scenes.write(folder, train=40, val=0, size=32, workers=1)
    return folder


def recipe(folder, **changes):
    config = tiny.config(**{"model__text__vocabulary": 49408, "data__prompts": 0, "eval__every": 2, "train__steps": 4,
                            "checkpoint__every": 1, "train__warmup_steps": 1, "train__log_every": 1,
                            "model__image__depths": (1, 0), "model__image__group_tokens": (4, 0),
                            "model__image__output_groups": (4, 0)} | changes)
    config.data.train[0].path = f"{folder}/train-*.tar"
    return config


@pytest.fixture(scope="module")
def started(pairs, compiled_once, tmp_path_factory):
    """(workdir, content of its run.json after each of three starts): preempted in step 2, with wrong input met in
    step 4, done; the second with another log_every."""
    workdir, contents, patch = tmp_path_factory.mktemp("run"), [], pytest.MonkeyPatch()
    patch.setenv("SOME_TOKEN", "a-secret-of-the-environment")
    patch.setattr(record.sys, "argv", ["groupvit", "train", "--config=mine.py"])

    def start(*endings, **changes):
        """endings: of the evaluations, one after the other."""
        left = iter(endings)

        def evaluate(_):
            if ending := next(left):
                raise ending
            return {"scenes": {"mIoU": 1.0}}

        try:
            loop.train(recipe(pairs, **changes), str(workdir), lambda *_, **__: evaluate)
        except (InputError, RunAgain):
            pass
        contents.append(record.read(workdir))

    with patch.context():
        start(RunAgain("preempted"))
        start(None, InputError("no room:\n make some"), train__log_every=2)
        start(None, train__log_every=2)
    patch.undo()
    return workdir, contents


def test_each_start_has_an_entry_that_says_where_it_went_on_and_how_it_ended(started):
    starts = started[1][-1]["starts"]
    assert [start["step"] for start in starts] == [0, 1, 3]
    assert [(start["ended"]["step"], start["ended"]["how"]) for start in starts] == [
        (2, "stopped: preempted"), (4, "stopped: no room: make some"), (4, "done")]
    times = [datetime.datetime.fromisoformat(time) for start in starts for time in (start["time"],
                                                                                    start["ended"]["time"])]
    assert times == sorted(times) and all(time.utcoffset() == datetime.timedelta(0) for time in times)


def test_later_starts_add_to_the_record_and_keep_its_name(started):
    first, second, third = started[1]
    assert first["starts"] == third["starts"][:1] and second["starts"] == third["starts"][:2]
    assert first["id"] == second["id"] == third["id"] and re.fullmatch("[0-9a-f]{12}", first["id"])


def test_it_has_the_configuration_of_the_last_start_and_what_changed_before(started, pairs):
    content = started[1][-1]
    assert content["config"] == to_json(recipe(pairs, train__log_every=2))
    assert [start.get("changes") for start in content["starts"]] == [None, {"config.train.log_every": [1, 2]}, None]


def test_it_says_by_what_the_run_was_made(started):
    for start in started[1][-1]["starts"]:
        assert start["command"] == ["groupvit", "train", "--config=mine.py"]
        assert start["devices"] == {"kind": "cpu", "number": 8} and start["processes"] == 1 and start["host"]
        assert start["versions"].keys() == {"python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain",
                                            "numpy"}
        assert all(re.match(r"\d+\.\d+", number) for number in start["versions"].values())


def test_it_says_nothing_of_the_environment(started):
    text = (started[0] / "run.json").read_text()
    assert "SOME_TOKEN" not in text and "a-secret" not in text


def test_a_start_that_was_killed_has_no_end_and_the_next_one_adds_to_it(tmp_path):
    record.Run(str(tmp_path)).start(tiny.config(), 0)
    with record.Run(str(tmp_path)) as run:
        run.start(tiny.config(), 3)
        run.step, run.how = 5, "preempted"
    assert [start.get("ended", {}).get("how") for start in record.read(tmp_path)["starts"]] == [None, "preempted"]


def test_a_run_that_had_nothing_to_do_writes_nothing(tmp_path):
    with record.Run(str(tmp_path)):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "a"}', '{"id": "a", "starts": [{}]}'])
def test_a_file_of_that_name_that_is_no_record_is_an_input_error(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match="run.json is no record of a run .*move it away"):
        record.Run(str(tmp_path))


def test_the_code_is_named_by_its_commit_and_whether_it_was_changed(tmp_path, monkeypatch):
    file = tmp_path / "groupvit_jax/training/record.py"
    file.parent.mkdir(parents=True)
    monkeypatch.setattr(record, "__file__", str(file))
    assert record.code().keys() == {"version"}  # no checkout

    def git(*arguments):
        who = ["-c", "user.name=n", "-c", "user.email=e"]
        return subprocess.run(["git", *who, "-C", tmp_path, *arguments], check=True, capture_output=True,
                              text=True).stdout.strip()

    git("init")
    file.write_text("a = 1\n")
    git("add", "--all")
    git("commit", "--message=first")
    assert record.code() == {"commit": git("rev-parse", "HEAD"), "changed": False}
    file.write_text("a = 2\n")
    assert record.code() == {"commit": git("rev-parse", "HEAD"), "changed": True}


# ---------------------------------------------------------------- the data


def fingerprint(pattern, **entry):
    config = tiny.config()
    config.data.train[0].update({"path": str(pattern)} | entry)
    return sources.fingerprint(config.data, sources.open_sources(config.data))


def test_the_fingerprint_is_of_the_samples_and_not_of_their_folder(pairs, tmp_path):
    shutil.copytree(pairs, tmp_path / "moved")
    before = fingerprint(f"{pairs}/train-*.tar")
    assert re.fullmatch("[0-9a-f]{16}", before)
    assert fingerprint(f"{tmp_path}/moved/train-*.tar") == before
    others = [fingerprint(f"{pairs}/train-*.tar", name="other"), fingerprint(f"{pairs}/train-*.tar", weight=1.0)]
    tar = sorted((tmp_path / "moved").glob("train-*.tar"))[0]
    tar.rename(tar.with_name("train-9.tar"))
    others.append(fingerprint(f"{tmp_path}/moved/train-*.tar"))
    scenes.write(tmp_path / "fewer", train=39, val=0, size=32, workers=1)
    others.append(fingerprint(f"{tmp_path}/fewer/train-*.tar"))
    assert len({before, *others}) == 5


def test_a_finished_run_goes_on_from_data_that_moved_and_not_from_other_data(started, pairs, tmp_path):
    evaluator = lambda *_, **__: None  # noqa: E731
    shutil.copytree(pairs, tmp_path / "moved")
    workdir = shutil.copytree(started[0], tmp_path / "run")
    assert loop.train(recipe(tmp_path / "moved", train__log_every=2), str(workdir), evaluator)["loss"] > 0
    scenes.write(tmp_path / "other", train=39, val=0, size=32, workers=1)
    with pytest.raises(InputError, match="the data: fingerprint [0-9a-f]{16} here, [0-9a-f]{16} in the run"):
        loop.train(recipe(tmp_path / "other"), str(workdir), evaluator)


def test_a_checkpoint_was_trained_on_the_data_of_the_last_start_before_it(tmp_path):
    for step, data in ((0, "a"), (20, "b"), (10, "c"), (40, "d")):
        record.Run(str(tmp_path), data).start(tiny.config(), step)
    run = record.Run(str(tmp_path))
    assert [run.data_at(step) for step in (0, 10, 20, 30, 40, 50)] == ["", "a", "c", "c", "c", "d"]


# ---------------------------------------------------------------- the check


def fields(config, prefix=""):
    """Dotted names of all fields; a list of sets counts as a field, as do the fields of its first."""
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from fields(value, f"{prefix}{name}.")
            continue
        yield prefix + name
        if isinstance(value, list | tuple) and value and hasattr(value[0], "items"):
            yield from fields(value[0], f"{prefix}{name}[0].")


def test_every_field_of_a_configuration_is_in_one_of_the_tables():
    unclear = {name: record.kinds(f"config.{name}") for name in fields(tiny.base.get_config())}
    assert {name: kinds for name, kinds in unclear.items() if len(kinds) != 1} == {}


def test_every_entry_of_the_tables_is_a_field():
    names = {name.replace("[0]", "") for name in fields(tiny.base.get_config())}
    for entry in record.COMPUTED + record.HOW:
        assert entry in names or entry.endswith(".") and any(name.startswith(entry) for name in names), entry


def check(changes, theirs=None, **more):
    record.check(tiny.config(**changes), theirs or to_json(tiny.config()), "here", **more)


@pytest.mark.parametrize("change, message", [
    ({"model__image__width": 32}, "config.model.image.width 32 here, 16 in the run"),
    ({"model__dtype": "bfloat16"}, "config.model.dtype bfloat16 here, float32 in the run"),
    ({"data__prompts": 0}, "config.data.prompts 0 here, 2 in the run"),
    ({"data__batch": 32}, "config.data.batch 32 here, 16 in the run"),
    ({"data__templates": ("a {}.",)}, r"config.data.templates \['a {}.'\] here, \[\] in the run"),
    ({"augment__flip": 0.0}, "config.augment.flip 0.0 here, 0.5 in the run"),
    ({"optim__lr": 1e-3}, "config.optim.lr 0.001 here, 0.0016 in the run"),
    ({"train__steps": 9}, "config.train.steps 9 here, 0 in the run"),
    ({"seed": 1}, "config.seed 1 here, 0 in the run"),
])  # fmt: skip
def test_another_computation_is_refused_with_the_difference_and_the_remedies(change, message):
    with pytest.raises(InputError, match=f"--workdir=here .*{message}.*another --workdir.*--resume=force"):
        check(change)


def test_many_differences_are_a_few_and_a_number_in_one_line():
    with pytest.raises(InputError, match="; and [1-9][0-9]* more[)]") as caught:
        check({"data__batch": 32, "seed": 3, "train__steps": 9, "augment__flip": 0.0, "data__templates": ("x" * 900,),
               "model__text__width": 16, "model__text__depth": 2, "optim__lr": 1e-3, "optim__b1": 0.5})
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value) and "config.data.batch" in str(caught.value)


def test_how_a_run_is_made_may_change_with_a_line_for_each(caplog):
    with caplog.at_level("WARNING"):
        check({"mesh__tensor": 2, "data__workers": 3, "train__microbatches": 2, "checkpoint__every": 2,
               "eval__every": 7, "data__train": [tiny.base.train_set("gcc3m", "elsewhere")]})
    assert [line.getMessage().split()[0] for line in caplog.records] == [
        "config.checkpoint.every", "config.data.train[0].path", "config.data.workers", "config.eval.every",
        "config.mesh.tensor", "config.train.microbatches"]


def test_another_set_or_number_of_sets_is_another_computation():
    first, second = tiny.base.train_set("gcc3m", ""), tiny.base.train_set("gcc12m", "")
    with pytest.raises(InputError, match=r"config.data.train\[0\].name gcc12m here, gcc3m in the run"):
        check({"data__train": [second]})
    with pytest.raises(InputError, match=r"config.data.train \['gcc3m', 'gcc12m'\] here, \['gcc3m'\] in the run"):
        check({"data__train": [first, second]})


def test_a_field_that_an_older_version_lacked_is_a_line(caplog):
    old = to_json(tiny.config())
    del old["mesh"]["zero1"], old["model"]["image"]["residual_gain"], old["seeds"], old["optim"]["eps"]
    with caplog.at_level("WARNING"):
        check({}, old)
    assert [line.getMessage().split()[0] for line in caplog.records] == [
        "config.mesh.zero1", "config.model.image.residual_gain", "config.optim.eps", "config.seeds"]


def test_a_field_of_the_model_that_it_lacked_and_that_makes_another_model_is_refused():
    old = to_json(tiny.config())
    del old["model"]["image"]["residual_gain"]
    with pytest.raises(InputError, match="config.model.image.residual_gain 2.0 here, nothing in the run"):
        check({"model__image__residual_gain": 2.0}, old)


def test_an_older_order_of_the_samples_is_refused():
    old = to_json(tiny.config())
    del old["data"]["group"]
    with pytest.raises(InputError, match="config.data.group 2 here, nothing in the run"):
        check({}, old)


@pytest.mark.parametrize("here, then, refused", [("a", "a", False), ("a", "", False), ("", "a", False),
                                                 ("a", "b", True)])
def test_other_data_is_refused_where_both_are_known(here, then, refused):
    if not refused:
        return check({}, data=here, data_then=then)
    with pytest.raises(InputError, match="the data: fingerprint a here, b in the run"):
        check({}, data=here, data_then=then)


def test_with_force_another_computation_is_a_line_for_each_difference(caplog):
    with caplog.at_level("WARNING"):
        check({"optim__lr": 1.0, "train__steps": 9, "model__image__drop_path": 0.1, "data__prompts": 1}, force=True,
              data="a", data_then="b")
    lines = [line.getMessage() for line in caplog.records]
    assert len(lines) == 5 and all(line.startswith("--resume=force: ") for line in lines)


@pytest.mark.parametrize("change, message", [
    ({"model__text__width": 16}, r"params/text/\S+ is \(8,\) in the run and would be \(16,\)"),
    ({"model__image__depths": (1, 1, 2)}, r"params/image/\S+ is None in the run"),
    ({"data__prompts": 0}, "config.data.prompts 0 of 2"),
])  # fmt: skip
def test_force_does_not_fit_a_state_of_other_shapes(change, message):
    with pytest.raises(InputError, match=f"--workdir=here: --resume=force cannot .*{message}.*another --workdir"):
        check(change, force=True)


def test_a_record_is_plain_json(started):
    assert json.loads((started[0] / "run.json").read_text()) == started[1][-1]
