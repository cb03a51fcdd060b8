"""From a large classifier to an adaptive model on another encoder, by the teacher's answers."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertTokenizer

from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Example
from fastbert.errors import BackboneError, DataError, TrainingError
from fastbert.folder.followed import Followed
from fastbert.head_shapes import MeanHead
from fastbert.nn.foreign_teacher import ForeignTeacher
from fastbert.recipes.distill import distill
from fastbert.recipes.run import StudentSettings
from fastbert.shape import ModelShape
from fastbert.training.answers import TeacherAnswers
from fastbert.training.scheme import SchemeSettings
from tests.recipes.runs import FINE_TUNING, Kill, history_of, kill_at, never, weights
from tests.tiny import tiny_classifier, tiny_encoder
from tests.tiny_data import (
    FILLERS,
    LABELS,
    SIGNALS,
    SPECIAL,
    examples,
    save_encoder,
    tiny_tokenizer,
    write_csv,
)

HEADS = StudentSettings("mean")
QUICK = SchemeSettings(
    imitation=replace(FINE_TUNING, epochs=6),
    warm_up=replace(FINE_TUNING, epochs=1, learning_rate=1e-2),
    exits=replace(FINE_TUNING, epochs=2, learning_rate=2e-3),
)
ROWS = 240  # 24 of them held out


def save_teacher(folder: Path) -> Path:
    """Write a wide classifier that has learned the words of `SIGNALS`, but each as another class.

    So nothing that agrees with it can have read a label.
    """
    names = dict(enumerate(LABELS))
    labels = {label: index for index, label in names.items()}
    model: Any = tiny_classifier("bert", hidden_size=48, id2label=names, label2id=labels)
    tokenizer, rows = tiny_tokenizer(), examples(96, seed=7)
    batch = tokenizer([row.text for row in rows], padding=True, return_tensors="pt")
    wrong = torch.tensor([(labels[str(row.label)] + 1) % len(LABELS) for row in rows])
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch, labels=wrong).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_smaller_encoder(folder: Path) -> Path:
    """Write a DistilBERT with a tokenizer of its own, which numbers and cuts words otherwise."""
    words = [*reversed(FILLERS[5:]), *SIGNALS.values()]
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *words])}
    tiny_encoder("distilbert", vocab_size=len(vocabulary), dim=32).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return folder


def logits_of(checkpoint: Path, texts: Iterable[str], max_length: int = 16) -> np.ndarray:
    """Return what transformers itself answers to each text on its own."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    tokenizer = tiny_tokenizer()
    answers = []
    for text in texts:
        batch = tokenizer(text, return_tensors="pt", truncation=True, max_length=max_length)
        with torch.no_grad():
            answers.append(model(**batch).logits[0].numpy())
    return np.stack(answers)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("into")
    return {
        "checkpoint": save_teacher(folder / "wide-teacher"),
        "texts": write_csv(folder / "texts.csv", examples(ROWS)),
        "into": save_smaller_encoder(folder / "small-encoder"),
        "output": folder / "output",
    }


def start(files: dict[str, Path], **options: Any) -> FastBertClassifier:
    settings: dict[str, Any] = {"max_length": 16, "students": HEADS, "numbers": QUICK}
    return distill(**{**files, **settings, **options})


@pytest.fixture(scope="module")
def grown(files: dict[str, Path]) -> FastBertClassifier:
    return start(files)


def held_out() -> list[Example]:
    return examples(ROWS)[9::10]


def test_a_model_of_another_family_and_vocabulary_loads_and_answers(
    grown: FastBertClassifier, files: dict[str, Path]
) -> None:
    assert grown.labels == LABELS
    assert grown.folder.model_config["model_type"] == "distilbert"
    assert grown.folder.model_config["dim"] == 32
    assert grown.config.students == (MeanHead(),) * 2
    again = FastBertClassifier.from_pretrained(files["output"])
    text = examples(1, seed=3)[0].text
    assert again.predict(text) == grown.predict(text)
    assert not files["output"].with_name("output.training").exists()


def test_what_counts_as_right_is_what_transformers_says_the_teacher_answers(
    grown: FastBertClassifier, files: dict[str, Path]
) -> None:
    theirs = logits_of(files["checkpoint"], [row.text for row in held_out()]).argmax(-1)
    calibration = grown.calibration
    assert calibration.truth is not None
    assert calibration.truth.tolist() == theirs.tolist()
    assert calibration.truth_from == "wide-teacher"
    assert len(set(theirs)) == 3
    by_label = [LABELS.index(str(row.label)) for row in held_out()]
    assert not (theirs == by_label).any()  # whoever follows the labels follows no teacher


