"""`groupvit compile` of tiny configurations."""

import json

import pytest


@pytest.fixture
def compiled(groupvit, tmp_path):
    """`compiled("v5e:2x2", "--config.data.batch=8")` -> the ended command and the JSON it wrote."""
    config = tmp_path / "configs" / "small.py"
    config.parent.mkdir()
    # One stage and no noise: seconds of compiling.
    config.write_text("import tiny\n\ndef get_config():\n    return tiny.config(model__image__depths=(1, 1), "
                      "model__image__group_tokens=(4, 0), model__image__output_groups=(4, 0), "
                      "model__image__drop_path=0.0, augment__erase=0.0, augment__flip=0.0, "
                      "model__dtype='bfloat16').unlock()\n")

    def call(topology, *overrides):
        output = tmp_path / "out" / "report.json"
        done = groupvit("compile", f"--config={config}", f"--topology={topology}", f"--output={output}", *overrides)
        return done, json.loads(output.read_text()) if output.exists() else None

    return call
