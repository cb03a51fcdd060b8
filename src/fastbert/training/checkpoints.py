"""Checkpoints that can be trusted after a kill.

The Trainer writes a checkpoint file by file under its final name, and resumes from the highest
number whatever is in it. Here a list of sizes and hashes is written last: a checkpoint without
it, or one that differs from it, is skipped.
"""

import json
import logging
import re
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fastbert.files.disk import hash_of_file, sync_to_disk

WHOLE = "whole.json"

logger = logging.getLogger(__name__)


class CheckpointWriter(TrainerCallback):
    """Writes a checkpoint every so many steps too, and seals each one."""

    def __init__(self, every_steps: int) -> None:
        """Set how much work a kill may cost, in steps."""
        self.every_steps = every_steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint, except at an epoch's end, where one is due after evaluation."""
        ends_epoch = state.global_step % (state.max_steps // int(args.num_train_epochs)) == 0
        if state.global_step % self.every_steps == 0 and not ends_epoch:
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Seal what the Trainer has just written."""
        if state.is_world_process_zero:
            seal_checkpoint(Path(args.output_dir or "") / f"checkpoint-{state.global_step}")


def seal_checkpoint(checkpoint: Path) -> None:
    """Write the sizes and hashes of a finished checkpoint's files, and wait for the disk."""
    files = _contents(checkpoint)
    for name in files:
        sync_to_disk(checkpoint / name)
    staged = checkpoint / f"{WHOLE}.part"
    staged.write_text(json.dumps(files, indent=1), encoding="utf-8")
    sync_to_disk(staged)
    staged.rename(checkpoint / WHOLE)
    sync_to_disk(checkpoint)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that is whole, and so is the best one it refers to.

    Each one that is skipped is named in a warning.
    """
    numbered = {
        int(match[1]): path
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    for _, path in sorted(numbered.items(), reverse=True):
        damage = _damage(path) or _damage_of_best(path)
        if damage is None:
            return path
        logger.warning("%s: skipped, %s; going on from the one before it", path, damage)
    return None


def _damage(checkpoint: Path) -> str | None:
    try:
        expected = json.loads((checkpoint / WHOLE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "it was never finished"
    found = _contents(checkpoint)
    differing = sorted(name for name in expected if found.get(name) != expected[name])
    return f"{differing[0]} is damaged" if differing else None


def _damage_of_best(checkpoint: Path) -> str | None:
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    best = state["best_model_checkpoint"]
    if best is None:
        return None
    damage = _damage(Path(best))
    return None if damage is None else f"of the best checkpoint {best}: {damage}"


def _contents(checkpoint: Path) -> dict[str, dict[str, Any]]:
    return {
        path.relative_to(checkpoint).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hash_of_file(path),
        }
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and not path.name.startswith(WHOLE)
    }