def test_the_logits_come_near_those_of_the_teacher(
    grown: FastBertClassifier, files: dict[str, Path]
) -> None:
    texts = [row.text for row in examples(60, seed=11)]
    theirs = torch.tensor(logits_of(files["checkpoint"], texts)).softmax(-1).numpy()
    ours = grown.predict_proba(texts, speed=0.0)
    assert (ours.argmax(-1) == theirs.argmax(-1)).mean() > 0.9
    assert np.abs(ours - theirs).mean() < 0.1


def test_the_default_is_chosen_and_told_by_agreement_with_the_teacher(
    files: dict[str, Path], tmp_path: Path
) -> None:
    # So little is learned that the last exit itself is no measure of what is right.
    little = replace(QUICK.exits, epochs=1, learning_rate=1e-6)
    lazy = SchemeSettings(imitation=replace(QUICK.imitation, epochs=1), warm_up=None, exits=little)
    classifier = start(files, numbers=lazy, output=tmp_path / "output")
    theirs = logits_of(files["checkpoint"], [row.text for row in held_out()]).argmax(-1)
    texts = [row.text for row in held_out()]
    full = classifier.predict_proba(texts, speed=0.0).argmax(-1) == theirs
    default = classifier.predict_proba(texts).argmax(-1) == theirs
    followed = Followed.of(classifier.config.training)
    assert followed is not None
    assert 0.3 < followed.kept_by_every_layer < 0.9
    assert followed.kept_by_every_layer == pytest.approx(full.mean())
    assert followed.kept == pytest.approx(default.mean())
    assert full.mean() - default.mean() <= 0.005
    by_speed = {row["speed"]: row["accuracy"] for row in classifier.config.evaluation}
    assert by_speed[0.0] == pytest.approx(full.mean())
    goal = classifier.speed_for(max_drop=0.0)
    assert goal.metrics["accuracy"] >= full.mean() - 1e-9


