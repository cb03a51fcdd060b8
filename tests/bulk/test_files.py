import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from fastbert.bulk import files
from fastbert.bulk.files import FilePredictions, predict_file
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns
from fastbert.errors import CalibrationError, DataError, FolderError
from fastbert.exits.engine import ExitResult
from tests.tiny_data import examples, write_csv
from tests.tiny_folder import save_model


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> FastBertClassifier:
    path = save_model(tmp_path_factory.mktemp("files") / "model", "bert")
    return FastBertClassifier.from_pretrained(path)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def written(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("rows_at_a_time", [4, 1024])
def test_one_row_in_is_one_row_out_in_order_however_many_are_held(
    classifier: FastBertClassifier,
    tmp_path: Path,
    output: Path,
    rows_at_a_time: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "ROWS_AT_A_TIME", rows_at_a_time)
    rows = examples(23, seed=3)
    done: list[int] = []
    source = write_csv(tmp_path / "texts.csv", rows)
    found = predict_file(classifier, source, output, 0.7, 3, progress=done.append)
    assert found == FilePredictions(rows=23)
    assert sum(done) == 23
    assert max(done) == min(rows_at_a_time, 23)
    expected = classifier.predict([row.text for row in rows], 0.7, batch_size=1)
    answers = written(output)
    assert [list(answer) for answer in answers] == [
        ["label", "score", "uncertainty", "exit_layer"]
    ] * 23
    for answer, one in zip(answers, expected, strict=True):
        assert (answer["label"], answer["exit_layer"]) == (one.label, one.exit_layer)
        assert answer["score"] == pytest.approx(one.score, abs=1e-6)
        assert answer["uncertainty"] == pytest.approx(one.uncertainty, abs=1e-5)


def test_no_more_rows_are_read_than_are_held(
    classifier: FastBertClassifier, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ROWS_AT_A_TIME", 5)
    read = 0

    def rows(*_arguments: Any, **_options: Any) -> Any:
        nonlocal read
        for row in examples(23, seed=3):
            read += 1
            yield row

    monkeypatch.setattr(files, "read_rows", rows)
    seen: list[int] = []
    predict_file(classifier, "texts", output, 0.7, progress=lambda _: seen.append(read))
    assert seen == [5, 10, 15, 20, 23]


def test_what_became_of_the_rows_is_returned(
    classifier: FastBertClassifier, tmp_path: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text(
        '{"key": "a", "body": "lovely"}\n{"key": 2, "body": 3}\n{"key": Infinity, "body": "word1"}'
        '\n{"body": " "}\n{"key": {"x": NaN}, "body": "awful"}\n'
    )
    found = predict_file(classifier, source, output, columns=Columns("body", id="key"))
    assert (found.rows, found.bad, found.empty, found.lost_ids) == (5, 1, 1, 2)
    assert found.lost_id == math.inf  # the first
    assert found.damage is None
    assert [answer.get("id") for answer in written(output)] == ["a", 2, None, None, None]
    assert written(output)[1]["error"].startswith(f"{source}:2: column 'body' must be a string")
    assert not caplog.records  # words are for whoever calls


def test_an_answer_that_is_no_number_is_bad(
    classifier: FastBertClassifier, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = FastBertClassifier.classify

    def broken(self: FastBertClassifier, *arguments: Any) -> ExitResult:
        result = answer(self, *arguments)
        result.logits[1] = math.nan
        return result

    monkeypatch.setattr(FastBertClassifier, "classify", broken)
    source = write_csv(tmp_path / "texts.csv", examples(3))
    assert predict_file(classifier, source, output).bad == 1
    assert ["error" in row for row in written(output)] == [False, True, False]
    assert "NaN" not in output.read_text()


def test_damage_after_some_rows_is_returned_and_before_any_is_an_error(
    classifier: FastBertClassifier, tmp_path: Path, output: Path
) -> None:
    source = tmp_path / "cut.csv.gz"
    packed = gzip.compress(b"text\nlovely\nawful\n") + gzip.compress(b"plain\n" * 50)[:-15]
    source.write_bytes(packed)
    found = predict_file(classifier, source, output)
    assert isinstance(found.damage, DataError)
    assert found.rows == len(written(output)) >= 2

    output.write_text("earlier\n")
    source.write_bytes(b"no gzip")
    with pytest.raises(DataError):
        predict_file(classifier, source, output)
    assert output.read_text() == "earlier\n"
    assert {path.name for path in tmp_path.iterdir()} == {source.name, output.name}


def test_what_is_wrong_with_the_question_is_said_before_anything_is_read(
    classifier: FastBertClassifier, tmp_path: Path, output: Path
) -> None:
    for place, message in {
        tmp_path: "is a folder; name a file in it",
        tmp_path / "none" / "o.jsonl": "there is no folder .*none; make it first",
    }.items():
        with pytest.raises(ValueError, match=message):
            predict_file(classifier, "nowhere.csv", place)
    with pytest.raises((CalibrationError, FolderError), match="not calibrated"):
        predict_file(classifier, "nowhere.csv", output, max_drop=0.01)
    with pytest.raises(ValueError, match="a speed or a goal"):
        predict_file(classifier, "nowhere.csv", output, 0.5, max_drop=0.01)
    source = write_csv(tmp_path / "texts.csv", examples(3))
    with pytest.raises(ValueError, match="is also what is read"):
        predict_file(classifier, source, source)
