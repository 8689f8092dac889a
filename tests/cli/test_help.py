"""--help and --version answer what was asked, on the screen that is there, without waiting for JAX."""

import re

import pytest

from groupvit_jax.cli import verbs

VERBS = [*verbs.VERBS]
LIGHT = ("import sys, atexit\n"
         "atexit.register(lambda: print([m for m in ('jax', 'numpy', 'cv2', 'PIL') if m in sys.modules]))")


def lines(done):
    assert done.code == 0 and done.err == "", done.err
    return done.out.splitlines()


@pytest.mark.parametrize("asked", [["--help"], ["help"], ["-h"], ["help", "--help"]])
def test_the_overview_is_a_screen_with_a_line_for_every_verb(groupvit, asked):
    shown = lines(groupvit(*asked))
    assert len(shown) <= 23 and max(map(len, shown)) < 80  # and the next prompt
    for verb in VERBS:
        assert sum(f" {verb}  " in line for line in shown) == 1


@pytest.mark.parametrize("asked", [["data", "--help"], ["data", "help"], ["help", "data"]])
def test_the_overview_of_data_has_its_verbs(groupvit, asked):
    shown = lines(groupvit(*asked))
    listed = [line[:14].rstrip() for line in shown if line.startswith("data ")]
    assert listed == [verb for verb in VERBS if verb.startswith("data ")]
    assert "usage: groupvit data VERB" in shown[0] and max(map(len, shown)) < 80


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_has_an_example_and_all_its_flags_in_80_columns(groupvit, verb):
    shown = lines(groupvit(*verb.split(), "--help"))
    assert shown[0].startswith(f"groupvit {verb}: ") and max(map(len, shown)) < 80
    assert any(re.match(f" +.*groupvit {verb} ", line) for line in shown)
    flags = [re.sub(r"^\[no\]", "", line[4:]) for line in shown if line.startswith("  --")]
    assert [re.match(r"\w+", flag)[0] for flag in flags] == [flag.name for flag in verbs.flags_of(verbs.find(verb))]
    assert not any(word in "".join(shown) for word in ("logtostderr", "repeat this option", "|>"))
    assert groupvit("help", *verb.split()).out == groupvit(*verb.split(), "-h").out == "\n".join(shown) + "\n"


@pytest.mark.parametrize("verb", VERBS)
def test_the_flags_of_the_examples_are_there(verb):
    module = verbs.find(verb)
    known = {flag.name for flag in verbs.flags_of(module)}
    example = re.sub(r"\\\n", " ", module.__doc__)
    for line in filter(lambda line: line.startswith("    "), example.splitlines()):
        assert set(re.findall(r"--(\w+)", line)) <= known, line


@pytest.mark.parametrize("asked, words", [
    (["train", "--help"], ["--config.FIELD=VALUE", "configs/base.py", "--[no]dry_run", "--resume=auto|force"]),
    (["eval", "--help"], ["--protocol=groupvit|tcl", "JSON file", "--top=N", "(default: 5)"]),
    (["segment", "--help"], ["--background[=TEXT]", "input_pred_label,labels,areas)", "quoted glob"]),
    (["export", "--help"], ["--format=hf|nvlabs|stablehlo|onnx", "--output=PATH"]),
    (["data", "scenes", "--help"], ["--train=N", "(default: 16000)", "(default: 0)", "--[no]shuffle"]),
])  # fmt: skip
def test_a_flag_is_shown_as_it_is_typed_with_its_default(groupvit, asked, words):
    shown = groupvit(*asked).out
    assert all(word in shown for word in words) and "<" not in shown


def test_the_version_names_what_results_depend_on(groupvit):
    import platform

    import jax

    import groupvit_jax

    said = f"groupvit_jax {groupvit_jax.__version__} (jax {jax.__version__}, Python {platform.python_version()})"
    assert lines(groupvit("--version")) == [said]


@pytest.mark.parametrize("asked", [["--help"], ["--version"], ["data", "--help"], ["train", "--help"]])
def test_nothing_heavy_is_imported_to_answer(process, asked):
    assert lines(process(*asked, before=LIGHT))[-1] == "[]"


@pytest.mark.parametrize("asked", [["segment", "--help"], ["eval", "--help"], ["completion", "--help"]])
def test_jax_is_not_imported_to_answer(process, asked):
    assert "jax" not in lines(process(*asked, before=LIGHT))[-1]
