"""Exactness on real text and a real encoder; the students are random, so exits vary widely."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns
from fastbert.data.read import load_examples
from fastbert.exits.criteria import Seen, log_softmax, uncertainty
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.write import seal, staged_folder
from fastbert.nn.model import FastBertModel
from fastbert.nn.teachers import teacher_to_train
from fastbert.tasks.single_label import SingleLabel

ROWS = 250  # each is also answered alone, by an encoder of 12 layers
LABELS = ("negative", "positive")


@dataclass(frozen=True)
class PerLayer:
    """A threshold for each exit, as random students need one to be told apart."""

    thresholds: list[float]

    def watches(self, exit_layer: int) -> bool:
        return True

    def leaves(self, seen: Seen) -> np.ndarray:
        return np.asarray(uncertainty(seen.latest) < self.thresholds[seen.exit_layer - 1])


def threshold_between(doubts: np.ndarray) -> float:
    """Return the middle of the widest gap that about a fifth of the rows lie below.

    Random students doubt all rows almost equally, so a threshold anywhere could fall on a row.
    """
    start, end = len(doubts) // 10, len(doubts) * 3 // 10
    below = start + int(np.diff(doubts[start:end]).argmax())
    return float(doubts[below : below + 2].mean())


@pytest.fixture(scope="module")
def classifier(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> FastBertClassifier:
    encoder = shared / "models" / "e5-small-12l-en-zh"
    folder = tmp_path_factory.mktemp("real") / "model"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FastBertModel(teacher_to_train(encoder, SingleLabel(LABELS)), "paper")
        with torch.no_grad():
            for name, weight in model.students.named_parameters():
                if name.endswith("classify.weight"):
                    weight.mul_(8)
    with staged_folder(folder) as staging:
        model.save(staging)
        AutoTokenizer.from_pretrained(encoder).save_pretrained(staging)
        seal(
            staging,
            EarlyExitConfig(
                "pretrained", SingleLabel(LABELS), model.num_exits, 64, model.student_shapes
            ),
        )
    return FastBertClassifier.from_pretrained(folder, device="cpu")


def test_real_rows_of_every_length_are_answered_in_batches_as_they_are_alone(
    classifier: FastBertClassifier, shared: Path
) -> None:
    rows = load_examples(shared / "data/sst2/test.parquet", Columns(), needs_label=False)
    by_length = sorted((row.text for row in rows), key=len)
    chosen = set(by_length[:: len(by_length) // ROWS])
    texts = [row.text for row in rows if row.text in chosen]  # mixed, as they are in the file
    assert len(texts) >= ROWS
    doubts = np.sort(uncertainty(classifier.record(texts, 64).recorded), axis=1)
    criterion = PerLayer([threshold_between(row) for row in doubts])

    alone = classifier.classify(texts, criterion, 1)
    together = classifier.classify(texts, criterion, 17)
    assert set(alone.exit_layer.tolist()) == set(range(1, classifier.num_layers + 1))
    assert np.array_equal(together.exit_layer, alone.exit_layer)
    assert np.array_equal(together.logits.argmax(-1), alone.logits.argmax(-1))
    difference = np.exp(log_softmax(together.logits)) - np.exp(log_softmax(alone.logits))
    assert np.abs(difference).max() < 1e-5
