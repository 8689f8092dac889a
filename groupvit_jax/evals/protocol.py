"""The two published protocols, and what one may change about them: every change is named in the scores."""

from dataclasses import dataclass
from typing import Any

from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes
from groupvit_jax.evals.datasets import Task
from groupvit_jax.evals.prompts import synonyms

PAMR_THRESHOLD = 0.4  # of the background under TCL's protocol, when maps are refined


@dataclass(frozen=True)
class Protocol:
    """How names become scores.

    Attributes:
        name: "groupvit" or "tcl": templates, class names, threshold of the background.
        templates: in place of the protocol's: "photo", "subset" (CLIP's 7), "full" (its 80), or a file of prompts.
        class_file: in place of the data set's names: a file with one label a line, synonyms divided by semicolons.
        background: words, divided by semicolons, that stand for the background in place of the threshold.
        top: how many classes a window may have, 0 for all.
        pamr: whether maps are refined.
        oracle: whether each group is also named by the majority of its pixels.
    """

    name: str = "groupvit"
    templates: str = ""
    class_file: str = ""
    background: str = ""
    top: int = 5
    pamr: bool = False
    oracle: bool = False

    def __post_init__(self) -> None:
        if self.name not in classes.PROTOCOLS:
            raise InputError(f"no protocol {self.name!r}: choose one of {', '.join(classes.PROTOCOLS)}")
        if self.top < 0:
            raise InputError(f"top={self.top}: give how many classes a window may have, or 0 for all")

    def changes(self, task: Task) -> list[str]:
        """What differs from the published protocol for a data set, in words."""
        said: list[Any] = [self.templates and f"templates {self.templates}",
                           self.class_file and f"classes {self.class_file}",
                           task.background and self.background and f"background {self.background!r}"]
        said += [self.top != 5 and f"top {self.top}", self.pamr and "pamr"] if task.segments else []
        return [text for text in said if text]

    def prompts(self, task: Task) -> list[str]:
        """The templates for a data set."""
        if self.templates:
            return classes.template_set(self.templates)
        # Whole pictures are always scored with CLIP's short list.
        return classes.templates(self.name) if task.segments else classes.template_set("subset")

    def class_list(self, task: Task) -> tuple[list[str], list[list[str]], float | None]:
        """The labels' names, the words for each, and the threshold of label 0 if it is a background without words.

        InputError for a class file whose names repeat, and for a background's words where label 0 is something else.
        """
        if self.class_file:
            words = [synonyms(line) for line in classes.read_lines(self.class_file)]
        else:  # as they are written: one of ADE20K's ends in a blank
            words = [[name] for name in classes.names(task.key, self.name)]
        names, threshold = [synonyms[0] for synonyms in words], task.background.get(self.name)
        if self.class_file and len(set(names)) < len(names):
            raise InputError(f"{self.class_file} names two labels alike: begin each line with a name of its own")
        if threshold is None:
            return names, words, None
        if names[0] != "background":
            if self.background:
                raise InputError(f"{self.class_file} has {names[0]!r} first: begin it with 'background' to give words "
                                 "for that")
            return names, words, None
        own = synonyms(self.background) if self.background else words[0][1:]
        if not own and len(words) == 1:
            raise InputError(f"{self.class_file} names nothing but a background: give a line for each label")
        if own:
            return names, [own, *words[1:]], None
        return names, [[], *words[1:]], PAMR_THRESHOLD if self.pamr and self.name == "tcl" else threshold
