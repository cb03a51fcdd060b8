"""The plain graph answers as the teacher, in other shapes than it was traced with."""

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import pytest

from fastbert.bench.graph import save_plain_graph
from fastbert.nn.backend import batch_tensors
from fastbert.nn.model import FastBertModel
from tests.bench.models import TEXTS, varied_folder


@pytest.mark.parametrize("teacher_head", ["pretrained", "paper"])
def test_the_graph_gives_the_logits_of_the_teacher(
    teacher_head: Literal["pretrained", "paper"], tmp_path: Path
) -> None:
    folder = varied_folder(tmp_path / "model", teacher_head)
    path = tmp_path / "plain.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        save_plain_graph(folder, gives_segments=True, path=path)
    assert path.with_suffix(".bin").stat().st_size > path.stat().st_size  # the weights lie beside

    session = onnxruntime.InferenceSession(path)
    teacher = FastBertModel.load(folder).teacher
    tokenizer = folder.text_tokenizer()
    for texts in (TEXTS[:1], TEXTS[:7]):  # without and with padding
        batch = tokenizer.collate(tokenizer.encode(texts))
        tensors = batch_tensors(batch)
        [logits] = session.run(None, {name: each.numpy() for name, each in tensors.items()})
        expected = teacher(**tensors).logits.detach().numpy()
        np.testing.assert_allclose(logits, expected, atol=2e-5)
