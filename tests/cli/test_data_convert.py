import pytest

from groupvit_jax.data.record_source import TfdsSource
from groupvit_jax.data.tar_source import TarSource


@pytest.fixture
def convert(groupvit, scenes_folder, tmp_path):
    """`groupvit data convert` of scenes' tars, but for what is overridden."""
    good = [f"--data={scenes_folder}/train-*.tar", f"--output={tmp_path}/out"]
    return lambda *wrong: groupvit("data", "convert", *good, *wrong)


def test_pairs_are_converted_and_it_says_where_to_and_how_to_train_on_them(convert, scenes_folder, tmp_path):
    ended = convert("--name=mine")
    assert ended.code == 0, ended.err
    folder = tmp_path / "out/mine/1.0.0"
    assert ended.out.splitlines() == [
        f"16 samples in {folder}, split train",
        f"train on it: --config.data.train[0].source=tfds --config.data.train[0].path={folder}"]
    assert ended.err.splitlines()[-1].startswith("mine 1/1") and "16 samples" in ended.err
    source, tars = TfdsSource(folder), TarSource(scenes_folder)
    assert [source[i] for i in range(16)] == [tars[i] for i in range(16)]


def test_the_split_is_in_the_path_to_train_on(convert, tmp_path):
    ended = convert("--split=val")
    assert ended.out.splitlines()[-1].endswith(f"path={tmp_path}/out/pairs/1.0.0:val"), ended.err
    assert len(TfdsSource(f"{tmp_path}/out/pairs/1.0.0:val")) == 16


def test_a_segmentation_set_is_converted_and_it_says_how_to_open_it(groupvit, scenes_folder, tmp_path):
    ended = groupvit("data", "convert", "--dataset=scenes", f"--data={scenes_folder}", f"--output={tmp_path}")
    folder = tmp_path / "scenes/1.0.0"
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [f"3 samples in {folder}, split val",
                                      f"open it: tfds.builder_from_directory('{folder}').as_data_source('val')"]


def test_what_is_left_out_is_counted_by_kind(groupvit, tmp_path):
    from groupvit_jax.data import tar

    tar.write_tar(tmp_path / "x.tar", [("1.jpg", b"a"), ("1.txt", b"words"), ("2.jpg", b"b"), ("3.jpg", b"c"),
                                       ("4.jpg", b"d"), ("4.txt", b"\0\0")])
    ended = groupvit("data", "convert", f"--data={tmp_path}/x.tar", f"--output={tmp_path}/out")
    assert ended.out.splitlines()[1:3] == ["left out: 1 x binary caption", "left out: 2 x no caption"], ended.err


@pytest.mark.parametrize("wrong, words", [
    (["more"], ["usage: groupvit data convert", "--data=", "--output="]),
    (["--data="], ["usage: groupvit data convert"]),
    (["--data=/nowhere/*.tar"], ["/nowhere/*.tar"]),
    (["--dataset=coco"], ["'coco'", "coco_stuff"]),
    (["--dataset=ade20k", "--data=/nowhere"], ["no folder /nowhere", "ADEChallengeData2016.zip", "/nowhere/ade"]),
    (["--name=My Set"], ["'My Set'", "small letters"]),
    (["--beam_options=--runner=DirectRunner"], ["--beam_options without --beam"]),
])
def test_wrong_input_is_refused_in_one_line(convert, refused, tmp_path, wrong, words):
    refused(convert(*wrong), *words)
    assert not list(tmp_path.glob("out/*"))


def test_a_data_set_that_is_there_is_refused_in_one_line(convert, refused, tmp_path):
    assert convert().code == 0
    refused(convert(), tmp_path / "out/pairs/1.0.0", "is there already", "another name")
