"""The verb: a tiny training step compiled for slices that are not there."""

import pytest
from jax import export

FIELDS = {"topology", "chips", "fits", "peak_bytes", "estimated_cycles", "uncosted_fusions", "custom_calls",
          "collective_bytes", "model_flops_per_chip", "f32_matmuls", "compile_seconds"}


def test_a_step_that_fits(compiled, tmp_path):
    done, report = compiled("v5e:2x2")
    assert done.code == 0, done.err
    print(done.out, done.err)
    assert report.keys() >= FIELDS
