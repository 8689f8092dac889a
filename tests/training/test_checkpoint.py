"""Checkpoints: whole or not there, onto any mesh, of the model they say, and one line when they cannot be written."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
import tiny_run
from jax.sharding import NamedSharding, PartitionSpec

from groupvit_jax.errors import InputError, RunAgain
from groupvit_jax.models import two_towers
from groupvit_jax.training import checkpoint, checksums, optim
from groupvit_jax.training import state as states
from groupvit_jax.training.checkpoint import Checkpoints, to_json


def made_state(config, mesh, zero1=False, step=3):
    """A state of random numbers in its shardings: nothing is compiled."""
    model = two_towers.build(config.model, multi_label=True)
    tx, _ = optim.build(config.optim, config.data.batch, 1, 10)
    rng = np.random.default_rng(0)

    def draw(x):
        array = rng.normal(size=x.shape) if x.dtype == jnp.float32 else np.full(x.shape, step)
        return jax.device_put(array.astype(x.dtype), x.sharding)

    return jax.tree.map(draw, states.abstract(model, tx, mesh, zero1)), (model, tx)


def small_state(step=1):
    """A state of three numbers, for what does not depend on the model."""
    params = {"w": jnp.arange(3.0)}
    return states.State(jnp.asarray(step), params, {"m": jnp.zeros(1)}, optax.sgd(0.1).init(params))


@contextlib.contextmanager
def checkpoints(workdir, keep=3, best=()):
    with contextlib.closing(Checkpoints(str(workdir), keep, best)) as made:
        yield made


def assert_equal(a, b):
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("mesh, zero1", [((2, 4, 1), True), ((2, 2, 2), False), ((1, 1, 1), True)])
def test_a_state_is_restored_equal_on_another_mesh_with_zero1_changed_and_back_and_lies_as_asked(tmp_path, mesh, zero1):
    config = tiny.config()
    saved, (model, tx) = made_state(config, tiny.mesh(8, 1, 1), zero1)
    restored = saved
    for step, (sizes, split) in enumerate([(mesh, not zero1), ((8, 1, 1), zero1)]):
        like = states.abstract(model, tx, tiny.mesh(*sizes), split)
        with checkpoints(tmp_path) as ours:
            ours.save(restored.replace(step=jnp.asarray(step)), config, step, {})
        with checkpoints(tmp_path) as ours:
            restored, _ = ours.restore(step, like)
        assert_equal(saved.replace(step=jnp.asarray(step)), restored)
        assert all(x.sharding == y.sharding
                   for x, y in zip(jax.tree.leaves(restored), jax.tree.leaves(like), strict=True))


def test_evaluation_reads_the_model_and_the_configuration_of_a_state_saved_on_a_mesh(tmp_path):
    config = tiny.config()
    saved, _ = made_state(config, tiny.mesh(2, 2, 2))
    with checkpoints(tmp_path) as ours:
        ours.save(saved, config, 3, {"loss": 1.5})
        meta = ours.meta(3)
    assert meta["position"] == 3 and meta["metrics"] == {"loss": 1.5} and meta["config"] == to_json(config)
    read, variables, step, _ = checkpoint.load(str(tmp_path))
    assert step == 3 and to_json(read) == to_json(config)
    assert_equal(saved.variables, variables)
    assert all(len(x.devices()) == 1 for x in jax.tree.leaves(variables))


def test_the_newest_checkpoints_are_kept_and_older_ones_removed(tmp_path):
    with checkpoints(tmp_path, keep=2) as ours:
        assert ours.latest() is None
        for step in (1, 2, 3, 4):
            ours.save(small_state(step), tiny.config(), step, {})
        ours.wait()
        assert ours.latest() == 4
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()) == ["3", "4"]


def test_those_of_every_so_many_steps_are_kept_too(tmp_path):
    with contextlib.closing(Checkpoints(str(tmp_path), keep=1, keep_every=3)) as ours:
        for step in (2, 3, 4, 6, 7):
            ours.save(small_state(step), tiny.config(), step, {})
    assert checkpoint.steps_in(tmp_path / "checkpoints") == [3, 6, 7]


def test_a_half_written_checkpoint_is_not_taken_but_removed(tmp_path):
    with checkpoints(tmp_path) as ours:
        ours.save(small_state(5), tiny.config(), 5, {})
    whole = tmp_path / "checkpoints" / "5"
    shutil.copytree(whole, whole.with_name("9.orbax-checkpoint-tmp"))  # Orbax's name before its rename
    shutil.copytree(whole, whole.with_name("7.orbax-checkpoint-tmp-1234"))
    with checkpoints(tmp_path) as ours:
        assert [path.name for path in whole.parent.iterdir()] == ["5"]  # at once, not in a thread
        assert ours.latest() == 5
        ours.save(small_state(6), tiny.config(), 6, {})
    assert sorted(path.name for path in whole.parent.iterdir()) == ["5", "6"]
    with contextlib.suppress(Exception):  # the model is not that of the configuration: only the step matters here
        assert checkpoint.load(str(tmp_path))[2] == 5


def test_a_half_written_checkpoint_that_somebody_still_writes_to_is_no_hindrance(tmp_path):
    """A thread of a save that failed, or a network's file system that is late."""
    half, ended = tmp_path / "checkpoints" / "1.orbax-checkpoint-tmp", threading.Event()
    half.mkdir(parents=True)

    def write():
        while not ended.is_set():
            with contextlib.suppress(OSError):  # the folder may just have been removed
                half.mkdir(exist_ok=True)
                (half / "late").touch()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            checkpoint.remove_half_written(half.parent)
    finally:
        ended.set()
        writer.join()
    with checkpoints(tmp_path) as ours:
        ours.save(small_state(1), tiny.config(), 1, {})
    assert [path.name for path in half.parent.iterdir()] == ["1"]


