"""What the pages say can be typed is typed: every bash and Python snippet of README.md and docs/ is run, in the order
of its page, in a folder with tiny runs and data sets; or the page says on the line before why not."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import doc_pages as pages
import doc_sandbox as sandbox
import pyarrow.parquet as pq
import pytest

from groupvit_jax.cli import verbs
from groupvit_jax.data import segmentation_sets
from groupvit_jax.evals import datasets

pytest.importorskip("skimage", reason="its wheel has the photographs: install the test extra")

# What makes a command a matter of seconds; where it has such a flag itself, that one counts.
MODEL = {"dtype": "float32", "image.image_size": 32, "image.width": 16, "image.heads": 2, "text.width": 16,
         "text.heads": 2, "text.depth": 1, "text.length": 16, "projector.hidden": 32, "projector.features": 16}
SMALL = {
    "train": [*(f"--config.model.{name}={value}" for name, value in MODEL.items()), "--config.data.batch=16",
              "--config.data.group=2", "--config.data.threads=1", "--config.optim.lr_batch=16",
              "--config.train.steps=2", "--config.train.warmup_steps=1", "--config.eval.every=0"],
    "data inspect": ["--samples=6"],
    "data scenes": ["--train=16", "--val=2", "--seed=5", "--size=48"],  # as the sandbox has them: going on does nothing
    "data fashion": ["--source=idx", "--train=16", "--val=2", "--size=32"],
}
# Recipes whose arrays need more to be small; those of one stage have two entries.
SMALL_RECIPE = {
    "configs/gcc_yfcc_30e.py": [f"--config.model.image.{name}" for name in (
        "depths=(1,1,1)", "group_tokens=(6,3,0)", "output_groups=(6,3,0)")],
    "configs/fashion.py": ["--config.model.image.image_size=36"],
}
WITH_SNIPPETS = [page for page in pages.PAGES if any(s.language in ("bash", "python") for s in pages.snippets(page))]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "sandbox"
    sandbox.write(folder)
    return folder


@pytest.fixture
def place(written, tmp_path, monkeypatch):
    """A sandbox of one's own, as the folder one is in; what snippets change in this process is put back."""
    shutil.copytree(written, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))  # as where one types `python`
    for module, name in ((segmentation_sets, "LAYOUTS"), (datasets, "TASKS")):
        monkeypatch.setattr(module, name, getattr(module, name))
    repository = {name: sys.modules.pop(name) for name in [*sys.modules] if re.match(r"configs(\.|$)", name)}
    yield tmp_path / "here"
    for name in [name for name in sys.modules if re.match(r"configs(\.|$)", name)]:
        del sys.modules[name]
    sys.modules.update(repository)


def small(arguments: list[str]) -> list[str]:
    """A groupvit command with what makes it small, behind its --config and before the flags that override it."""
    n = 2 if arguments[0] == "data" else 1
    verb, place = " ".join(arguments[:n]), n
    more = SMALL.get(verb, [])
    for i, flag in enumerate(arguments):
        if flag.startswith("--config="):
            place, recipe = i + 1, flag.partition("=")[2]
            more = [*more, *(SMALL_RECIPE.get(recipe, []) if verb == "train" else [])]
    return [*arguments[:place], *more, *arguments[place:]]


def run_bash(snippet: pages.Snippet, groupvit, place: pathlib.Path, environment: dict[str, str]) -> None:
    """Runs its lines; an `export` goes into `environment`."""
    for command in pages.commands(snippet.code):
        words = shlex.split(command, comments=True)
        if words[0] == "export":
            environment.update(word.split("=", 1) for word in words[1:])
        elif words[0] == "groupvit":
            done = groupvit(*small(words[1:]))
            assert done.code == 0, f"line {snippet.line}: {command}\n{done.err}"
        else:
            if words[0] == "launch/tpu.sh":
                words.insert(2, "--dry-run")
            if words[0] == "python":
                words[0] = sys.executable
            line = shlex.join(words) if words[0] in ("launch/tpu.sh", sys.executable) else command
            done = subprocess.run(["bash", "-euc", line], cwd=place, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"line {snippet.line}: {command}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_SNIPPETS)
def test_a_pages_snippets_run(page, place, groupvit, quick_compilation, compiled_once):
    variables = {"__name__": "snippet"}
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(sandbox.ROOT)}
    for snippet in pages.snippets(page):
        if snippet.not_run is not None:
            continue
        if snippet.file:
            (place / snippet.file).write_text(snippet.code)
        if snippet.language == "bash":
            run_bash(snippet, groupvit, place, environment)
        elif snippet.language == "python":
            exec(compile("\n" * snippet.line + snippet.code, page, "exec"), variables)
    if page == "docs/data.md":
        rows = pq.read_table("yfcc14m.parquet").to_pylist()
        assert rows == [{"url": "u7", "caption": "a zebra. seen here"}, {"url": "u9", "caption": "a kite"}]
        assert pq.read_table("redcaps12m.parquet").num_rows == 2


@pytest.mark.parametrize("page", pages.PAGES)
def test_a_fence_has_a_language_and_what_is_not_run_a_reason(page):
    found = pages.snippets(page)
    assert len(found) * 2 == len(re.findall(r"^ *```", pages.text(page), re.M))  # each fence was understood
    for snippet in found:
        assert snippet.language in pages.LANGUAGES, (snippet.line, snippet.language)
        assert snippet.not_run is None or len(snippet.not_run) > 8, snippet.line
        assert snippet.not_run is None or snippet.language in ("bash", "python"), snippet.line
    assert len(re.findall("<!--", pages.text(page))) == sum(s.not_run is not None or s.file is not None for s in found)


NOT_RUN = [(page, command) for page in pages.PAGES for snippet in pages.snippets(page)
           if snippet.language == "bash" and snippet.not_run is not None
           for command in pages.commands(snippet.code) if command.startswith("groupvit ")]


@pytest.mark.parametrize("page, command", NOT_RUN)
def test_a_command_that_is_not_run_has_flags_that_exist(page, command):
    words = shlex.split(command, comments=True)[1:]
    verb = " ".join(words[: 2 if words[0] == "data" else 1])
    known = {flag.name for flag in verbs.flags_of(verbs.find(verb))}
    given = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
    assert given and given <= known
