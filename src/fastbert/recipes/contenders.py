"""Contenders of a comparison: each a scheme, the heads it gives the exits, and the body it trains.

A scheme that begins with the comparison's first stage goes on from the one teacher that all share.
Any other begins with the pretrained encoder; if its first stage is taught, that teacher teaches it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastbert.head_shapes import DEFAULT_HEADS, Heads, parts_of, spelled
from fastbert.training.losses import AllExits
from fastbert.training.scheme import SCHEMES, Scheme, SchemeSettings, paper, scheme_named, told
from fastbert.training.stage import Part, Stage, StageSettings
from fastbert.training.weights import LastOnly

TEACHER = "teacher"  # what the shared first stage is recorded as
PLAIN = "plain"
DEFAULTS = SchemeSettings()
_CUT = re.compile(r"cut-([1-9]\d*)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Contender:
    """One way to a model.

    Args:
        name: As tables, figures and files know it.
        scheme: How it is trained, or the name of a scheme.
        heads: The heads of its students: a spelling, or the shape of each.
        layers: Only so many of the first encoder layers are kept; None keeps all.
        model: Another pretrained encoder than the comparison's, with its own tokenizer.

    Raises:
        ValueError: The name is no file's name or that of the shared stage, the heads are no
            spelling, or no layer is left.
    """

    name: str
    scheme: Scheme | str
    heads: Heads = DEFAULT_HEADS
    layers: int | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would fail after hours."""
        if not _NAME.fullmatch(self.name) or self.name == TEACHER:
            raise ValueError(
                f"a contender's name must be letters, digits, '.', '_', '+' and '-', and not "
                f"{TEACHER}, got {self.name!r}"
            )
        if isinstance(self.heads, str):
            parts_of(self.heads)
        if self.layers is not None and self.layers < 1:
            raise ValueError(f"{self.name}: layers must be at least 1, got {self.layers}")

    def settled(self, settings: SchemeSettings, seed: int) -> "Contender":
        """Return it with a scheme that has its numbers and a seed.

        Raises:
            ValueError: There is no scheme of that name.
        """
        scheme = self.scheme
        if isinstance(scheme, str):
            scheme = plain(settings) if scheme == PLAIN else scheme_named(scheme, settings)
        return replace(self, scheme=with_seed(scheme, seed))

    @property
    def stages(self) -> Scheme:
        """The scheme of one that is settled."""
        assert isinstance(self.scheme, Scheme)
        return self.scheme

    @property
    def has_students(self) -> bool:
        """Whether its students learn, so that their answers count."""
        return any(stage.asks_students for stage in self.stages.stages)

    def begins_with(self, shared: Stage) -> bool:
        """Return whether it goes on from the teacher that all share."""
        is_whole = self.layers is None and self.model is None
        return is_whole and told(self.stages.stages[0]) == told(shared)

    def told(self) -> dict[str, Any]:
        """Return it as JSON tells it."""
        heads = self.heads if isinstance(self.heads, str) else spelled(self.heads)
        return {
            "name": self.name,
            "heads": heads,
            "layers": self.layers,
            "model": self.model,
            **self.stages.told(),
        }


def contender_named(
    name: str, settings: SchemeSettings = DEFAULTS, heads: Heads = DEFAULT_HEADS
) -> Contender:
    """Return the contender of a name: a scheme's, `plain`, or `cut-K` with a number of layers.

    Raises:
        ValueError: There is none.
    """
    if cut := _CUT.fullmatch(name):
        return Contender(name, shortened(settings), layers=int(cut[1]))
    if name == PLAIN:
        return Contender(name, plain(settings))
    if name not in SCHEMES:
        known = ", ".join([*SCHEMES, PLAIN])
        raise ValueError(f"scheme must be one of {known} or cut-K for K layers, got {name!r}")
    return Contender(name, scheme_named(name, settings), heads)


def contenders_named(
    names: Sequence[str], settings: SchemeSettings, heads: Sequence[str]
) -> list[Contender]:
    """Return the contenders of names, each scheme with each of the heads.

    Raises:
        ValueError: There is none of a name, or heads are no spelling.
    """
    found = []
    for name in names:
        for spelling in heads:
            one = contender_named(name, settings, spelling)
            if not one.has_students:
                found.append(one)
                break
            alone = len(heads) == 1
            found.append(one if alone else replace(one, name=f"{name}+{_as_name(spelling)}"))
    return found


def shared_stage(settings: SchemeSettings, seed: int) -> Stage:
    """Return the first stage of the schemes, which a comparison trains once for each seed."""
    return with_seed(paper(settings), seed).stages[0]


def plain(settings: SchemeSettings = DEFAULTS) -> Scheme:
    """Return the fine-tuning of a full model with a whole budget, without students.

    The budget are the epochs in which the encoder learns where all parts learn together.
    """
    stage = replace(paper(settings).stages[0], name=PLAIN, settings=_whole_budget(settings))
    return Scheme(PLAIN, "Devlin et al., BERT (NAACL 2019)", (stage,))


def shortened(settings: SchemeSettings = DEFAULTS) -> Scheme:
    """Return the scheme of a shorter body: labels and the shared teacher, the whole budget.

    Source: Sajjad et al., On the Effect of Dropping Layers of Pre-trained Transformer Models
    (2023), keep the first layers; the teacher is that of Hinton et al. (2015).
    """
    stage = Stage(
        "shortened",
        frozenset({Part.BACKBONE, Part.TEACHER}),
        AllExits(LastOnly(), settings.target),
        _whole_budget(settings),
        labels="some",
        best_by="metric",
        taught=True,
    )
    return Scheme("shortened", "Sajjad et al., Dropping Layers (2023)", (stage,))


def with_seed(scheme: Scheme, seed: int) -> Scheme:
    """Return a scheme with the same seed in all its stages."""
    return scheme.map_settings(lambda stage: replace(stage.settings, seed=seed))


def _as_name(heads: str) -> str:
    """Return a spelling of heads as part of a file's name: `paper:3,queries/8` has none of it."""
    return heads.replace(" ", "").replace(",", "_").replace(":", ".").replace("/", "-")


def _whole_budget(settings: SchemeSettings) -> StageSettings:
    first = settings.fine_tuning
    return replace(first, epochs=first.epochs + settings.exits.epochs)
