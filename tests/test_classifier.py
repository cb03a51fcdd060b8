"""The classifier people use: exact in batches, in the caller's order, equal to the plain model."""

import copy
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSequenceClassification

from fastbert.calibration.goal import Goal, GoalOptions
from fastbert.classifier import FastBertClassifier
from fastbert.errors import BackboneError, CalibrationError, FolderError
from fastbert.exits.criteria import (
    EntropyCriterion,
    Measure,
    ThresholdCriterion,
    uncertainty,
)
from fastbert.exits.measures import (
    MEASURES,
    LearnedExit,
    Margin,
    Patience,
    TopEntropy,
)
from fastbert.exits.recorded import doubts_of
from fastbert.export.parity import threshold_distance
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.names import own_files
from fastbert.folder.write import seal
from fastbert.nn import backend as backend_module
from fastbert.nn.backend import TorchBackend, batch_tensors
from fastbert.nn.model import FastBertModel
from fastbert.tasks.single_label import Prediction, SingleLabel
from fastbert.text import TextTokenizer
from tests.folder.folders import killed_between_renames
from tests.tiny import FAMILIES
from tests.tiny_data import LABELS, examples
from tests.tiny_folder import MAX_LENGTH, SPEEDS, WORDS, save_model


@pytest.fixture(scope="module", params=["paper/first/8", "paper/mean/8:1,queries/3/8:1,mean"])
def classifier(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> FastBertClassifier:
    folder = tmp_path_factory.mktemp("model") / "model"
    return FastBertClassifier.from_pretrained(save_model(folder, "bert", request.param))


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def of_any_family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> FastBertClassifier:
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return FastBertClassifier.from_pretrained(save_model(folder, request.param))


words = st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)
texts_and_pairs = st.lists(words | st.tuples(words, words), min_size=1, max_size=64)


def assert_same(together: Prediction, alone: Prediction) -> None:
    assert (together.label, together.exit_layer) == (alone.label, alone.exit_layer)
    assert together.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    assert together.uncertainty == pytest.approx(alone.uncertainty, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(texts_and_pairs, st.integers(1, 64), st.sampled_from(SPEEDS))
def test_a_text_is_answered_as_if_it_were_alone(
    classifier: FastBertClassifier,
    texts: list[str | tuple[str, str]],
    batch_size: int,
    speed: float,
) -> None:
    together = classifier.predict(texts, speed, batch_size)
    for text, prediction in zip(texts, together, strict=True):
        alone = classifier.predict(text, speed)
        assert isinstance(alone, Prediction)
        assert_same(prediction, alone)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(23)))
def test_answers_come_in_the_callers_order(
    classifier: FastBertClassifier, order: list[int]
) -> None:
    texts = [example.text for example in examples(23, seed=6)]
    straight = classifier.predict(texts, 0.7, 5)
    shuffled = classifier.predict([texts[row] for row in order], 0.7, 5)
    for row, prediction in zip(order, shuffled, strict=True):
        assert_same(prediction, straight[row])


def test_every_family_answers_in_batches_as_it_does_alone(
    of_any_family: FastBertClassifier,
) -> None:
    texts: list[Any] = [example.text for example in examples(30, seed=8)]
    texts += list(zip(texts[:7], texts[7:14], strict=True))
    for speed in SPEEDS[1::2]:
        for text, prediction in zip(texts, of_any_family.predict(texts, speed, 16), strict=True):
            assert_same(prediction, of_any_family.predict(text, speed))


def test_texts_leave_at_different_layers(classifier: FastBertClassifier) -> None:
    # Otherwise the tests of exactness above would compare little.
    texts = [example.text for example in examples(60, seed=3)]
    layers = {row.exit_layer for speed in SPEEDS for row in classifier.predict(texts, speed)}
    assert len(layers) >= 3


def test_speed_zero_is_the_plain_model(of_any_family: FastBertClassifier) -> None:
    texts = [example.text for example in examples(20, seed=2)]
    plain = AutoModelForSequenceClassification.from_pretrained(of_any_family.folder.path).eval()
    batch = of_any_family.tokenizer.collate(of_any_family.encode(texts))
    with torch.no_grad():
        expected = plain(**batch_tensors(batch)).logits.softmax(-1).numpy()

    assert of_any_family.predict_proba(texts, speed=0.0) == pytest.approx(expected, abs=1e-6)
    assert {p.exit_layer for p in of_any_family.predict(texts, 0.0)} == {of_any_family.num_layers}


