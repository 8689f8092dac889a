"""A row of the log is of its own step, though it is written later."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from groupvit_jax.data.bad import KINDS
from groupvit_jax.data.health import Health
from groupvit_jax.training.log import Log
from groupvit_jax.training.skips import Skips
from groupvit_jax.training.vitals import Collapse


@pytest.fixture
def made():
    """A Log and the rows it wrote; its speed is always 5 images a second."""
    written = {}
    writer = SimpleNamespace(write=lambda n, values: written.setdefault(n, values))
    pace = SimpleNamespace(cut=lambda: lambda: {"images_per_second": 5.0})
    return Log(writer, SimpleNamespace(advance=lambda n, note: None), Health(0.5), pace, Skips(5),
               Collapse("off", 0, ()), lambda: 1), written


def batch(cut):
    """Of ten images, with so many texts cut."""
    return {"image": np.zeros(10), "cut": np.array([cut]), "bad": np.zeros((10, len(KINDS)), int)}


def metrics(loss):
    return {"loss": np.float32(loss), "learning_rate": np.float32(0.1)}


def test_a_row_has_the_counts_of_the_batches_up_to_its_step_and_no_later(made):
    log, written = made
    for n, cut in ((1, 2), (2, 4)):
        log.health.add(batch(cut))
        log.add(n, metrics(n), log.counts())
    log.health.add(batch(9))
    log.write(before=3)
    assert [written[n]["cut_texts"] for n in (1, 2)] == [0.2, 0.4]


def test_rows_are_written_up_to_a_step_and_no_further(made):
    log, written = made
    for n in (1, 2, 3):
        log.add(n, metrics(n), log.counts())
    log.write(before=3)
    assert list(written) == [1, 2] and log.last["loss"] == 2
    log.write(before=4)
    assert list(written) == [1, 2, 3] and log.last["loss"] == 3


def test_a_second_compilation_is_counted_and_warned_of(made, caplog):
    log, written = made
    for n, compilations in ((1, 1), (2, 2)):
        log.compilations = lambda compilations=compilations: compilations
        log.add(n, metrics(n), log.counts())
        with caplog.at_level(logging.WARNING, "absl"):
            log.write(before=n + 1)
    assert [written[n]["compilations"] for n in (1, 2)] == [1, 2]
    assert [record.getMessage()[:7] for record in caplog.records] == ["step 2:"]
