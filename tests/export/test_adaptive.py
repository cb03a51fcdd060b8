"""The adaptive ONNX file: answers and exit layers of the engine, and the work that is saved."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from scipy.special import expit

import fastbert
from fastbert.exits.criteria import (
    Entropy,
    EntropyCriterion,
    ExitCriterion,
    Measure,
    ThresholdCriterion,
    log_softmax,
)
from fastbert.exits.engine import classify, record
from fastbert.exits.label_measures import BinaryEntropy, SetProbability, WorstLabel
from fastbert.exits.measures import (
    Energy,
    Margin,
    MaxProbability,
    Patience,
    TopEntropy,
    measure_to_json,
)
from fastbert.export.adaptive import adaptive_model
from fastbert.export.int8 import quantised
from fastbert.folder.read import open_folder
from fastbert.nn.backend import TorchBackend
from fastbert.nn.model import FastBertModel
from fastbert.tasks.known import task_to_json
from fastbert.tasks.multi_label import MultiLabel
from fastbert.tasks.single_label import SingleLabel
from fastbert.tasks.task import Task
from fastbert.text import TextTokenizer, TokenBatch, Tokens
from tests.exported import pieces_of
from tests.tiny_data import LABELS, examples
from tests.tiny_folder import MAX_LENGTH, save_model

# RoBERTa has 5 layers here, so 4 students and 3 classes, and looks its positions up in a table.
FAMILY, LAYERS, POSITIONS = "roberta", 5, 33
MEASURES = [Entropy(), TopEntropy(2), TopEntropy(5), MaxProbability(), Margin(), Energy()]
TASK = SingleLabel(LABELS)
METADATA = {
    "labels": json.dumps(LABELS),
    "task": json.dumps(task_to_json(TASK)),
    "num_layers": str(LAYERS),
    "criterion": json.dumps(measure_to_json(Entropy())),
    "max_length": str(MAX_LENGTH),
    "fastbert": "1.2.3",
}
EXAMPLE = Path(__file__).parents[2] / "examples" / "adaptive" / "classify.py"


@dataclass(frozen=True)
class Exported:
    """A model with what it is exported from, and 40 texts for it."""

    folder: Path
    backend: TorchBackend
    pieces: list[onnx.ModelProto]
    tokenizer: TextTokenizer
    rows: list[Tokens]

    @property
    def batch(self) -> TokenBatch:
        return self.tokenizer.collate(self.rows)

    def thresholds(self, measure: Measure, exits: Sequence[int] = (1, 2, 3, 4)) -> list[float]:
        """Return thresholds that half of the rows pass at these exits, and no row at others."""
        logits = record(self.backend, self.batch)
        halves = [np.median(measure.doubt(logits[e - 1 : e], e)).item() for e in range(1, LAYERS)]
        return [half * (e in exits) for e, half in enumerate(halves, 1)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(save_model(tmp_path_factory.mktemp("model") / "model", FAMILY))


def export(folder: Path) -> Exported:
    model = FastBertModel.load(open_folder(folder))
    tokenizer = TextTokenizer.from_folder(folder, MAX_LENGTH)
    return Exported(
        folder,
        TorchBackend(model),
        pieces_of(folder),
        tokenizer,
        tokenizer.encode([example.text for example in examples(40, seed=2)]),
    )


@pytest.fixture(scope="module")
def by_entropy(exported: Exported) -> ort.InferenceSession:
    return session_of(adaptive_model(exported.pieces, Entropy(), TASK, METADATA))


def session_of(model: onnx.ModelProto, **options: Any) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # failures are raised, and need not be printed as well
    settings.intra_op_num_threads = 1
    for name, value in options.items():
        setattr(settings, name, value)
    return ort.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )


def run(
    session: ort.InferenceSession, batch: TokenBatch, speed: Sequence[float]
) -> tuple[np.ndarray, list[int]]:
    feeds = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "token_type_ids": batch.token_type_ids,
        "speed": np.array(speed, np.float32),
    }
    probabilities, exit_layer = session.run(["probabilities", "exit_layer"], feeds)
    return probabilities, exit_layer.tolist()


def assert_as_the_engine(
    session: ort.InferenceSession,
    exported: Exported,
    speed: Sequence[float],
    criterion: ExitCriterion,
) -> list[int]:
    """Compare all texts in one batch, and return their exit layers."""
    expected = classify(exported.backend, exported.batch, criterion)
    probabilities, exit_layer = run(session, exported.batch, speed)
    assert exit_layer == expected.exit_layer.tolist()
    np.testing.assert_allclose(probabilities, np.exp(log_softmax(expected.logits)), atol=1e-5)
    return exit_layer


@pytest.mark.parametrize("measure", MEASURES, ids=str)
def test_every_measure_lets_the_rows_leave_that_the_engine_does(
    exported: Exported, measure: Measure
) -> None:
    session = session_of(adaptive_model(exported.pieces, measure, TASK, METADATA))
    for exits in [(1, 2, 3, 4), (2, 4), (3,)]:
        thresholds = exported.thresholds(measure, exits)
        criterion = ThresholdCriterion(measure, tuple(thresholds))
        left = assert_as_the_engine(session, exported, thresholds, criterion)
        assert set(left) == {*exits, LAYERS}


def test_students_of_several_kinds_answer_as_in_the_engine(tmp_path: Path) -> None:
    heads = "paper/mean/8:1,queries/3/8:1,mean:1,queries/2/6"
    mixed = export(save_model(tmp_path / "model", FAMILY, heads))
    session = session_of(adaptive_model(mixed.pieces, Entropy(), TASK, METADATA))
    for exits in [(1,), (2,), (3,), (4,)]:
        thresholds = mixed.thresholds(Entropy(), exits)
        criterion = ThresholdCriterion(Entropy(), tuple(thresholds))
        left = assert_as_the_engine(session, mixed, thresholds, criterion)
        assert set(left) == {*exits, LAYERS}


@pytest.fixture(scope="module")
def of_labels(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("labels") / "model"
    return export(save_model(folder, FAMILY, problem_type=MultiLabel.name))


@pytest.mark.parametrize("measure", [BinaryEntropy(), SetProbability(), WorstLabel()], ids=str)
def test_several_labels_get_a_probability_each_where_the_engine_lets_the_rows_leave(
    of_labels: Exported, measure: Measure
) -> None:
    session = session_of(adaptive_model(of_labels.pieces, measure, MultiLabel(LABELS), METADATA))
    for exits in [(1, 2, 3, 4), (2, 4), (3,)]:
        thresholds = of_labels.thresholds(measure, exits)
        criterion = ThresholdCriterion(measure, tuple(thresholds))
        expected = classify(of_labels.backend, of_labels.batch, criterion)
        probabilities, exit_layer = run(session, of_labels.batch, thresholds)
        assert exit_layer == expected.exit_layer.tolist()
        np.testing.assert_allclose(probabilities, expit(expected.logits), atol=1e-5)
        assert set(exit_layer) >= set(exits)


@pytest.mark.parametrize("speed", [0.0, 0.66, 0.86, 0.97, 1.0])
def test_one_speed_holds_for_all_students(
    exported: Exported, by_entropy: ort.InferenceSession, speed: float
) -> None:
    assert_as_the_engine(by_entropy, exported, [speed], EntropyCriterion(speed))


def test_a_text_is_answered_in_a_batch_as_it_is_alone(
    exported: Exported, by_entropy: ort.InferenceSession
) -> None:
    thresholds = exported.thresholds(Entropy())
    together = run(by_entropy, exported.batch, thresholds)
    for row, probabilities, exit_layer in zip(exported.rows, *together, strict=True):
        alone = run(by_entropy, exported.tokenizer.collate([row]), thresholds)
        assert alone[1] == [exit_layer]
        np.testing.assert_allclose(alone[0][0], probabilities, atol=1e-5)


def test_an_empty_text_and_a_long_one_share_a_batch(
    exported: Exported, by_entropy: ort.InferenceSession
) -> None:
    rows = exported.tokenizer.encode(["", "lovely " * 50])
    expected = classify(exported.backend, exported.tokenizer.collate(rows), EntropyCriterion(0.9))
    probabilities, exit_layer = run(by_entropy, exported.tokenizer.collate(rows), [0.9])
    assert exit_layer == expected.exit_layer.tolist()
    np.testing.assert_allclose(probabilities, np.exp(log_softmax(expected.logits)), atol=1e-5)


def test_no_row_is_no_error(exported: Exported, by_entropy: ort.InferenceSession) -> None:
    batch = exported.tokenizer.collate(exported.rows[:1])
    nothing = TokenBatch(*(np.empty((0, 7), np.int64) for _ in range(3)))
    assert run(by_entropy, batch, [0.5])[0].shape == (1, len(LABELS))
    assert run(by_entropy, nothing, [0.5])[0].shape == (0, len(LABELS))


# Pieces by hand, of which every student is exactly undecided: its classes have the same logit.
EMBEDDINGS = """<ir_version: 10, opset_import: ["": 20]>
embeddings (int64[rows, length] input_ids, int64[rows, length] attention_mask)
=> (float[rows, length, 2] hidden) {
    floats = Cast<to = 1>(input_ids)
    last = Constant<value_ints = [-1]>()
    column = Unsqueeze(floats, last)
    hidden = Concat<axis = -1>(column, column)
}"""
LAYER = """<ir_version: 10, opset_import: ["": 20]>
layer (float[rows, length, 2] hidden, int64[rows, length] attention_mask)
=> (float[rows, length, 2] hidden_after, float[rows, 2] logits) {
    hidden_after = Identity(hidden)
    tokens = Constant<value_ints = [1]>()
    logits = ReduceSum<keepdims = 0>(hidden_after, tokens)
}"""


def test_a_row_whose_doubt_is_the_threshold_goes_on() -> None:
    embeddings, layer, last = (onnx.parser.parse_model(text) for text in (EMBEDDINGS, LAYER, LAYER))
    del last.graph.output[0]
    session = session_of(adaptive_model([embeddings, layer, last], Margin(), TASK, {}))
    tokens = {name: np.ones((3, 4), np.int64) for name in ("input_ids", "attention_mask")}
    for speed, exit_layer in [(1.0, 2), (np.nextafter(np.float32(1), np.float32(2)), 1)]:
        _, left = session.run(None, tokens | {"speed": np.array([speed], np.float32)})
        assert left.tolist() == [exit_layer] * 3


# What has left costs nothing.


@pytest.mark.parametrize(
    ("speed", "layers", "students"),
    [
        ([1.1], {1}, {1}),  # all leave at once: no doubt is above 1
        ([0.0], {1, 2, 3, 4, 5}, set()),
        ([0.0, 0.0, 1.1, 0.0], {1, 2, 3}, {3}),
        ([0.0, 1e-9, 0.0, 0.0], {1, 2, 3, 4, 5}, {2}),  # nobody is that sure
    ],
)
def test_only_what_is_needed_is_computed(
    exported: Exported, tmp_path: Path, speed: list[float], layers: set[int], students: set[int]
) -> None:
    session = session_of(
        adaptive_model(exported.pieces, Entropy(), TASK, METADATA),
        enable_profiling=True,
        profile_file_prefix=str(tmp_path / "profile"),
    )
    run(session, exported.batch, speed)
    products = products_by_layer(Path(session.end_profiling()))
    assert {layer for layer, kind in products if kind == "layer"} == layers
    assert {layer for layer, kind in products if kind == "exit"} == students


def products_by_layer(profile: Path) -> set[tuple[int, str]]:
    """Return which layers and exits multiplied matrices, by the names of their operators."""
    found = set()
    for event in json.loads(profile.read_text()):
        if "MatMul" in event.get("args", {}).get("op_name", ""):
            kind, number = event["name"].split("/")[0].split("_")
            found.add((int(number), kind))
    return found


def test_rows_that_left_are_not_computed_again(exported: Exported, tmp_path: Path) -> None:
    thresholds = exported.thresholds(Entropy())
    session = session_of(
        adaptive_model(exported.pieces, Entropy(), TASK, METADATA),
        enable_profiling=True,
        profile_file_prefix=str(tmp_path / "profile"),
    )
    _, left = run(session, exported.batch, thresholds)
    rows: dict[int, int] = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        arguments = event.get("args", {})
        if arguments.get("op_name") == "LayerNormalization" and event["name"].startswith("layer_"):
            layer = int(event["name"].removeprefix("layer_").split("/")[0])
            rows[layer] = arguments["output_type_shape"][0]["float"][0]
    ran = np.array(left)
    assert rows == {layer: (ran >= layer).sum() for layer in range(1, LAYERS + 1)}


# The file itself.


def test_the_file_is_valid_and_says_what_it_is(exported: Exported) -> None:
    before = [piece.SerializeToString(deterministic=True) for piece in exported.pieces]
    model = adaptive_model(exported.pieces, Entropy(), TASK, METADATA)
    assert [piece.SerializeToString(deterministic=True) for piece in exported.pieces] == before

    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert model.ir_version <= 10  # what ONNX Runtime 1.20 reads
    session = session_of(model)
    assert session.get_modelmeta().custom_metadata_map == METADATA
    assert "leaves at the first layer" in session.get_modelmeta().description
    tokens = ["rows", "length"]
    assert {item.name: (item.type, item.shape) for item in session.get_inputs()} == {
        "input_ids": ("tensor(int64)", tokens),
        "attention_mask": ("tensor(int64)", tokens),
        "token_type_ids": ("tensor(int64)", tokens),
        "speed": ("tensor(float)", ["thresholds"]),
    }
    assert {item.name: (item.type, item.shape) for item in session.get_outputs()} == {
        "probabilities": ("tensor(float)", ["rows", len(LABELS)]),
        "exit_layer": ("tensor(int64)", ["rows"]),
    }


def test_the_file_tells_nothing_of_the_machine(exported: Exported) -> None:
    content = adaptive_model(exported.pieces, Entropy(), TASK, METADATA).SerializeToString()
    assert b"stack_trace" not in content
    assert str(Path(fastbert.__file__).parent).encode() not in content


def test_weights_that_layers_share_are_kept_once(exported: Exported) -> None:
    embeddings, first, *_, last = exported.pieces
    short = adaptive_model([embeddings, first, last], Entropy(), TASK, METADATA)
    long = adaptive_model([embeddings, first, first, first, first, last], Entropy(), TASK, METADATA)
    assert sizes(long) == pytest.approx(sizes(short), abs=200)  # but for their numbers


def sizes(model: onnx.ModelProto) -> int:
    """Return the bytes of the weights of a graph, which all lie in the outermost."""
    assert not any(
        attribute.g.initializer for node in model.graph.node for attribute in node.attribute
    )
    return sum(tensor.ByteSize() for tensor in model.graph.initializer)


def test_pieces_of_int8_can_be_joined_as_well(exported: Exported) -> None:
    pieces = [exported.pieces[0], *map(quantised, exported.pieces[1:])]
    model = adaptive_model(pieces, Entropy(), TASK, METADATA)
    onnx.checker.check_model(model, full_check=True)
    # Nobody checks the processor where this file runs: 2 x 127 x 127 fits into 16 bits anywhere.
    zeros = [
        numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.UINT8
    ]
    assert [int(zero) for zero in zeros] == [64]
    in_int8, in_float = (
        session_of(model),
        session_of(adaptive_model(exported.pieces, Entropy(), TASK, METADATA)),
    )
    together = run(in_int8, exported.batch, [0.0])
    np.testing.assert_allclose(together[0], run(in_float, exported.batch, [0.0])[0], atol=0.05)

    thresholds = exported.thresholds(Entropy())
    together = run(in_int8, exported.batch, thresholds)
    assert set(together[1]) == {1, 2, 3, 4, 5}
    alone = [run(in_int8, exported.tokenizer.collate([row]), thresholds) for row in exported.rows]
    assert [exit_layer for _, (exit_layer,) in alone] == together[1]
    np.testing.assert_allclose(np.concatenate([p for p, _ in alone]), together[0], atol=1e-5)


# What cannot be.


@pytest.mark.parametrize(
    ("task", "fitting"),
    [
        (TASK, "Entropy, TopEntropy, MaxProbability, Margin, Energy"),
        (MultiLabel(LABELS), "BinaryEntropy, SetProbability, WorstLabel"),
    ],
    ids=["one label", "several"],
)
def test_a_measure_that_looks_back_is_refused_and_those_that_fit_the_task_are_named(
    exported: Exported, task: Task, fitting: str
) -> None:
    with pytest.raises(ValueError, match=f"can judge by {fitting}, got Patience"):
        adaptive_model(exported.pieces, Patience(), task, METADATA)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"input_ids": np.ones((2, 6), np.int32)}, "tensor\\(int32\\).*expected.*int64"),
        ({"input_ids": np.ones(6, np.int64)}, "Invalid rank for input: input_ids"),
        ({"attention_mask": np.ones((2, 6), np.float32)}, "tensor\\(float\\).*expected.*int64"),
        ({"speed": np.ones(1, np.float64)}, "tensor\\(double\\).*expected.*float"),
        ({"speed": np.ones((1, 1), np.float32)}, "Invalid rank for input: speed"),
        ({"speed": np.ones(3, np.float32)}, "speed_must_have_1_or_4_values"),
        ({"speed": np.ones(8, np.float32)}, "speed_must_have_1_or_4_values"),
        ({"speed": np.ones(0, np.float32)}, "speed_must_have_1_or_4_values"),
    ],
)
def test_wrong_inputs_are_errors_that_say_what_is_wrong(
    by_entropy: ort.InferenceSession, wrong: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match=message):
        by_entropy.run(None, feeds_of(6) | wrong)


def test_more_thresholds_than_one_student_has_are_an_error(exported: Exported) -> None:
    embeddings, first, *_, last = exported.pieces
    session = session_of(adaptive_model([embeddings, first, last], Entropy(), TASK, METADATA))
    too_many = {"speed": np.ones(2, np.float32)}
    with pytest.raises(Exception, match="speed_must_have_1_or_1_values"):
        session.run(None, feeds_of(6) | too_many)


def test_a_text_longer_than_the_positions_is_an_error(by_entropy: ort.InferenceSession) -> None:
    by_entropy.run(None, feeds_of(POSITIONS))
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match="embeddings/"):
        by_entropy.run(None, feeds_of(POSITIONS + 1))


def feeds_of(length: int) -> dict[str, np.ndarray]:
    names = ("input_ids", "attention_mask", "token_type_ids")
    tokens = {name: np.ones((2, length), np.int64) for name in names}
    return tokens | {"speed": np.array([0.5], np.float32)}


# The example.


def test_the_python_example_runs_without_fastbert(exported: Exported) -> None:
    (exported.folder / "onnx").mkdir()
    onnx.save(
        adaptive_model(exported.pieces, Entropy(), TASK, METADATA),
        exported.folder / "onnx" / "adaptive.onnx",
    )
    texts = [example.text for example in examples(5, seed=2)] + ["lovely " * 50]
    thresholds = ",".join(map(str, exported.thresholds(Entropy())))
    ran = subprocess.run(
        [sys.executable, EXAMPLE, exported.folder, *texts, "--speed", thresholds],
        capture_output=True,
        text=True,
        check=True,
    )
    criterion = ThresholdCriterion(Entropy(), tuple(exported.thresholds(Entropy())))
    batch = exported.tokenizer.collate(exported.tokenizer.encode(texts))
    expected = classify(exported.backend, batch, criterion)
    probabilities = np.exp(log_softmax(expected.logits))
    assert ran.stdout.splitlines() == [
        f"{LABELS[row.argmax()]}\t{row.max():.4f}\tlayer {exit_layer}\t{text}"
        for text, row, exit_layer in zip(texts, probabilities, expected.exit_layer, strict=True)
    ]
    assert "fastbert" not in EXAMPLE.read_text("utf-8").replace("FastBERT", "")
