"""What a stage says while it runs, and when it stops."""

from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from fastbert.errors import TrainingError
from fastbert.training.callbacks import StageProgress, StopOnBrokenLoss


def arguments(folder: Path, eval_strategy: str) -> TrainingArguments:
    return TrainingArguments(
        str(folder), num_train_epochs=3, eval_strategy=eval_strategy, use_cpu=True
    )


def second_epoch() -> TrainerState:
    return TrainerState(epoch=2.0, global_step=14, max_steps=21, is_world_process_zero=True)


@pytest.mark.parametrize(
    ("eval_strategy", "line"),
    [
        ("epoch", "teacher: epoch 2/3  loss 0.2500  dev accuracy 0.9000"),
        ("no", "teacher: epoch 2/3  loss 0.2500"),
    ],
)
def test_each_epoch_leaves_one_line(
    eval_strategy: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told, args = StageProgress("teacher", "accuracy"), arguments(tmp_path, eval_strategy)
    state, control = second_epoch(), TrainerControl()
    told.on_train_begin(args, state, control)
    told.on_step_end(args, state, control)
    told.on_log(args, state, control, logs={"loss": 0.25})
    told.on_epoch_end(args, state, control)
    if eval_strategy == "epoch":
        told.on_log(args, state, control, logs={"eval_loss": 0.5, "eval_accuracy": 0.9})
    told.on_train_end(args, state, control)
    said = capsys.readouterr()
    assert [each for each in (said.out + said.err).splitlines() if "/" in each] == [line]


def test_only_the_first_process_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, args = StageProgress("teacher", "accuracy"), arguments(tmp_path, "no")
    state, control = second_epoch(), TrainerControl()
    state.is_world_process_zero = False
    told.on_train_begin(args, state, control)
    told.on_step_end(args, state, control)
    told.on_log(args, state, control, logs={"loss": 0.25, "eval_accuracy": 0.9})
    told.on_epoch_end(args, state, control)
    told.on_train_end(args, state, control)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_stage_with_advice(loss: float, tmp_path: Path) -> None:
    stops, args = StopOnBrokenLoss("students"), arguments(tmp_path, "no")
    state, control = second_epoch(), TrainerControl()
    stops.on_log(args, state, control, logs={"loss": 1e6})
    stops.on_log(args, state, control, logs={"eval_accuracy": 0.9})
    with pytest.raises(TrainingError, match=f"students: the loss became {loss} by step 14; try"):
        stops.on_log(args, state, control, logs={"loss": loss})
