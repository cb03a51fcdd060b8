"""What early_exit.json tells of another model that taught this one, under `training`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

KEY = "followed"


@dataclass(frozen=True)
class Followed:
    """How far a model follows the one that taught it, at its default, and what either costs.

    Args:
        teacher: The name of the other model.
        rows: The held-out texts that this was measured on.
        kept: Share of them that are answered as the teacher does.
        kept_by_every_layer: The same with every layer.
        flops: Mean FLOPs of a text.
        teacher_flops: The teacher's; None where its family is not known.
    """

    teacher: str
    rows: int
    kept: float
    kept_by_every_layer: float
    flops: float
    teacher_flops: float | None

    @classmethod
    def of(cls, training: Mapping[str, Any]) -> "Followed | None":
        """Return what is told; None where a model was taught by labels, or by itself."""
        told = training.get(KEY)
        return None if told is None else cls(**{item.name: told[item.name] for item in fields(cls)})

    def told(self) -> dict[str, Any]:
        """Return it as `training` holds it."""
        return {KEY: asdict(self)}

    @property
    def quality(self) -> str:
        """What the share of texts that are answered right has to be called."""
        return f"agreement with {self.teacher}"

    def in_words(self) -> str:
        """Return a sentence about it, without a full stop."""
        said = f"keeps {self.kept:.2%} of the answers of {self.teacher}"
        if self.teacher_flops is not None:
            said += f" at {self.teacher_flops / self.flops:.2f}x fewer FLOPs than it takes"
        return f"{said}, on {self.rows:,} texts that were held out"
