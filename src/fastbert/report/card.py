"""The model card: what a model folder holds, how to use it, and what was measured.

It says only what `early_exit.json` knows, and it names no place on the machine that trained the
model: folders are published. The figure is drawn where matplotlib is installed.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.followed import Followed
from fastbert.folder.names import CARD_FILE, FIGURE_FILE
from fastbert.head_shapes import in_words
from fastbert.report.captions import several
from fastbert.tasks.metrics import headings, judged_by, spelled
from fastbert.tasks.task import Metric, Task

STAGES = {
    "teacher": "Fine-tuning",
    "students": "Learning of the students alone",
    "exits": "Training of all parts together",
    "polish": "Last training of the students",
}
BY_ANOTHER = {"teacher": "Learning of the last exit"}  # where it is no teacher of its own
MOST_LABELS = 30  # that are named one by one
_HUB_NAME = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*")


def write_card(folder: Path, config: EarlyExitConfig, *, split: str) -> None:
    """Write README.md into a model folder, with a figure if matplotlib is installed.

    Args:
        folder: A complete model folder, or one that is being filled.
        config: What its early_exit.json says, with the measured table.
        split: What the table was measured on: `dev`, which also chose the default, or `test`.
    """
    figure = _draw(folder / FIGURE_FILE, config)
    sections = [
        _introduction(config),
        _usage(config),
        _measurements(config, split, figure) if config.evaluation else "",
        _training(config),
    ]
    data = ModelCardData(
        base_model=_hub_name(config.training.get("model")),
        library_name="fastbert",
        pipeline_tag=config.task.hub_tag,
        tags=["fastbert", "early-exit"],
    )
    body = "\n\n".join(section for section in sections if section)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n").save(folder / CARD_FILE)


def quality_name(config: EarlyExitConfig) -> str:
    """Return what answers are judged by: without labels, agreement with the teacher."""
    if followed := Followed.of(config.training):
        return followed.quality
    if "texts" in config.training:
        return "agreement with the full model"
    return spelled(_judged_by(config).column)


def _judged_by(config: EarlyExitConfig) -> Metric:
    labelled = "texts" not in config.training and not Followed.of(config.training)
    return judged_by(config.task, labelled=labelled)


def _headings(config: EarlyExitConfig) -> dict[str, str]:
    return headings(config.task, labelled=not Followed.of(config.training))


def _draw(path: Path, config: EarlyExitConfig) -> bool:
    """Draw the figure, if there is something to draw it from and with; return whether."""
    if not config.evaluation:
        return False
    try:
        from fastbert.report import brush, figures
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        return False
    path.write_bytes(brush.picture(figures.tradeoff, _curve(config), quality_name(config), "png"))
    return True


def _curve(config: EarlyExitConfig) -> list[dict[str, Any]]:
    """Return the measured settings as the figure takes them, the default by itself."""
    column = _judged_by(config).column
    return [
        {
            "series": "chosen" if row["speed"] is None else "speed",
            "setting": row["speed"],
            "accuracy": row[column],
            "speedup_flops": row["speedup_flops"],
        }
        for row in config.evaluation
    ]


def _introduction(config: EarlyExitConfig) -> str:
    names = ", ".join(f"`{label}`" for label in config.labels[:MOST_LABELS])
    more = len(config.labels) - MOST_LABELS
    nouns = several(config.task.noun).capitalize()
    return "\n".join(
        [
            f"# FastBERT classifier with {config.task.described}",
            "",
            "A text classifier that stops reading layers as soon as it is sure. After each of its "
            f"{config.num_layers} encoder layers but the last sits a small classifier, a "
            "*student*. A text leaves at the first one whose uncertainty lies below the "
            "threshold *speed*; speed 0 runs every layer.",
            "",
            f"- {nouns}: {names}{f' and {more} more' if more > 0 else ''}",
            f"- Heads of the students: {in_words(config.students)}",
            f"- Longest text: {config.max_length} tokens; what is longer is cut",
            "- Method: FastBERT ([Liu et al., ACL 2020](https://aclanthology.org/2020.acl-main.537))"
            ", by the package `fastbert-kit`",
        ]
    )


def _usage(config: EarlyExitConfig) -> str:
    told = ", ".join(f"prediction.{name}" for name in config.task.prediction_fields)
    is_papers = config.teacher_head != "pretrained"
    return f"""## How to use it

