"""The parts of a model that a stage trains, as the one module that the Trainer knows.

Its checkpoints hold what is trained and no more.
"""

from itertools import chain

from jaxtyping import Float
from torch import Tensor, nn

from fastbert.nn.model import FastBertModel, PaperClassifier, all_exits
from fastbert.training.hidden_cache import HiddenCache
from fastbert.training.stage import Part, Stage


class Trainee(nn.Module):
    """A model of which some parts learn and the others are frozen, without dropout."""

    def __init__(self, model: FastBertModel, stage: Stage) -> None:
        """Freeze what the stage does not train."""
        super().__init__()
        self._model = (model,)  # in a tuple, so that not all of it is the Trainer's
        self.asks_students = stage.asks_students
        self.detached = stage.detached
        self.cache: HiddenCache | None = None
        model.eval()
        for name, weight in model.named_parameters():
            weight.requires_grad_(part_of(model, name) in stage.trains)
        self.parts = nn.ModuleDict(
            {
                name: module
                for name, module in (("teacher", model.teacher), ("students", model.students))
                if any(weight.requires_grad for weight in module.parameters())
            }
        )
        self._frozen = [module for module in self.parts.modules() if _is_frozen(module)]

    @property
    def model(self) -> FastBertModel:
        """The whole of it."""
        return self._model[0]

    def train(self, mode: bool = True) -> "Trainee":
        """Switch dropout on for the parts that learn."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(
        self, row: Tensor, attention_mask: Tensor, **tokens: Tensor
    ) -> Float[Tensor, "exits rows outputs"]:
        """Return the logits of all exits, or of the teacher alone where no student learns."""
        model = self.model
        if not self.asks_students:
            # The family's own forward, with whatever it does in training.
            answered = model.teacher(attention_mask=attention_mask, **tokens)
            logits: Tensor = answered.logits
            return logits[None]
        if self.cache is not None:
            readings, teacher = self.cache.teach(row, attention_mask)
            return all_exits(model.ask_students(readings, attention_mask), teacher)
        if not self.detached:
            return model(attention_mask=attention_mask, **tokens)
        start = model.backbone.start(attention_mask=attention_mask, **tokens)
        alone, teacher = model.teach_from(start, detached=True)
        return all_exits(model.ask_students(alone, attention_mask), teacher)


def part_of(model: FastBertModel, name: str) -> Part:
    """Return which part of a model a weight belongs to: an encoder's pooler is the teacher's."""
    if name.startswith("students."):
        return Part.STUDENTS
    teacher = model.teacher
    encoder = "encoder" if isinstance(teacher, PaperClassifier) else teacher.base_model_prefix
    in_encoder = name.startswith(f"teacher.{encoder}.") and ".pooler." not in name
    return Part.BACKBONE if in_encoder else Part.TEACHER


def _is_frozen(module: nn.Module) -> bool:
    """Return whether a module has weights or buffers, and none of them learns."""
    weights = list(chain(module.parameters(), module.buffers()))
    return bool(weights) and not any(weight.requires_grad for weight in weights)
