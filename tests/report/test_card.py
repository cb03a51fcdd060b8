import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from fastbert.folder.config import DefaultPoint, EarlyExitConfig
from fastbert.folder.followed import Followed
from fastbert.head_shapes import PaperHead, QueryHead
from fastbert.report.card import quality_name, write_card
from fastbert.tasks.multi_label import MultiLabel
from fastbert.tasks.single_label import SingleLabel

STAGE = {
    "epochs": 3,
    "learning_rate": 2e-5,
    "batch_size": 8,
    "gradient_accumulation": 4,
    "seed": 7,
}


def row(speed: float | None, accuracy: float, layers: float, seconds: float) -> dict[str, Any]:
    return {
        "speed": speed,
        "goal": {"max_drop": 0.02} if speed is None else None,
        "accuracy": accuracy,
        "macro_f1": accuracy - 0.05,
        "rows": 1234,
        "mean_exit_layer": layers,
        "layers": 4,
        "speedup_flops": 3.9 / layers,
        "speedup_paper": 4 / layers,
        "seconds": seconds,
        "rows_per_second": 500 / (seconds),
    }


TRAINED = EarlyExitConfig(
    teacher_head="pretrained",
    task=SingleLabel(("no", "perhaps", "yes")),
    num_layers=4,
    max_length=99,
    students=(PaperHead(), PaperHead(), QueryHead(8)),
    default=DefaultPoint({"name": "margin"}, (0.1, 0.2, 0.0), {"max_drop": 0.02}),
    evaluation=[row(0.0, 0.91, 4.0, 6.0), row(0.25, 0.9, 1.5, 2.5), row(None, 0.89, 1.3, 2.0)],
    training={
        "train": "train.csv",
        "rows": [5000, 600],
        "model": "someone/encoder",
        "fine_tuning": STAGE,
        "students": {"stage": STAGE},
    },
)
DISTILLED = replace(
    TRAINED,
    training={
        "texts": "texts.csv",
        "model": "someone/classifier",
        "students": {"stage": STAGE},
    },
)


