import hashlib
import io
import json
import tarfile
from pathlib import Path

import fashion_files
import numpy as np
import pytest
from PIL import Image

import groupvit_jax
from groupvit_jax.data.tar_source import TarSource
from groupvit_jax.drawn import fashion
from groupvit_jax.drawn.captions import caption, plural
from groupvit_jax.drawn.fashion_looks import CLASSES, GROUNDS, ITEMS, PALETTE
from groupvit_jax.errors import InputError

SINGULAR = {plural(name): name for name in ITEMS} | {name: name for name in CLASSES}


def words(text):
    return {SINGULAR[w] for w in text.strip(".!").replace(",", "").split() if w in SINGULAR}


def digests(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return str(fashion_files.write(tmp_path_factory.mktemp("fashion") / "idx"))


@pytest.fixture(scope="module")
def drawn(source):
    return {split: [fashion.draw(source, 0, i, 48, split=split) for i in range(150)] for split in ("train", "val")}


def everything(drawn):
    return drawn["train"] + drawn["val"]


# ---------------------------------------------------------------- scenes


def test_a_scene_is_a_function_of_seed_index_and_split(source, drawn):
    for split in ("train", "val"):
        again = fashion.draw(source, 0, 7, 48, split=split)
        assert (again.image == drawn[split][7].image).all() and (again.mask == drawn[split][7].mask).all()
        assert again.caption == drawn[split][7].caption and again.names == drawn[split][7].names
        assert (fashion.draw(source, 1, 7, 48, split=split).image != again.image).any()


def test_training_shows_training_photographs_and_validation_test_photographs(drawn):
    for split, low, high in (("train", 150, 256), ("val", 40, 130)):
        for scene in drawn[split]:
            inside = scene.mask < len(ITEMS)
            if inside.sum() > 20:  # their edges mix with the ground; a dye leaves the brightest channel
                assert low < np.median(scene.image[inside].max(axis=-1)) < high


def test_a_validation_scene_has_two_to_five_garments(drawn):
    kinds = [len(set(scene.names) & set(ITEMS)) for scene in drawn["val"]]
    assert min(kinds) >= 1 and max(kinds) == 5 and np.mean(np.array(kinds) >= 2) > 0.95  # "two coats" are one kind
    assert all(len(set(scene.names) & set(GROUNDS)) == 1 for scene in drawn["val"])
    kinds = [len(set(scene.names) & set(ITEMS)) for scene in drawn["train"]]
    assert {0, 1, 2, 3, 4, 5} == set(kinds)


def test_the_mask_is_where_the_photograph_is(source):
    """Dim blocks on paper: what is much darker than paper is in the mask, and nothing else."""
    found = [fashion.draw(source, 5, i, 96, split="val") for i in range(40)]
    found = [scene for scene in found if "paper" in scene.names]
    for scene in found:
        dark = scene.image.max(axis=-1) < 150
        assert np.mean(dark == (scene.mask < len(ITEMS))) > 0.98
    assert len(found) > 2


def test_a_photographs_outline_keeps_its_size_and_place():
    photo = np.zeros((28, 28), np.uint8)
    photo[4:20, 6:16] = 200
    photo[25, 25] = fashion._BACKDROP  # a speck of the backdrop
    inside, grey = fashion._scaled(photo, 56)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    assert inside.shape == (56, 56) and abs(inside.sum() - 4 * 16 * 10) < 60
    assert (rows[0], rows[-1], columns[0], columns[-1]) == pytest.approx((8, 39, 12, 31), abs=1)
    assert np.median(grey[inside]) == 200
    turned, _ = fashion._scaled(photo, 56, 0.2)
    assert abs(turned.sum() - inside.sum()) < 40 and turned.shape[0] > 56


def test_names_are_the_classes_that_the_mask_shows(drawn):
    for scene in everything(drawn):
        share = np.bincount(scene.mask.ravel(), minlength=len(CLASSES)) / scene.mask.size
        assert scene.names == tuple(c for c, s in zip(CLASSES, share, strict=True) if s >= fashion.VISIBLE)


def test_captions_name_every_visible_garment_and_some_their_ground(drawn):
    for scene in everything(drawn):
        said = words(scene.caption)
        assert said and set(scene.names) & set(ITEMS) <= said <= set(scene.names), scene.caption
    named = {split: np.mean([words(s.caption) == set(s.names) for s in drawn[split]]) for split in drawn}
    assert 0.75 < named["val"] < 0.95 and 0.4 < named["train"] < 0.75  # close by, grounds mostly go unnamed


def test_captions_have_what_has_no_singular():
    rng = np.random.default_rng(0)
    said = {caption(rng, {"trousers": 1, "dress": 2}, "wood") for _ in range(400)}
    assert {"here are trousers and two dresses on wood", "two dresses and trousers on the wood"} <= said
    assert "a T-shirt" in {caption(rng, {"T-shirt": 1}, None) for _ in range(50)}


def test_every_class_is_seen_and_named(drawn):
    assert set().union(*(s.names for s in drawn["val"])) == set(CLASSES)
    assert set().union(*(words(s.caption) for s in drawn["train"])) == set(CLASSES)


def test_every_name_can_become_a_prompt():
    from groupvit_jax.data.captions import content_words, tagger

    for name in CLASSES:
        assert name in content_words(f"a bag, a coat and a {name} here", tagger("pattern"))


def test_the_class_list_of_the_evaluation_is_the_one_drawn():
    lines = (Path(groupvit_jax.__file__).parent / "evals/classes/fashion.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    assert lines[0].startswith("#") and tuple(name for name, _ in rows) == CLASSES
    assert [tuple(map(int, colour.split(","))) for _, colour in rows] == [PALETTE[name] for name in CLASSES]
    colours = np.array(list(PALETTE.values()))
    apart = np.abs(colours[:, None] - colours).sum(-1) + 1000 * np.eye(len(colours))
    assert apart.min() > 60


# ---------------------------------------------------------------- photographs


def test_photographs_that_are_none(source, tmp_path):
    def folder(name, images, labels):
        fashion_files.write(tmp_path / name)
        (tmp_path / name / "train-images-idx3-ubyte").write_bytes(fashion_files.idx(images))
        (tmp_path / name / "train-labels-idx1-ubyte").write_bytes(fashion_files.idx(labels))
        return str(tmp_path / name)

    images, labels = fashion_files.photographs(200, 30)
    wrong = [
        (str(tmp_path / "nowhere"), "no train-images-idx3-ubyte nor .*apt install dataset-fashion-mnist.*--source"),
        (folder("counts", images, labels[:-1]), "30 train photographs and 29 labels.*apt install"),
        (folder("eleven", images, labels + 1), "labels up to 10 are no Fashion-MNIST"),
        (folder("nine", images, np.minimum(labels, 8)), r"no train photograph has label 9 \(boot\)"),
        (folder("swapped", images[:, :14], labels), "holds 30 x 14 x 28 values"),
    ]
    for where, message in wrong:
        with pytest.raises(InputError, match=message):
            fashion.write(tmp_path / "out", where, train=1, val=1)
    assert not (tmp_path / "out").exists()


def test_a_photograph_with_nothing_on_it_is_in_no_scene(tmp_path):
    fashion_files.write(tmp_path)
    images, labels = fashion_files.photographs(200, 40)
    images[:10] = 3
    (tmp_path / "train-images-idx3-ubyte").write_bytes(fashion_files.idx(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(fashion_files.idx(labels))
    assert [places.tolist() for places in fashion.photographs(str(tmp_path), "train").of][0] == [10, 20, 30]


# ---------------------------------------------------------------- on disk


def write(folder, source, **more):
    fashion.write(folder, source, **{"train": 12, "val": 3, "size": 48, "shard_size": 8, "workers": 1} | more)
    return folder


@pytest.fixture
def folder(source, tmp_path):
    return write(tmp_path / "fashion", source)


def test_training_tars_and_validation_in_the_layout_of_voc(source, folder):
    pairs = TarSource(folder / "train-*.tar")
    assert [pairs[i]["caption"] for i in range(12)] == [fashion.draw(source, 0, i, 48).caption for i in range(12)]
    voc = folder / "VOCdevkit/fashion"
    keys = (voc / "ImageSets/Segmentation/val.txt").read_text().split()
    for i, key in enumerate(keys):
        scene = fashion.draw(source, 0, i, 48, split="val")
        with Image.open(voc / f"SegmentationClass/{key}.png") as mask:
            assert mask.mode == "P" and (np.array(mask) == scene.mask).all()
            assert tuple(mask.getpalette()[3:6]) == PALETTE[CLASSES[1]]
        with Image.open(voc / f"JPEGImages/{key}.jpg") as image:
            assert np.abs(np.array(image).astype(int) - scene.image).mean() < 8
    assert len(keys) == len(list(folder.rglob("*.png"))) == 3  # no masks of training scenes


def test_singles_are_the_test_photographs_in_order_each_with_its_label(folder):
    found = {}
    tars = sorted((folder / "singles").glob("*.tar"))
    assert [path.name for path in tars] == ["singles-00000.tar", "singles-00001.tar", "singles-00002.tar"]
    for path in tars:
        with tarfile.open(path) as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar}
    assert list(found) == [f"{i:05d}.{ending}" for i in range(20) for ending in ("png", "cls")]
    for i in range(20):
        assert found[f"{i:05d}.cls"] == b"%d" % (i % 10)
        with Image.open(io.BytesIO(found[f"{i:05d}.png"])) as image:
            pixels = np.array(image)
        assert pixels.shape == (48, 48, 3) and len(np.unique(pixels[0])) == 1  # plain paper
        assert np.median(pixels[18:24, 18:30]) == fashion_files.DIM


def test_written_bytes_do_not_depend_on_the_number_of_workers(source, tmp_path):
    assert digests(write(tmp_path / "1", source)) == digests(write(tmp_path / "2", source, workers=2))


def test_a_second_run_writes_only_what_is_missing(source, folder):
    before, times = digests(folder), {p: p.stat().st_mtime_ns for p in folder.rglob("*.tar")}
    missing = [folder / "train-00001.tar", folder / "singles/singles-00001.tar"]
    for path in missing:
        path.unlink()
    write(folder, source)
    assert digests(folder) == before
    assert all(path.stat().st_mtime_ns == time for path, time in times.items() if path not in missing)


def test_other_parameters_or_photographs_are_refused(source, folder, tmp_path):
    with pytest.raises(InputError, match="other fashion .train=12 not 13.*another folder"):
        write(folder, source, train=13)
    others = fashion_files.write(tmp_path / "others", test=30)
    with pytest.raises(InputError, match="other fashion .photographs=.*another folder"):
        write(folder, str(others))
    with pytest.raises(InputError, match="size >= 16"):
        write(tmp_path / "new", source, size=8)
    with pytest.raises(InputError, match="shard_size >= 1"):
        write(tmp_path / "new", source, shard_size=0)
    assert json.loads((folder / "fashion.json").read_text())["train"] == 12


def test_shuffled_scenes_keep_pictures_and_captions_but_not_their_pairs(source, tmp_path):
    pairs, shuffled = (list(TarSource(str(write(tmp_path / str(s), source, val=0, shuffle=s) / "*.tar")))
                       for s in (False, True))
    assert [x["image"] for x in pairs] == [x["image"] for x in shuffled]
    assert sorted(x["caption"] for x in pairs) == sorted(x["caption"] for x in shuffled)
    assert sum(a["caption"] == b["caption"] for a, b in zip(pairs, shuffled)) < 3
