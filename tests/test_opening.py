import copy
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastbert.calibration.answerer import Answerer
from fastbert.classifier import FastBertClassifier
from fastbert.errors import CalibrationError, FolderError
from fastbert.exits.criteria import EntropyCriterion
from fastbert.opening import open_again, open_model
from fastbert.running import Dtype, Running
from tests.exported import export_all
from tests.tiny_data import examples
from tests.tiny_folder import save_model

TEXTS = [example.text for example in examples(37, seed=7)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("opening") / "model", "bert")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = save_model(tmp_path_factory.mktemp("exported") / "model", "bert")
    export_all(path, [("onnx", "fp32")])
    return path


def test_what_is_opened_says_what_answers_and_how_it_was_opened(folder: Path) -> None:
    opened = open_model(folder, None, None, Running(workers=2, cache_folder="nowhere"))
    assert opened.answerer == Answerer("torch", "fp32")
    assert opened.recipe.running == Running("torch", workers=2)  # nothing is kept for torch
    assert opened.recipe.path == folder.resolve()
    assert opened.recipe.export == {}


@pytest.mark.parametrize(
    ("running", "settled"),
    [
        (Running(workers=None), Running("onnx", threads=1, workers=6)),
        (Running("onnx", threads=4, workers=None), Running("onnx", threads=4, workers=1)),
        (Running(threads=9, workers=None), Running("onnx", threads=9, workers=1)),
        (Running(), Running("onnx")),
        (Running("torch", workers=None), Running("torch", workers=1)),
    ],
)
def test_in_bulk_batches_share_out_the_cores_where_an_export_runs(
    running: Running,
    settled: Running,
    exported: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastbert.opening.usable_cores", lambda: 6)
    assert open_model(exported, None, None, running).recipe.running == settled
    classifier = FastBertClassifier.from_pretrained(exported, runtime="onnx", workers=None)
    assert classifier.workers == 6
    twin = copy.deepcopy(classifier)
    assert (twin.workers, twin.predict(TEXTS, 0.5)) == (6, classifier.predict(TEXTS, 0.5))


def test_it_is_opened_again_alike_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "model"))
    recipe = open_model(path, None, None, Running()).recipe
    assert open_again(recipe).recipe == recipe
    shutil.rmtree(path)
    save_model(path, "bert", "mean")
    with pytest.raises(FolderError, match="was replaced since the classifier was opened"):
        open_again(recipe)


def test_a_copy_of_what_auto_opened_forgets_the_cache_that_nobody_used(folder: Path) -> None:
    classifier = FastBertClassifier.from_pretrained(folder, cache_folder="nowhere", workers=2)
    twin = copy.deepcopy(classifier)
    assert twin.workers == 2
    assert twin.predict(TEXTS, 0.5) == classifier.predict(TEXTS, 0.5)


@pytest.mark.parametrize(
    ("dtype", "precision", "tolerance"), [("bfloat16", "bf16", 0.05), ("float16", "fp16", 0.005)]
)
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_torch_computes_in_the_dtype_that_was_asked_for(
    dtype: Dtype, precision: str, tolerance: float, pooling: str, tmp_path: Path
) -> None:
    path = save_model(tmp_path / "model", "bert", f"paper/{pooling}/8")
    full = FastBertClassifier.from_pretrained(path)
    half = FastBertClassifier.from_pretrained(path, dtype=dtype)
    assert half.answerer == Answerer("torch", precision)

    ours, theirs = (each.record(TEXTS, batch_size=8).recorded for each in (half, full))
    assert ours.dtype == np.float32  # softmax and doubt are float32 as ever
    assert 0 < np.abs(ours - theirs).max() < tolerance
    fast = half.classify(TEXTS, EntropyCriterion(0.7), 8)
    assert fast.logits.dtype == np.float32
    assert len(set(fast.exit_layer.tolist())) > 1
    assert pickle.loads(pickle.dumps(half)).answerer == half.answerer


@pytest.mark.parametrize("family", ["albert", "deberta-v2", "distilbert", "modernbert", "mpnet"])
def test_families_with_layers_of_their_own_do_so_too(family: str, tmp_path: Path) -> None:
    path = save_model(tmp_path / "model", family)
    full = FastBertClassifier.from_pretrained(path).record(TEXTS, 8).recorded
    half = FastBertClassifier.from_pretrained(path, dtype="bfloat16").record(TEXTS, 8).recorded
    assert 0 < np.abs(half - full).max() < 0.1


def test_thresholds_of_float32_are_not_those_of_bfloat16(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "model"))
    full = FastBertClassifier.from_pretrained(path)
    full.save_calibration(full.calibrate(TEXTS), "texts")
    half = FastBertClassifier.from_pretrained(path, dtype="bfloat16")
    assert not half.is_calibrated
    with pytest.raises(CalibrationError, match=r"torch in fp32, here answers torch in bf16.*again"):
        half.speed_for(max_drop=0.01)
    half.predict("word1")
    assert "here answers torch in bf16" in caplog.text
    assert "by `calibrate` and `save_calibration` of this classifier" in caplog.text
    half.save_calibration(half.calibrate(TEXTS), "texts")
    assert half.is_calibrated
    assert half.speed_for(max_drop=0.01)
