"""What a run says before it starts: counts, and nothing that a forecast could change."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastbert.nn.model import FastBertModel
from fastbert.recipes.forecast import Forecast, announce, forecast, forward_passes
from fastbert.text import TextTokenizer
from fastbert.training.scheme import SchemeSettings, exit_aware, paper
from fastbert.training.stream import TrainingTexts
from tests.tiny_data import examples
from tests.training.learning import SETTINGS, fresh_model, texts_of

NUMBERS = SchemeSettings(
    fine_tuning=replace(SETTINGS, epochs=2),
    distillation=replace(SETTINGS, epochs=5),
    warm_up=replace(SETTINGS, epochs=1),
    exits=replace(SETTINGS, epochs=3),
)
ROWS, LABELLED, DEV = 21, 15, 10


@pytest.fixture
def model() -> FastBertModel:
    return fresh_model()


@pytest.fixture
def texts(model: FastBertModel, tokenizer: TextTokenizer, tmp_path: Path) -> TrainingTexts:
    dev = examples(DEV, seed=1)
    made = texts_of(model, tokenizer, examples(ROWS), dev, tmp_path / "texts")
    assert made.labels is not None
    return replace(made, labels=made.labels[:LABELLED])


def test_the_stages_are_told_with_their_epochs_and_texts(
    model: FastBertModel, texts: TrainingTexts
) -> None:
    made = forecast(exit_aware(NUMBERS), model, texts)
    assert made.stages == (("teacher", 2, 15), ("students", 1, 21), ("exits", 3, 21))
    assert made.tokens == pytest.approx(texts.train.lengths().mean())
    assert made.seconds > 0


def test_a_step_of_the_encoder_is_worth_three_passes_and_one_of_students_one(
    texts: TrainingTexts,
) -> None:
    each = [forward_passes(stage, texts) for stage in exit_aware(NUMBERS).stages]
    assert each == [2 * (3 * 15 + 10), 21 + 10, 3 * (3 * 21 + 10)]


@pytest.mark.parametrize(
    ("asked", "passes"), [(None, 21 + 10), (True, 21 + 10), (False, 5 * (21 + 10))]
)
def test_where_hidden_states_are_kept_the_encoder_runs_once(
    asked: bool | None, passes: int, texts: TrainingTexts
) -> None:
    numbers = replace(NUMBERS, cache_hidden_states=asked)
    assert forward_passes(paper(numbers).stages[1], texts) == passes
    warm_up = replace(NUMBERS, warm_up=NUMBERS.distillation, cache_hidden_states=asked)
    assert forward_passes(exit_aware(warm_up).stages[1], texts) == passes


def test_without_dev_only_the_texts_run_once(texts: TrainingTexts) -> None:
    assert forward_passes(paper(NUMBERS).stages[1], replace(texts, dev=None)) == 21


def test_without_an_accelerator_nobody_asks_for_the_current_one(
    model: FastBertModel, texts: TrainingTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("there is none")

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", refuse)
    assert forecast(paper(NUMBERS), model, texts).seconds > 0


def test_a_forecast_moves_no_weight_and_no_random_number(
    model: FastBertModel, texts: TrainingTexts, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    announce(paper(NUMBERS), model, texts)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert capsys.readouterr().err.startswith("plan: scheme paper: teacher, 2 epochs of 15 texts;")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.02, "1 s"), (80.1, "81 s"), (150.0, "2.5 min"), (9e3, "2.5 h")]
)
def test_a_time_is_told_in_a_unit_that_fits(seconds: float, shown: str) -> None:
    stages = (("teacher", 1, 2_000), ("students", 3, 2_000))
    assert str(Forecast("paper", stages, 41.6, seconds)) == (
        "plan: scheme paper: teacher, 1 epoch of 2,000 texts; students, 3 epochs of 2,000 texts; "
        f"42 tokens a text; about {shown} on this machine"
    )
