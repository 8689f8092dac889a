"""Overrides of any kind: refused by one line and code 2, or a run that begins."""

import pathlib
import random
import signal

import pytest
import tiny_run
from mutations import case

from configs import base
from groupvit_jax.drawn import scenes
from groupvit_jax.training import loop

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "scenes.py"
SECONDS = 20  # a case may take
WHOLE = ["0", "-1", "1", "2", "3", "7", "1000000000", "-1000000000", "99999999999999999999999", "2147483648", "0x10",
         "1_0", "²"]
REAL = ["0.0", "-1.0", "0.5", "2.5", "nan", "inf", "-inf", "1e300", "1e-300", "-0.0", "10", "1e400"]
TEXT = ["", "a", "\u202e", "😀", "\x01", "x" * 300, "x" * 5000, "../..", "/dev/null", "{1..99999}", "~", "a\nb", "None",
        "[]",
        "\udced\udca0", "*", "gs://x", "https://", "{}", "%s", "full", "tar"]
SEVERAL = ["()", "(1,)", "(0,0)", "(1,2,3)", "(1,0)", "(-1,0)", "(nan,1)", "('a','b')", "((1,),)", "(1e400,0)",
           "(100000000,0)",
           "1", "", "None", "[1,0]", "(1,", "('voc/mIoU',)", "(0.0,0.0)", "(0.5,0.1)", "('',)", "('{}',)",
           "('a {}','b')",
           "(True,False)", "({},)", "(2,2)", "('scenes','scenes')"]
JUNK = ["foo=1", "data=1", "data.batch.x=2", ".=1", "=1", "data.train=[]", "data.train={}", "data.train[1].path=x",
        "data.train[-1].path=x", "data.train[0]=x", "data.train[x].path=y", "model.image.ü=1", "__class__=1",
        "model.__init__=1",
        "data.train[0].weight", "lock=1", "seed.real=1", "eval.tasks[0]=voc", "seeds[0]=1", "model.image.depths[0]=5",
        "data.train[1e9].path=x", "items=5", "[0]=1", "model.image.depths[99]=5", "data.train[0][0]=5", "seed", "",
        "init_from=~"]

class Begun(Exception):
    """Everything was checked; now the workdir would be made."""


def fields(config, prefix=""):
    """(dotted name, value) of everything that can be overridden."""
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from fields(value, f"{prefix}{name}.")
        elif prefix + name == "data.train":
            yield from ((f"data.train[0].{part}", value[0][part]) for part in ("name", "source", "path", "weight"))
        else:
            yield prefix + name, value


FIELDS = dict(fields(base.get_config()))


def override(rng: random.Random) -> str:
    """Mostly of the field's own type, with a value that nobody means."""
    if rng.random() < 0.06:
        return rng.choice(JUNK)
    name = rng.choice(list(FIELDS))
    values = {bool: ["maybe", "2", ""], str: TEXT, tuple: SEVERAL, int: WHOLE, float: REAL}[type(FIELDS[name])]
    return f"{name}={rng.choice(values if rng.random() < 0.9 else rng.choice((TEXT, SEVERAL, WHOLE, REAL)))}"


@pytest.fixture
def train(groupvit, tmp_path, monkeypatch):
    """`groupvit train` of a tiny model up to where it would write, for overrides -> what it said, or None."""
    scenes.write(tmp_path, train=16, val=3, seed=5, size=48, workers=1)
    tiny = [f"--config.{name}={value}" for name, value in tiny_run.OVERRIDES.items()]
    good = [f"--config.data.train[0].path={tmp_path}/train-*.tar", "--config.data.batch=8", "--config.data.group=1",
            f"--config.eval.data_root={tmp_path}", "--config.train.warmup_steps=3", f"--workdir={tmp_path}/run"]

    def begin(_):
        raise Begun

    monkeypatch.setattr(loop, "prepare", begin)

    def call(*overrides):
        try:
            return groupvit("train", f"--config={CONFIG}", *tiny, *good, *(f"--config.{each}" for each in overrides))
        except Begun:
            return None

    return call


@pytest.fixture
def alarm():
    def hangs(*_):
        raise TimeoutError(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    yield signal.alarm
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def check(ended, overrides):
    if ended is None:
        return
    assert ended.code == 2 and ended.out == "", ended.err
    lines = ended.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("groupvit: "), ended.err
    assert len(lines[0]) < 500 + 3 * sum(map(len, overrides)), lines[0]


def test_any_overrides_are_refused_in_one_line_or_begin_a_run(train, alarm):
    begun = refused = 0
    for seed in range(150):
        rng = random.Random(seed)
        overrides = [override(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        with case(seed, overrides):
            alarm(SECONDS)
            ended = train(*overrides)
            check(ended, overrides)
            begun, refused = begun + (ended is None), refused + (ended is not None)
    assert min(begun, refused) > 15, (begun, refused)


@pytest.mark.parametrize("overrides", JUNK)
def test_what_is_no_field_is_refused(train, overrides):
    if overrides not in ("seed", "init_from=~"):
        assert train(overrides) is not None
    check(train(overrides), [overrides])


@pytest.mark.parametrize("wrong", [
    "model.image.width=1000000000", "model.image.heads=-1", "model.image.width=0", "model.image.depths=(100000000,0)",
    "model.image.depths=('a','b')", "model.image.depths=(0.5,0)", "model.image.mlp_ratio=nan",
    "model.image.mlp_ratio=0.01",
    "model.image.init_std=0.0", "model.image.assignment_gain=inf", "model.image.output_groups=(0,0)",
    "model.text.depth=0",
    "model.text.length=2147483648", "model.text.vocabulary=99999999999999999999999", "model.projector.hidden=0",
    "data.threads=1000000000", "data.workers=1000000000", "data.prompts=1000000000", "data.worker_restarts=-1",
    "data.templates=(1,)", "data.templates=('a','b')", "data.templates=({},)", "augment.crop_area=(1.0,)",
    "augment.crop_aspect=('a','b')", "data.train[0].weight=1e300", "eval.size=1000000000", "eval.batch=1000000000",
    "eval.tasks=({},)", f"eval.data_root={'x' * 300}", "data.train=[]",
])  # fmt: skip
def test_absurd_values_are_refused_by_name(train, wrong):
    ended = train(wrong)
    check(ended, [wrong])
    name, _, value = wrong.partition("=")
    assert ended is not None and (name.rpartition(".")[2] in ended.err or name.startswith("eval")), ended


@pytest.mark.parametrize("wrong", [
    "checkpoint.best=(1,)", "checkpoint.best=1", f"init_from={'x' * 300}", "optim.lr_batch=0", "optim.lr=nan",
    "optim.b1=2.5",
    "optim.clip_norm=-1.0", "train.epochs=nan", "checkpoint.minutes=nan", "checkpoint.keep_every=-1",
])  # fmt: skip
def test_absurd_values_of_training_are_refused(train, wrong):
    ended = train(wrong)
    assert ended is not None
    check(ended, [wrong])


def test_a_name_that_is_no_utf_8_begins_a_run(train):
    assert train("data.train[0].name=\udced\udca0") is None
