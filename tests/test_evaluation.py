"""The figures of an evaluation, each checked by another road."""

import numpy as np
import pytest

from fastbert.classifier import FastBertClassifier
from fastbert.criteria import EntropyCriterion
from fastbert.data import Example
from fastbert.evaluation import Evaluation, evaluate
from tests.test_classifier import save_model
from tests.tiny_data import LABELS, examples

ROWS, SPEED = 35, 0.74


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> FastBertClassifier:
    return FastBertClassifier.from_pretrained(
        save_model(tmp_path_factory.mktemp("model") / "model", "bert")
    )


def test_each_figure_is_what_it_says(classifier: FastBertClassifier) -> None:
    rows = examples(ROWS, seed=11)
    full, fast = evaluate(classifier, rows, [0.0, SPEED], batch_size=8)

    answers = classifier.predict([row.text for row in rows], SPEED)
    layers = [answer.exit_layer for answer in answers]
    right = [answer.label == row.label for answer, row in zip(answers, rows, strict=True)]
    assert (fast.speed, fast.rows, fast.layers) == (SPEED, ROWS, classifier.num_layers)
    assert fast.accuracy == pytest.approx(np.mean(right))
    assert fast.mean_exit_layer == pytest.approx(np.mean(layers))
    assert fast.exit_layers == [layers.count(layer) for layer in range(1, fast.layers + 1)]
    assert fast.rows_per_second == pytest.approx(ROWS / fast.seconds)
    assert full.speedup_flops == 1.0
    assert full.exit_layers == [0] * (full.layers - 1) + [ROWS]
    assert fast.speedup_flops > 1.0
    assert fast.speedup_paper > full.speedup_paper


def test_macro_f1_averages_over_classes(classifier: FastBertClassifier) -> None:
    rows = examples(ROWS, seed=12)
    [evaluation] = evaluate(classifier, rows, [SPEED])
    answers = [answer.label for answer in classifier.predict([row.text for row in rows], SPEED)]
    scores = []
    for label in {row.label for row in rows} | set(answers):
        hits = sum(a == r.label == label for a, r in zip(answers, rows, strict=True))
        scores.append(2 * hits / (answers.count(str(label)) + sum(r.label == label for r in rows)))
    assert evaluation.macro_f1 == pytest.approx(np.mean(scores))


def test_a_class_that_is_never_answered_does_no_harm(classifier: FastBertClassifier) -> None:
    # FastBERT issue 7: precision of such a class was a division by zero.
    text = examples(1)[0].text
    answer = classifier.predict(text, 0.0).label
    other = next(label for label in LABELS if label != answer)
    rows = [Example("made:1", text, label=answer), Example("made:2", text, label=other)]
    [evaluation] = evaluate(classifier, rows, [0.0])
    assert evaluation.accuracy == 0.5
    assert evaluation.macro_f1 == pytest.approx((2 / 3 + 0) / 2)


def test_no_row_is_dropped_or_run_twice(classifier: FastBertClassifier) -> None:
    # FastBERT's evaluation dropped rows in `except: pass`, and ran each one twice.
    rows = [*examples(9), *examples(9)]
    [evaluation] = evaluate(classifier, rows, [0.5], batch_size=4)
    assert evaluation.rows == sum(evaluation.exit_layers) == 18


def test_the_batch_size_changes_the_time_and_nothing_else(classifier: FastBertClassifier) -> None:
    def figures(batch_size: int) -> Evaluation:
        [evaluation] = evaluate(classifier, examples(ROWS), [SPEED], batch_size)
        return evaluation

    one, many = figures(1).as_dict(), figures(16).as_dict()
    for name in one.keys() - {"seconds", "rows_per_second"}:
        assert one[name] == many[name], name


def test_figures_are_plain_values_that_json_takes(classifier: FastBertClassifier) -> None:
    [evaluation] = evaluate(classifier, examples(5), [0.3])
    assert set(evaluation.as_dict()) == {
        "speed",
        "accuracy",
        "macro_f1",
        "rows",
        "mean_exit_layer",
        "layers",
        "speedup_flops",
        "speedup_paper",
        "seconds",
        "rows_per_second",
        "exit_layers",
    }
    assert {type(value) for value in evaluation.as_dict().values()} == {float, int, list}


def test_evaluating_counts_the_students_that_the_criterion_watches(
    classifier: FastBertClassifier,
) -> None:
    assert not any(EntropyCriterion(0.0).watches(layer) for layer in range(1, 4))
    slow, never_leaving = evaluate(classifier, examples(ROWS), [0.0, 1e-9])
    assert slow.mean_exit_layer == never_leaving.mean_exit_layer == classifier.num_layers
    assert never_leaving.speedup_flops < slow.speedup_flops == 1.0
