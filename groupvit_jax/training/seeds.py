"""One recipe, several seeds: a training of each in WORKDIR/seed-N, one after the other, and what they give together."""

import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from groupvit_jax import files
from groupvit_jax.errors import InputError
from groupvit_jax.training import loop, record, speed

FILE = "seeds.json"
NOT_RESULTS = {"step", "compilations", *speed.NAMES}  # of a row: what it is of, and what the machine did


def train(config: ConfigDict, workdir: str, make_evaluator: loop.MakeEvaluator | None = None,
          force: bool = False, make_report: loop.MakeReport | None = None) -> dict[str, Any]:
    """Trains with each of `config.seeds`; one that is complete already is passed over. Process 0, which alone has all
    rows, writes WORKDIR/seeds.json and returns its content, see `together`; the others return {}.

    Raises InputError for seeds that cannot be and for a workdir that holds a single run.
    """
    check(config.seeds)
    check_free(workdir)
    for seed in config.seeds:
        loop.train(of_seed(config, seed), folder(workdir, seed), make_evaluator, force, make_report)
    if jax.process_index() > 0:
        return {}
    result = together(workdir, config.seeds)
    files.write(pathlib.Path(workdir) / FILE, (json.dumps(result, indent=1) + "\n").encode())
    return result


def check(seeds: Sequence[int]) -> None:
    """Raises InputError unless they are different whole numbers from 0."""
    if any(type(seed) is not int or seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise InputError(f"config.seeds={tuple(seeds)}: give different whole numbers from 0, as (0,1,2)")


def check_free(workdir: str) -> None:
    """Raises InputError for a workdir that holds a run of its own."""
    names = ("checkpoints", record.FILE, "metrics.jsonl")
    if found := [name for name in names if (pathlib.Path(workdir) / name).exists()]:
        raise InputError(f"--workdir={workdir} holds a single run ({found[0]}): choose another --workdir for the runs "
                         "of config.seeds")


def of_seed(config: ConfigDict, seed: int) -> ConfigDict:
    """The configuration of one of the runs: that of a single run."""
    one = config.copy_and_resolve_references().unlock()
    one.seed, one.seeds = seed, ()
    return one.lock()


def folder(workdir: str, seed: int) -> str:
    return str(pathlib.Path(workdir) / f"seed-{seed}")


def together(workdir: str, seeds: Sequence[int]) -> dict[str, Any]:
    """{"seeds", "step", "results": {name: {"values" by seed, "mean", "spread", "min", "max"}}} of the last step that
    metrics.jsonl of each run has; its evaluation's scores are named "task/score". The spread is the sample's standard
    deviation, 0 of a single seed. Raises InputError when the runs do not end at the same step."""
    rows = [last(folder(workdir, seed)) for seed in seeds]
    steps = [row["step"] for row in rows]
    if len(set(steps)) > 1:
        raise InputError(f"the runs in {workdir} end at different steps ({', '.join(map(str, steps))}): give all the "
                         "same config.train.steps, or another --workdir")
    results = {}
    for name in rows[0]:
        if name not in NOT_RESULTS and all(row.get(name) is not None for row in rows):
            values = [row[name] for row in rows]
            results[name] = {"values": values, "mean": statistics.fmean(values),
                             "spread": statistics.stdev(values) if len(values) > 1 else 0.0,
                             "min": min(values), "max": max(values)}
    return {"seeds": list(seeds), "step": steps[0], "results": results}


def last(workdir: str) -> dict[str, float]:
    """Everything that metrics.jsonl of a run says of its last step."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        step = max(row["step"] for row in rows)
    except (OSError, ValueError, LookupError) as error:
        raise InputError(f"cannot read the results of a finished run in {path} ({error}): move its folder away and run "
                         "the same command again") from None
    return {name: value for row in rows if row["step"] == step for name, value in row.items()}


def table(result: dict[str, Any]) -> str:
    """The results as text, a line each: its values by seed, mean, spread, least and greatest."""
    row = ("{:24}" + "{:>10}" * (len(result["seeds"]) + 4)).format
    lines = [f"step {result['step']} of {len(result['seeds'])} seeds; spread is the sample's standard deviation",
             row("", *(f"seed {seed}" for seed in result["seeds"]), "mean", "spread", "min", "max")]
    for name, of in result["results"].items():
        numbers = [*of["values"], *(of[key] for key in ("mean", "spread", "min", "max"))]
        lines.append(row(name, *(f"{number:.4g}" for number in numbers)))
    return "\n".join(lines)