def test_one_text_gives_one_prediction_and_a_list_gives_a_list(
    classifier: FastBertClassifier,
) -> None:
    assert isinstance(classifier.predict("word1 lovely"), Prediction)
    assert isinstance(classifier.predict(("word1", "lovely")), Prediction)
    assert len(classifier.predict(["word1", "lovely"])) == 2
    assert len(classifier.predict(("word1", "lovely", "word2"))) == 3
    mixed: list[str | tuple[str, str]] = ["word1", ("word2", "word3")]
    assert len(classifier.predict(iter(mixed))) == 2
    assert classifier.predict([]) == []
    assert classifier.predict_proba([]).shape == (0, len(LABELS))


def test_a_prediction_agrees_with_itself(classifier: FastBertClassifier) -> None:
    texts = [example.text for example in examples(12)]
    proba = classifier.predict_proba(texts, 0.6)
    for prediction, row in zip(classifier.predict(texts, 0.6), proba, strict=True):
        assert tuple(prediction.probabilities) == LABELS
        assert list(prediction.probabilities.values()) == pytest.approx(row)
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert prediction.score == max(prediction.probabilities.values())
        assert prediction.uncertainty == pytest.approx(float(uncertainty(np.log(row))), abs=1e-4)


def test_an_empty_text_is_classified(classifier: FastBertClassifier) -> None:
    assert classifier.predict("").label in LABELS


@pytest.mark.parametrize("odd", [None, 7, ("one", "two", "three"), ["one", "two"], b"bytes"])
def test_what_is_no_text_is_refused_by_its_place(
    classifier: FastBertClassifier, odd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise the shape checks of the tests refuse it first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"texts\[1\]"):
        classifier.predict(["fine", odd])


@pytest.mark.parametrize(("speed", "batch_size"), [(-0.1, 8), (1.5, 8), (0.5, 0)])
def test_arguments_out_of_range_are_refused(
    classifier: FastBertClassifier, speed: float, batch_size: int
) -> None:
    with pytest.raises(ValueError, match="must be"):
        classifier.predict(["word1"], speed, batch_size)


def test_threads_do_not_disturb_each_other(classifier: FastBertClassifier) -> None:
    texts = [example.text for example in examples(40)]
    expected = {speed: classifier.predict(texts, speed, 4) for speed in (0.0, 0.5, 0.9)}

    def ask(speed: float) -> bool:
        return classifier.predict(texts, speed, 4) == expected[speed]

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, [0.0, 0.5, 0.9] * 8))


def test_recorded_exits_replay_what_predict_answers(classifier: FastBertClassifier) -> None:
    texts = [example.text for example in examples(40)]
    replayed = classifier.record(texts).replay(EntropyCriterion(0.7))
    live = classifier.classify(texts, EntropyCriterion(0.7))
    assert np.array_equal(replayed.exit_layer, live.exit_layer)
    assert replayed.logits == pytest.approx(live.logits, abs=1e-5)


def test_all_that_a_family_and_its_tokeniser_write_is_on_the_list(
    of_any_family: FastBertClassifier,
) -> None:
    folder = of_any_family.folder.path
    assert {str(name) for name in own_files(folder)} == {path.name for path in folder.iterdir()}


def test_a_saved_copy_answers_bit_equal(classifier: FastBertClassifier, tmp_path: Path) -> None:
    texts = [example.text for example in examples(10)]
    classifier.save_pretrained(tmp_path / "copy")
    copy = FastBertClassifier.from_pretrained(tmp_path / "copy")
    assert np.array_equal(copy.predict_proba(texts), classifier.predict_proba(texts))


