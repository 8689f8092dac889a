"""The verbs on a saved run and real files."""

import json
import pathlib

import fashion_files
import numpy as np
import pairs
import pytest
import tiny_run
from PIL import Image

from groupvit_jax.data.tar_source import TarSource
from groupvit_jax.evals import classes
from groupvit_jax.evals.datasets import open_masked
from groupvit_jax.palette import palette_of

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "scenes.py"


@pytest.fixture
def segment(groupvit, run, tmp_path):
    def call(images, *more):
        done = groupvit("segment", f"--checkpoint={run}", f"--images={images}", "--classes=zebra,sand,night sky",
                        f"--output={tmp_path}/out", *more)
        return done, sorted(str(p.relative_to(tmp_path / "out")) for p in tmp_path.glob("out/**/*") if p.is_file())

    return call


def picture(path, width=40, height=32, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    image = Image.fromarray(small).resize((width, height))
    image.save(path)
    return image


# ---------------------------------------------------------------- data


def test_data_scenes_writes_what_was_asked_for_and_a_second_run_nothing(process, tmp_path):
    folder = tmp_path / "scenes"
    command = ("data", "scenes", f"--output={folder}", "--train=5", "--val=2", "--size=32", "--seed=4")
    done = process(*command)
    assert done.code == 0 and "scenes 7/7" in done.err
    assert len(open_masked("scenes", folder, None, 15)) == 2 and (folder / "train-00000.tar").is_file()
    files = [path for path in folder.glob("**/*") if path.is_file() and path.name != "scenes.json"]
    before = [path.stat().st_mtime_ns for path in files]
    again = process(*command)
    assert again.code == 0 and again.err == ""
    assert [path.stat().st_mtime_ns for path in files] == before


def test_data_fashion_writes_what_was_asked_for_and_a_second_run_nothing(groupvit, tmp_path):
    source, folder = fashion_files.write(tmp_path / "idx"), tmp_path / "fashion"
    command = ("data", "fashion", f"--source={source}", f"--output={folder}", "--train=0", "--val=2", "--size=32")
    done = groupvit(*command)
    assert done.code == 0 and "fashion 22/22" in done.err  # two scenes, twenty single photographs
    assert len(open_masked("fashion", folder, None, 16)) == 2 and (folder / "singles/singles-00000.tar").is_file()
    again = groupvit(*command)
    assert again.code == 0 and again.err == ""


# ---------------------------------------------------------------- train


def test_a_dry_run_prints_what_training_would_be_and_writes_nothing(groupvit, tmp_path):
    TarSource(pairs.write(tmp_path / "pairs.tar", pairs.CAPTIONS))  # makes its index
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    done = groupvit("train", f"--config={CONFIG}", *[f"--config.{k}={v}" for k, v in tiny_run.OVERRIDES.items()],
                    f"--config.data.train[0].path={tmp_path}/pairs.tar", "--config.data.batch=8",
                    "--config.data.group=1", f"--workdir={tmp_path}/run", "--dry_run", "--images_per_second=40")
    assert done.code == 0, done.err
    for line in ("params/image/stage0_tokens", "in all", "memory a chip, of 8 x cpu as data 8, fsdp 1, tensor 1",
                 "  scenes: 10 pairs", "length: 600 steps of 8 = 4,800 images", "  at 40 images/s: 2:00", "compiling"):
        assert any(printed.startswith(line) for printed in done.out.splitlines()), line
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


# ---------------------------------------------------------------- eval


def test_eval_prints_the_table_and_writes_the_json(groupvit, run, scenes_folder, tmp_path):
    output = tmp_path / "scores.json"
    output.write_text("of before")
    done = groupvit("eval", f"--checkpoint={run}", "--tasks=scenes", f"--data_root={scenes_folder}",
                    f"--output={output}")
    assert done.code == 0, done.err
    scores = json.loads(output.read_text())
    assert list(scores) == ["scenes"] and {"mIoU", "iou", "protocol"} <= set(scores["scenes"])
    assert scores["scenes"]["protocol"] == "groupvit" and list(scores["scenes"]["iou"]) == classes.names("scenes")
    assert 0 <= scores["scenes"]["mIoU"] <= 100 and scores["scenes"]["images"] == 3
    assert done.out.startswith(f"scenes: mIoU {scores['scenes']['mIoU']:5.1f} %") and "zebra" in done.out
    assert done.err.splitlines()[-1].startswith("scenes 3/3")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.json", "scores.scenes.npy"]
    assert np.load(tmp_path / "scores.scenes.npy").sum() == 3 * 48 * 48


def test_eval_names_what_is_not_of_the_protocol(groupvit, run, scenes_folder, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(f"{name}; a {name}" for name in classes.names("scenes")))
    done = groupvit("eval", f"--checkpoint={run}", "--tasks=scenes", f"--data_root={scenes_folder}", "--oracle",
                    "--scales=1,1.5", "--flip", "--pamr", "--top=3", "--templates=subset", "--batch=2",
                    f"--class_file={tmp_path}/classes.txt", f"--output={tmp_path}/s.json")
    assert done.code == 0, done.err
    scores = json.loads((tmp_path / "s.json").read_text())["scenes"]
    assert scores["changes"] == ["templates subset", f"classes {tmp_path}/classes.txt", "top 3", "pamr", "scales 1,1.5",
                                 "flip"]
    assert scores["oracle"]["mIoU"] > 0 and "scales 1,1.5, flip, 3 images" in done.out.splitlines()[0]


def test_eval_takes_a_checkpoint_by_its_step(groupvit, run, scenes_folder):
    done = groupvit("eval", f"--checkpoint={run}/checkpoints/7", "--tasks=scenes", f"--data_root={scenes_folder}")
    assert done.code == 0, done.err


# ---------------------------------------------------------------- segment


def test_segment_writes_names_labels_and_areas_of_every_match(segment, tmp_path):
    for name, width, height in (("wide.jpg", 61, 32), ("high.png", 33, 50)):
        picture(tmp_path / "photos" / name, width, height)
    (tmp_path / "photos" / "folder").mkdir()  # matched by the glob, and passed over
    done, written = segment(f"{tmp_path}/photos/*")
    assert done.code == 0, done.err
    assert written == [f"{stem}.{view}" for stem in ("high", "wide")
                       for view in ("areas.json", "input_pred_label.png", "labels.png")]
    assert done.out == f"2 image(s) segmented into {tmp_path}/out\n"
    assert done.err.splitlines()[-1].startswith("segment 2/2")
    labels = Image.open(tmp_path / "out/wide.labels.png")
    assert labels.mode == "P" and labels.size == (61, 32) and np.asarray(labels).max() < 3
    assert labels.getpalette()[:9] == palette_of(["zebra", "sand", "night sky"]).ravel().tolist()
    areas = json.loads((tmp_path / "out/wide.areas.json").read_text())
    assert areas["image"] == f"{tmp_path}/photos/wide.jpg" and areas["size"] == [32, 61]
    assert list(areas["classes"]) == ["zebra", "sand", "night sky"] and areas["background"] is None
    pixels = [row["pixels"] for row in areas["classes"].values()]
    assert pixels == np.bincount(np.asarray(labels).ravel(), minlength=3).tolist()


def test_segment_writes_the_views_asked_for(segment, tmp_path):
    picture(tmp_path / "a.png")
    views = ["input", "pred", "input_pred", "input_pred_label", "first_group", "final_group", "all_groups"]
    done, written = segment(f"{tmp_path}/a.png", f"--views={','.join(views)}")
    assert done.code == 0, done.err
    assert written == sorted(f"a.{view}.png" for view in views)
    assert min(Image.open(tmp_path / "out/a.input.png").size) == 384  # 40 x 32 made larger to look at


def test_a_bare_background_flag_takes_the_protocols_threshold(segment, tmp_path):
    picture(tmp_path / "a.png")
    found = []
    for flag in ("--background", "--background=0.95", "--background=0"):
        done, written = segment(f"{tmp_path}/a.png", "--views=labels", flag)
        assert done.code == 0 and written == ["a.labels.png"], done.err
        found.append(np.asarray(Image.open(tmp_path / "out/a.labels.png")))
    assert (found[0] == found[1]).all() and found[2].min() > 0
    done, _ = segment(f"{tmp_path}/a.png", "--views=areas", "--background=sky; wall")
    areas = json.loads((tmp_path / "out/a.areas.json").read_text())
    assert areas["background"] is not None and list(areas["classes"]) == ["zebra", "sand", "night sky"]


def test_a_picture_of_16_bits_is_not_white(segment, tmp_path):
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16).save(tmp_path / "a.png")
    done, _ = segment(f"{tmp_path}/a.png", "--views=input")
    assert done.code == 0 and np.ptp(np.asarray(Image.open(tmp_path / "out/a.input.png"))) > 200


