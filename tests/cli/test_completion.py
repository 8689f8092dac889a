"""Tab completes what the commands take, in real shells: typed into a terminal, read back from the command line."""

import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import time

import pytest

from groupvit_jax.aot import topology
from groupvit_jax.cli import completion, verbs
from groupvit_jax.data import segmentation_sets
from groupvit_jax.evals import datasets

REPOSITORY = pathlib.Path(__file__).parents[2]
HOME = "\x01"  # Ctrl-A: to the beginning of the line
SHELLS = {  # how to start one without anybody's settings, and a function that writes its arguments to a file
    "bash": (["bash", "--noprofile", "--norc", "-i"], "said() {{ printf '%s\\n' \"$*\" > {file}; }}"),
    "zsh": (["zsh", "-f", "-i"], "said() {{ printf '%s\\n' \"$*\" > {file}; }}"),
    "fish": (["fish", "--no-config", "-i"], "function said; echo $argv > {file}; end"),
}
TYPED = [
    ("groupvit tr\t", "groupvit train"),
    ("groupvit data sc\t--output=x", "groupvit data scenes --output=x"),
    ("groupvit eval --proto\tgr\t", "groupvit eval --protocol=groupvit"),
    ("groupvit eval --nopa\t", "groupvit eval --nopamr"),
    ("groupvit eval --tasks=voc,ima\t", "groupvit eval --tasks=voc,imagenet"),
    ("groupvit segment --views=input,lab\t", "groupvit segment --views=input,labels"),
    ("groupvit export --format=on\t", "groupvit export --format=onnx"),
    ("groupvit compile --topology=v5e:16\t", "groupvit compile --topology=v5e:16x16"),
    ("groupvit train --config=configs/sc\t", "groupvit train --config=configs/scenes.py"),
    ("groupvit train --config configs/sc\t", "groupvit train --config configs/scenes.py"),
    ("groupvit train --config.optim.wei\t0.1", "groupvit train --config.optim.weight_decay=0.1"),
    ("groupvit train --workdir=ru\t", "groupvit train --workdir=runs/"),
    ("groupvit train --workdir ru\t", "groupvit train --workdir runs/"),
    ("groupvit completion fi\t", "groupvit completion fish"),
]  # fmt: skip


class Terminal:
    """A shell with its completion loaded; `line(typed)` is what its command line holds after that."""

    def __init__(self, shell, script, folder):
        command, said = SHELLS[shell]
        self.shell = shell
        self.file = folder.parent / f"{shell}.said"
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ.update(TERM="xterm", HOME=str(folder), HISTFILE="", XDG_CONFIG_HOME=str(folder))
            os.execvp(command[0], command)
        self.type(f"{said.format(file=self.file)}\rsource {script}\r")
        self.line("ready")

    def type(self, text):
        os.write(self.end, text.encode())

    def line(self, typed):
        self.file.unlink(missing_ok=True)
        self.type(f"{typed}{HOME}said \r")
        shown, began = b"", time.monotonic()
        while not (self.file.is_file() and self.file.read_text().endswith("\n")):
            assert time.monotonic() - began < 120, shown.decode(errors="replace")
            if select.select([self.end], [], [], 0.02)[0]:
                shown += os.read(self.end, 65536)
        return self.file.read_text().strip()

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.end)


@pytest.fixture(scope="module")
def made():
    return completion.table()


@pytest.fixture(scope="module", params=SHELLS)
def terminal(request, made, tmp_path_factory):
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp("shell") / "work"
    (folder / "runs").mkdir(parents=True)
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    script = folder.parent / "script"
    script.write_text(getattr(completion, request.param)(made))
    opened = Terminal(request.param, script, folder)
    yield opened
    opened.close()


