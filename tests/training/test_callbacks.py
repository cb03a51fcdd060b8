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


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "cause"), [("loss", "loss"), ("grad_norm", "norm of the gradient")]
)
def test_what_diverges_stops_the_stage_with_step_cause_and_advice(
    name: str, cause: str, figure: float, tmp_path: Path
) -> None:
    stops, args = StopOnBrokenLoss("students"), arguments(tmp_path, "no")
    state, control = second_epoch(), TrainerControl()
    stops.on_log(args, state, control, logs={"loss": 1e6, "grad_norm": 1e9})
    stops.on_log(args, state, control, logs={"eval_accuracy": 0.9})
    message = f"students: the {cause} became {figure} by step 14; try"
    with pytest.raises(TrainingError, match=message):
        stops.on_log(args, state, control, logs={"loss": 1.0, name: figure})


def test_the_loss_is_looked_at_before_weights_are_saved_or_judged(tmp_path: Path) -> None:
    stops, args, state = StopOnBrokenLoss("students"), arguments(tmp_path, "no"), second_epoch()
    control = TrainerControl()
    stops.on_step_end(args, state, control)
    assert not control.should_log
    control.should_save = True
    stops.on_step_end(args, state, control)
    assert control.should_log
    control.should_log = False
    stops.on_epoch_end(args, state, control)
    assert control.should_log
