"""Where contenders are trained: the same texts, the same seed, one teacher; each on its own.

What a contender comes to depends on its own settings and the shared teacher alone, not on which
others there are nor on their order: with the same seed `train` makes the same model.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from fastbert.answering import Answering
from fastbert.bench.machine import machine
from fastbert.calibration.frontier import Split
from fastbert.calibration.goal import DEFAULT_GOAL
from fastbert.errors import TrainingError
from fastbert.exits.recorded import RecordedExits
from fastbert.head_shapes import spelled
from fastbert.nn.backend import TorchBackend
from fastbert.nn.model import FastBertModel
from fastbert.nn.teachers import teacher_to_train
from fastbert.recipes.comparison import folder_of
from fastbert.recipes.contenders import TEACHER, Contender, shared_stage
from fastbert.recipes.forecast import announce_all
from fastbert.recipes.outcome import record_texts
from fastbert.recipes.records import is_recorded, read_facts, write_record
from fastbert.recipes.run import Run, config_of
from fastbert.recipes.run_folder import ANSWERS, KeptStage, remove
from fastbert.recipes.stages import Learned
from fastbert.recipes.train import LabelledFiles
from fastbert.text import TextTokenizer
from fastbert.training.answers import TeacherAnswers
from fastbert.training.passes import teacher_answers
from fastbert.training.scheme import Scheme, SchemeSettings
from fastbert.training.stream import TrainingTexts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arena:
    """What all contenders have in common.

    Args:
        output: The comparison's folder.
        model: The pretrained encoder.
        files: The texts.
        places: Where these were read, by the name that an argument of `train` has.
        max_length: Longest sequence in tokens.
        settings: The numbers of the schemes; the first stage is of these.
        keep_models: Whether a contender's model folder is written too.
    """

    output: Path
    model: str
    files: LabelledFiles
    places: dict[str, str | None]
    max_length: int
    settings: SchemeSettings
    keep_models: bool

    def refuse_changed(self, contenders: Sequence[Contender], seed: int) -> None:
        """Refuse to take contenders for finished that were other ones.

        Raises:
            TrainingError: One has other settings now.
        """
        folder = folder_of(self.output, seed)
        for contender in contenders:
            if not is_recorded(folder, contender.name):
                continue
            before, now = read_facts(folder, contender.name)["asked"], as_json(contender.told())
            for key in now:
                if before.get(key) != now[key]:
                    raise TrainingError(
                        f"{folder}: {contender.name} is finished with other {key}, "
                        f"{before.get(key)}, not {now[key]}; give it another name, or delete "
                        f"{contender.name}.json"
                    )

    def train(self, contenders: Sequence[Contender], seed: int) -> None:
        """Train what is not finished, from one first stage, and record what it answers.

        Raises:
            BackboneError: An encoder cannot be used.
            TrainingError: Something else was begun in the folder, or a loss is not a number.
        """
        folder = folder_of(self.output, seed)
        left = [one for one in contenders if not self._is_finished(folder, one.name)]
        if not left and is_recorded(folder, TEACHER):
            return
        with Run.open(folder / TEACHER, resume=True) as run:
            teacher = SharedTeacher(self, run, seed, left)
            for contender in left:
                self._train(contender, seed, teacher)

    def _is_finished(self, folder: Path, name: str) -> bool:
        return is_recorded(folder, name) and not (folder / f"{name}.training").exists()

    def _train(self, contender: Contender, seed: int, teacher: "SharedTeacher") -> None:
        checkpoint, place = contender.model or self.model, folder_of(self.output, seed)
        with Run.open(place / contender.name, resume=True) as run:
            scheme = run.settle(contender.stages)
            set_seed(seed)
            body = teacher_to_train(checkpoint, self.files.task, layers=contender.layers)
            model = FastBertModel(body, contender.heads)
            tokenizer = run.begin(
                checkpoint, model, self.files.contents, self._settings(checkpoint, model, scheme)
            )
            own_texts = contender.model is not None
            texts = self.files.tokenised(run, tokenizer) if own_texts else teacher.texts
            goes_on = contender.begins_with(shared_stage(self.settings, seed))
            if goes_on:
                teacher.kept.give(run.folder)
            is_taught = goes_on or scheme.stages[0].taught
            needs_answers = is_taught and any(stage.taught for stage in scheme.stages)
            start = time.perf_counter()
            learned = run.train(
                scheme, model, tokenizer, texts, teacher.answers if needs_answers else None
            )
            facts = {
                "asked": as_json(contender.told()),
                "teacher": teacher.sha256,
                **training_facts(run, learned, scheme, time.perf_counter() - start),
            }
            self.record(place, contender.name, facts, model, tokenizer, contender.has_students)
            if self.keep_models:
                run.finish(model, tokenizer, learned, self.files.dev, self.files.test, DEFAULT_GOAL)
            else:
                remove(run.folder)

    def _settings(self, checkpoint: str, model: FastBertModel, scheme: Scheme) -> dict[str, Any]:
        """Return what the contender's own run is about, as `train` tells it."""
        return {
            **self.places,
            "rows": [len(self.files.train), len(self.files.dev)],
            "model": checkpoint,
            "max_length": self.max_length,
            "teacher_head": "pretrained",
            "students": {"heads": spelled(model.student_shapes) if model.student_shapes else None},
            **scheme.told(),
        }

    def record(
        self,
        folder: Path,
        name: str,
        facts: dict[str, Any],
        model: FastBertModel,
        tokenizer: TextTokenizer,
        trains_students: bool,
    ) -> None:
        """Run dev and test through every layer, and keep the answers of the exits that learned."""
        task = self.files.task
        answering = Answering(TorchBackend(model), tokenizer, task.outputs, workers=1)
        splits = {}
        for split, examples in (("dev", self.files.dev), ("test", self.files.test or [])):
            found = record_texts(answering, task, examples)
            assert found.truth is not None  # the files were checked
            logits = found.recorded.recorded
            kept = RecordedExits(logits if trains_students else logits[-1:])
            splits[split] = Split(kept, found.truth, found.lengths)
        early_exit = config_of(model, self.max_length).as_dict()
        write_record(
            folder, name, facts, early_exit, as_json(model.teacher.config.to_dict()), splits
        )


