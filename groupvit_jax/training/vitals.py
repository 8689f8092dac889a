"""The numbers that say how a run is: those of groups and embeddings, computed in the step; the rule that sees a
collapse in them; and a report on steps whose numbers were none."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from groupvit_jax import files
from groupvit_jax.errors import InputError
from groupvit_jax.models.layers import unit

RULES = ("off", "warn", "stop")
# Of scenes, after the warm-up, healthy runs keep spreads of 0.68 and more and 2.1 groups in use and more. With a rate a
# hundred times too high spreads fall to 0.1 and 0.2 and groups to 1.0, with a decay far too high to 1e-4 and 1.0.
LEAST_SPREAD = 0.3  # below it the cosine of two embeddings is 0.9 on average
LEAST_USED = 1.05  # groups an image; below it 19 images of 20 and more put every token in one group
ROWS = 3  # in a row, before it counts as a collapse


# ---------------------------------------------------------------- in the step


def stages(group_tokens: Sequence[int]) -> list[int]:
    """Numbers of the stages that group."""
    return [stage for stage, tokens in enumerate(group_tokens) if tokens]


def of_groups(stage: int, assignment: jax.Array) -> dict[str, jax.Array]:
    """What a soft assignment without noise [b g n] says of each image, float32 [b] each:

    groups_used_I: how many of the g groups win at least one of its n tokens (a token goes to its likeliest group).
    largest_group_I: the share of its tokens that the group which wins most of them has.
    assignment_entropy_I: how undecided its tokens are, the mean over tokens of the entropy of a token's distribution
      over groups, as a share of log g: 0 where each is sure of its group, 1 where it could be any. It says nothing
      about which groups they are: all tokens in one group for sure is 0, too. With one group it is 0.
    """
    g, n = assignment.shape[1:]
    won = jnp.sum(assignment == assignment.max(axis=1, keepdims=True), axis=-1)  # tokens of each group [b g]
    entropy = jax.scipy.special.entr(assignment).sum(axis=1).mean(axis=-1)
    return {f"groups_used_{stage}": jnp.sum(won > 0, axis=-1, dtype=jnp.float32),
            f"largest_group_{stage}": won.max(axis=-1) / n,
            f"assignment_entropy_{stage}": entropy / math.log(max(g, 2))}


def sampled(tree: Any) -> list[jax.Array]:
    """The arrays of a tree of parameters, but of large ones only the first eighth, which is of some input channels, and
    not the table of tokens, most of which no batch has. The norm of all updates would be a pass over all moments, 3 %
    of a step."""
    named = [(path[-1].key, x) for path, x in jax.tree.leaves_with_path(tree)]
    return [x[: -(-len(x) // 8)] if x.size > 1 << 16 else x for name, x in named if name != "embedding"]


def spread(x: jax.Array) -> jax.Array:
    """Embeddings [b d] -> how different they are: the standard deviation over the batch of each feature of the unit
    vectors, mean over features, times sqrt(d). Directions drawn evenly give nearly 1, equal ones 0."""
    return unit(x).std(axis=0).mean() * x.shape[-1] ** 0.5


# ---------------------------------------------------------------- on the host


class Collapse:
    """Sees that a model has collapsed: all images, or all captions, look alike to it, or one group takes every token.

    Args:
      rule: config.train.collapse: "off", "warn" (once a collapse) or "stop".
      warmup: steps of the warm-up. Fresh weights may look collapsed, so rows up to its end do not count.
      groups: output groups of each stage (config.model.image.output_groups); of those with two or more
        `groups_used_I` is watched, where a row has it.
    Raises InputError for another rule.
    """

    def __init__(self, rule: str, warmup: int, groups: Sequence[int]):
        if rule not in RULES:
            raise InputError(f"config.train.collapse={rule!r}: use 'off', 'warn' or 'stop'")
        self.rule, self.warmup = rule, warmup
        self.limits = {"image_spread": LEAST_SPREAD, "text_spread": LEAST_SPREAD}
        self.limits |= {f"groups_used_{stage}": LEAST_USED for stage, g in enumerate(groups) if g >= 2}
        self.rows = 0  # collapsed ones in a row

    def check(self, n: int, values: Mapping[str, float]) -> None:
        """Looks at the row of step n; at the ROWS-th collapsed row in a row it warns, or raises InputError. Rows of
        skipped steps say nothing."""
        if self.rule == "off" or n <= self.warmup or values.get("skipped"):
            return
        low = [f"{name} {values[name]:.3g} (below {limit:g})" for name, limit in self.limits.items()
               if values.get(name, limit) < limit]
        self.rows = self.rows + 1 if low else 0
        if self.rows != ROWS:
            return
        what = (f"step {n}: the model has collapsed, for {ROWS} rows of the log: {', '.join(low)}; go back to an "
                "earlier checkpoint or start again, with a lower config.optim.lr or a longer config.train.warmup_steps")
        if self.rule == "stop":
            raise InputError(f"{what}; config.train.collapse=warn trains on")
        logging.warning("%s", what)


def report(workdir: str, rows: Mapping[int, Mapping[str, float]], keys: Callable[[int], list[str]]) -> pathlib.Path:
    """Writes WORKDIR/report-STEP.json about the skipped steps in `rows` ({step: its metrics}), STEP the last of them:
    a list of {"step", "metrics", "keys"}, numbers that are none as the strings "nan", "inf" and "-inf".

    keys(step): the samples of that step's batch, see `pipeline.Batches.keys`. Returns the path; one process calls it.
    """
    told = [{"step": n, "metrics": {name: x if math.isfinite(x) else str(x) for name, x in values.items()},
             "keys": keys(n)} for n, values in sorted(rows.items())]
    path = pathlib.Path(workdir) / f"report-{max(rows)}.json"
    files.write(path, json.dumps(told, indent=1, allow_nan=False).encode())
    return path