# ---------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of steps 1, 2 and 3, in their folder."""
    folder = tmp_path_factory.mktemp("saved")
    with checkpoints(folder) as ours:
        for step in (1, 2, 3):
            ours.save(small_state(step), tiny.config(), step, {})
    return folder / "checkpoints"


def files_of(step):
    return [path for path in sorted(step.rglob("*")) if path.is_file() and path.name != checksums.NAME]


def test_checksums_that_were_emptied_are_damage(tmp_path):
    (tmp_path / checksums.NAME).touch()
    assert "is empty" in checksums.problem(tmp_path)


def test_a_best_checkpoint_whose_scores_are_damaged_is_set_aside_and_the_newest_taken(tmp_path):
    with checkpoints(tmp_path, 1, ("voc/mIoU",)) as made:
        for step, score in ((1, 9.0), (2, 5.0)):
            made.save(small_state(step), tiny.config(), step, {}, {"voc/mIoU": score})
    (tmp_path / "checkpoints/1/metrics/metrics").write_text('{"')
    with checkpoints(tmp_path, 1, ("voc/mIoU",)) as made:
        assert made.manager.all_steps() == [2]
    assert (tmp_path / "checkpoints/1.damaged").is_dir()


def test_processes_that_see_different_newest_checkpoints_start_again(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.parallel, "gather_lines", lambda lines: [*lines, "7"] if lines else [])
    with pytest.raises(RunAgain, match="None, 7"):
        Checkpoints(str(tmp_path))


def test_sha256sum_agrees_with_the_checksums(saved):
    told = subprocess.run(["sha256sum", "--check", "--strict", checksums.NAME], cwd=saved / "3", capture_output=True)
    assert told.returncode == 0, told.stderr
    summed = {line.rpartition(b": OK")[0].decode() for line in told.stdout.splitlines()}
    assert {str(path.relative_to(saved / "3")) for path in files_of(saved / "3")} - summed <= set(checksums.REWRITTEN)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, cut, os.unlink])
def test_whatever_file_is_damaged_that_checkpoint_is_named_set_aside_and_the_one_before_taken(
        saved, tmp_path, damage, caplog):
    tried = 0
    for path in files_of(saved / "3"):
        name = path.relative_to(saved / "3")
        if not path.read_bytes():
            continue
        shutil.rmtree(tmp_path, ignore_errors=True)
        shutil.copytree(saved, tmp_path / "checkpoints")
        damage(tmp_path / "checkpoints/3" / name)
        caplog.clear()
        with checkpoints(tmp_path) as ours:
            latest = ours.latest()
            restored, position = ours.restore(latest, small_state())
        if str(name) in checksums.REWRITTEN:  # Orbax writes it last, and a restore does without
            assert latest == 3 and "is damaged" not in caplog.text
        else:
            assert latest == 2 and "3.damaged" in os.listdir(tmp_path / "checkpoints")
            assert f"checkpoint 3 in {tmp_path}" in caplog.text and str(name) in caplog.text
        assert_equal(restored, small_state(latest))
        assert position == latest
        tried += 1
    assert tried > 8


