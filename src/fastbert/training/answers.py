"""A fixed teacher's answers on disk, by row: computed once, read in every epoch.

Whose they are does not matter here: those of the model that is trained, as an earlier stage has
left it, or of any other model with the same outputs.
"""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fastbert.files.disk import hash_of_file, sync_to_disk

LOGITS, INDEX = "logits.npy", "index.json"

logger = logging.getLogger(__name__)


class TeacherAnswers:
    """The logits of a teacher for the rows of all texts."""

    def __init__(self, logits: Float[np.ndarray, "rows outputs"]) -> None:
        """Wrap the logits, such as those of a mapped file."""
        self.logits = logits

    @classmethod
    def write(
        cls,
        folder: Path,
        answered: Iterable[tuple[Int[np.ndarray, " _"], Float[np.ndarray, "_ outputs"]]],
        shape: tuple[int, int],
        identity: str,
    ) -> "TeacherAnswers":
        """Write answers as they come, in place of what lies there.

        Args:
            folder: Where the files go.
            answered: Numbers of rows and the logits for them, until every row has had its own.
            shape: How many rows and outputs there are.
            identity: Of texts and teacher; `load` wants the same.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        logits = np.lib.format.open_memmap(
            folder / LOGITS, mode="w+", dtype=np.float32, shape=shape
        )
        for rows, some in answered:
            logits[rows] = some
        logits.flush()
        sync_to_disk(folder / LOGITS)
        index = {"identity": identity, "sha256": hash_of_file(folder / LOGITS)}
        staged = folder / f"{INDEX}.part"
        staged.write_text(json.dumps(index), encoding="utf-8")
        os.replace(staged, folder / INDEX)  # last and at once: it says that all is there
        return cls(logits)

    @classmethod
    def load(cls, folder: Path, identity: str) -> "TeacherAnswers | None":
        """Return the answers that an earlier run has finished here, if they are of this identity.

        Others, and damaged ones, are named in a warning.
        """
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        if index["identity"] != identity:
            logger.warning("%s: holds answers to other texts or of another teacher", folder)
            return None
        if hash_of_file(folder / LOGITS) != index["sha256"]:
            logger.warning("%s: is damaged, and made anew", folder)
            return None
        return cls(np.load(folder / LOGITS, mmap_mode="r"))

    def to(self, rows: Int[Tensor, " some"]) -> Float[Tensor, "some outputs"]:
        """Return the answers to the numbered rows, on their device."""
        return torch.from_numpy(self.logits[rows.cpu().numpy()]).to(rows.device)
