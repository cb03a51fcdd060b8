"""A tiny model folder whose teacher does not give every text the same answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.read import ModelFolder, open_folder
from fastbert.folder.write import seal, staged_folder
from fastbert.head_shapes import PaperHead, QueryHead
from fastbert.nn.backend import batch_tensors
from fastbert.nn.model import FastBertModel, PaperClassifier, Teacher
from fastbert.tasks.single_label import SingleLabel
from fastbert.tasks.task import Task
from fastbert.text import TextTokenizer
from tests.tiny import tiny_classifier, tiny_encoder
from tests.tiny_data import LABELS, examples, tiny_tokenizer

MAX_LENGTH = 20
SPEED = 0.6  # at which texts leave at several layers
TEXTS = [example.content for example in examples(40, seed=3)]


def varied_folder(
    path: Path,
    teacher_head: Literal["pretrained", "paper"] = "pretrained",
    kind: Callable[[tuple[str, ...]], Task] = SingleLabel,
) -> ModelFolder:
    """Write a model with random weights and no favourite class."""
    head = PaperHead("first", 8, 2)
    task = kind(LABELS)
    settings = {
        "num_hidden_layers": 3,  # each is exported on its own
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: number for number, label in enumerate(LABELS)},
        "pad_token_id": 0,  # the tokeniser's
        "problem_type": task.name,
    }
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        teacher: Teacher = tiny_classifier("bert", **settings)
        if teacher_head == "paper":
            teacher = PaperClassifier(tiny_encoder("bert", **settings), len(LABELS), head)
        model = FastBertModel(teacher, (head, QueryHead(3, 6)))
        for name, weight in model.students.named_parameters():
            if name.endswith("classify.weight"):
                weight.mul_(12)  # otherwise no student is ever sure
    with staged_folder(path) as staging:
        tiny_tokenizer().save_pretrained(staging)
        _balance(model, TextTokenizer.from_folder(staging, MAX_LENGTH))
        model.save(staging)
        seal(
            staging,
            EarlyExitConfig(
                head if teacher_head == "paper" else teacher_head,
                task,
                model.num_exits,
                MAX_LENGTH,
                model.student_shapes,
            ),
        )
    return open_folder(path)


@torch.no_grad()
def _balance(model: FastBertModel, tokenizer: TextTokenizer) -> None:
    teacher = model.eval().teacher
    logits = teacher(**batch_tensors(tokenizer.collate(tokenizer.encode(TEXTS)))).logits
    name = "head.classify.bias" if isinstance(teacher, PaperClassifier) else "classifier.bias"
    teacher.get_parameter(name).sub_(logits.mean(dim=0))
