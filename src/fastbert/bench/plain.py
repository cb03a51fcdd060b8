"""The others: what people run who do not have this package.

The plain teacher in the pipeline of transformers, and as one graph in ONNX Runtime and OpenVINO,
without students and without cuts. They get the fairest treatment: the same fast tokenizer, batches
of similar length, the faster of two ways to export (`fastbert.bench.graph`), and each runtime's own
int8.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float

from fastbert.bench.contenders import Answers, Contender, installed, left_out_if_it_fails
from fastbert.bench.results import Failure
from fastbert.folder.read import ModelFolder
from fastbert.tasks.task import Task
from fastbert.text import Text, TextTokenizer, batches_of_similar_length

logger = logging.getLogger(__name__)

PIPELINE = "Hugging Face pipeline"
PLAIN_BATCH = 32  # at most; larger batches were slower for every one of them

Feeds = Mapping[str, np.ndarray]
Run = Callable[[Feeds], Float[np.ndarray, "rows outputs"]]
"""From the tokens of a batch, by name, to its logits."""


@contextmanager
def plain_contenders(
    folder: ModelFolder, threads: int, failures: list[Failure]
) -> Iterator[list[Contender]]:
    """Load every plain contender whose packages are installed; their files are temporary.

    One that cannot be exported or loaded is noted among `failures`.
    """
    field: list[Contender] = []
    with TemporaryDirectory(prefix="fastbert-bench-") as parent:
        with left_out_if_it_fails(PIPELINE, failures):
            field += _pipelines(folder, threads)
        with left_out_if_it_fails("plain ONNX graph", failures):
            field += _graphs(folder, Path(parent), threads, failures)
        yield field


# The pipeline of transformers.


def _pipelines(folder: ModelFolder, threads: int) -> Iterator[Contender]:
    if not installed("torch", "transformers", what=PIPELINE):
        return
    if folder.config.teacher_head != "pretrained":
        logger.warning("%s is left out: transformers has no class for the paper's head", PIPELINE)
        return
    import torch
    from transformers import pipeline

    pipe = pipeline(
        "text-classification",
        model=str(folder.path),
        tokenizer=str(folder.path),
        device="cpu",
        dtype=torch.float32,
        trust_remote_code=False,  # else transformers asks on stdin
        **folder.config.task.pipeline_options,
    )
    given = partial(_ask_pipeline, pipe, folder.config.task, folder.config.max_length)
    yield Contender(PIPELINE, "torch", "fp32", threads, given)
    yield Contender(
        f"{PIPELINE}, sorted", "torch", "fp32", threads, partial(_sorted, given), in_bulk_only=True
    )


def _ask_pipeline(
    pipe: Any, task: Task, max_length: int, texts: Sequence[Text], batch_size: int
) -> Answers:
    rows = [
        text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]} for text in texts
    ]
    batch_size = min(batch_size, PLAIN_BATCH)
    found = pipe(rows, batch_size=batch_size, truncation=True, max_length=max_length)
    return Answers(task.piped(found))


def _sorted(
    answer: Callable[[Sequence[Text], int], Answers], texts: Sequence[Text], batch_size: int
) -> Answers:
    """Ask for the longest texts first, by their characters, and give the answers in order."""
    lengths = [
        len(text) if isinstance(text, str) else len(text[0]) + len(text[1]) for text in texts
    ]
    order = np.argsort(lengths, kind="stable")[::-1]
    decisions = answer([texts[row] for row in order], batch_size).decisions
    return Answers(decisions[np.argsort(order)])


# One graph in ONNX Runtime and in OpenVINO.


def _graphs(
    folder: ModelFolder, parent: Path, threads: int, failures: list[Failure]
) -> list[Contender]:
    if not installed("torch", "transformers", "onnx", what="a plain ONNX graph"):
        return []
    tokenizer = folder.text_tokenizer()
    graph = parent / "plain.onnx"
    with _silent():
        from fastbert.bench.graph import save_plain_graph

        save_plain_graph(folder, gives_segments=tokenizer.gives_segments, path=graph)
    runs: dict[tuple[str, str, str], Callable[[], Run]] = {}
    if installed("onnxruntime", what="plain ONNX Runtime"):
        runs["ONNX Runtime", "onnx", "fp32"] = lambda: _onnx_run(graph, threads)
        runs["ONNX Runtime", "onnx", "int8"] = lambda: _onnx_run(_onnx_int8(graph), threads)
    if installed("openvino", what="plain OpenVINO"):
        from fastbert.runtime.openvino_core import open_core

        core = open_core()
        plain = core.read_model(graph)
        runs["OpenVINO", "openvino", "fp32"] = lambda: _openvino_run(core, plain, "f32", threads)
        if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            runs["OpenVINO", "openvino", "bf16"] = lambda: _openvino_run(
                core, plain, "bf16", threads
            )
        if installed("nncf", what="plain OpenVINO in int8"):
            runs["OpenVINO", "openvino", "int8"] = lambda: _openvino_run(
                core,
                _openvino_int8(core.read_model(graph)),
                "f32",
                threads,
                DYNAMIC_QUANTIZATION_GROUP_SIZE=folder.shape.hidden_size,
            )
    found = []
    for (runtime_name, runtime, precision), load in runs.items():
        name = f"{runtime_name} {precision}"
        with left_out_if_it_fails(name, failures):
            answer = partial(_by_batches, tokenizer, folder.config.task, load())
            found.append(Contender(name, runtime, precision, threads, answer))
    return found


def _by_batches(
    tokenizer: TextTokenizer, task: Task, run: Run, texts: Sequence[Text], batch_size: int
) -> Answers:
    tokens = tokenizer.encode(texts)
    batch_size = min(batch_size, PLAIN_BATCH)
    batches = batches_of_similar_length([len(row) for row in tokens], batch_size)
    decisions = [
        task.decide(run(tokenizer.collate([tokens[row] for row in rows]).arrays))
        for rows in batches
    ]
    return Answers(np.concatenate(decisions)[np.argsort(np.concatenate(batches))])


# How each runtime is set up.


def onnx_session(model: Path | bytes, threads: int) -> Any:
    """Return an ONNX Runtime session of a graph or its file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    # Once it has answered, its threads must not spin while others have their turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _onnx_run(graph: Path, threads: int) -> Run:
    session = onnx_session(graph, threads)
    names = [item.name for item in session.get_inputs()]
    return lambda feeds: session.run(["logits"], {name: feeds[name] for name in names})[0]


def _onnx_int8(graph: Path) -> Path:
    """Quantise a graph the way ONNX Runtime does without calibration data.

    Weights keep to 7 bits: with 8, sums overflow on processors without VNNI.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantised = graph.with_name("plain_int8.onnx")
    with _silent():
        quantize_dynamic(
            graph,
            quantised,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            use_external_data_format=True,
        )
    return quantised


def _openvino_run(core: Any, model: Any, hint: str, threads: int, **settings: Any) -> Run:
    """Compile a model for one stream; `hint` is the precision, whose default may be bf16."""
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            **settings,
        },
    )
    request = compiled.create_infer_request()
    names = [port.get_any_name() for port in compiled.inputs]
    return lambda feeds: request.infer({name: feeds[name] for name in names}, share_inputs=True)[0]


def _openvino_int8(model: Any) -> Any:
    """Compress the weights; activations are quantised as they come, a row's by themselves."""
    with _silent():
        import nncf

        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep to themselves what exporters and quantisers say, in logs, bars and warnings."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
