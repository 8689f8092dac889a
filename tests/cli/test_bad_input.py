"""Wrong input ends with one line that names the remedy, and exit code 2; what was there stays as it was."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_run
from PIL import Image

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "scenes.py"


@pytest.fixture
def train(groupvit, scenes_folder, tmp_path):
    """`groupvit train` with a tiny configuration and good data, but for what is overridden."""
    tiny = [f"--config.{name}={value}" for name, value in tiny_run.OVERRIDES.items()]
    good = [f"--config.data.train[0].path={scenes_folder}/train-*.tar", "--config.data.batch=8",
            "--config.data.group=1", "--config.eval.every=0", f"--workdir={tmp_path}/run"]
    return lambda *wrong: groupvit("train", f"--config={CONFIG}", *tiny, *good, *wrong)


@pytest.fixture
def segment(groupvit, run, scenes_folder, tmp_path):
    good = [f"--checkpoint={run}", f"--images={scenes_folder}/VOCdevkit/scenes/JPEGImages/*.jpg",
            "--classes=zebra,sand", f"--output={tmp_path}/pictures"]
    return lambda *wrong: groupvit("segment", *good, *wrong)


@pytest.fixture
def evaluate(groupvit, run, scenes_folder):
    return lambda *wrong: groupvit("eval", f"--checkpoint={run}", f"--data_root={scenes_folder}", *wrong)


# ---------------------------------------------------------------- the command line


def test_in_a_process_of_its_own_too(process, refused, tmp_path):
    refused(process("trian"), "trian", "groupvit VERB --help")
    refused(process("train", "--config=nowhere.py", "--workdir=w"), "--config=nowhere.py", "configs/scenes.py")
    refused(process("train", f"--config={CONFIG}", f"--workdir={tmp_path}/w", "--config.foo.bar=1"),
            "--config.foo.bar=1", "no such field", "configs/base.py")
    refused(process("segment", f"--checkpoint={tmp_path}", f"--images={CONFIG}", "--classes=a", "--output=o"),
            "--checkpoint=", "--workdir")


@pytest.mark.parametrize("arguments, words", [
    ([], ["usage: groupvit", "--help"]),
    (["--foo"], ["'--foo'", "usage"]),
    (["train"], ["--config=FILE", "--workdir=DIR"]),
    (["train", f"--config={CONFIG}"], ["--workdir=DIR"]),
    (["train", "--config"], ["--config=", "configs/scenes.py"]),
    (["train", f"--config={CONFIG.parent}", "--workdir=w"], ["--config=", "no such file"]),
    (["train", f"--config={CONFIG}", "--dry_run", "--images_per_second=0"], ["--images_per_second=0"]),
    (["train", f"--config={CONFIG}", "--workdir=w", "more"], ["'more'", "--workdir=DIR"]),
    (["train", f"--config={CONFIG}", "--workdir=w", "--resume=maybe"], ["--resume=maybe", "auto|force"]),
    (["train", f"--config={CONFIG}", "--workdir=w", "--config.seeds=[0,0]"], ["config.seeds=(0, 0)", "(0,1,2)"]),
    (["train", f"--config={CONFIG}", "--dry_run", "--config.seeds=-1"], ["config.seeds=(-1,)", "(0,1,2)"]),
    (["eval"], ["usage: groupvit eval --checkpoint"]),
    (["eval", "--checkpont=p"], ["'checkpont'", "Did you mean: checkpoint", "groupvit eval --help"]),
    (["eval", "--protocol=clip", "--checkpoint=p"], ["--protocol=clip", "groupvit|tcl"]),
    (["segment", "--checkpoint=p", "--classes=a"], ["usage: groupvit segment --checkpoint", "--output=DIR"]),
    (["segment", "--views"], ["--views", "groupvit segment --help"]),
    (["import"], ["usage: groupvit import --source=FILE_OR_FOLDER --output=DIR"]),
    (["import", "--source=a", "--output=b", "--heads=6"], ["--heads=6", "6,4"]),
    (["import", "--source=a", "--output=b", "--heads=6,0"], ["--heads=6,0", "6,4"]),
    (["import", "--source=a", "--output=b", "--verify=no"], ["--verify=no", "on|off"]),
    (["import", "--source=/nowhere", "--output=b"], ["/nowhere holds no weights", "Hugging Face folder", ".pth"]),
    (["import", f"--source={CONFIG}", "--output=b"], ["scenes.py is not a PyTorch checkpoint"]),
    (["export", "--checkpoint=p", "--output=o"], ["usage: groupvit export --checkpoint=DIR --format=hf|nvlabs"]),
    (["export", "--checkpoint=p", "--format=torch", "--output=o"], ["--format=torch", "hf|nvlabs|stablehlo|onnx"]),
    (["export", "--checkpoint=p", "--format=nvlabs", "--output=o"], ["--output=o", "weights.pth"]),
    (["export", "--checkpoint=p", "--format=hf", "--output=o", "--license=mit\nfoo: bar"], ["--license=", "apache"]),
    (["export", "--checkpoint=/nowhere", "--format=hf", "--output=o"], ["--checkpoint=/nowhere", "--workdir"]),
    (["data"], ["unknown command 'data'", "data scenes|data fashion|data index"]),
    (["data", "everything"], ["unknown command 'data everything'", "data inspect"]),
    (["data", "scenes"], ["--output=DIR"]),
    (["data", "scenes", "--output=o", "--train=many"], ["--train=many", "groupvit data scenes --help"]),
    (["data", "fashion"], ["usage: groupvit data fashion --output=DIR [--source=DIR"]),
    (["data", "fashion", "--output=o", "--source=/nowhere"], ["/nowhere", "apt install dataset-fashion-mnist"]),
    (["data", "fashion", "--output=o", "--train=many"], ["--train=many", "groupvit data fashion --help"]),
    (["data", "inspect"], ["usage: groupvit data inspect --config=FILE"]),
    (["data", "inspect", f"--config={CONFIG}", "--samples=0"], ["--samples=1000"]),
])  # fmt: skip
def test_wrong_or_missing_flags(groupvit, refused, arguments, words):
    refused(groupvit(*arguments), *words)


@pytest.mark.parametrize("text, words", [
    ("def get_config(:\n", ["line 1", "no Python"]),
    ("x = 1\n\n\ndef get_config():\n    return int('x')\n", ["line 5", "ValueError"]),
    ("import no_such_module\n", ["line 1", "no_such_module"]),
    ("from configs import base\nbase.get_config().modle\n", ["line 2", "modle"]),
    ("x = 1\n", ["get_config"]),
    ("from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict()\n", ["base.get_config()"]),
    ("def get_config():\n    return open('/nowhere')\n", ["/nowhere"]),
])  # fmt: skip
def test_a_configuration_that_does_not_run(groupvit, refused, tmp_path, text, words):
    file = tmp_path / "mine.py"
    file.write_text(text)
    refused(groupvit("train", f"--config={file}", f"--workdir={tmp_path}/w"), f"--config={file}", *words)


def test_a_variant_of_a_configuration_that_has_none(groupvit, refused, tmp_path):
    refused(groupvit("train", f"--config={CONFIG}:large", f"--workdir={tmp_path}/w"), "get_config() takes 0")


@pytest.mark.parametrize("override, words", [
    ("--config.foo.bar=1", ["no such field"]),
    ("--config.data.bach=1", ["no such field"]),
    ("--config.data.batch.x=1", ["no such field"]),
    ("--config.data.train[4].path=x", ["no such field"]),
    ("--config.data.batch=many", ["give a whole number"]),
    ("--config.optim=5", ["not a dict"]),
])  # fmt: skip
def test_an_override_that_does_not_fit(train, refused, override, words):
    refused(train("--config.seed=3", override), override, "configs/base.py", *words)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("override, words", [
    ("--config.data.batch=12", ["config.data.batch=12", "8 devices", "multiple of 8"]),
    ("--config.data.group=4", ["batch=8 in groups of 4", "set config.data.group=1"]),
    ("--config.data.group=0", ["config.data.group=0: give 1 or more"]),
    ("--config.data.batch=0", ["config.data.batch=0: give 1 or more"]),
    ("--config.data.workers=-1", ["config.data.workers=-1"]),
    ("--config.data.threads=-2", ["config.data.threads=-2"]),
    ("--config.data.prefetch=0", ["config.data.prefetch=0"]),
    ("--config.data.cache=0", ["config.data.cache=0"]),
    ("--config.data.pack_length=-128", ["config.data.pack_length=-128: give 4 or more"]),
    ("--config.data.caption_tokens=nan", ["config.data.caption_tokens=nan"]),
    ("--config.data.max_bad=2.0", ["config.data.max_bad=2.0", "from 0 to 1"]),
    ("--config.seed=-1", ["config.seed=-1"]),
    ("--config.augment.crop_area=(-1.0, 1.0)", ["config.augment.crop_area[0]=-1.0"]),
    ("--config.augment.randaugment=11.0", ["config.augment.randaugment=11.0"]),
    ("--config.model.text.length=1", ["text.length=1"]),
    ("--config.data.train[0].weight=nan", ["weight nan"]),
    ("--config.data.train[0].source=tfds", ["no folder", "groupvit data convert"]),
    ("--config.data.decode=fast", ["fast", "scaled"]),
    ("--config.mesh.tensor=3", ["config.mesh", "8 device(s)"]),
    ("--config.model.image.image_size=36", ["image_size=36", "patch_size=8"]),
    ("--config.model.image.heads=3", ["width=16", "heads=3"]),
    ("--config.model.dtype=float61", ["float61", "bfloat16"]),
    ("--config.data.train[0].path=/nowhere/*.tar", ["/nowhere/*.tar", "no tar"]),
    ("--config.data.train[0].source=arrayrecord", ["arrayrecord", "tar, array_record, tfds"]),
    ("--config.train.log_every=0", ["config.train.log_every=0"]),
    ("--config.train.profile=(700, 705)", ["config.train.profile=(700, 705)", "last, 600", "(100, 105)"]),
    ("--config.train.profile=(5,)", ["config.train.profile=(5,)", "(100, 105)"]),
    ("--images_per_second=5", ["--images_per_second", "--dry_run"]),
    ("--config.eval.every=-1", ["config.eval.every=-1"]),
    ("--config.data.prompts=-1", ["config.data.prompts=-1"]),
    ("--config.checkpoint.keep=0", ["config.checkpoint.keep=0"]),
    ("--config.model.image.drop_path=1.0", ["drop_path=1.0"]),
    ("--workdir=gs://bucket/run", ["gs://bucket/run", "mounted"]),
])  # fmt: skip
def test_a_configuration_that_cannot_work(train, refused, tmp_path, override, words):
    refused(train(override), *words)
    assert not (tmp_path / "run").exists()


def test_an_empty_shard_folder(train, refused, tmp_path):
    (tmp_path / "shards").mkdir()
    refused(train(f"--config.data.train[0].path={tmp_path}/shards"), f"no .tar in {tmp_path}/shards")


def test_evaluation_data_that_is_missing_ends_training_before_it_begins(train, refused, tmp_path):
    refused(train("--config.eval.every=5", f"--config.eval.data_root={tmp_path}"), "groupvit data scenes")
    refused(train("--config.eval.every=5", "--config.eval.tasks=('vok',)"), "'vok'", "choose among")


def test_a_workdir_that_cannot_be_one(train, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        refused(train(f"--workdir={workdir}"), f"--workdir={workdir}", "choose another")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_workdir_with_a_run_of_another_model(train, refused, run):
    refused(train(f"--workdir={run}", "--config.model.image.width=32"),
            "config.model.image.width 32 here, 16 in the run", "another --workdir")


# ---------------------------------------------------------------- what is trained


def test_a_checkpoint_that_is_none(segment, evaluate, refused, tmp_path, scenes_folder):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    for path in (tmp_path / "nothing", tmp_path / "empty", scenes_folder):
        refused(segment(f"--checkpoint={path}"), f"--checkpoint={path}", "--workdir of a training run")
    refused(segment(f"--checkpoint={tmp_path}/file"), f"{tmp_path}/file is not a PyTorch checkpoint")
    refused(evaluate(f"--checkpoint={tmp_path}"), f"--checkpoint={tmp_path}")


@pytest.mark.parametrize("wrong, words", [
    ("--images=/nowhere/*.jpg", ["/nowhere/*.jpg", "no file"]),
    ("--images=/", ["--images=/", "no file"]),
    ("--classes=zebra,,sand", ["class name", "empty"]),
    ("--classes=", ["usage"]),
    ("--views=pred,depth", ["'depth'", "choose among input,pred,", "labels,areas"]),
    ("--views=", ["--views has ''", "input_pred_label"]),
    ("--views=overlay", ["'overlay'", "input_pred_label"]),
])  # fmt: skip
def test_segment_with_what_cannot_be_segmented(segment, refused, wrong, words):
    refused(segment(wrong), *words)


@pytest.mark.parametrize("threshold", ["1.5", "-1", "nan"])
def test_a_threshold_that_is_none(segment, refused, threshold):
    refused(segment(f"--background={threshold}"), f"--background={threshold}", "between 0 and 1")


def test_an_image_that_cannot_be_read(segment, refused, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    refused(segment(f"--images={tmp_path}/broken.jpg"), "broken.jpg", "replace it")
    assert not (tmp_path / "pictures").exists()


def test_an_output_of_segment_under_a_file(segment, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    ended = segment(f"--output={tmp_path}/file/pictures")
    assert ended.code == 2 and "choose another place" in ended.err and "Traceback" not in ended.err
    assert (tmp_path / "file").read_text() == "mine"


def test_crossings_leave_alone_what_is_there_and_nothing_half_written(groupvit, refused, run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    (tmp_path / "mine.pth").write_text("mine")
    for form, name in (("hf", "mine"), ("stablehlo", "mine"), ("nvlabs", "mine.pth"), ("nvlabs", "mine/file/w.pth")):
        refused(groupvit("export", f"--checkpoint={run}", f"--format={form}", f"--output={tmp_path}/{name}"),
                f"{tmp_path}/{name}", "another")
    refused(groupvit("import", f"--source={run}", f"--output={tmp_path}/new/folder"), "holds no weights")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["mine", "mine.pth", "mine/file"]
    assert (tmp_path / "mine" / "file").read_text() == (tmp_path / "mine.pth").read_text() == "mine"


def test_a_workdir_that_holds_another_run(train, refused, tmp_path, run):
    good = f"--workdir={run}"
    refused(train(good, "--config.optim.lr=0.5"), "config.optim.lr 0.5 here", "another --workdir", "--resume=force")
    refused(train(good, "--resume=force", "--config.model.text.width=32"), "(32,)", "another --workdir")
    refused(train(good, "--config.seeds=(0,1)"), f"--workdir={run} holds a single run", "another --workdir")


def test_weights_and_biases_that_is_not_installed(train, refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    refused(train("--config.train.wandb=segments"), "config.train.wandb='segments'", "[wandb]", "leave it empty")
    assert not list(tmp_path.iterdir())


def test_starting_from_what_is_none(train, refused, tmp_path):
    refused(train(f"--config.init_from={tmp_path}/nothing"), f"{tmp_path}/nothing", "Hugging Face folder")
    refused(train("--config.init_from=p", "--config.init_from.parts=('towers',)"), "'towers'", "image_projector")
    refused(train("--config.init_from", f"{tmp_path}/nothing"), f"config.init_from: {tmp_path}/nothing: no checkpoint")
    refused(train("-config.init_from", f"{tmp_path}/nothing"), f"config.init_from: {tmp_path}/nothing: no checkpoint")
    assert not list(tmp_path.iterdir())  # no --workdir was begun


@pytest.mark.parametrize("heads", ["6", "6,4,2", "0,4", "six,4", "²,4", ",4", "-6,4"])
def test_heads_that_are_none(groupvit, refused, heads):
    refused(groupvit("import", "--source=p", "--output=q", f"--heads={heads}"), f"--heads={heads}: give two numbers")


def test_eval_without_its_data_or_with_unknown_tasks(evaluate, refused, tmp_path):
    refused(evaluate("--tasks=pascal"), "'pascal'", "choose among voc, voc20")
    refused(evaluate(f"--data_root={tmp_path}"), f"{tmp_path}/VOCdevkit/scenes", "groupvit data scenes --output")
    refused(evaluate("--tasks=scenes,voc"), "voc: no ", "VOCtrainval", "TFDS copy in")
    refused(evaluate("--tasks=imagenet"), "imagenet: below ", "no folders of classes", "valprep.sh")


@pytest.mark.parametrize("wrong, words", [
    ("--scales=1,big", ["--scales=1,big", "factors from 1"]), ("--scales=0.5", ["factors from 1"]),
    ("--top=-1", ["--top"]), ("--batch=0", ["--batch"]), ("--templates=ful", ["photo, subset, full"]),
    ("--class_file=/nowhere.txt", ["/nowhere.txt", "one line each"]), ("--background=sky", ["no background in scenes"]),
    ("--protocol=clip", ["--protocol"]), ("--process=1", ["--multihost"]),
    ("--scales=1,9", ["factors from 1 to 8"]),
])  # fmt: skip
def test_eval_with_what_makes_no_protocol(evaluate, refused, wrong, words):
    refused(evaluate(wrong), *words)


def test_a_checkpoint_of_no_such_step(evaluate, refused, run):
    refused(evaluate(f"--checkpoint={run}/checkpoints/8"), "no such step; there are 7")


def test_an_output_of_eval_that_cannot_be_written_is_refused_at_once(evaluate, refused, tmp_path):
    refused(evaluate(f"--output={tmp_path}/no/scores.json"), "folder does not exist")
    refused(evaluate(f"--output={tmp_path}"), "is a folder", f"{tmp_path}/scores.json")


def test_a_failing_eval_leaves_the_scores_of_before(evaluate, scenes_folder, tmp_path):
    voc = tmp_path / "VOCdevkit" / "scenes"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(voc / "JPEGImages/a.jpg")
    (voc / "SegmentationClass/a.png").write_bytes(b"no mask")
    (voc / "ImageSets/Segmentation/val.txt").write_text("a\n")
    old = tmp_path / "scores.json"
    old.write_text("of before")
    ended = evaluate(f"--data_root={tmp_path}", f"--output={old}")
    assert ended.code == 2 and "a.png" in ended.err and "Traceback" not in ended.err
    assert old.read_text() == "of before" and not list(tmp_path.glob("scores.json.*"))


# ---------------------------------------------------------------- a full disk


def no_larger_than(size):
    """Python that makes every file its process writes full at `size` bytes, whatever the disk."""
    return f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"


def in_a_process(code, *arguments, size):
    return subprocess.run([sys.executable, "-c", no_larger_than(size) + code, *map(str, arguments)],
                          env=os.environ | {"JAX_PLATFORMS": "cpu"}, cwd=pathlib.Path(tiny_run.__file__).parent,
                          capture_output=True, text=True, timeout=120)


def test_no_space_for_scenes(process, refused, tmp_path):
    ended = process("data", "scenes", f"--output={tmp_path}/scenes", "--train=40", "--val=0",
                    before=no_larger_than(20_000))
    refused(ended, f"{tmp_path}/scenes", "free some space")
    assert not list((tmp_path / "scenes").glob("*.tar"))


def test_no_space_for_a_file_leaves_the_old_one(tmp_path):
    old = tmp_path / "scores.json"
    old.write_text("of before")
    ended = in_a_process("import sys\nfrom groupvit_jax import files\nfiles.write(sys.argv[1], bytes(5000))", old,
                         size=1000)
    assert "InputError" in ended.stderr and "make room" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"] and old.read_text() == "of before"


ANOTHER_THREAD_FIRST = """
import orbax.checkpoint as ocp
def fails(self):
    raise RuntimeError("Event loop is closed")