def test_the_folder_tells_whose_answers_it_keeps_and_what_both_cost(
    grown: FastBertClassifier, files: dict[str, Path]
) -> None:
    followed = Followed.of(grown.config.training)
    assert followed is not None
    assert (followed.teacher, followed.rows) == ("wide-teacher", 24)
    lengths = np.array([len(row.text.split()) + 2 for row in held_out()])  # [CLS] and [SEP]
    wide: Any = {"hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 4}
    teacher = ModelShape.from_config(wide | {"model_type": "bert"}, 3).full_flops(lengths).mean()
    assert followed.teacher_flops is not None
    assert followed.teacher_flops == pytest.approx(float(teacher))
    default = grown.speed_for(max_drop=0.005)
    assert followed.flops == pytest.approx(default.flops)

    card = (files["output"] / "README.md").read_text("utf-8")
    assert f"keeps {followed.kept:.2%} of the answers of wide-teacher at " in card
    assert f"{followed.teacher_flops / followed.flops:.2f}x fewer FLOPs" in card
    assert "| setting | agreement | macro F1 |" in card
    assert "taken as they were" not in card
    for name in ("README.md", "early_exit.json"):
        assert str(files["checkpoint"].parent) not in (files["output"] / name).read_text("utf-8")
    assert grown.config.training["teacher"] == "wide-teacher/"
    assert grown.config.training["model"] == "small-encoder/"


def test_no_label_is_read(
    grown: FastBertClassifier, files: dict[str, Path], tmp_path: Path
) -> None:
    bare = write_csv(tmp_path / "texts.csv", examples(ROWS), labelled=False)
    start(files, texts=bare, output=tmp_path / "output")
    assert weights(tmp_path / "output") == weights(files["output"])
    assert history_of(tmp_path / "output") == history_of(files["output"])


def test_a_run_killed_in_the_teachers_pass_or_any_stage_ends_bit_equal(
    grown: FastBertClassifier,
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "output"
    asked = iter(range(9))

    def dying(self: ForeignTeacher, *arguments: Any) -> np.ndarray:
        if next(asked, None) is None:
            raise Kill
        return ask(self, *arguments)

    ask = ForeignTeacher.ask
    with monkeypatch.context() as patch:
        patch.setattr(ForeignTeacher, "ask", dying)
        with pytest.raises(Kill):
            start(files, output=output)
    with monkeypatch.context() as patch:
        kill_at(patch, "on_step_end", 1)  # the answers are there, a checkpoint is not
        with pytest.raises(Kill):
            start(files, output=output, resume=True)
    with pytest.raises(TrainingError, match="go on with --resume"):
        start(files, output=output)
    # From here on the teacher is not needed, nor loaded.
    monkeypatch.setattr(ForeignTeacher, "load", never)
    monkeypatch.setattr(TeacherAnswers, "write", never)
    # The stages have 162, 27 and 54 steps; a checkpoint is due every 3 and after each epoch.
    for call, number in (("on_step_end", 50), ("on_step_end", 112 + 13), ("on_save", 12)):
        with monkeypatch.context() as patch:
            kill_at(patch, call, number)
            with pytest.raises(Kill):
                start(files, output=output, resume=True)
    start(files, output=output, resume=True)
    assert weights(output) == weights(files["output"])
    assert history_of(output) == history_of(files["output"])


def test_a_stopped_run_goes_on_only_with_the_same_teacher(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, teacher = tmp_path / "output", tmp_path / "wide-teacher"
    teacher.mkdir()
    for file in files["checkpoint"].iterdir():
        (teacher / file.name).write_bytes(file.read_bytes())
    with monkeypatch.context() as patch:
        kill_at(patch, "on_step_end", 1)
        with pytest.raises(Kill):
            start(files, output=output, checkpoint=teacher)
    with pytest.raises(TrainingError, match="had teacher_max_length 16, not 12; resume with"):
        start(files, output=output, checkpoint=teacher, teacher_max_length=12, resume=True)
    model: Any = AutoModelForSequenceClassification.from_pretrained(teacher)
    with torch.no_grad():
        model.classifier.bias.add_(1)
    model.save_pretrained(teacher)
    with pytest.raises(TrainingError, match=r"wide-teacher is not what .* model\.safetensors has"):
        start(files, output=output, checkpoint=teacher, resume=True)


def test_what_cannot_teach_or_be_taught_is_refused_in_a_line(
    files: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    few = write_csv(tmp_path / "few.csv", examples(9))
    with pytest.raises(DataError, match="at least 10 texts are needed"):
        start(files, texts=few, output=output)
    with pytest.raises(BackboneError, match="not a fine-tuned classifier, it lacks classifier"):
        start(files, checkpoint=save_encoder(tmp_path / "plain"), output=output)
    with pytest.raises(BackboneError, match="reads at most 34 tokens, teacher_max_length is 35"):
        start(files, teacher_max_length=35, output=output)
    bare = tmp_path / "bare"
    tiny_encoder("distilbert").save_pretrained(bare)
    with pytest.raises(BackboneError, match="bare: has no tokenizer"):
        start(files, into=bare, output=output)
    broken: Any = AutoModelForSequenceClassification.from_pretrained(files["checkpoint"])
    with torch.no_grad():
        broken.classifier.bias.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    tiny_tokenizer().save_pretrained(tmp_path / "broken")
    with pytest.raises(TrainingError, match=r"broken: answers '.*' by NaN or infinity"):
        start(files, checkpoint=tmp_path / "broken", output=output)
    assert not output.exists()
    assert not output.with_name("output.training").exists()


def test_arguments_of_the_other_way_are_refused(files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="teacher_max_length goes with into"):
        distill(**{**files, "into": None}, teacher_max_length=9)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="numbers goes with into"):
        distill(**{**files, "into": None}, numbers=QUICK)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="with into, students say what they look like"):
        start(files, students=replace(HEADS, cache_hidden_states=True))


def test_a_folder_of_ours_teaches_too(
    grown: FastBertClassifier, files: dict[str, Path], tmp_path: Path
) -> None:
    once = replace(QUICK.imitation, epochs=1)
    numbers = SchemeSettings(imitation=once, warm_up=None, exits=once)
    classifier = start(
        files, checkpoint=files["output"], output=tmp_path / "output", numbers=numbers
    )
    texts = [row.text for row in held_out()]
    full = grown.predict_proba(texts, speed=0.0).argmax(-1)
    assert classifier.calibration.truth is not None
    assert classifier.calibration.truth.tolist() == full.tolist()
    followed = Followed.of(classifier.config.training)
    assert followed is not None
    assert followed.teacher == "output"
