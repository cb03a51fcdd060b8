"""`fastbert bench`: time this model beside itself at full depth and beside the plain runtimes.

All contenders are loaded, answer the same texts once to get warm, and then take turns: in bulk, and
with one text at a time.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from fastbert.bench.contenders import (
    Answers,
    Contender,
    Setting,
    Target,
    contenders_of,
    left_out_if_it_fails,
    loaded_models,
    targets_of,
)
from fastbert.bench.machine import limited, machine, warn_if_busy
from fastbert.bench.peak import measure_rates
from fastbert.bench.plain import PIPELINE, plain_contenders
from fastbert.bench.results import Bench, Failure, Measurement, Ratio
from fastbert.data.example import Example
from fastbert.errors import ExportError
from fastbert.evaluation import rows_all_over
from fastbert.folder.read import ModelFolder
from fastbert.system import versions
from fastbert.tasks.metrics import agreement, meant
from fastbert.tasks.task import Decisions, Task
from fastbert.text import Text
from fastbert.timing import latency, layer_bound, median_ratio, time_items, time_rounds

logger = logging.getLogger(__name__)

ROWS, LATENCY_ROWS, ROUNDS = 1_000, 200, 5
QUICK = {"rows": 200, "latency_rows": 40, "rounds": 3}
"""Arguments of `bench` for a first look."""


@dataclass(frozen=True)
class Sample:
    """The texts of a measurement.

    Args:
        examples: The texts with what is known of them.
        lengths: Tokens of each.
        truth: The right answer to each, as a number; None where not all are labelled.
        num_layers: Encoder layers of the model.
        task: What is answered.
    """

    examples: Sequence[Example]
    lengths: Int[np.ndarray, " rows"]
    truth: Decisions | None
    num_layers: int
    task: Task

    @classmethod
    def of(cls, folder: ModelFolder, examples: Sequence[Example], most: int) -> "Sample":
        """Take the texts, or of more than `most` some from all over them."""
        chosen = [examples[row] for row in rows_all_over(len(examples), most)]
        tokenizer = folder.text_tokenizer()
        lengths = [len(tokens) for tokens in tokenizer.encode([row.content for row in chosen])]
        task, truth = folder.config.task, None
        if is_labelled(examples):
            truth = task.array([row.label for row in chosen])
        return cls(chosen, np.array(lengths), truth, folder.config.num_layers, task)


def is_labelled(examples: Sequence[Example]) -> bool:
    """Return whether all texts have a label."""
    return all(row.label is not None for row in examples)


@dataclass(frozen=True)
class Timed:
    """What a contender did.

    Args:
        contender: Who.
        batch_size: Texts computed together.
        answers: Its answers to the sample.
        rounds: Seconds that each round took.
        single: Where texts came one at a time, the seconds of each.
    """

    contender: Contender
    batch_size: int
    answers: Answers
    rounds: Float[np.ndarray, " rounds"]
    single: Float[np.ndarray, "rounds rows"] | None = None


def bench(
    folder: ModelFolder,
    examples: Sequence[Example],
    *,
    runtimes: Sequence[str] = (),
    settings: Sequence[Setting] = (),
    threads: int = 1,
    batch_size: int = 32,
    rows: int = ROWS,
    latency_rows: int = LATENCY_ROWS,
    rounds: int = ROUNDS,
) -> Bench:
    """Time every contender on the same texts.

    One that cannot take part, such as an export that is refused or a goal that cannot be met, is
    named with the reason, and the others go on.

    Args:
        folder: The model.
        examples: Texts to answer; if all are labelled, their answers are judged.
        runtimes: Where this model runs: `torch`, `onnx`, `openvino`, as it is exported, or such as
            `openvino:int8`, exported for the run where the folder is not. Without any, what the
            folder is exported for, or torch.
        settings: Goals and speeds at which texts leave early; without any, the folder's default.
        threads: Processor threads of each contender.
        batch_size: Texts computed together in bulk; 2 at least, as one at a time is timed anyway.
        rows: At most so many texts in bulk.
        latency_rows: At most so many texts one at a time.
        rounds: How often each contender has its turn.

    Raises:
        ExportError: Nobody can take part.
        FolderError: A runtime was asked for that the folder is not exported for.
        DataError: Texts are labelled, and a label is not the model's.
        ValueError: A runtime is unknown, there are no texts, or `batch_size` is less than 2.
    """
    if not examples:
        raise ValueError("bench needs at least one text, got none")
    if batch_size < 2:
        raise ValueError(
            f"batch_size must be at least 2, got {batch_size}; texts one at a time are timed anyway"
        )
    if is_labelled(examples):
        folder.config.task.check(examples)
    targets = [Target.read(text) for text in runtimes] or targets_of(folder)
    warn_if_busy()
    facts = machine()  # the load is that of others, before we add ours
    with ExitStack() as stack:
        stack.enter_context(limited(threads))
        bulk, single = (Sample.of(folder, examples, most) for most in (rows, latency_rows))
        tokenised_per_second = time_tokenizer(folder, bulk, rounds)
        failures: list[Failure] = []
        texts = [row.content for row in bulk.examples]
        models = stack.enter_context(loaded_models(folder, targets, threads, failures, texts))
        field = [entry for model in models for entry in contenders_of(model, settings, failures)]
        field += stack.enter_context(plain_contenders(folder, threads, failures))
        field = able(field, bulk.examples[:batch_size], failures)
        if not field:
            raise ExportError(f"nobody can take part: {failures[0].name}: {failures[0].reason}")
        in_bulk = time_bulk(field, bulk, batch_size, rounds)
        one_by_one = time_single(field, single, rounds)
        names = {entry.name for entry in field}
        products, achieved = measure_rates(
            [model for model in models if model.full_depth in names], threads, rounds
        )
    return Bench(
        machine=facts | {"threads": threads},
        versions=versions(),
        rows={"bulk": len(bulk.examples), "latency": len(single.examples)},
        rounds=rounds,
        tokenised_per_second=tokenised_per_second,
        products=products,
        achieved=achieved,
        contenders=(*measurements(in_bulk, bulk), *measurements(one_by_one, single)),
        ratios=(*compared(in_bulk), *compared(one_by_one)),
        failures=tuple(failures),
        metric=meant(folder.config.task).column,
    )


def able(
    field: Sequence[Contender], examples: Sequence[Example], failures: list[Failure]
) -> list[Contender]:
    """Return those that can answer, asked once together and once alone, and note the others.

    What leaves early is compared with its full depth, so it does not take part without that.
    """
    texts = [row.content for row in examples]
    found: list[Contender] = []
    for entry in field:
        with left_out_if_it_fails(entry.name, failures):
            entry.answer(texts, len(texts))
            entry.answer(texts[:1], 1)
            found.append(entry)
    names = {entry.name for entry in found}
    return [entry for entry in found if entry.full_depth is None or entry.full_depth in names]


def time_tokenizer(folder: ModelFolder, sample: Sample, rounds: int) -> float:
    """Return how many texts a second are tokenised, by the median round."""
    texts = [row.content for row in sample.examples]
    seconds = time_rounds({"tokenizer": partial(folder.text_tokenizer().encode, texts)}, rounds)
    return len(texts) / float(np.median(seconds["tokenizer"]))


def time_bulk(
    field: Sequence[Contender], sample: Sample, batch_size: int, rounds: int
) -> list[Timed]:
    """Let each contender answer all texts in each round; before, once to get warm."""
    texts = [row.content for row in sample.examples]
    runs = {entry.name: partial(entry.answer, texts, batch_size) for entry in field}
    logger.info("%d contenders answer %d texts, %d times", len(field), len(texts), rounds + 1)
    answers = {name: run() for name, run in runs.items()}
    seconds = time_rounds(runs, rounds)
    return [Timed(entry, batch_size, answers[entry.name], seconds[entry.name]) for entry in field]


def time_single(field: Sequence[Contender], sample: Sample, rounds: int) -> list[Timed]:
    """Let each contender answer each text alone in each round; before, once to get warm."""
    field = [entry for entry in field if not entry.in_bulk_only]
    texts = [row.content for row in sample.examples]
    logger.info("%d contenders answer %d texts one by one", len(field), len(texts))
    answers = {entry.name: _joined([entry.answer([text], 1) for text in texts]) for entry in field}
    seconds = time_items(
        {entry.name: partial(_answer_one, entry) for entry in field}, texts, rounds
    )
    return [
        Timed(entry, 1, answers[entry.name], seconds[entry.name].sum(axis=1), seconds[entry.name])
        for entry in field
    ]


def _answer_one(contender: Contender, text: Text) -> Answers:
    return contender.answer([text], 1)


def _joined(answers: Sequence[Answers]) -> Answers:
    layers = [answer.exit_layer for answer in answers if answer.exit_layer is not None]
    return Answers(
        np.concatenate([answer.decisions for answer in answers]),
        np.concatenate(layers) if layers else None,
    )


# From times to figures.


def measurements(field: Sequence[Timed], sample: Sample) -> list[Measurement]:
    """Return the figures of each contender."""
    by_name = {timed.contender.name: timed for timed in field}
    plain = _plain_answers(field)
    return [_measurement(timed, by_name, sample, plain) for timed in field]


def _plain_answers(field: Sequence[Timed]) -> Decisions | None:
    """Return the pipeline's answers or, where it does not take part, the model's at full depth."""
    full = [timed for timed in field if timed.contender.full_depth is None]
    pipelines = [timed for timed in full if timed.contender.name == PIPELINE]
    ours = [timed for timed in full if timed.contender.is_ours]
    return next((timed.answers.decisions for timed in [*pipelines, *ours]), None)


def _measurement(
    timed: Timed,
    by_name: Mapping[str, Timed],
    sample: Sample,
    plain: Decisions | None,
) -> Measurement:
    entry, answers, task, truth = (
        timed.contender,
        timed.answers.decisions,
        sample.task,
        sample.truth,
    )
    spread = latency(timed.single) if timed.single is not None else None
    layers = timed.answers.exit_layer
    speedup = by_rows = by_tokens = None
    if entry.full_depth is not None and layers is not None:
        speedup = median_ratio(by_name[entry.full_depth].rounds, timed.rounds)
        by_rows = speedup / layer_bound(layers, sample.num_layers)
        by_tokens = speedup / layer_bound(layers, sample.num_layers, sample.lengths)
    return Measurement(
        name=entry.name,
        runtime=entry.runtime,
        precision=entry.precision,
        threads=entry.threads,
        batch_size=timed.batch_size,
        rows_per_second=len(sample.examples) / float(np.median(timed.rounds)),
        p50_ms=spread.p50_ms if spread else None,
        p95_ms=spread.p95_ms if spread else None,
        p99_ms=spread.p99_ms if spread else None,
        accuracy=None if truth is None else meant(task).score(answers, truth),
        agreement=None if plain is None else agreement(task, answers, plain),
        mean_exit_layer=float(sample.num_layers if layers is None else layers.mean()),
        layers=sample.num_layers,
        share_of_saving=by_rows,
        share_of_saving_by_tokens=by_tokens,
    )


def compared(field: Sequence[Timed]) -> Iterator[Ratio]:
    """Compare all with the pipeline, and this model with full depth and the plain runtime."""
    for timed in field:
        for other in field:
            if _are_compared(timed.contender, other.contender):
                rounds = other.rounds / timed.rounds
                yield Ratio(
                    timed.contender.name,
                    other.contender.name,
                    timed.batch_size,
                    float(np.median(rounds)),
                    tuple(rounds.tolist()),
                )


def _are_compared(entry: Contender, other: Contender) -> bool:
    if entry.name == other.name:
        return False
    same_runtime = (entry.runtime, entry.precision) == (other.runtime, other.precision)
    return (
        other.name == PIPELINE
        or other.name == entry.full_depth
        or (entry.is_ours and not other.is_ours and same_runtime)
    )
