"""Files are there whole or not at all, whoever else writes them."""

import threading

import pytest

from groupvit_jax import files
from groupvit_jax.errors import InputError


def test_a_file_and_its_folder_are_made_and_nothing_else(tmp_path):
    files.write(tmp_path / "a/b.json", b"{}")
    assert (tmp_path / "a/b.json").read_bytes() == b"{}" and len(list(tmp_path.rglob("*"))) == 2


def test_several_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    contents, errors = [bytes([i]) * 100_000 for i in range(8)], []

    def write(content):
        try:
            for _ in range(20):
                files.write(tmp_path / "a", content)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and (tmp_path / "a").read_bytes() in contents and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error, raised", [(OSError(28, "No space left on device"), InputError),
                                           (KeyboardInterrupt(), KeyboardInterrupt)])
def test_what_fails_leaves_what_was_there_and_no_other_file(tmp_path, monkeypatch, error, raised):
    def breaks(*_):
        raise error

    files.write(tmp_path / "a", b"before")
    monkeypatch.setattr("os.replace", breaks)
    with pytest.raises(raised, match="cannot write .*No space left" if raised is InputError else None):
        files.write(tmp_path / "a", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"before"
