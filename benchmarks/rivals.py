"""Published ways to train early exits, on our body and terms: each a scheme beside our own.

All of them begin with the comparison's stage 1 and have its rows, batches and epochs, so that they
differ in what the exits learn and in how a row leaves, and in nothing else.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fastbert.recipes.contenders import Contender, contender_named
from fastbert.training.losses import AllExits, Target
from fastbert.training.scheme import SchemeSettings, into, paper, scheme_named
from fastbert.training.stage import Lesson, Part, Stage, StageSettings
from fastbert.training.weights import Alternating, ExitAware, RowWeights, Uniform

CHEAP = "queries"
LABELS_ALONE = Target(share=0.0, last_share=0.0)


@dataclass(frozen=True)
class Proportional:
    """All exits count, the last too, each in proportion to its depth.

    Source: Zhou et al., PABEE (NeurIPS 2020).
    """

    def __call__(self, lesson: Lesson) -> Float[Tensor, "exits rows"]:
        """Return m / Σ j for exit m."""
        exits, rows, _ = lesson.exits.shape
        depth = torch.arange(1.0, exits + 1, device=lesson.exits.device)
        return (depth / depth.sum()).unsqueeze(1).repeat(1, rows)


def contenders(settings: SchemeSettings, small: str | None) -> list[Contender]:
    """Return all contenders, those first without which a table says nothing.

    Args:
        settings: The numbers of our own schemes; rivals take the epochs and rates of them.
        small: A smaller pretrained encoder, for the sets whose language it knows.
    """
    found = [
        Contender("separate", "separate", CHEAP),
        Contender("paper", as_published(settings), "paper"),
        Contender("distill", paper(settings), CHEAP),
        contender_named("plain", settings),
        Contender("joint", "joint", CHEAP),
        _from_labels("SWEET", "Rotem et al. (ACL 2023)", settings, Uniform(), detached=True),
        _from_labels("PABEE", "Zhou et al. (NeurIPS 2020)", settings, Proportional()),
        _from_labels("COSEE-like", "AAAI 2025", settings, ExitAware(floor=0.0)),
        _from_labels("BERxiT", "Xin et al. (EACL 2021)", settings, Alternating(Uniform())),
        _frozen_from_labels("DeeBERT", "Xin et al. (ACL 2020)", settings),
        Contender("exit-aware", "exit-aware", CHEAP),
        Contender("alternating", "alternating", CHEAP),
        *(contender_named(f"cut-{layers}", settings) for layers in (6, 4, 3)),
    ]
    if small is not None:
        found.append(replace(contender_named("plain", settings), name="MiniLM-6", model=small))
        found.append(Contender("into-MiniLM-6", into(settings), CHEAP, model=small))
    return found


def as_published(settings: SchemeSettings) -> Any:
    """Return the paper's recipe with the paper's numbers, after our stage 1."""
    return paper(
        replace(
            settings,
            distillation=StageSettings(epochs=5, learning_rate=2e-4),
            direction="student-teacher",
        )
    )


def _from_labels(
    name: str, source: str, settings: SchemeSettings, weights: RowWeights, **of_exits: Any
) -> Contender:
    """Return a rival in which all parts learn, from labels alone."""
    scheme = scheme_named("joint", replace(settings, target=LABELS_ALONE))
    stages = tuple(
        replace(stage, loss=AllExits(weights, LABELS_ALONE), **of_exits)
        if stage.name == "exits"
        else stage
        for stage in scheme.stages
    )
    named = replace(scheme, name=name, source=source, stages=stages, tolerance=None, fallback=None)
    return Contender(name, named, CHEAP)


def _frozen_from_labels(name: str, source: str, settings: SchemeSettings) -> Contender:
    """Return the rival in which students learn from labels on a frozen backbone."""
    scheme = paper(settings)
    students = Stage(
        "students",
        frozenset({Part.STUDENTS}),
        AllExits(Uniform(), LABELS_ALONE),
        settings.distillation,
        labels="some",
        taught=True,
    )
    stages = (scheme.stages[0], students)
    return Contender(name, replace(scheme, name=name, source=source, stages=stages), CHEAP)
