"""The notebook runs from top to bottom with this Python, and leaves what its text says."""

import json
import os
import pathlib
import sys

import nbclient
import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

NOTEBOOK = pathlib.Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"
STEPS = 12
LEFT = """
print(json.dumps({
    "labels": [str(out.labels.dtype), out.labels.shape, int(out.labels.max())], "classes": len(words),
    "groups": [str(out.groups.dtype), out.groups.shape], "chances": chances.sum(1).tolist(),
    "loss": [row["loss"] for row in rows], "steps": at, "mIoU": scores["mIoU"], "iou": list(scores["iou"]),
    "chosen": chosen, "python": sys.executable}))
"""


class ThisPython(KernelSpecManager):
    """No kernel needs to be installed, and none that is installed is taken."""

    def get_kernel_spec(self, name):
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, language="python")


class ThisKernel(AsyncKernelManager):
    """Made by nbclient, which then also ends it."""

    def _kernel_spec_manager_default(self):
        return ThisPython()


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What is in the notebook's namespace at its end."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(LEFT))
    settings = {"STEPS": str(STEPS), "FOLDER": str(folder), "QUICKSTART": "", "JAX_PLATFORMS": "cpu",
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling costs more than a dozen steps
    package = os.pathsep.join([str(NOTEBOOK.parents[1]), os.environ.get("PYTHONPATH", "")])
    client = nbclient.NotebookClient(notebook, kernel_manager_class=ThisKernel, timeout=300,
                                     resources={"metadata": {"path": str(NOTEBOOK.parent)}})
    client.execute(env=os.environ | settings | {"PYTHONPATH": package})
    return json.loads(notebook.cells[-1].outputs[0].text) | {"folder": folder}


@pytest.mark.slow
def test_a_model_is_trained_and_its_loss_falls(left):
    assert left["python"] == sys.executable and left["chosen"] == str(left["folder"] / f"run-{STEPS}")
    assert left["steps"] == [*range(1, STEPS + 1)] and left["loss"][-1] < 0.9 * left["loss"][0]


@pytest.mark.slow
def test_a_scene_is_segmented_and_scored(left):
    assert left["labels"][:2] == left["groups"] == ["int32", [96, 96]]
    assert 0 <= left["labels"][2] < left["classes"] == len(left["iou"]) == 15
    assert left["chances"] == pytest.approx([1] * len(left["chances"]), abs=1e-5) and left["mIoU"] > 0


def test_what_is_stored_is_small_whole_and_names_no_machine():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert NOTEBOOK.stat().st_size < 300_000
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    text = "".join(str(output.get("text", "")) for cell in code for output in cell.outputs)
    assert not any(word in text for word in ("/home/", "/root/", "/tmp/", "Warning", "Traceback"))
