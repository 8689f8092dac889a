"""Serves a local web page for a photograph and words.

    groupvit demo --checkpoint=runs/quickstart
    groupvit demo --checkpoint=weights/gcc-yfcc --port=8000

The page takes a file, what was copied, or the camera; the words are free. It
shows the segments, the groups of each stage with their best words, and how a
point's group claims the picture. Needs Gradio: pip install -e ".[demo]"
"""

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import NoReturn

from absl import flags

from groupvit_jax.cli import arguments
from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    arguments.define_checkpoint()
    flags.DEFINE_integer("port", 7860, "where the page is served; 0: any free port", lower_bound=0, upper_bound=65535)
    flags.DEFINE_string("host", "127.0.0.1", "the address to listen at; 0.0.0.0: whoever reaches this machine may use "
                        "the page")


def main(rest: list[str]) -> None:
    if rest or not FLAGS.checkpoint:
        raise InputError("usage: groupvit demo --checkpoint=DIR [--port=7860]")
    port = free_port(FLAGS.host, FLAGS.port)
    for number in (signal.SIGTERM, signal.SIGHUP):  # the latter when its terminal is closed
        if signal.getsignal(number) != signal.SIG_IGN:  # as below nohup
            signal.signal(number, end)
    with contextlib.suppress(KeyboardInterrupt), gradio_folder(FLAGS.host):
        try:
            from groupvit_jax.demo import page
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise InputError('the page needs Gradio: pip install -e ".[demo]"') from None
        from groupvit_jax import inference
        from groupvit_jax.demo.answers import Answers

        answers = Answers(inference.load(FLAGS.checkpoint))
        print("groupvit demo: compiling, some ten seconds", flush=True)
        page.warm_up(answers)
        blocks = page.build(answers)
        try:
            address = page.serve(blocks, FLAGS.host, port)
            print(f"groupvit demo: {address} (Ctrl-C ends it)", flush=True)
            threading.Event().wait()
        finally:
            blocks.close(verbose=False)


def end(*_: object) -> NoReturn:
    """As Ctrl-C does, so that the temporary folder goes."""
    raise KeyboardInterrupt


def free_port(host: str, port: int) -> int:
    """`port`, or a free one if it is 0; InputError if it cannot be listened at."""
    try:
        socket.getaddrinfo(host, port, socket.AF_INET)  # Gradio cannot write an IPv6 address
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            return listener.getsockname()[1]
    except socket.gaierror:
        raise InputError(f"--host={host} is no IPv4 address of this machine: leave it out, or give 0.0.0.0") from None
    except OSError as error:
        raise InputError(f"--port={port} of {host} cannot be had ({error.strerror}): give another one, or 0 for any "
                         "that is free") from None


@contextlib.contextmanager
def gradio_folder(host: str) -> Iterator[None]:
    """All that is uploaded or made is inside a temporary folder, which is gone afterwards; and what Gradio does is
    said here, not by its many environment variables."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="groupvit-demo-", ignore_cleanup_errors=True) as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")  # of both, the former counts
        direct = ",".join(filter(None, [direct, "localhost", "127.0.0.1", host]))
        os.environ |= {"no_proxy": direct, "NO_PROXY": direct}
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield
        finally:
            tempfile.tempdir = before
