"""groupvit data inspect, as a person types it."""

import pathlib

from PIL import Image

CONFIG = pathlib.Path(__file__).parents[1] / "end_to_end/tiny_training.py"


def test_it_prints_a_report_and_writes_two_pictures(groupvit, scenes_folder, tmp_path):
    done = groupvit("data", "inspect", f"--config={CONFIG}", f"--config.data.train[0].path={scenes_folder}/train-*.tar",
                    "--samples=30", f"--output={tmp_path}/out")
    assert done.code == 0
    assert "16 pairs; left out: none" in done.out and "30 samples looked at, 0 bad" in done.out
    assert "samples 30/30" in done.err
    for name in ("histograms.png", "samples.png"):
        assert f"wrote {tmp_path}/out/{name}" in done.out
        with Image.open(tmp_path / "out" / name) as image:
            assert image.width > 400


def test_sets_that_cannot_be_opened_are_one_line(groupvit, refused, tmp_path):
    flags = "data", "inspect", f"--config={CONFIG}"
    refused(groupvit(*flags, f"--config.data.train[0].path={tmp_path}/no.tar"), f"{tmp_path}/no.tar")
    refused(groupvit(*flags, "--config.data.train[0].source=zip"), "'zip'", "tar, array_record, tfds")