def test_after_a_damaged_one_its_step_is_saved_again(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "checkpoints")
    flip(files_of(tmp_path / "checkpoints/3/model")[0])
    with checkpoints(tmp_path) as ours:
        ours.save(small_state(3), tiny.config(), 3, {})
    assert checkpoint.newest_whole(tmp_path / "checkpoints", [1, 2, 3]) == (3, {})


def test_where_all_are_damaged_nothing_is_renamed_and_one_line_names_the_newest(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "checkpoints")
    for step in (1, 2, 3):
        os.unlink(tmp_path / f"checkpoints/{step}/meta/metadata")
    for _ in range(2):  # a second try does not start afresh either
        with pytest.raises(InputError, match="checkpoint 3 in .*damaged: meta/metadata cannot be read.*remove"):
            Checkpoints(str(tmp_path))


def test_evaluation_takes_the_newest_whole_one_and_refuses_a_damaged_one_that_is_named(tmp_path, caplog):
    for step in (7, 8):
        tiny_run.save(tmp_path, tiny_run.config(), step)
    cut(tmp_path / "checkpoints/8/model/manifest.ocdbt")
    assert checkpoint.load(str(tmp_path)).step == 7
    assert "step 8" in caplog.text and "model/manifest.ocdbt is not what was written" in caplog.text
    with pytest.raises(InputError, match="step 8 is damaged .*give another"):
        checkpoint.load(f"{tmp_path}/checkpoints/8")
    assert "8" in os.listdir(tmp_path / "checkpoints")  # whoever reads moves nothing


def test_damage_without_checksums_to_tell_is_one_line_too(saved, tmp_path):
    shutil.copytree(saved / "3", tmp_path / "checkpoints/3")
    os.unlink(tmp_path / "checkpoints/3" / checksums.NAME)
    with checkpoints(tmp_path) as ours:
        assert_equal(ours.restore(3, small_state())[0], small_state(3))
    os.unlink(tmp_path / "checkpoints/3/model/manifest.ocdbt")
    with checkpoints(tmp_path) as ours, pytest.raises(InputError, match="3 cannot be read .*remove it"):
        ours.restore(3, small_state())


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_loading_what_is_no_run_is_an_input_error(tmp_path, name):
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match=f"--checkpoint=.*{name}: no checkpoint there.*--workdir"):
        checkpoint.load(str(tmp_path / name))


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot read or write checkpoints in .*another --workdir"):
        Checkpoints(str(tmp_path / "file"))


def large_state(n=300_000):
    """1.2 MB that do not compress."""
    sharding = NamedSharding(tiny.mesh(1, 1, 1), PartitionSpec())
    x = jax.device_put(np.random.default_rng(0).normal(size=n).astype(np.float32), sharding)
    return small_state(1).replace(params={"w": x})


def save_within_64_kb(workdir):
    """What is said of a save while the kernel refuses to let a file of this process grow over 64 kB."""
    ours = Checkpoints(workdir)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
    try:
        ours.save(large_state(), tiny.config(), 1, {})
        ours.wait()
    except InputError as error:
        return str(error)


def test_running_into_a_limit_of_space_is_one_line_with_the_remedy(tmp_path):
    """In a process of its own, as that of a user: until it ends, Orbax's threads write on."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        said = process.submit(save_within_64_kb, str(tmp_path)).result()
    assert re.fullmatch("no space to write a checkpoint under .*make room.*last whole.*", said)
    left = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert left and all("orbax-checkpoint-tmp" in name for name in left)  # half written, and named so
    with checkpoints(tmp_path) as after:
        assert after.latest() is None
        after.save(large_state(), tiny.config(), 1, {})  # with room again, the same call works
    assert (tmp_path / "checkpoints" / "1").is_dir()


def test_a_full_disk_is_one_line_with_the_remedy(tmp_path):
    """Really: a file system of one megabyte, where this machine lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs {disk} 2>/dev/null"):
        pytest.skip("may not mount a file system here")
    try:
        ours = Checkpoints(str(disk))
        with pytest.raises(InputError, match="no space to write a checkpoint under .*make room"):
            ours.save(large_state(), tiny.config(), 1, {})
        assert not list((disk / "checkpoints").iterdir())  # refused before anything was written
        ours.close()
    finally:
        os.system(f"umount -l {disk}")