def test_pushing_hands_over_the_folder_and_what_was_asked_for(
    classifier: FastBertClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def push(*arguments: Any) -> str:
        asked.extend(arguments)
        return "https://hub/me/reviews"

    monkeypatch.setattr("fastbert.classifier.push_folder", push)
    address = classifier.push_to_hub("reviews", private=True, token="secret")
    assert address == "https://hub/me/reviews"
    message = "Upload FastBERT classifier"
    assert asked == [classifier.folder, "reviews", True, "secret", message]


@pytest.mark.parametrize(("device", "runtime"), [(None, "auto"), ("cpu", "torch")])
def test_what_is_not_a_folder_is_fetched_for_the_runtime_that_shall_run_it(
    classifier: FastBertClassifier,
    monkeypatch: pytest.MonkeyPatch,
    device: str | None,
    runtime: str,
) -> None:
    asked: list[Any] = []

    def fetch(*arguments: Any) -> Path:
        asked.extend(arguments)
        return classifier.folder.path

    monkeypatch.setattr("fastbert.opening.fetch_folder", fetch)
    FastBertClassifier.from_pretrained("me/reviews", revision="v1", token="secret", device=device)
    assert asked == ["me/reviews", "v1", "secret", runtime]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_of_which_the_save_was_killed_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[Path], Any]
) -> None:
    save_model(tmp_path / "reviews", "bert")
    killed_between_renames(tmp_path / "reviews")
    monkeypatch.chdir(tmp_path)
    assert FastBertClassifier.from_pretrained(kind(Path("reviews"))).labels == LABELS


def test_a_file_and_the_home_of_nobody_are_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="file: is a file, not a model folder"):
        FastBertClassifier.from_pretrained(str(tmp_path / "file"))
    with pytest.raises(FolderError, match="~nobody-of-that-name"):
        FastBertClassifier.from_pretrained("~nobody-of-that-name/model")


def test_a_hub_name_that_cannot_be_had_is_one_clear_line() -> None:
    with pytest.raises(FolderError, match=r"^nobody/nothing: no such folder") as caught:
        FastBertClassifier.from_pretrained("nobody/nothing")
    assert "\n" not in str(caught.value)