@pytest.mark.parametrize("typed, completed", TYPED, ids=[typed.strip() for typed, _ in TYPED])
def test_a_shell_completes(terminal, typed, completed):
    found = terminal.line(typed)
    if terminal.shell == "zsh":  # takes the slash back at the end of a line
        completed = completed.rstrip("/")
    if terminal.shell == "fish":  # divides a flag and its value by a blank, which means the same
        found, completed = found.replace("=", " "), completed.replace("=", " ")
    assert found == completed


def offered(line, made, tmp_path, breaks=" \t\n\"'><=;|&(:"):
    """What bash's function offers for a line, as programs that drive bash see it."""
    script = tmp_path / "script"
    script.write_text(completion.bash(made))
    code = 'source "$1"; COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDBREAKS=$3; _groupvit; printf "%s\\n" "${COMPREPLY[@]}"'
    command = [shutil.which("bash"), "--norc", "-c", code, "-", str(script), line, breaks]
    nothing = os.environ | {"PATH": ""}  # so nothing can be started
    ended = subprocess.run(command, cwd=REPOSITORY, env=nothing, check=True, capture_output=True, text=True)
    return [word for word in ended.stdout.splitlines() if word]


def test_bash_offers_every_verb_and_starts_nothing_for_it(made, tmp_path):
    first = offered("groupvit ", made, tmp_path)
    assert set(first) == {verb.split()[0] for verb in verbs.VERBS} | {"help", "--help", "--version"}
    data = offered("groupvit data ", made, tmp_path)
    assert data == [*(verb[5:] for verb in made if verb.startswith("data ")), "--help"]


@pytest.mark.parametrize("verb", [verb for verb in verbs.VERBS if verb != "completion"])
def test_bash_offers_exactly_the_flags_that_are_defined(made, tmp_path, verb):
    words = offered(f"groupvit {verb} -", made, tmp_path)
    found = {re.sub("=$", "", word)[2:] for word in words if not word.startswith("--config.")} - {"help"}
    defined = verbs.flags_of(verbs.find(verb))
    assert found == {flag.name for flag in defined} | {f"no{flag.name}" for flag in defined if flag.boolean}
    assert {word for word in words if word.endswith("=") and not word.startswith("--config.")} == {
        f"--{flag.name}=" for flag in defined if not flag.boolean}


def test_every_shell_has_every_flag(made):
    for shell in (completion.bash, completion.zsh, completion.fish):
        script = shell(made)
        for options in made.values():
            assert all(option.name[2:] in script for option in options)


@pytest.mark.parametrize("breaks, words", [
    (" \t\n\"'><=;|&(:", ["groupvit"]),
    (" \t\n", ["--protocol=groupvit"]),
])  # fmt: skip
def test_bash_replaces_the_word_that_readline_means(made, tmp_path, breaks, words):
    assert offered("groupvit eval --protocol=gr", made, tmp_path, breaks) == words


def test_configurations_come_first_and_fields_after_a_dot(made, tmp_path):
    files = offered("groupvit train --config=", made, tmp_path)
    assert "configs/scenes.py" in files and not any("__" in file for file in files)
    fields = offered("groupvit train --config.data.", made, tmp_path)
    assert {"--config.data.batch=", "--config.data.train[0].path="} <= set(fields)
    assert not offered("groupvit eval --config.data.", made, tmp_path)


def test_the_words_of_values_are_those_that_the_commands_take():
    assert completion.TASKS == tuple(task.key for task in datasets.TASKS)
    assert set(completion.WORDS["dataset"]) == {"pairs"} | {layout.key for layout in segmentation_sets.LAYOUTS}
    assert completion.WORDS["topology"] == topology.KNOWN


@pytest.mark.parametrize("shell", SHELLS)
def test_printing_a_script_does_not_wait_for_jax(process, made, shell):
    before = "import sys, atexit; atexit.register(lambda: sys.exit('jax' in sys.modules and os._exit(9)))"
    ended = process("completion", shell, before=before)
    assert ended.code == 0 and ended.out == getattr(completion, shell)(made), ended.err
