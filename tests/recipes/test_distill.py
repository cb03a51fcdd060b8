"""From a fine-tuned checkpoint and texts to a model folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline

from fastbert.errors import BackboneError, DataError, TrainingError
from fastbert.recipes.distill import distill
from fastbert.training.hidden_cache import HiddenCache
from tests.recipes.runs import STUDENTS, Kill, kill_at, never
from tests.tiny_data import examples, save_classifier, save_encoder, write_csv


def test_distilling_leaves_a_fine_tuned_checkpoint_as_it_is(tmp_path: Path) -> None:
    checkpoint = save_classifier(tmp_path / "checkpoint")
    texts = write_csv(tmp_path / "texts.csv", examples(60), labelled=False)
    classifier = distill(
        checkpoint, texts, output=tmp_path / "output", max_length=16, students=STUDENTS
    )

    lines = [example.text for example in examples(20, seed=5)]
    theirs: Any = pipeline("text-classification", model=str(checkpoint))(lines, top_k=None)
    for ours, scores in zip(classifier.predict(lines, speed=0.0), theirs, strict=True):
        for entry in scores:
            assert ours.probabilities[entry["label"]] == pytest.approx(entry["score"], abs=1e-6)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "output")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_distilling_holds_out_one_text_in_ten(tmp_path: Path) -> None:
    checkpoint = save_classifier(tmp_path / "checkpoint")
    texts = write_csv(tmp_path / "texts.csv", examples(60), labelled=False)
    config = distill(
        checkpoint, texts, output=tmp_path / "output", max_length=16, students=STUDENTS
    ).config
    assert {row["rows"] for row in config.evaluation} == {6}
    assert config.evaluation[0]["accuracy"] == 1.0  # agreement with the teacher at speed 0

    few = write_csv(tmp_path / "few.csv", examples(9), labelled=False)
    with pytest.raises(DataError, match="at least 10 texts"):
        distill(checkpoint, few, output=tmp_path / "other", max_length=16, students=STUDENTS)


def test_a_checkpoint_without_a_trained_head_is_not_distilled(tmp_path: Path) -> None:
    # BitVoyage issue 12: students were taught by a randomly initialised head.
    checkpoint = save_encoder(tmp_path / "encoder")
    texts = write_csv(tmp_path / "texts.csv", examples(20), labelled=False)
    with pytest.raises(BackboneError, match="not a fine-tuned classifier"):
        distill(checkpoint, texts, output=tmp_path / "output", max_length=16)


def test_a_hidden_cache_outlives_a_kill_and_other_texts_do_not_meet_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_classifier(tmp_path / "checkpoint")
    texts = write_csv(tmp_path / "texts.csv", examples(60), labelled=False)
    cached = replace(STUDENTS, cache_hidden_states=True)

    def start(**options: Any) -> None:
        distill(
            checkpoint, texts, output=tmp_path / "output", max_length=16, students=cached, **options
        )

    with monkeypatch.context() as patch:
        kill_at(patch, "on_step_end", 1)  # the cache is there, a checkpoint is not
        with pytest.raises(Kill):
            start()
    monkeypatch.setattr(HiddenCache, "build", never)
    content = texts.read_text()
    texts.write_text(content.replace("lovely", "plain"))
    with pytest.raises(TrainingError, match=r"output\.training: \S*texts\.csv has changed since"):
        start(resume=True)
    texts.write_text(content)
    with pytest.raises(TrainingError, match="go on with --resume"):
        start()
    start(resume=True)