class ScalarReads(TorchDispatchMode):
    """Counts how often Python reads a number out of a tensor, which waits for the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_number_is_read_row_by_row_or_exit_by_exit(classifier: FastBertClassifier) -> None:
    # FastBERT read GPU scalars row by row to find out who stays.
    texts = [example.text for example in examples(30)]

    def reads(rows: int, speed: float) -> int:
        with ScalarReads() as scalars:
            classifier.predict(texts[:rows], speed, 30)
        return int(scalars.count)

    with ScalarReads() as scalars:
        bool(torch.ones(2).any())
    assert scalars.count == 1  # so one would be seen
    assert reads(30, 0.66) == reads(2, 0.66) == reads(30, 0.0)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_refused(
    classifier: FastBertClassifier, kind: torch.dtype
) -> None:
    model = FastBertModel.load(classifier.folder).to(kind)
    with pytest.raises(
        BackboneError, match=rf"in float32, and teacher.* is {kind}: call model\.fl"
    ):
        TorchBackend(model)
    half = FastBertModel.load(classifier.folder)
    half.students.to(kind)
    with pytest.raises(BackboneError, match=rf"and students.* is {kind}"):
        TorchBackend(half)


# Batches ahead, threads and processes.


def test_workers_stay_and_are_only_a_few_batches_ahead(
    classifier: FastBertClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = FastBertClassifier(
        classifier.backend, classifier.tokenizer, classifier.folder, workers=3
    )
    collate = TextTokenizer.collate
    collated: list[Any] = []
    threads: set[int] = set()

    def counted(self: TextTokenizer, rows: Any) -> Any:
        collated.append(rows)
        return collate(self, rows)

    def answer(batch: Any) -> int:
        threads.add(threading.get_ident())
        return int(batch.input_ids.sum())

    monkeypatch.setattr(TextTokenizer, "collate", counted)
    tokens = classifier.encode([example.text for example in examples(40, seed=5)])
    for _ in range(3):
        taken = 0
        for rows, total in several._answering.answered(several.batches(tokens, 1), answer):
            taken += 1
            assert total == tokens[rows[0]].ids.sum()
            assert len(collated) % 40 <= taken + 2 * 3 or len(collated) % 40 == 0
        assert taken == 40
    assert len(threads) <= 3
    given_up = several._answering.answered(several.batches(tokens, 1), answer)
    next(iter(given_up))
    assert len(collated) <= 3 * 40 + 2 * 3


def test_what_a_runtime_has_no_use_for_is_refused(classifier: FastBertClassifier) -> None:
    path, load = classifier.folder.path, FastBertClassifier.from_pretrained
    runtime: Any
    for runtime in ("onnx", "openvino"):
        with pytest.raises(ValueError, match=f"runtime='{runtime}' runs on the processor: leave"):
            load(path, runtime=runtime, device="cpu")
    for runtime in ("onnx", "torch"):
        with pytest.raises(ValueError, match=f"and {runtime} compiles nothing to keep: leave"):
            load(path, runtime=runtime, cache_folder="compiled")
    with pytest.raises(ValueError, match="and torch compiles nothing to keep: leave"):
        load(path, device="cpu", cache_folder="compiled")
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        load(path, threads=0)


def test_another_number_of_threads_for_torch_is_said(
    classifier: FastBertClassifier, caplog: pytest.LogCaptureFixture
) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 1, 2):
            assert not caplog.records
            FastBertClassifier.from_pretrained(
                classifier.folder.path, runtime="torch", threads=threads
            )
        assert "was set to 1 for another classifier and is 2 from now on" in caplog.text
    finally:
        torch.set_num_threads(before)
        backend_module._threads_asked_for.clear()


def test_a_classifier_put_together_by_hand_cannot_be_copied(classifier: FastBertClassifier) -> None:
    by_hand = FastBertClassifier(classifier.backend, classifier.tokenizer, classifier.folder)
    with pytest.raises(TypeError, match="only a classifier that from_pretrained opened can be"):
        copy.deepcopy(by_hand)


def test_every_layer_and_student_is_an_object_of_its_own(classifier: FastBertClassifier) -> None:
    # bert-squeeze built `[layer] * n`: all layers were one.
    assert isinstance(classifier.backend, TorchBackend)
    model = classifier.backend.model
    assert len({id(layer) for layer in model.backbone.layers}) == classifier.num_layers
    assert len({id(head) for head in model.students}) == classifier.num_layers - 1


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", "bert")


def reseal(folder: Path) -> None:
    seal(folder, EarlyExitConfig.read(folder / "early_exit.json"))


@pytest.mark.parametrize("file", ["model.safetensors", "students.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "unexpected", "mismatched", "nan"])
def test_tensors_that_do_not_fit_are_named_even_under_a_fresh_seal(
    damaged: Path, file: str, damage: str
) -> None:
    tensors = load_file(damaged / file)
    name = next(key for key in sorted(tensors) if key.endswith("dense.weight"))
    if damage == "missing":
        del tensors[name]
    elif damage == "unexpected":
        name = "students.0.extra"
        tensors[name] = torch.zeros(2)
    elif damage == "mismatched":
        tensors[name] = torch.zeros(3, 5)
    else:
        tensors[name][0, 0] = float("nan")
    save_file(tensors, damaged / file, metadata={"format": "pt"})
    reseal(damaged)
    with pytest.raises(FolderError, match=name.replace(".", r"\.")) as caught:
        FastBertClassifier.from_pretrained(damaged)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["model.safetensors", "students.safetensors"])
@pytest.mark.parametrize("broken", [b"", b"\x80\x04.", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"{}x"])
def test_a_damaged_header_is_named_even_under_a_fresh_seal(
    damaged: Path, file: str, broken: bytes
) -> None:
    (damaged / file).write_bytes(broken)
    reseal(damaged)
    with pytest.raises(FolderError, match=rf"{file}: cannot be read as safetensors"):
        FastBertClassifier.from_pretrained(damaged, runtime="torch")


def test_a_family_that_transformers_does_not_know_is_named(damaged: Path) -> None:
    config = json.loads((damaged / "config.json").read_text("utf-8"))
    (damaged / "config.json").write_text(json.dumps(config | {"model_type": "gert"}), "utf-8")
    reseal(damaged)
    with pytest.raises(
        FolderError, match=r"config\.json: transformers has no classifier of 'gert'"
    ):
        FastBertClassifier.from_pretrained(damaged, runtime="torch")


def test_the_tokenizer_is_the_folders(classifier: FastBertClassifier) -> None:
    ours = TextTokenizer.from_folder(classifier.folder.path, MAX_LENGTH).encode(["word1 lovely"])
    assert classifier.encode(["word1 lovely"])[0].ids.tolist() == ours[0].ids.tolist()


# Calibration, and the speed for a goal.

CALIBRATION_ROWS = examples(90, seed=21)
CALIBRATION_TEXTS = [row.text for row in CALIBRATION_ROWS]
TRUTH = [str(row.label) for row in CALIBRATION_ROWS]


class SecondGuess(Measure):
    """A measure that fastbert does not know: the probability of the second best class."""

    def doubt(self, logits: np.ndarray, exit_layer: int) -> np.ndarray:
        weights = np.exp(logits[-1] - logits[-1].max(axis=-1, keepdims=True))
        return np.asarray(2 * np.sort(weights / weights.sum(axis=-1, keepdims=True))[:, -2])


@pytest.fixture(scope="module", params=["entropy", "stability", "learned"])
def calibrated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> FastBertClassifier:
    """Return a classifier calibrated on labelled texts: by a measure that looks at one exit, at
    all of them, and one that is fitted."""
    folder = save_model(tmp_path_factory.mktemp("calibrated") / "model", "bert")
    classifier = FastBertClassifier.from_pretrained(folder)
    found = classifier.calibrate(CALIBRATION_TEXTS, TRUTH, measure=request.param)
    classifier.save_calibration(found, "dev.csv")
    return FastBertClassifier.from_pretrained(folder)


def test_a_calibration_is_what_every_exit_answers_and_how_long_the_texts_are(
    classifier: FastBertClassifier,
) -> None:
    pairs = zip(CALIBRATION_TEXTS, CALIBRATION_TEXTS[::-1], strict=True)
    texts: list[Any] = [*CALIBRATION_TEXTS[:50], *pairs]
    labels = [*TRUTH[:50], *TRUTH]
    found = classifier.calibrate(iter(texts), iter(labels), batch_size=32)

    assert np.array_equal(found.recorded.recorded, classifier.record(texts).recorded)
    assert found.lengths.tolist() == [len(row.ids) for row in classifier.encode(texts)]
    assert max(found.lengths) == MAX_LENGTH  # some were cut
    assert found.truth is not None
    assert [LABELS[number] for number in found.truth] == labels
    assert found.shape == classifier.folder.shape
    assert (found.times, found.fitted) == (None, None)


def test_texts_without_labels_are_calibrated_too(classifier: FastBertClassifier) -> None:
    found = classifier.calibrate(CALIBRATION_TEXTS)
    assert found.truth is None
    assert found.points[-1].accuracy is None


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("margin", Margin()),
        ("top-entropy", TopEntropy()),
        (TopEntropy(2), TopEntropy(2)),
        (Patience(), Patience()),
    ],
)
def test_a_measure_is_named_or_made(
    classifier: FastBertClassifier, measure: Any, expected: Measure
) -> None:
    assert classifier.calibrate(CALIBRATION_TEXTS[:20], measure=measure).measure == expected


def test_the_learned_exit_is_fitted_on_rows_that_then_test_no_promise(
    classifier: FastBertClassifier,
) -> None:
    found = classifier.calibrate(CALIBRATION_TEXTS, TRUTH, measure="learned")
    assert isinstance(found.measure, LearnedExit)
    assert len(found.measure.weights) == classifier.num_layers - 1
    assert found.fitted is not None
    assert 25 <= found.fitted.sum() <= 65  # about half of 90
    again = classifier.calibrate(CALIBRATION_TEXTS, TRUTH, measure="learned")
    assert again.measure == found.measure
    assert again.fitted is not None
    assert again.fitted.tolist() == found.fitted.tolist()


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (
            CALIBRATION_TEXTS,
            {"measure": "mood"},
            f"one of {', '.join(SingleLabel.measures)} for {SingleLabel.name}, got 'mood'",
        ),
        (
            ["one", "two"],
            {"labels": ["positive", "good"]},
            r"labels\[1\]: 'good' is not one of neg",
        ),
        (["one", "two"], {"labels": ["positive"]}, "got 2 texts and 1 labels"),
        (["one", 2], {}, r"texts\[1\]: expected a text"),
    ],
)
def test_what_cannot_be_calibrated_with_is_named(
    classifier: FastBertClassifier,
    texts: Any,
    options: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        classifier.calibrate(texts, **options)


def test_a_mistyped_measure_is_refused_before_the_texts_run(
    classifier: FastBertClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_arguments: Any) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(FastBertClassifier, "record_tokens", run)
    with pytest.raises(ValueError, match="measure must be one of"):
        classifier.calibrate(CALIBRATION_TEXTS, measure="mood")


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (CALIBRATION_TEXTS[:19], None, "at least 20 rows, got 19"),
        ([], None, "at least 20 rows, got 0"),
        (CALIBRATION_TEXTS[:20], ["neutral"] * 20, "2 of 3 classes have no row"),
    ],
)
def test_rows_that_nothing_can_be_learned_from_are_refused(
    classifier: FastBertClassifier, texts: list[str], labels: list[str] | None, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        classifier.calibrate(texts, labels)


GOALS: list[GoalOptions] = [
    {"max_drop": 0.02},
    {"max_drop": 0.05, "metric": "agreement"},
    {"max_drop": 0.2, "confidence": 0.9},
    {"saving": 0.6},
    {"max_mean_layers": 2.5},
]


@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_predicting_with_a_goal_is_replaying_the_record(
    calibrated: FastBertClassifier, goal: GoalOptions
) -> None:
    point = calibrated.speed_for(**goal)
    replayed = calibrated.calibration.recorded.replay(point.criterion)
    answers = calibrated.predict(CALIBRATION_TEXTS, **goal)

    assert [answer.exit_layer for answer in answers] == replayed.exit_layer.tolist()
    best = replayed.logits.argmax(axis=-1)
    assert [answer.label for answer in answers] == [LABELS[number] for number in best]
    assert np.mean(replayed.exit_layer) == pytest.approx(point.mean_exit_layer)
    assert answers == calibrated.predict(CALIBRATION_TEXTS, point.criterion)
    proba = calibrated.predict_proba(CALIBRATION_TEXTS, **goal)
    assert proba.tolist() == [list(answer.probabilities.values()) for answer in answers]


def test_the_goals_lead_to_different_exits(calibrated: FastBertClassifier) -> None:
    # Otherwise the test above would compare little.
    layers = {calibrated.speed_for(**goal).mean_exit_layer for goal in GOALS}
    assert len(layers) >= 3
    assert min(layers) < 2.6


def test_one_text_may_have_a_goal_too(calibrated: FastBertClassifier) -> None:
    together = calibrated.predict(CALIBRATION_TEXTS[:7], saving=0.6)
    for text, prediction in zip(CALIBRATION_TEXTS, together, strict=False):
        alone = calibrated.predict(text, saving=0.6)
        assert isinstance(alone, Prediction)
        assert_same(prediction, alone)
    assert calibrated.predict([], saving=0.6) == []


@pytest.mark.parametrize("name", SingleLabel.measures)
def test_a_calibration_text_leaves_at_one_layer_alone_and_in_a_batch(
    classifier: FastBertClassifier, name: str
) -> None:
    # Thresholds on recorded doubts left it to the last bit: red on processors with AVX2 alone.
    calibration = classifier.calibrate(CALIBRATION_TEXTS, measure=name)
    for goal in (Goal(saving=0.6), Goal(max_drop=0.3)):
        criterion = calibration.solve(goal).criterion
        distance = threshold_distance(calibration.recorded, criterion)
        clear = [text for text, far in zip(CALIBRATION_TEXTS, distance, strict=True) if far > 1e-5]
        assert len(clear) > 0.8 * len(CALIBRATION_TEXTS)
        for text, together in zip(clear[:9], classifier.predict(clear, criterion), strict=False):
            alone = classifier.predict(text, criterion)
            assert isinstance(alone, Prediction)
            assert alone.exit_layer == together.exit_layer


def test_thresholds_may_stand_in_place_of_a_speed(classifier: FastBertClassifier) -> None:
    recorded = classifier.record(CALIBRATION_TEXTS)
    _, second, third = np.median(doubts_of(Margin(), recorded), axis=1).tolist()
    thresholds = ThresholdCriterion(Margin(), (0.0, second, third))
    replayed = recorded.replay(thresholds)
    answers = classifier.predict(CALIBRATION_TEXTS, thresholds)
    assert [answer.exit_layer for answer in answers] == replayed.exit_layer.tolist()
    assert len(set(replayed.exit_layer.tolist())) > 1
    equal = ThresholdCriterion(MEASURES["entropy"](), (0.7, 0.7, 0.7))
    assert classifier.predict(CALIBRATION_TEXTS, equal) == classifier.predict(
        CALIBRATION_TEXTS, 0.7
    )


def test_a_speed_and_a_goal_exclude_each_other(calibrated: FastBertClassifier) -> None:
    criterion = EntropyCriterion(0.4)
    for speed in (0.0, 0.5, criterion):
        with pytest.raises(ValueError, match="give a speed or a goal, not both"):
            calibrated.predict("word1", speed, saving=0.5)
        with pytest.raises(ValueError, match="give a speed or a goal, not both"):
            calibrated.predict_proba(["word1"], speed, saving=0.5)


def test_what_is_no_goal_is_refused(calibrated: FastBertClassifier) -> None:
    with pytest.raises(ValueError, match="got max_drop and saving"):
        calibrated.predict("word1", max_drop=0.1, saving=0.5)
    with pytest.raises(TypeError, match="max_dorp"):
        calibrated.predict("word1", max_dorp=0.1)  # type: ignore[call-overload]  # mistyped on purpose


def test_a_goal_for_a_folder_without_a_calibration_says_how(
    classifier: FastBertClassifier,
) -> None:
    for ask in (classifier.predict, classifier.predict_proba):
        with pytest.raises(FolderError, match=r"not calibrated.*`fastbert calibrate .*DEV`"):
            ask(["word1"], max_drop=0.01)
    assert classifier.predict("word1", 0.5).label in LABELS


def test_an_unlabelled_calibration_answers_goals_of_agreement(damaged: Path) -> None:
    classifier = FastBertClassifier.from_pretrained(damaged)
    classifier.save_calibration(classifier.calibrate(CALIBRATION_TEXTS), "texts.csv")
    full = [answer.label for answer in classifier.predict(CALIBRATION_TEXTS, 0.0)]
    fast = [answer.label for answer in classifier.predict(CALIBRATION_TEXTS, max_drop=0.1)]
    assert np.mean([a == b for a, b in zip(full, fast, strict=True)]) >= 0.9
    with pytest.raises(CalibrationError, match="accuracy needs labels"):
        classifier.speed_for(max_drop=0.1, metric="accuracy")


def test_a_new_calibration_counts_at_once(damaged: Path) -> None:
    classifier = FastBertClassifier.from_pretrained(damaged)
    first = classifier.calibrate(CALIBRATION_TEXTS, TRUTH)
    classifier.save_calibration(first, "one.csv")
    assert classifier.speed_for(saving=0.5) == first.solve(Goal(saving=0.5))
    second = classifier.calibrate(CALIBRATION_TEXTS[:40], measure="margin")
    classifier.save_calibration(second, "two.csv")
    assert classifier.speed_for(saving=0.5) == second.solve(Goal(saving=0.5))
    assert classifier.predict_proba(["word1"], 0.0).tolist() == (
        FastBertClassifier.from_pretrained(damaged).predict_proba(["word1"], 0.0).tolist()
    )


def test_a_measure_of_your_own_is_passed_when_loading(damaged: Path) -> None:
    classifier = FastBertClassifier.from_pretrained(damaged)
    found = classifier.calibrate(CALIBRATION_TEXTS, TRUTH, measure=SecondGuess())
    classifier.save_calibration(found, "dev.csv")
    with pytest.raises(FolderError, match=r"'SecondGuess'.*measure="):
        FastBertClassifier.from_pretrained(damaged).predict("word1", saving=0.5)
    mine = FastBertClassifier.from_pretrained(damaged, measure=SecondGuess())
    replayed = found.recorded.replay(mine.speed_for(saving=0.5).criterion)
    answers = mine.predict(CALIBRATION_TEXTS, saving=0.5)
    assert [answer.exit_layer for answer in answers] == replayed.exit_layer.tolist()


def test_a_saved_copy_keeps_the_calibration(calibrated: FastBertClassifier, tmp_path: Path) -> None:
    calibrated.save_pretrained(tmp_path / "copy")
    copy = FastBertClassifier.from_pretrained(tmp_path / "copy")
    for goal in GOALS:
        assert copy.speed_for(**goal) == calibrated.speed_for(**goal)


def test_threads_may_ask_for_goals_at_once(calibrated: FastBertClassifier) -> None:
    # The first goal reads the calibration; here all threads come first.
    expected = [calibrated.predict(CALIBRATION_TEXTS[:30], **goal) for goal in GOALS]
    fresh = FastBertClassifier.from_pretrained(calibrated.folder.path)

    def ask(number: int) -> bool:
        texts, goal = CALIBRATION_TEXTS[:30], GOALS[number % len(GOALS)]
        return fresh.predict(texts, **goal) == expected[number % len(GOALS)]

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(2 * len(GOALS))))
