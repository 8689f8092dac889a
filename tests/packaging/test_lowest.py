"""setup.py's lower bounds: with the lowest version of each requirement that has one, the package trains."""

import pytest
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow


def test_the_lowest_versions_of_the_core_train(declared, pins, built, environment):
    lowest = {canonicalize_name(each.name): bound.version for each in declared[""] for bound in each.specifier
              if bound.operator in (">=", "~=")}
    assert {"jax", "numpy", "pillow"} <= set(lowest)
    versions = {name: pin.specifier for name, pin in pins.items()}  # of what the requirements bring
    versions |= {name: f"=={version}" for name, version in lowest.items()}
    file = environment.folder / "lowest.txt"
    file.write_text("".join(f"{name}{version}\n" for name, version in versions.items()))
    environment.pip("--constraint", file, built.wheel)
    assert f"numpy {lowest['numpy']}" in environment.call("-c", "import numpy; print('numpy', numpy.__version__)")
    assert "done: " in environment.train_two_steps()
    made = environment.folder / "runs/mine"
    picture = environment.folder / "runs/scenes/VOCdevkit/scenes/JPEGImages/*.jpg"
    environment.groupvit("segment", f"--checkpoint={made}", f"--images={picture}", "--classes=zebra,grass",
                         f"--output={environment.folder}/out")
    assert list((environment.folder / "out").glob("*.png"))