ocp.CheckpointManager.wait_until_finished = fails
"""
SAVE = """
import sys, tiny_run
from groupvit_jax.errors import InputError
try:
    tiny_run.save(sys.argv[1], tiny_run.config(), step=8)
except InputError as error:  # told apart from what Orbax's threads write to stderr at the same time
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize("before", ["", ANOTHER_THREAD_FIRST], ids=["full", "another_thread_fails_first"])
def test_no_space_for_a_checkpoint_leaves_the_last_whole_one(before, tmp_path):
    tiny_run.save(tmp_path, tiny_run.config(), step=7)
    ended = in_a_process(before + SAVE, tmp_path, size=200_000)
    assert ended.returncode == 2 and "no space to write a checkpoint under" in ended.stdout
    from groupvit_jax.training import checkpoint

    assert checkpoint.load(str(tmp_path))[2] == 7


# ---------------------------------------------------------------- Ctrl-C


def test_interrupting_ends_with_130_and_no_traceback(tmp_path):
    # A shell that starts the tests in the background has them ignore SIGINT, and what they start, too.
    code = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from groupvit_jax.cli.main import main; main()")
    running = subprocess.Popen([sys.executable, "-c", code, "data", "scenes", f"--output={tmp_path}/s",
                                "--train=0", "--val=3000"], stderr=subprocess.PIPE, text=True, start_new_session=True)
    images = tmp_path / "s/VOCdevkit/scenes/JPEGImages"  # the first of two jobs: two processes work
    while not all((images / f"val_{i:06d}.jpg").exists() for i in (0, 250)) and running.poll() is None:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    err = running.communicate(timeout=200)[1]
    assert running.returncode == 130 and "Traceback" not in err, err


def test_a_writing_process_that_is_killed_is_one_line_and_a_second_run_goes_on(tmp_path):
    code = "from groupvit_jax.cli.main import main; main()"
    command = [sys.executable, "-c", code, "data", "scenes", f"--output={tmp_path}/s", "--train=0", "--val=600"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    images = tmp_path / "s/VOCdevkit/scenes/JPEGImages"
    while not (images / "val_000000.jpg").exists() and running.poll() is None:
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(running.pid), "-f", "spawn_main"], capture_output=True, text=True)
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    err = running.communicate(timeout=200)[1]
    assert running.returncode == 2 and "was killed" in err and "Traceback" not in err, err
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    assert len(list(images.glob("*.jpg"))) == 600