```python
from fastbert import FastBertClassifier

classifier = FastBertClassifier.from_pretrained("FOLDER_OR_HUB_NAME")
prediction = classifier.predict("A text to classify.")
print({told}, prediction.exit_layer)
```

{_PAPER_HEAD if is_papers else _pretrained_head(config.task)}"""


def _pretrained_head(task: Task) -> str:
    options = "".join(f", {name}={value!r}" for name, value in task.pipeline_options.items())
    return f"""\
For other tools the folder is a usual Hugging Face classifier, with the answers of speed 0:

```python
from transformers import pipeline

pipeline("text-classification", model="FOLDER_OR_HUB_NAME"{options})("A text to classify.")
```"""


_PAPER_HEAD = """\
`model.safetensors` holds a plain encoder, which `AutoModel` of transformers reads. The classifier
after the last layer is the paper's; it lies with the students in `students.safetensors`, so other
tools cannot classify with this folder."""


def _measurements(config: EarlyExitConfig, split: str, figure: bool) -> str:
    rows = config.evaluation
    measured, chosen_on = _provenance(config, split)
    paragraphs = [
        "## What was measured",
        f"Measured on {measured}",
        *_told_default(config, chosen_on),
        _table(rows, _headings(config)),
        "*FLOPs* compares with the full model without students; attention and real lengths count. "
        "*Paper's count* is that of the FastBERT paper. *Time* compares with speed 0 of the same "
        f"run{_timed(rows)}: batches of 32, tokenisation included, on the machine that trained "
        "the model.",
    ]
    if figure:
        paragraphs.append(f"![{quality_name(config)} against speed-up]({FIGURE_FILE})")
    return "\n\n".join(paragraphs)


def _timed(rows: Sequence[dict[str, Any]]) -> str:
    """Say how many texts were timed, if not all were."""
    timed = round(rows[0]["seconds"] * rows[0]["rows_per_second"])
    return "" if timed == rows[0]["rows"] else f", on {timed:,} of the texts"


def _told_default(config: EarlyExitConfig, chosen_on: str) -> list[str]:
    """Return what is answered where nobody asks for a speed or a goal."""
    if config.default is None or config.default.goal is None:
        return []
    return [
        f"The default, **{_setting(config.default.goal)}**, has a threshold for each student, "
        f"chosen on {chosen_on}. A *speed* is the paper's: one threshold of uncertainty for all."
    ]


def _setting(goal: Mapping[str, float | str]) -> str:
    """Return a goal as Python takes it."""
    return ", ".join(f"{name}={value}" for name, value in goal.items())


def _provenance(config: EarlyExitConfig, split: str) -> tuple[str, str]:
    """Return which texts were measured on, and which chose the default."""
    texts = f"{config.evaluation[0]['rows']:,} texts"
    if followed := Followed.of(config.training):
        return (
            f"{texts} held out of the file it was taught on. The answers of {followed.teacher} are "
            f"taken to be right, so {_listed(config)} compare with them. The default "
            f"{followed.in_words()}; with every layer it keeps {followed.kept_by_every_layer:.2%}.",
            "the same texts, which flatters a little",
        )
    if "texts" in config.training:
        return (
            f"{texts} held out of the file it was distilled from. They have no labels, so "
            f"{_listed(config)} are agreement with the answers of the full model.",
            "the same texts, which flatters a little",
        )
    if split == "test":
        return f"the {texts} of the test file.", "the dev file"
    return (
        f"the {texts} of the dev file.",
        "the same texts, as were the epochs, which flatters a little",
    )


def _listed(config: EarlyExitConfig) -> str:
    """Return the metrics of the table in words."""
    *names, last = (f"*{heading}*" for heading in _headings(config).values())
    return f"{', '.join(names)} and {last}"


def _table(rows: Sequence[dict[str, Any]], metrics: Mapping[str, str]) -> str:
    full = next((row for row in rows if row["speed"] == 0), None)
    names = ["setting", *metrics.values(), "mean layers", "FLOPs", "paper's count", "time"]
    lines = [f"| {' | '.join(names)} |", f"|{' ---: |' * len(names)}"]
    for row in rows:
        time = f"{full['seconds'] / row['seconds']:.2f}x" if full else "-"
        is_speed = row["speed"] is not None
        setting = f"speed {row['speed']:g}" if is_speed else f"**{_setting(row['goal'])}**"
        lines.append(
            f"| {setting} | {' | '.join(f'{row[column]:.2%}' for column in metrics)} "
            f"| {row['mean_exit_layer']:.2f} of {row['layers']} | {row['speedup_flops']:.2f}x "
            f"| {row['speedup_paper']:.2f}x | {time} |"
        )
    return "\n".join(lines)


def _training(config: EarlyExitConfig) -> str:
    training = config.training
    facts = []
    if rows := training.get("rows"):
        facts.append(f"- {rows[0]:,} labelled texts, {rows[1]:,} to choose epochs and thresholds")
    if followed := Followed.of(training):
        facts.append(f"- Taught by the answers of {_told_teacher(followed)}, without labels")
    elif "texts" in training:
        facts.append(
            "- The encoder and its last classifier were taken as they were; only students are new"
        )
    if why := training.get("given_up"):
        facts.append(
            f"- Scheme: {why['fallback']}, because {why['scheme']} left its last exit with "
            f"{why['metric']} {why['full']:.4f} on dev where the teacher before had "
            f"{why['teacher']:.4f}, and {why['tolerance']:g} may be lost"
        )
    elif scheme := training.get("scheme"):
        facts.append(f"- Scheme: {scheme}")
    for name, stage in _stages(training).items():
        epochs = stage["epochs"]
        facts.append(
            f"- {name}: {epochs} epoch{'s' if epochs > 1 else ''}, learning rate {_rate(stage)}, "
            f"batches of {stage['batch_size'] * stage['gradient_accumulation']}, "
            f"seed {stage['seed']}"
        )
    if versions := config.versions:
        facts.append("- Written by " + ", ".join(f"{name} {versions[name]}" for name in versions))
    return "## How it was trained\n\n" + "\n".join(facts) if facts else ""


def _rate(stage: Mapping[str, Any]) -> str:
    """Return the peak rate of a stage, and that of its students where it is another."""
    rate, students = f"{stage['learning_rate']:g}", stage.get("students_learning_rate")
    return rate if students is None else f"{rate} ({students:g} of the students)"


def _told_teacher(followed: Followed) -> str:
    """Return the teacher's name and, where they are known, what both models cost."""
    if followed.teacher_flops is None:
        return followed.teacher
    return (
        f"{followed.teacher}, which takes {followed.teacher_flops / 1e9:.3g} GFLOPs for a text "
        f"where the default takes {followed.flops / 1e9:.3g}"
    )


def _stages(training: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the settings of the stages that made the model, each by what it does."""
    done = training["fallback"] if "given_up" in training else training
    if "stages" in done:
        names = STAGES | (BY_ANOTHER if Followed.of(training) else {})
        return {names.get(name, name): each["settings"] for name, each in done["stages"].items()}
    stages = {
        STAGES["teacher"]: training.get("fine_tuning"),
        STAGES["students"]: training.get("students", {}).get("stage"),
    }
    return {name: stage for name, stage in stages.items() if stage}


def _hub_name(model: Any) -> str | None:
    """Return the base model if it is one that can be found on the Hub, no path."""
    if not isinstance(model, str) or Path(model).exists():
        return None
    return model if _HUB_NAME.fullmatch(model) else None
