"""Exactness on real text and a real encoder; the students are random, so exits vary widely."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from fastbert.classifier import FastBertClassifier
from fastbert.criteria import EntropyCriterion, log_softmax, uncertainty
from fastbert.data import Columns, load_examples
from fastbert.folder import EarlyExitConfig, StudentLayout, seal, staged_folder
from fastbert.nn.model import FastBertModel, teacher_to_train

ROWS = 1_000
LABELS = ("negative", "positive")


@pytest.fixture(scope="module")
def classifier(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> FastBertClassifier:
    encoder = shared / "models" / "e5-small-12l-en-zh"
    folder = tmp_path_factory.mktemp("real") / "model"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FastBertModel(teacher_to_train(encoder, LABELS), StudentLayout())
        with torch.no_grad():
            for name, weight in model.students.named_parameters():
                if name.endswith("classify.weight"):
                    weight.mul_(8)
    with staged_folder(folder) as stage:
        model.save(stage)
        AutoTokenizer.from_pretrained(encoder).save_pretrained(stage)
        seal(stage, EarlyExitConfig("pretrained", LABELS, model.num_exits, 64, model.layout))
    return FastBertClassifier.from_pretrained(folder, device="cpu")


@pytest.mark.timeout(600)
def test_a_thousand_real_rows_are_answered_in_batches_as_they_are_alone(
    classifier: FastBertClassifier, shared: Path
) -> None:
    rows = load_examples(shared / "data/sst2/test.parquet", Columns(), needs_label=False)
    texts = [row.text for row in rows[:ROWS]]
    recorded = classifier.record(texts, 64).recorded
    # The speed at which half of the rows leave before the last layer.
    criterion = EntropyCriterion(float(np.median(uncertainty(recorded[:-1]).min(axis=0))))

    alone = classifier.classify(texts, criterion, 1)
    together = classifier.classify(texts, criterion, 17)
    assert len(set(alone.exit_layer.tolist())) > 3
    assert np.array_equal(together.exit_layer, alone.exit_layer)
    assert np.array_equal(together.logits.argmax(-1), alone.logits.argmax(-1))
    difference = np.exp(log_softmax(together.logits)) - np.exp(log_softmax(alone.logits))
    assert np.abs(difference).max() < 1e-5