class SharedTeacher:
    """The first stage of a seed, trained once, and what it answers."""

    def __init__(self, arena: Arena, run: Run, seed: int, left: Sequence[Contender]) -> None:
        """Train it, or load it if it is finished, and record what it answers.

        Args:
            arena: Where.
            run: Its own.
            seed: Its seed.
            left: What goes on from it, to say before how long all will take.
        """
        stage = shared_stage(arena.settings, seed)
        scheme = run.settle(Scheme(TEACHER, "the first stage of all schemes", (stage,)))
        set_seed(seed)
        # Its students are never trained, and the first stage does not depend on them.
        model = FastBertModel(teacher_to_train(arena.model, arena.files.task), "mean")
        settings = arena._settings(arena.model, model, scheme)
        self.run, self.stage, self.model = run, scheme.stages[0], model
        self.tokenizer = run.begin(arena.model, model, arena.files.contents, settings)
        self.texts: TrainingTexts = arena.files.tokenised(run, self.tokenizer)
        announce_all(
            f"seed {seed}",
            scheme,
            {one.name: one.stages.stages[one.begins_with(stage) :] for one in left},
            model,
            self.texts,
        )
        start = time.perf_counter()
        learned = run.train(scheme, model, self.tokenizer, self.texts)
        self.kept = KeptStage(run.folder, stage.name)
        self.sha256 = self.kept.sha256()
        folder = folder_of(arena.output, seed)
        if not is_recorded(folder, TEACHER):
            facts = {
                "asked": as_json(scheme.told()),
                "teacher": self.sha256,
                **training_facts(run, learned, scheme, time.perf_counter() - start),
            }
            arena.record(folder, TEACHER, facts, model, self.tokenizer, False)
        elif read_facts(folder, TEACHER)["teacher"] != self.sha256:
            raise TrainingError(
                f"{folder}: the teacher has been trained anew and is another one, so no contender "
                "can be added; name another output"
            )

    @cached_property
    def answers(self) -> TeacherAnswers:
        """What it answers to all texts, computed once."""
        folder = self.run.folder / ANSWERS
        return teacher_answers(self.model, self.tokenizer, self.texts, folder, self.stage.settings)


def training_facts(run: Run, learned: Learned, scheme: Scheme, seconds: float) -> dict[str, Any]:
    """Return how a model was trained.

    Args:
        run: Its run.
        learned: What became of it.
        scheme: With bfloat16 on or off.
        seconds: From its own first stage to its last; of a run that was stopped nothing is told.
    """
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "seconds": None if run.stopped else seconds,
        "machine": machine() | {"accelerator": accelerator, "threads": torch.get_num_threads()},
        "trained": as_json(scheme.told()),
        **learned.told(),
    }


def as_json(value: Any) -> Any:
    """Return a value as it will be read from JSON."""
    return json.loads(json.dumps(value))
