"""How `groupvit demo` begins and ends."""

import os
import re
import signal
import socket
import urllib.error
import urllib.request

import pytest
from demo_client import ask, upload
from demo_server import serving

from groupvit_jax.demo.examples import EXAMPLES


def alive(url):
    return urllib.request.urlopen(url, timeout=120).status == 200


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_quietly_and_its_temporary_folder_is_gone(run, tmp_path, how):
    with serving(tmp_path, f"--checkpoint={run}") as demo:
        with open(EXAMPLES[0].path, "rb") as file:
            answer = ask(demo.url, upload(demo.url, file.read()), "cat, sofa")
        (folder,) = demo.tmp.iterdir()
        assert answer["labels"]["path"].startswith(f"{folder}/") and len(list(folder.rglob("*.jp*g"))) > 2
        demo.process.send_signal(how)
        assert demo.process.wait(120) == 0
        assert not list(demo.tmp.iterdir()) and not list(demo.cwd.iterdir())
        said = [line for line in demo.log().splitlines() if not line.startswith("socket.")]
        assert len(said) == 2 and said[1].endswith("(Ctrl-C ends it)"), said


def test_it_listens_at_this_machine_alone_unless_told(run, tmp_path, demo):
    port = int(demo.url.rpartition(":")[2])
    assert demo.url == f"http://127.0.0.1:{port}" and alive(demo.url)
    with pytest.raises(ConnectionRefusedError):  # a socket at all addresses would answer here
        socket.create_connection(("127.0.0.2", port), 5)
    with serving(tmp_path, f"--checkpoint={run}", "--host=127.0.0.2") as other:
        assert re.match("http://127.0.0.2:", other.url) and alive(other.url)


@pytest.mark.parametrize("flags, words", [
    ([], ["usage: groupvit demo --checkpoint=DIR"]), (["--port=x"], ["--port", "--help"]),
    (["--checkpoint=p", "--port=70000"], ["port", "65535"]), (["--checkpoint=p", "a"], ["usage: groupvit demo"]),
    (["--checkpoint=p", "--host=no.such.host.invalid"], ["--host=no.such.host.invalid", "leave it out"]),
    (["--checkpoint=p", "--host=::1"], ["--host=::1", "IPv4", "leave it out"]),
    (["--checkpoint=/nowhere"], ["--checkpoint=/nowhere"]),
])  # fmt: skip
def test_wrong_flags_are_refused_in_a_line(start, refused, flags, words):
    refused(start(*flags), *words)


def test_a_port_in_use_is_refused_in_a_line(start, refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(start("--checkpoint=p", f"--port={port}"), f"--port={port}", "another one, or 0")


def test_without_gradio_it_says_how_to_install_it(start, refused, run):
    refused(start(f"--checkpoint={run}", "--port=0", before="import sys; sys.modules['gradio'] = None"),
            'pip install -e ".[demo]"')


def test_the_variables_of_others_change_nothing(run, tmp_path, monkeypatch):
    for name, value in {"GRADIO_SHARE": "True", "GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_ALLOWED_PATHS": "/",
                        "http_proxy": "http://127.0.0.1:1", "no_proxy": "example.invalid"}.items():
        monkeypatch.setenv(name, value)
    with serving(tmp_path, f"--checkpoint={run}") as demo:
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                f"{demo.url}/gradio_api/file={os.path.abspath(__file__)}")
