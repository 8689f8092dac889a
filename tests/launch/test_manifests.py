"""The container and the manifest for GKE fit the package and each other."""

import math
import pathlib
import re

import yaml

from groupvit_jax.cli import train

ROOT = pathlib.Path(__file__).parent.parent.parent
LAUNCH = ROOT / "launch"
JOBSET = yaml.safe_load((LAUNCH / "gke.yaml").read_text())
JOB = JOBSET["spec"]["replicatedJobs"][0]["template"]["spec"]
POD = JOB["template"]["spec"]
CONTAINER = POD["containers"][0]


def test_the_container_copies_what_is_there_and_its_context_lets_through():
    text = (LAUNCH / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for word in line.split()]
    let_through = {line[1:] for line in (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert set(copied) == let_through and all((ROOT / name).exists() for name in copied)
    assert {"groupvit_jax", "configs", "launch/constraints.txt"} <= let_through


def test_worker_and_container_run_the_same_python():
    worker = re.search(r"^python=(\S+)", (LAUNCH / "tpu_worker.sh").read_text(), re.M)[1]
    assert f"FROM python:{worker}-slim" in (LAUNCH / "Dockerfile").read_text()


def test_worker_and_container_install_the_same_in_the_versions_of_all():
    asked = re.compile(r'--constraint \S*(launch/constraints.txt) --editable "\S*(\[tpu\])" (gcsfs)\b')
    worker, container = (asked.search((LAUNCH / name).read_text()) for name in ("tpu_worker.sh", "Dockerfile"))
    assert worker.groups() == container.groups()


def test_the_manifests_command_is_one_that_groupvit_takes(groupvit, monkeypatch):
    called = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(train, "main", lambda rest: called.append((rest, train.FLAGS.multihost, train.FLAGS.workdir)))
    done = groupvit(*CONTAINER["args"])
    assert done.code == 0, done.err
    assert called == [([], True, "/mnt/groupvit/runs/gcc_yfcc")]


def test_the_manifest_asks_for_each_chip_of_the_topology_once():
    chips = math.prod(map(int, POD["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
    assert JOB["completions"] == JOB["parallelism"]
    assert JOB["completions"] * CONTAINER["resources"]["limits"]["google.com/tpu"] == chips
    assert CONTAINER["resources"]["requests"] == CONTAINER["resources"]["limits"]


def test_the_manifest_starts_again_after_failures_but_not_after_wrong_input():
    assert JOBSET["spec"]["failurePolicy"]["maxRestarts"] > 0 and JOB["backoffLimit"] == 0
    assert POD["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    rule, = JOB["podFailurePolicy"]["rules"]
    assert rule == {"action": "FailJob",
                    "onExitCodes": {"containerName": CONTAINER["name"], "operator": "In", "values": [2]}}
    assert [(rule["action"], rule["onJobFailureReasons"]) for rule in JOBSET["spec"]["failurePolicy"]["rules"]] == [
        ("FailJobSet", ["PodFailurePolicy"])]


def test_the_manifest_is_queued_and_its_workdir_is_on_the_shared_volume():
    assert JOBSET["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    shared, = [volume["name"] for volume in POD["volumes"] if "persistentVolumeClaim" in volume]
    assert f"--workdir={mounts[shared]}/runs/gcc_yfcc" in CONTAINER["args"]
