"""launch/tpu.sh: what it asks gcloud for."""

import shlex
import tarfile

import pytest

TPUS = "gcloud compute tpus"
END = "--zone=us-west4-a --quiet"
RUN = ("run", "--config=configs/tiny.py", "--workdir=/mnt/runs/first")
VERBS = [
    ("create", "--type=v5litepod-64"),
    ("create", "--type=v4-32", "--spot", "--queued", "--valid-until=6h", "--", "--reserved"),
    ("setup",), ("setup", "--repository=https://a/b.git", "--revision=v1", "--mount=gs://a/b:/mnt/data"), RUN,
    (*RUN, "--", "--config.data.train[0].path=a b/{0..9}.tar"), ("status",), ("status", "--queued"), ("logs",),
    ("logs", "--lines=5", "--worker=all", "--follow"), ("stop",), ("delete", "--yes"), ("delete", "--yes", "--queued"),
    ("logs", "--workdir=/mnt/runs/first", "--output=OUTPUT")]


@pytest.mark.parametrize("type, version", [
    ("v5litepod-64", "v2-alpha-tpuv5-lite"), ("v4-32", "tpu-ubuntu2204-base"), ("v5p-32", "v2-alpha-tpuv5"),
    ("v6e-32", "v2-alpha-tpuv6e")])
def test_a_slices_runtime_version_follows_from_its_type(bench, type, version):
    assert bench.tpu("create", f"--type={type}").code == 0
    assert bench.calls() == [
        f"{TPUS} tpu-vm create pod --accelerator-type={type} --version={version} {END}"]


@pytest.mark.parametrize("flags, call", [
    (["--spot"], "tpu-vm create pod --accelerator-type=v4-8 --version=tpu-ubuntu2204-base --spot"),
    (["--version=mine", "--", "--network=n"], "tpu-vm create pod --accelerator-type=v4-8 --version=mine --network=n"),
    (["--queued", "--valid-until=2d"], "queued-resources create pod --node-id=pod --accelerator-type=v4-8 "
                                       "--runtime-version=tpu-ubuntu2204-base --valid-until-duration=2d"),
    (["--queued", "--spot"], "queued-resources create pod --node-id=pod --accelerator-type=v4-8 "
                             "--runtime-version=tpu-ubuntu2204-base --spot")])
def test_a_slice_is_on_demand_spot_or_queued(bench, flags, call):
    assert bench.tpu("create", "--type=v4-8", *flags).code == 0
    assert bench.calls() == [f"{TPUS} {call} {END}"]


def test_setup_brings_the_checkout_with_its_changes_to_all_workers(bench):
    bench.commit()
    (bench.checkout / "configs/tiny.py").write_text("changed = True")
    (bench.checkout / "configs/new.py").write_text("")
    (bench.checkout / "configs/with a space.py").write_text("")
    (bench.checkout / "build").mkdir()
    (bench.checkout / "build/large").write_text("")
    (bench.checkout / "setup.py").unlink()
    bench.tpu("setup")
    archive = bench.checkout / "build/groupvit.tar.gz"
    script = bench.checkout / "launch/tpu_worker.sh"
    assert bench.calls() == [
        f"{TPUS} tpu-vm scp {script} {archive} pod: --worker=all {END}",
        rf"{TPUS} tpu-vm ssh pod --worker=all --command=bash\ tpu_worker.sh\ setup\ groupvit.tar.gz\ HEAD {END}"]
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        assert tar.extractfile("configs/tiny.py").read() == b"changed = True"
    assert {"configs/new.py", "configs/with a space.py", "launch/constraints.txt"} < set(names)
    assert "setup.py" not in names and not any(name.startswith(("build", ".git/")) for name in names)


