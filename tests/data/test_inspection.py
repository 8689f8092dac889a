"""What inspection finds: counts, lengths, sizes, bad samples by name, and pictures of what a run would see."""

import numpy as np
import pairs
import pytest
import tiny

from groupvit_jax.data import inspection
from groupvit_jax.data.tar import write_tar
from groupvit_jax.errors import InputError


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """40 samples of a set of ten good ones, one broken, one without a caption and one of blanks."""
    folder = tmp_path_factory.mktemp("inspected")
    files = [part for i, caption in enumerate(pairs.CAPTIONS)
             for part in ((f"{i}.jpg", pairs.picture(i, size=(48, 32))), (f"{i}.txt", caption.encode()))]
    write_tar(folder / "0.tar", [*files, ("x.jpg", b"\xff\xd8 broken"), ("x.txt", b"a dog"), ("y.jpg", b"no caption"),
                                 ("z.jpg", pairs.picture(1)), ("z.txt", b"   ")])
    config = tiny.config(data__tagger="pattern", model__text__length=16, data__prompts=1, data__templates=("a {}",))
    config.data.train[0].path = str(folder / "0.tar")
    return inspection.inspect(config, 40)


def test_a_set_is_counted_with_what_was_left_out(found):
    assert found.sets == ["gcc3m: 12 pairs; left out: 1 x no caption"]


def test_bad_samples_are_named_by_kind(found):
    assert found.bad.keys() == {"broken image", "empty caption"}
    assert all(name.startswith("gcc3m[10] x ") for name in found.bad["broken image"])
    assert all(name.startswith("gcc3m[11] z ") for name in found.bad["empty caption"])
    assert len(found.captions) == 40 - sum(map(len, found.bad.values()))


def test_lengths_and_sizes_are_those_of_the_samples(found):
    assert set(found.captions) == {10} and set(found.prompts) == {4}
    assert set(found.sides) == {32}


def test_the_report_says_it_all(found):
    report = inspection.report(found)
    for words in ("12 pairs", "40 samples looked at", "x broken image: gcc3m[10] x", "images a second made",
                  "caption length, tokens (mean 10.0, longest 10)", "shorter side, pixels (mean 32)",
                  "config.data.caption_tokens=11  config.data.prompt_tokens=4"):
        assert words in report, report


def test_bars_are_as_long_as_counts(found):
    lines = inspection.bars([1] * 10 + [2] * 5 + [4])
    assert [line.split() for line in lines] == [["1", "#" * 50, "10"], ["2", "#" * 25, "5"], ["3", "0"],
                                                ["4", "#" * 5, "1"]]


def test_bins_hold_every_value_once():
    values = np.random.default_rng(0).integers(3, 1000, 500).tolist()
    rows = inspection.counted(values)
    assert sum(n for _, n in rows) == 500 and len(rows) <= 10
    low, high = (int(side) for side in rows[3][0].split("-"))
    assert rows[3][1] == sum(low <= v <= high for v in values)


def test_pictures_are_the_histograms_and_a_sheet_of_what_the_model_sees(found):
    drawn = inspection.pictures(found)
    assert drawn.keys() == {"histograms.png", "samples.png"}
    assert len(found.sheet) == 24 and found.sheet[0][1][1].startswith("a ")
    sheet = np.asarray(drawn["samples.png"])
    first = sheet[8 : 8 + 224, 8 : 8 + 224]
    np.testing.assert_array_equal(first[::14, ::14], found.sheet[0][0])


def test_without_a_usable_sample_there_is_nothing_to_draw(tmp_path):
    write_tar(tmp_path / "0.tar", [("x.jpg", b"broken"), ("x.txt", b"a dog")])
    config = tiny.config(data__prompts=0)
    config.data.train[0].path = str(tmp_path / "0.tar")
    found = inspection.inspect(config, 3)
    assert "3 samples looked at, 3 bad" in inspection.report(found)
    with pytest.raises(InputError, match="no usable sample"):
        inspection.pictures(found)
