import errno
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import groupvit_jax
from groupvit_jax.data.tar_source import TarSource
from groupvit_jax.drawn import scenes, shards
from groupvit_jax.drawn.canvas import Canvas
from groupvit_jax.drawn.captions import caption, plural
from groupvit_jax.drawn.looks import PALETTE
from groupvit_jax.errors import InputError

SINGULAR = {plural(name): name for name in scenes.OBJECTS} | {name: name for name in scenes.CLASSES}


def words(text):
    return {SINGULAR[w] for w in text.strip(".!").replace(",", "").split() if w in SINGULAR}


def digests(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def drawn():
    return [scenes.draw(0, i) for i in range(300)]


def test_a_scene_is_a_function_of_seed_and_index(drawn):
    again = scenes.draw(0, 7)
    assert (again.image == drawn[7].image).all() and (again.mask == drawn[7].mask).all()
    assert again.caption == drawn[7].caption and again.names == drawn[7].names
    assert (scenes.draw(1, 7).image != again.image).any()


def test_validation_draws_from_another_stream(drawn):
    train = {scene.image.tobytes() for scene in drawn}
    assert len(train) == len(drawn)
    assert not any(scenes.draw(0, i, split="val").image.tobytes() in train for i in range(50))


def test_names_are_the_classes_that_the_mask_shows(drawn):
    for scene in drawn:
        share = np.bincount(scene.mask.ravel(), minlength=15) / scene.mask.size
        assert scene.names == tuple(
            c for c, s in zip(scenes.CLASSES, share, strict=True) if s >= scenes.VISIBLE
        )


def test_captions_name_only_what_is_visible(drawn):
    for scene in drawn:
        assert words(scene.caption) and words(scene.caption) <= set(scene.names), scene.caption


def test_all_named_is_the_share_of_captions_that_name_everything(drawn):
    assert all(
        words(s.caption) == set(s.names) for s in (scenes.draw(3, i, all_named=1.0) for i in range(60))
    )
    partly = np.mean([words(s.caption) != set(s.names) for s in drawn if len(s.names) > 1])
    assert 0.08 < partly < 0.25
    assert all(len(s.names) - len(words(s.caption)) <= 1 for s in drawn)


def test_every_class_is_seen_and_named(drawn):
    assert set().union(*(s.names for s in drawn)) == set(scenes.CLASSES)
    assert set().union(*(words(s.caption) for s in drawn)) == set(scenes.CLASSES)


def test_shares_of_bare_and_close_scenes_are_as_asked():
    assert all(len(scenes.draw(0, i, bare=1.0, close=0.0).names) == 1 for i in range(20))
    filled = [
        np.mean(scenes.draw(0, i, bare=0.0, close=1.0).mask >= len(scenes.BACKGROUNDS)) for i in range(40)
    ]
    assert min(filled) > 0.25 and max(filled) == 1.0 and np.mean(filled) > 0.6


def test_things_stay_half_visible_however_many_overlap():
    for seed in range(20):
        canvas = Canvas(np.random.default_rng(seed), 128)
        for kind in range(8):
            canvas.place(kind, 0.3)
        seen = np.bincount(canvas.owner.ravel(), minlength=len(canvas.kinds) + 1)[1:]
        assert len(canvas.kinds) >= 2 and (seen >= 0.5 * np.array(canvas.full)).all()


@pytest.mark.parametrize("size", [96, 224])
def test_a_scene_takes_any_canvas(size):
    scene = scenes.draw(0, 2, size)
    assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
    assert scene.mask.shape == (size, size) and scene.mask.dtype == np.uint8


def test_a_patch_tells_its_class():
    """No look-alikes: the five nearest by colour and roughness name an 8x8 patch of one class."""

    def patches(split, n):
        features, labels = [], []
        for scene in (scenes.draw(9, i, split=split) for i in range(n)):
            p = scene.image.astype(np.float32).reshape(8, 8, 8, 8, 3).swapaxes(1, 2).reshape(64, 8, 8, 3)
            mask = scene.mask.reshape(8, 8, 8, 8).swapaxes(1, 2).reshape(64, 64)
            pure = (mask == mask[:, :1]).all(1)
            p = p[pure]
            features.append(np.concatenate([p.mean((1, 2)), p.std((1, 2))], 1))
            labels.append(mask[pure, 0])
        return np.concatenate(features), np.concatenate(labels)

    known, truth = patches("train", 120)
    asked, expected = patches("val", 25)
    near = np.argpartition(((asked[:, None] - known) ** 2).sum(-1), 5)[:, :5]
    votes = np.array([np.bincount(v, minlength=15).argmax() for v in truth[near]])
    assert np.mean(votes == expected) > 0.97


def test_captions_count_in_english():
    rng = np.random.default_rng(0)
    said = {caption(rng, {"leaf": 2, "zebra": 1}, "sand") for _ in range(400)}
    assert (
        "two leaves and a zebra on the sand" in said and "there is a zebra and two leaves in the sand" in said
    )
    assert "there are two leaves and a zebra on sand" in said and len(said) > 60
    assert "three fish" in {caption(rng, {"fish": 3}, None) for _ in range(50)}


def test_the_class_list_of_the_evaluation_is_the_one_drawn():
    lines = (Path(groupvit_jax.__file__).parent / "evals/classes/scenes.tsv").read_text().splitlines()
    assert lines[0].startswith("#")
    rows = [line.split("\t") for line in lines[1:]]
    assert tuple(name for name, _ in rows) == scenes.CLASSES
    assert [tuple(map(int, colour.split(","))) for _, colour in rows] == [
        PALETTE[name] for name in scenes.CLASSES
    ]
    assert len({colour for _, colour in rows}) == len(rows)


def test_written_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    for workers in (1, 2):
        scenes.write(tmp_path / str(workers), train=50, val=6, shard_size=20, workers=workers)
    one = digests(tmp_path / "1")
    assert one == digests(tmp_path / "2")
    assert sum(name.endswith(".tar") for name in one) == 3 and not any(name.endswith(".part") for name in one)


@pytest.fixture
def folder(tmp_path):
    scenes.write(tmp_path / "scenes", train=12, val=3, shard_size=5, workers=1)
    return tmp_path / "scenes"


def test_shards_hold_the_training_scenes_and_no_masks(folder):
    source = TarSource(folder / "train-*.tar")
    assert [source[i]["caption"] for i in range(12)] == [scenes.draw(0, i).caption for i in range(12)]
    assert (
        source[11]["key"] == "000000011"
        and source[11]["image"][:3] == b"\xff\xd8\xff"
        and source.problems == {}
    )
    assert len(list(folder.rglob("*.png"))) == 3


def test_validation_lies_in_the_layout_of_voc(folder):
    voc = folder / "VOCdevkit/scenes"
    keys = (voc / "ImageSets/Segmentation/val.txt").read_text().split()
    assert len(keys) == 3
    for i, key in enumerate(keys):
        scene = scenes.draw(0, i, split="val")
        with (
            Image.open(voc / f"SegmentationClass/{key}.png") as mask,
            Image.open(voc / f"JPEGImages/{key}.jpg") as image,
        ):
            assert mask.mode == "P" and (np.array(mask) == scene.mask).all()
            assert tuple(mask.getpalette()[3:6]) == PALETTE[scenes.CLASSES[1]]
            assert np.abs(np.array(image).astype(int) - scene.image).mean() < 6


def test_a_second_run_writes_only_what_is_missing(folder):
    before, times = digests(folder), {p: p.stat().st_mtime_ns for p in folder.glob("*.tar")}
    (folder / "train-00001.tar").unlink()
    scenes.write(folder, train=12, val=3, shard_size=5, workers=1)
    assert digests(folder) == before
    kept = folder / "train-00000.tar"
    assert kept.stat().st_mtime_ns == times[kept]


def test_a_folder_of_something_else_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="train=12 not 13.*another folder"):
        scenes.write(folder, train=13, val=3, shard_size=5)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        scenes.write(tmp_path / "other", train=1, val=1)
    with pytest.raises(InputError, match="train, val, seed >= 0"):
        scenes.write(tmp_path / "new", train=-1, val=1)


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shards, "write_tar", full)
        with pytest.raises(InputError, match="No space left on device.*free some space"):
            scenes.write(tmp_path / "s", train=4, val=1, workers=1)
    scenes.write(tmp_path / "s", train=4, val=1, workers=1)
    assert (
        len(TarSource(tmp_path / "s")) == 4
        and json.loads((tmp_path / "s/scenes.json").read_text())["train"] == 4
    )


def test_shuffled_scenes_keep_pictures_and_captions_but_not_their_pairs(tmp_path):
    scenes.write(tmp_path / "pairs", train=12, val=0, workers=1)
    scenes.write(tmp_path / "shuffled", train=12, val=0, shuffle=True, workers=1)
    pairs, shuffled = (list(TarSource(str(tmp_path / name / "*.tar"))) for name in ("pairs", "shuffled"))
    assert [x["image"] for x in pairs] == [x["image"] for x in shuffled]
    assert sorted(x["caption"] for x in pairs) == sorted(x["caption"] for x in shuffled)
    assert sum(a["caption"] == b["caption"] for a, b in zip(pairs, shuffled)) < 3
