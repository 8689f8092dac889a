"""Inputs that a fuzzer thinks of, looking at which code they reach, are read or end in one line, and run nothing."""

import os
import pathlib
import subprocess
import sys

import pytest
import torch
from opcodes import NUMBERS, pickled, tensor, write_zip
from test_pickles import HOSTILE, LIES
from test_torch_files import CLAIMS, FORMATS, LEGACY, legacy

ROOT = pathlib.Path(__file__).parent.parent.parent


def seeds(folder: pathlib.Path) -> pathlib.Path:
    """Small files of both formats, good and hostile ones."""
    folder.mkdir()
    content = {"a": torch.ones(2, 3).T, "b": torch.nn.Parameter(torch.ones(2)), "c": torch.ones(2, dtype=torch.uint16),
               "d": [1, 1.5, b"a", {1}, torch.Size([1]), torch.device("cpu")]}
    for name, how in FORMATS.items():
        torch.save(content, folder / name, **how)
    for name, parts in {"small": {}, **LEGACY}.items():
        legacy(folder / f"{name}, old", **parts)
    for name, opcodes in {**HOSTILE, **LIES}.items():
        write_zip(folder / name.replace("/", " "), b"\x80\x02" + opcodes + b".")
    for name, claim in CLAIMS.items():
        write_zip(folder / name, pickled([tensor(), claim]), {"data/1": NUMBERS})
    return folder


@pytest.mark.slow
def test_what_a_fuzzer_thinks_of_is_read_or_refused(tmp_path):
    pytest.importorskip("atheris", reason="Atheris has no wheel for this Python or platform")
    command = [sys.executable, pathlib.Path(__file__).with_name("fuzz_torch_files.py"), seeds(tmp_path / "corpus"),
               "-runs=10000", "-seed=1", "-max_len=8192", "-timeout=60", "-rss_limit_mb=0",
               f"-artifact_prefix={tmp_path}/"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ended.returncode == 0, ended.stdout[-5000:]