def card(folder: Path, config: EarlyExitConfig, split: str = "dev") -> str:
    """Return the text of the card; line breaks do not matter."""
    write_card(folder, config, split=split)
    return " ".join((folder / "README.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize(("timed", "told"), [(1234, ""), (500, ", on 500 of the texts")])
def test_the_card_says_how_many_texts_were_timed_where_not_all_were(
    timed: int, told: str, tmp_path: Path
) -> None:
    rows = [entry | {"rows_per_second": timed / entry["seconds"]} for entry in TRAINED.evaluation]
    text = card(tmp_path, replace(TRAINED, evaluation=rows))
    assert f"speed 0 of the same run{told}: batches of 32" in text


def test_the_table_compares_each_speed_with_speed_0(tmp_path: Path) -> None:
    text = card(tmp_path, TRAINED)
    assert "| speed 0 | 91.00% | 86.00% | 4.00 of 4 | 0.97x | 1.00x | 1.00x |" in text
    assert "| speed 0.25 | 90.00% | 85.00% | 1.50 of 4 | 2.60x | 2.67x | 2.40x |" in text
    assert "| **max_drop=0.02** | 89.00% | 84.00% | 1.30 of 4 | 3.00x | 3.08x | 3.00x |" in text


@pytest.mark.parametrize(
    ("config", "split", "measured", "chosen"),
    [
        (TRAINED, "test", "the 1,234 texts of the test file.", "on the dev file."),
        (TRAINED, "dev", "the 1,234 texts of the dev file.", "on the same texts, as were the"),
        (
            DISTILLED,
            "dev",
            "are agreement with the answers of the full",
            "on the same texts, which",
        ),
    ],
    ids=["test", "dev", "no labels"],
)
def test_it_says_what_was_measured_and_where_the_default_comes_from(
    config: EarlyExitConfig, split: str, measured: str, chosen: str, tmp_path: Path
) -> None:
    text = card(tmp_path, config, split)
    assert measured in text
    assert "The default, **max_drop=0.02**, has a threshold for each student" in text
    assert f"chosen {chosen}" in text


def test_another_model_that_taught_it_is_named_with_what_is_kept_and_saved(
    tmp_path: Path,
) -> None:
    followed = Followed("big-model", 1_234, 0.991, 0.9955, 2e9, 12.6e9)
    stages = {"teacher": {"settings": STAGE}, "exits": {"settings": STAGE}}
    taught = {"texts": "t.csv", "model": "someone/encoder", "scheme": "into", "stages": stages}
    config = replace(DISTILLED, training=taught | followed.told())
    text = card(tmp_path, config)
    assert "1,234 texts held out of the file it was taught on" in text
    assert "The default keeps 99.10% of the answers of big-model at 6.30x fewer FLOPs" in text
    assert "with every layer it keeps 99.55%" in text
    assert "| setting | agreement | macro F1 |" in text
    assert "Taught by the answers of big-model, which takes 12.6 GFLOPs for a text where" in text
    assert "taken as they were" not in text
    assert "Learning of the last exit: 3 epochs" in text
    assert quality_name(config) == "agreement with big-model"
    unknown = replace(followed, teacher_flops=None)
    text = card(tmp_path, replace(config, training=taught | unknown.told()))
    assert "keeps 99.10% of the answers of big-model, on 1,234 texts" in text
    assert "Taught by the answers of big-model, without labels" in text


def test_the_settings_are_listed(tmp_path: Path) -> None:
    text = card(tmp_path, TRAINED)
    assert "5,000 labelled texts, 600 to choose" in text
    assert "Fine-tuning: 3 epochs, learning rate 2e-05, batches of 32, seed 7" in text
    assert "Fine-tuning" not in card(tmp_path, DISTILLED)


def test_other_tools_are_shown_only_what_they_can_do(tmp_path: Path) -> None:
    assert 'pipeline("text-classification"' in card(tmp_path, TRAINED)

    paper = card(tmp_path, replace(TRAINED, teacher_head=PaperHead()))
    assert "holds a plain encoder" in paper
    assert "pipeline(" not in paper


@pytest.mark.parametrize("name", ["someone/encoder", "bert-base-uncased", "a.b/c_d-1.5"])
def test_an_encoder_of_the_hub_is_named(name: str, tmp_path: Path) -> None:
    card(tmp_path, replace(TRAINED, training={"model": name}))
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.base_model == name
    assert (data.library_name, data.pipeline_tag) == ("fastbert", "text-classification")


@pytest.mark.parametrize("name", ["/home/me/encoder", "../encoder", "~/encoder", "a/b/c", "local"])
def test_a_folder_of_this_machine_is_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    text = card(tmp_path, replace(TRAINED, training={"model": name}))
    assert "base_model" not in text
    assert name not in text


def test_many_classes_are_counted_not_listed(tmp_path: Path) -> None:
    text = card(
        tmp_path, replace(TRAINED, task=SingleLabel(tuple(f"intent{n}" for n in range(151))))
    )
    assert "with 151 classes" in text
    assert "`intent29` and 121 more" in text


def test_a_model_that_nobody_measured_has_a_card_too(tmp_path: Path) -> None:
    text = card(tmp_path, replace(TRAINED, evaluation=[], training={}))
    assert "How to use it" in text
    assert "measured" not in text
    assert not (tmp_path / "speed-accuracy.png").exists()


def test_the_figure_is_there_if_matplotlib_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "](speed-accuracy.png)" in card(tmp_path, TRAINED)
    figure = tmp_path / "speed-accuracy.png"
    assert figure.read_bytes().startswith(b"\x89PNG")

    figure.unlink()
    for module in ("fastbert.report.figures", "fastbert.report.brush"):
        monkeypatch.delitem(sys.modules, module)
        monkeypatch.delattr(module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    assert "speed-accuracy.png" not in card(tmp_path, TRAINED)
    assert not figure.exists()


def of_labels(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a measured row as answers of several labels have it."""
    kept = {name: value for name, value in entry.items() if name != "accuracy"}
    return kept | {"micro_f1": entry["accuracy"], "row_f1": entry["accuracy"] - 0.11}


LABELLED = replace(
    TRAINED,
    task=MultiLabel(("calm", "glad", "sad", "odd")),
    evaluation=[of_labels(entry) for entry in TRAINED.evaluation],
)


def test_a_card_of_several_labels_speaks_of_labels_and_f1(tmp_path: Path) -> None:
    text = card(tmp_path, LABELLED)
    assert "# FastBERT classifier with 4 labels, of which a text may have any number" in text
    assert "- Labels: `calm`, `glad`, `sad`, `odd`" in text
    assert "print(prediction.labels, prediction.exit_layer)" in text
    assert 'model="FOLDER_OR_HUB_NAME", top_k=None)(' in text
    assert "| setting | micro F1 | macro F1 | row F1 | mean layers |" in text
    assert "| speed 0 | 91.00% | 86.00% | 80.00% | 4.00 of 4 |" in text
    assert "![micro F1 against speed-up](speed-accuracy.png)" in text
    assert "accuracy" not in text.replace("speed-accuracy.png", "")
    assert "lasses" not in text


def test_what_a_model_of_several_labels_was_taught_by_is_agreed_with_row_by_row(
    tmp_path: Path,
) -> None:
    followed = Followed("big-model", 1_234, 0.991, 0.9955, 2e9, None)
    config = replace(LABELLED, training=DISTILLED.training | followed.told())
    text = card(tmp_path, config)
    assert "so *micro F1*, *macro F1* and *agreement* compare with them" in text
    assert "| setting | micro F1 | macro F1 | agreement | mean layers |" in text
    assert quality_name(config) == "agreement with big-model"

    alone = replace(LABELLED, training=DISTILLED.training)
    said = "*micro F1*, *macro F1* and *row F1* are agreement with the answers of the full model"
    assert said in card(tmp_path, alone)


@pytest.mark.parametrize(
    ("training", "worth"), [(TRAINED.training, 0.91), (DISTILLED.training, 0.80)]
)
def test_the_figure_of_a_card_shows_what_is_told(
    training: dict[str, Any], worth: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []

    def picture(draw: object, table: Any, quality: str, kind: str) -> bytes:
        drawn.extend(table)
        return b""

    monkeypatch.setattr("fastbert.report.brush.picture", picture)
    card(tmp_path, replace(LABELLED, training=training))
    assert drawn[0]["accuracy"] == pytest.approx(worth)
