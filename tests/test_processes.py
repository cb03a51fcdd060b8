"""A classifier in other processes: after a fork, and as a pickle or a copy."""

import copy
import hashlib
import json
import pickle
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fastbert.classifier import FastBertClassifier
from fastbert.errors import FolderError
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.write import seal
from tests.bench.models import SPEED, TEXTS, varied_folder
from tests.exported import export_all

RUNTIMES = ["torch", "onnx", "openvino"]

# In the child it is not known whether anything ever ends, so the parent looks at the clock.
FORKS = """
    import os, signal, sys, threading, time
    from fastbert import FastBertClassifier

    folder, runtime = sys.argv[1:]
    classifier = FastBertClassifier.from_pretrained(folder, runtime=runtime, threads=2, workers=2)
    texts = [f"word1 lovely word{n % 40} " * 6 for n in range(512)]
    expected = classifier.predict_proba(texts, 0.0, 256)  # enough for torch to use its threads
    if runtime != "torch":  # as if another thread were compiling
        classifier.backend._lock.acquire()
    child = os.fork()
    if child == 0:
        answers = [classifier.predict_proba(texts, speed, 256) for speed in (0.0, 0.6)]
        sys.exit(7 if abs(answers[0] - expected).max() < 1e-5 else 3)  # as most programs end
    end = time.monotonic() + 5
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            sys.exit(f"the child ended with {code}" if code != 7 else 0)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    sys.exit("the child hung")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = varied_folder(tmp_path_factory.mktemp("processes") / "model").path
    export_all(path, [("onnx", "fp32"), ("openvino", "fp32")])
    return path


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_classifier_answers_in_the_child_of_a_fork(folder: Path, runtime: str) -> None:
    program = [sys.executable, "-c", textwrap.dedent(FORKS), str(folder), runtime]
    found = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    assert ("load the classifier in the child" in found.stderr) == (runtime == "torch")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_copy_opens_the_folder_again_and_answers_alike(folder: Path, runtime: Any) -> None:
    classifier = FastBertClassifier.from_pretrained(folder, runtime=runtime, workers=2, threads=1)
    expected = classifier.predict_proba(TEXTS, SPEED)
    for twin in (pickle.loads(pickle.dumps(classifier)), copy.deepcopy(classifier)):
        assert np.array_equal(twin.predict_proba(TEXTS, SPEED), expected)
        assert type(twin.backend) is type(classifier.backend)
        assert (twin.workers, twin.config) == (2, classifier.config)


def test_a_copy_takes_the_runtime_that_ran_not_the_best_one_there(
    folder: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(folder, tmp_path / "model", ignore=lambda *_: {"openvino"})
    classifier = FastBertClassifier.from_pretrained(model)
    shutil.copytree(folder / "openvino", model / "openvino")
    assert type(copy.deepcopy(classifier).backend).__name__ == "OnnxBackend"


@pytest.mark.parametrize("change", ["settings", "export", "removed"])
def test_a_copy_of_what_has_changed_since_is_refused(
    folder: Path, tmp_path: Path, change: str
) -> None:
    model = shutil.copytree(folder, tmp_path / "model")
    pickled = pickle.dumps(FastBertClassifier.from_pretrained(model, runtime="onnx"))
    if change == "settings":
        config = EarlyExitConfig.read(model / "early_exit.json")
        seal(model, replace(config, max_length=config.max_length - 1))
    elif change == "export":
        piece, manifest = model / "onnx/layer_01.onnx", model / "onnx/manifest.json"
        entries = json.loads(manifest.read_text("utf-8"))
        graph = onnx.load(piece, load_external_data=False)
        graph.doc_string = "made again"
        piece.write_bytes(graph.SerializeToString())
        del entries["sha256"]
        entries["files"][piece.name] = hashlib.sha256(piece.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(entries), "utf-8")
    else:
        shutil.rmtree(model)
    message = "there is no such folder" if change == "removed" else "was replaced since"
    with pytest.raises(FolderError, match=message):
        pickle.loads(pickled)