def test_images_of_one_name_do_not_overwrite_one_another(segment, tmp_path):
    for i, name in enumerate(("a/1.png", "b/1.png", "b/2.png", "b/2.jpg")):
        picture(tmp_path / "photos" / name, seed=i)
    done, written = segment(f"{tmp_path}/photos/**/*", "--views=labels")
    assert done.code == 0, done.err
    assert written == ["a/1.labels.png", "b/1.labels.png", "b/2.jpg.labels.png", "b/2.png.labels.png"]


def test_a_photo_is_segmented_the_way_up_it_is_seen(segment, tmp_path):
    upright = picture(tmp_path / "upright.png", 32, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise to see it
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    done, _ = segment(f"{tmp_path}/*.png", "--views=labels")
    assert done.code == 0, done.err
    seen, turned = (Image.open(tmp_path / f"out/{name}.labels.png") for name in ("upright", "phone"))
    assert turned.size == (32, 40)
    np.testing.assert_array_equal(np.asarray(turned), np.asarray(seen))


def test_a_dry_run_of_several_seeds_says_how_often_it_would_be_run(groupvit, monkeypatch):
    from groupvit_jax.training import dry_run

    monkeypatch.setattr(dry_run, "lines", lambda *_: iter(["the report"]))
    ended = groupvit("train", f"--config={CONFIG}", "--dry_run", "--config.seeds=[0,1,2]")
    assert ended.out.splitlines()[0] == "the report" and "all this 3 times" in ended.out