def test_setup_from_a_repository_sends_nothing_but_the_workers_script(bench):
    mounts = ["gs://a/b:/mnt/a", "10.0.0.2:/s:/mnt/s"]
    bench.tpu("setup", "--repository=https://a/b.git", "--revision=v1", *(f"--mount={mount}" for mount in mounts))
    copy, command = map(shlex.split, bench.calls())
    assert copy[5:7] == [str(bench.checkout / "launch/tpu_worker.sh"), "pod:"]
    assert shlex.split(command[7].removeprefix("--command=")) == [
        "bash", "tpu_worker.sh", "setup", "https://a/b.git", "v1", *mounts]


def test_run_hands_flags_to_every_workers_shell_as_they_are(bench):
    flags = ["--config.data.train[0].path=gs://b/{00000..00331}.tar", "--config.name=it's \"a b\" $HOME"]
    bench.tpu(*RUN, "--attempts=5", "--pause=1", "--", *flags)
    call, = map(shlex.split, bench.calls())
    assert call[3:7] == ["tpu-vm", "ssh", "pod", "--worker=all"]
    assert shlex.split(call[7].removeprefix("--command=")) == [
        "bash", "tpu_worker.sh", "start", "/mnt/runs/first", "5", "1", "--config=configs/tiny.py", *flags]


@pytest.mark.parametrize("flags, group, said", [
    ((), "tpu-vm describe pod --format=value\\(state\\)", "READY"),
    (("--queued",), "queued-resources describe pod --format=value\\(state.state\\)", "ACTIVE")])
def test_status_shows_the_slice_and_every_worker(bench, flags, group, said):
    bench.answer("describe", f"0 {said}")
    bench.answer("ssh", "0 w-0 running: step 7|w-1 dead: step 5")
    done = bench.tpu("status", *flags)
    assert done.out.splitlines() == [f"pod {said}", "w-0 running: step 7", "w-1 dead: step 5"]
    assert bench.calls()[0] == f"{TPUS} {group} {END}"


def test_status_does_not_ask_workers_that_are_not_there_yet(bench):
    bench.answer("describe", "0 WAITING_FOR_RESOURCES")
    assert bench.tpu("status", "--queued").out == "pod WAITING_FOR_RESOURCES\n"
    assert len(bench.calls()) == 1


@pytest.mark.parametrize("flags, call", [
    ((), r"tpu-vm ssh pod --worker=0 --command=bash\ tpu_worker.sh\ tail\ 100"),
    (("--lines=5", "--worker=all", "--follow"),
     r"tpu-vm ssh pod --worker=all --command=bash\ tpu_worker.sh\ tail\ 5\ -F"),
    (("--workdir=/mnt/r", "--output=here"), "tpu-vm scp pod:/mnt/r/logs here --worker=0 --recurse")])
def test_logs_are_shown_or_copied_here(bench, flags, call):
    bench.answer("ssh", "0 step 7")
    assert bench.tpu("logs", *flags).code == 0
    assert bench.calls() == [f"{TPUS} {call} {END}"]


@pytest.mark.parametrize("flags, call", [
    ((), "tpu-vm delete pod"), (("--queued",), "queued-resources delete pod --force")])
def test_delete_takes_the_queued_resource_with_its_slice(bench, flags, call):
    assert bench.tpu("delete", "--yes", *flags).code == 0
    assert bench.calls() == [f"{TPUS} {call} {END}"]


@pytest.mark.parametrize("verb, flags", [(verb, flags) for verb, *flags in VERBS])
def test_a_dry_run_prints_the_calls_and_makes_none(bench, verb, flags):
    bench.answer("describe", "0 READY")
    flags = [flag.replace("OUTPUT", str(bench.folder / "out")) for flag in flags]
    dry = bench.tpu(verb, "--dry-run", *flags)
    assert dry.code == 0 and bench.calls() == []
    bench.tpu(verb, *flags)
    assert [line for line in dry.out.splitlines() if not line.startswith("#")] == bench.calls() != []


