"""Model folders with tiny random models."""

from pathlib import Path

import torch

from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.write import seal, staged_folder
from fastbert.nn.model import FastBertModel
from tests.tiny import FAMILIES, tiny_classifier
from tests.tiny_data import FILLERS, LABELS, SIGNALS, tiny_tokenizer

MAX_LENGTH = 20
WORDS = [*SIGNALS.values(), *FILLERS]
SPEEDS = (0.0, 0.5, 0.66, 0.74, 0.86)  # where the random students are in two minds


def save_model(
    folder: Path, family: str, heads: str = "paper/first/8", problem_type: str | None = None
) -> Path:
    """Write a model folder with random weights, whose students disagree and doubt differently.

    Args:
        folder: Where.
        family: One of `FAMILIES`.
        heads: Those of the students.
        problem_type: What the teacher's configuration says of its task.
    """
    names = dict(enumerate(LABELS))
    teacher = tiny_classifier(
        family,
        id2label=names,
        label2id={label: index for index, label in names.items()},
        problem_type=problem_type,
        pad_token_id=0,  # the tokeniser's
        **(
            {"type_vocab_size": 2} if FAMILIES[family].get("type_vocab_size") == 1 else {}
        ),  # likewise
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        model = FastBertModel(teacher, heads)
        for name, weight in model.students.named_parameters():
            if name.endswith("classify.weight"):
                weight.mul_(12)  # otherwise no student is ever sure
    with staged_folder(folder) as staging:
        model.save(staging)
        tiny_tokenizer().save_pretrained(staging)
        seal(
            staging,
            EarlyExitConfig(
                "pretrained", model.task, model.num_exits, MAX_LENGTH, model.student_shapes
            ),
        )
    return folder
