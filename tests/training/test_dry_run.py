"""What a dry run says is what a run would have."""

import itertools

import jax
import pairs
import pytest
import tiny

from groupvit_jax import chips, parallel
from groupvit_jax.data.tar_source import TarSource
from groupvit_jax.training import dry_run, flops
from groupvit_jax.training import program as programs
from groupvit_jax.training import state as states


@pytest.fixture
def config():
    config = tiny.config(train__steps=100, train__warmup_steps=10)
    config.mesh.data = config.mesh.fsdp = config.mesh.tensor = 2
    return config


def uncompiled(config, *arguments):
    """The report up to the compiler's word."""
    return list(itertools.takewhile(lambda line: not line.startswith("compiling"), dry_run.lines(config, *arguments)))


def find(lines, *words):
    """The one line that begins with these words -> the words after them."""
    (found,) = (line.split()[len(words):] for line in lines if line.split()[: len(words)] == list(words))
    return found


def number(text):
    return float(text.replace(",", ""))


@pytest.fixture
def made(config):
    """The model, state and batch that the run itself would have, on eight devices."""
    run = tiny.Run(config, parallel.create_mesh(config.mesh))
    return run, parallel.to_global(run.mesh, tiny.batch(config))


def test_every_array_is_listed_with_its_bytes_on_a_chip(config, made):
    config.data.packing = False  # as tiny.batch is
    run, batch = made
    lines = uncompiled(config)
    (moments,) = [int(line.split()[1]) for line in lines if "moments of the optimizer" in line]
    arrays = dry_run.named(run.state) | dry_run.named(batch, "batch")
    listed = {name for name in arrays if any(line.split()[:1] == [name] for line in lines)}
    assert len(listed) + moments == len(arrays)
    assert all("/mu/" in name or "/nu/" in name for name in arrays.keys() - listed)
    for name in listed:
        shape, dtype, *_, size = find(lines, name)
        x = arrays[name]
        assert (shape, dtype) == ("x".join(map(str, x.shape)) or "-", str(x.dtype))
        assert number(size) == x.addressable_shards[0].data.nbytes, name


def test_memory_a_chip_is_that_of_the_arrays_there(config, made):
    run, _ = made
    lines = uncompiled(config)
    here = lambda tree: sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))  # noqa: E731
    for words, tree in ((["parameters"], run.state.params), (["optimizer"], run.state.opt_state),
                        (["gradients"], run.state.params)):
        size, unit = [found for line in lines if (found := line.split())[: len(words)] == words][-1][1:]
        assert unit == "MiB" and number(size) == pytest.approx(here(tree) / 2**20, abs=0.005)


def test_parameters_and_operations_of_the_parts_are_those_of_the_whole(config, made):
    run, _ = made
    lines = uncompiled(config)
    parts = ("image", "text", "image_projector", "text_projector", "scales")
    sizes, forward, both = zip(*(map(number, find(lines, part)) for part in parts))
    assert sum(sizes) == states.count_parameters(run.state) == number(find(lines, "in", "all")[0])
    whole = flops.forward_flops(run.model, programs.abstract_batch(config.data, run.model, run.mesh))
    assert sum(forward) * 1e9 == pytest.approx(whole / config.data.batch, rel=0.01)
    assert sum(both) == pytest.approx(3 * sum(forward), rel=0.01)


def test_a_line_fits_into_120_columns(config):
    assert max(map(len, uncompiled(config, 50.0))) <= 120


def test_time_is_images_over_the_throughput_given(config):
    assert "length: 100 steps of 16 = 1,600 images" in uncompiled(config, 0.5)
    assert "  at 0.5 images/s: 53:20" in uncompiled(config, 0.5)
    config.train.steps = 1_000_000
    assert "  at 20 images/s: 9.3 days" in uncompiled(config, 20.0)


def test_time_on_a_known_chip_is_by_shares_of_the_peak_of_all_of_them(config, monkeypatch):
    monkeypatch.setattr(chips, "find", lambda kind: chips.Chip("v5e", "", 1e9, 2**34, 1.0))
    lines = uncompiled(config)
    rate = 0.2 * 8e9 / (1e9 * number(find(lines, "in", "all")[2]))
    there, time, *_ = find(lines, "8", "x", "v5e")
    assert number(there) == pytest.approx(rate, rel=0.02)
    minutes, seconds = map(int, time.split(":"))
    assert 60 * minutes + seconds == pytest.approx(1600 / rate, rel=0.02, abs=1)
    assert find(lines, "the", "chip", "has") == ["16.00", "GiB"]


def test_without_data_the_length_is_unknown_and_all_else_is_said(config):
    config.train.steps = 0
    lines = uncompiled(config)
    assert any(line.startswith("  not counted: ") for line in lines)
    assert any(line.startswith("length: 30.0 epochs of unknown length") for line in lines)
    assert find(lines, "in", "all") and find(lines, "1", "x", "v5e")[1] == "-"


def test_with_data_epochs_become_steps(config, tmp_path):
    path = pairs.write(tmp_path / "0.tar", pairs.CAPTIONS)
    config.data.train[0].path, config.train.steps, config.data.batch = str(path), 0, 8
    config.train.epochs, config.train.warmup_epochs, config.train.warmup_steps = 40.0, 1.0, 0
    n = len(TarSource(str(path)))
    assert f"length: {int(40 * n / 8):,} steps of 8 = {int(40 * n / 8) * 8:,} images" in uncompiled(config)


def test_nothing_is_written_not_even_an_index_and_no_array_made(config, tmp_path):
    path = pairs.write(tmp_path / "0.tar", pairs.CAPTIONS)
    config.data.train[0].path = str(path)
    arrays = len(jax.live_arrays())
    lines = uncompiled(config)
    assert [file.name for file in tmp_path.iterdir()] == ["0.tar"] and len(jax.live_arrays()) == arrays
    assert any("1 of 1 tars have no index yet" in line for line in lines)


def test_the_compilers_word_comes_last(config):
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 8, 1, 1
    lines = list(dry_run.lines(config))
    end = lines[next(i for i, line in enumerate(lines) if line.startswith("compiling the step for 8 x cpu")):]
    assert "compiled in" in end[1] and number(find(end, "temporaries")[0]) > 0 and len(max(end, key=len)) <= 120


@pytest.mark.parametrize("seconds, text", [(0, "-"), (65, "1:05"), (36000, "10:00:00"), (5 * 86400, "5.0 days")])
def test_duration(seconds, text):
    assert dry_run.duration(seconds) == text
