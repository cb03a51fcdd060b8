"""A whole run on a tiny model, and the arithmetic from made-up times to figures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbert.bench import peak
from fastbert.bench.contenders import Answers, Contender
from fastbert.bench.plain import PIPELINE
from fastbert.bench.results import Bench, Failure, Measurement
from fastbert.bench.run import Sample, Timed, able, bench, compared, measurements
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Example
from fastbert.errors import DataError
from fastbert.exits.criteria import EntropyCriterion
from fastbert.folder.read import ModelFolder
from fastbert.tasks.single_label import SingleLabel
from tests.bench.models import SPEED, varied_folder
from tests.tiny_data import examples

ROWS = examples(30, seed=3)
EARLY, FULL, PLAIN = "FastBERT torch fp32, speed=0.6", "FastBERT torch fp32, full depth", "Plain"

KEYS = [
    "name",
    "runtime",
    "precision",
    "threads",
    "batch_size",
    "rows_per_second",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "accuracy",
    "agreement",
    "mean_exit_layer",
    "layers",
    "share_of_saving",
    "share_of_saving_by_tokens",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return varied_folder(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def found(folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("nncf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peak, "SHAPES", ((16, 24, 8), (8, 16, 24)))
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))
        return bench(
            folder,
            ROWS,
            runtimes=["torch"],
            settings=[SPEED],
            batch_size=7,
            rows=25,
            latency_rows=12,
            rounds=2,
        )


def entry(name: str, full_depth: str | None = None, precision: str = "fp32") -> Contender:
    return Contender(
        name, "torch", precision, 1, lambda texts, size: Answers(np.zeros(0, int)), full_depth
    )


def made_up() -> tuple[list[Timed], Sample]:
    """Return three contenders whose machine became slower, and 4 texts of a model of 6 layers."""
    layers = np.array([1, 2, 3, 6])  # 3 on average: twice as fast at best
    sample = Sample(
        ROWS[:4],
        np.array([10, 10, 10, 30]),
        np.array([0, 1, 2, 0]),
        6,
        SingleLabel(("no", "perhaps", "yes")),
    )
    early = Answers(np.array([0, 1, 1, 0]), layers)
    full = Answers(np.array([0, 1, 2, 0]), np.full(4, 6))
    slower = np.array([1.0, 2.0, 4.0])
    field = [
        Timed(entry(EARLY, FULL), 32, early, 0.5 * slower),
        Timed(entry(FULL), 32, full, 0.8 * slower),
        Timed(entry(PIPELINE), 32, Answers(full.decisions), 1.0 * slower),
        Timed(entry(PLAIN, precision="int8"), 32, Answers(full.decisions), 2.0 * slower),
    ]
    return field, sample


def test_shares_are_the_paired_saving_over_the_bound() -> None:
    early, full, *_ = measurements(*made_up())
    assert early.bound == 2.0
    assert early.share_of_saving == pytest.approx(1.6 / 2.0)
    by_tokens = 6 / ((10 + 20 + 30 + 180) / 60)
    assert early.share_of_saving_by_tokens == pytest.approx(1.6 / by_tokens)
    assert (full.bound, full.share_of_saving, full.share_of_saving_by_tokens) == (1.0, None, None)


def test_throughput_and_accuracy_are_those_of_the_sample() -> None:
    early, _, pipeline, _ = measurements(*made_up())
    assert early.rows_per_second == pytest.approx(4 / 1.0)
    assert pipeline.rows_per_second == pytest.approx(4 / 2.0)
    assert (early.accuracy, pipeline.accuracy) == (0.75, 1.0)
    assert (pipeline.mean_exit_layer, pipeline.layers) == (6.0, 6)
    assert (early.agreement, pipeline.agreement) == (0.75, 1.0)
    assert (early.p50_ms, early.p95_ms, early.p99_ms) == (None, None, None)


def test_without_the_pipeline_answers_are_compared_with_full_depth() -> None:
    field, sample = made_up()
    without = [timed for timed in field if timed.contender.name != PIPELINE]
    assert [row.agreement for row in measurements(without, sample)] == [0.75, 1.0, 1.0]
    assert [row.agreement for row in measurements(field[-1:], sample)] == [None]


def test_who_cannot_answer_is_noted_and_takes_nobody_along() -> None:
    def fails(texts: object, size: int) -> Answers:
        if size == 1:
            raise RuntimeError("out of memory")
        return Answers(np.zeros(size, int))

    field = [timed.contender for timed in made_up()[0]]
    broken = [replace(one, answer=fails) if one.name == PIPELINE else one for one in field]
    failures: list[Failure] = []
    assert able(broken, ROWS[:3], failures) == [one for one in field if one.name != PIPELINE]
    assert failures == [Failure(PIPELINE, "RuntimeError: out of memory")]

    broken = [replace(one, answer=fails) if one.name == FULL else one for one in field]
    assert [one.name for one in able(broken, ROWS[:3], [])] == [PIPELINE, PLAIN]


def test_speeds_are_compared_round_by_round() -> None:
    field, _ = made_up()
    ratios = {(ratio.numerator, ratio.denominator): ratio for ratio in compared(field)}
    assert ratios.keys() == {
        (EARLY, FULL),
        (EARLY, PIPELINE),
        (FULL, PIPELINE),
        (PLAIN, PIPELINE),  # in another precision, so this model is not compared with it
    }
    assert ratios[EARLY, PIPELINE].rounds == pytest.approx((2.0, 2.0, 2.0))
    assert ratios[PLAIN, PIPELINE].median == pytest.approx(0.5)
    assert all(ratio.batch_size == 32 for ratio in ratios.values())


def test_the_json_has_these_keys(found: Bench) -> None:
    printed = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert list(printed) == [
        "machine",
        "versions",
        "rows",
        "rounds",
        "tokenised_per_second",
        "products",
        "achieved",
        "contenders",
        "ratios",
        "failures",
        "peak",
    ]
    assert all(list(row) == KEYS for row in printed["contenders"])
    assert {"fp32", "int8"} <= printed["peak"].keys()
    assert printed["rows"] == {"bulk": 25, "latency": 12}
    assert printed["machine"]["threads"] == 1
    assert printed["versions"]["torch"]


def test_each_contender_stands_in_bulk_and_alone(found: Bench) -> None:
    sizes: dict[str, list[int]] = {}
    for row in found.contenders:
        sizes.setdefault(row.name, []).append(row.batch_size)
    assert sizes.pop(f"{PIPELINE}, sorted") == [7]
    assert set(map(tuple, sizes.values())) == {(7, 1)}
    assert {EARLY, FULL, PIPELINE, "ONNX Runtime int8", "OpenVINO fp32"} <= sizes.keys()
    for row in found.contenders:
        assert (row.p50_ms is None) == (row.batch_size == 7)
        assert row.rows_per_second > 0


def test_what_is_measured_is_what_the_model_does(found: Bench, folder: ModelFolder) -> None:
    classifier = FastBertClassifier.from_pretrained(folder.path, device="cpu")
    for size, rows in ((7, 25), (1, 12)):
        sample = Sample.of(folder, ROWS, rows)
        result = classifier.classify(
            [row.content for row in sample.examples], EntropyCriterion(SPEED)
        )
        names = [classifier.labels[best] for best in result.logits.argmax(axis=-1)]
        row = measured(found, EARLY, size)
        assert row.mean_exit_layer == pytest.approx(float(result.exit_layer.mean()))
        assert 1 < row.mean_exit_layer < row.layers == classifier.num_layers
        right = [name == row.label for name, row in zip(names, sample.examples, strict=True)]
        assert row.accuracy == pytest.approx(np.mean(right))
        plain = {measured(found, name, size).accuracy for name in (FULL, PIPELINE)}
        assert len(plain) == 1


def measured(found: Bench, name: str, batch_size: int) -> Measurement:
    [row] = [row for row in found.contenders if (row.name, row.batch_size) == (name, batch_size)]
    return row


def test_models_are_compared_with_products_of_their_precision(found: Bench) -> None:
    [model] = found.achieved
    assert (model.name, model.precision) == (FULL, "fp32")
    assert (model.rows, model.length) == (32, 32)  # it has 34 positions
    best = max(rate.gops for rate in found.products if rate.precision == "fp32")
    own = max(
        rate.gops for rate in found.products if (rate.precision, rate.runtime) == ("fp32", "torch")
    )
    assert found.peak["fp32"].gops == best
    assert model.share_of_peak == pytest.approx(model.gops / best)
    assert model.share_of_runtime_peak == pytest.approx(model.gops / own)


def test_a_sample_comes_from_all_over_the_texts(folder: ModelFolder) -> None:
    sample = Sample.of(folder, ROWS, 7)
    places = [ROWS.index(row) for row in sample.examples]
    assert (len(places), places[0], places[-1]) == (7, 0, 29)
    assert np.ptp(np.diff(places)) <= 1
    assert len(Sample.of(folder, ROWS, 1_000).examples) == 30


def test_without_labels_there_is_no_accuracy(folder: ModelFolder) -> None:
    unlabelled = [Example(row.place, row.text) for row in ROWS]
    sample = Sample.of(folder, unlabelled, 10)
    assert sample.truth is None
    timed = Timed(entry(PLAIN), 32, Answers(np.zeros(10, int)), np.ones(3))
    assert measurements([timed], sample)[0].accuracy is None


def test_a_strange_label_is_refused(folder: ModelFolder) -> None:
    with pytest.raises(DataError, match="label 'strange' is not among"):
        bench(folder, [Example("made:1", "word1 awful", label="strange")])


def test_no_texts_are_refused(folder: ModelFolder) -> None:
    with pytest.raises(ValueError, match="at least one text"):
        bench(folder, [])


def test_bulk_is_more_than_one(folder: ModelFolder) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 2, got 1"):
        bench(folder, ROWS, batch_size=1)


def test_files_and_threads_are_given_back(
    found: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert found
    assert torch.get_num_threads() == 1
    base = tmp_path_factory.getbasetemp()
    assert all(not list(Path(path).iterdir()) for path in base.glob("temporary*"))