def test_a_dry_run_that_stays_until_done_prints_every_kind_of_call_and_ends(bench):
    dry = bench.tpu(*RUN, "--type=v4-32", "--queued", "--until-done", "--dry-run")
    verbs = [line.split()[4] for line in dry.out.splitlines() if line.startswith("gcloud")]
    assert verbs == ["describe", "create", "delete", "create", "ssh", "scp", "ssh", "ssh"] and bench.calls() == []


def test_the_environment_stands_for_flags(bench):
    bench.tpu("create", TPU_NAME="other", TPU_ZONE="us-east5-a", TPU_PROJECT="mine", TPU_TYPE="v6e-8", TPU_VERSION="v")
    assert bench.calls() == ["gcloud compute tpus tpu-vm create other --accelerator-type=v6e-8 --version=v "
                             "--zone=us-east5-a --project=mine --quiet"]


def test_gclouds_failure_is_the_scripts(bench):
    bench.answer("create", "1 quota")
    done = bench.tpu("create", "--type=v4-8")
    assert done.code == 1 and "quota" in done.err


def test_nothing_is_called_on_workers_that_could_not_be_copied_to(bench):
    bench.answer("scp", "1 unreachable")
    assert bench.tpu("setup").code == 1 and [call.split()[4] for call in bench.calls()] == ["scp"]


CREATE = ("create", "--type=v4-8")
SHORT = ("run", "--config=c.py")


@pytest.mark.parametrize("arguments, words", [
    (["craete"], ["'craete'", "create"]), (["create"], ["--type", "v4-32"]),
    (["create", "--type=v5e-8"], ["v5litepod-8"]), (["create", "--type=tpu7x-8"], ["--version", "gke.yaml"]),
    (["create", "--type=v4-0"], ["v4-0"]), ([*CREATE, "--valid-until=6h"], ["--queued"]),
    ([*CREATE, "--queued", "--valid-until=6"], ["6h"]), ([*CREATE, "--spot=no"], ["--spot"]),
    (["create", "--type", "v4-8"], ["--type=VALUE"]), ([*CREATE, "--workdir=/a"], ["--workdir=/a", "help"]),
    (["create", "v4-8"], ["'v4-8'"]), ([*CREATE, "--name=Pod"], ["Pod"]),
    ([*CREATE, "--zone=us-west4"], ["us-west4", "zone"]), (["status", "--project=My Project"], ["--project"]),
    (["setup", "--mount=bucket:/mnt/a"], ["gs://", "HOST:/SHARE"]), (["setup", "--mount=gs://b"], ["/FOLDER"]),
    (["setup", "--repository=git@a:b"], ["https://"]), (["setup", "--revision=v1"], ["--repository"]),
    (["setup", "--", "--x"], ["--"]), (["run", "--workdir=/a"], ["--config"]), (SHORT, ["--workdir", "share"]),
    ([*SHORT, "--workdir=gs://b/a"], ["gs://b/a", "setup --mount"]), ([*RUN, "--attempts=0"], ["--attempts"]),
    ([*RUN, "--type=v4-8"], ["--until-done"]), ([*RUN, "--until-done"], ["--type"]),
    (["logs", "--lines=all"], ["--lines"]), (["logs", "--worker=first"], ["--worker"]),
    (["logs", "--output=a"], ["--workdir"]), (["delete"], ["--yes"])])
def test_a_wrong_argument_is_one_line_and_code_2(bench, refused, arguments, words):
    refused(bench.tpu(*arguments), *words)
    assert bench.calls() == []


def test_where_gcloud_is_missing_it_says_so(bench, refused):
    (bench.folder / "bin/gcloud").unlink()
    for tool in ("bash", "dirname", "env"):
        (bench.folder / "bin" / tool).symlink_to(f"/usr/bin/{tool}")
    refused(bench.shell(str(bench.checkout / "launch/tpu.sh"), "status", "--name=pod", "--zone=us-west4-a",
                        PATH=str(bench.folder / "bin")), "gcloud", "--dry-run")
