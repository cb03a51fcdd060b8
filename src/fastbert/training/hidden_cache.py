"""Hidden states on disk: the frozen backbone runs once, however many epochs the students take.

All layers of a row lie side by side in one file, real tokens only, so a row is one read. They
are kept in half precision: 2 bytes x width x students for each token.
"""

import errno
import logging
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fastbert.errors import TrainingError
from fastbert.nn.model import FastBertModel
from fastbert.training.progress import Progress

HIDDEN, INDEX = "hidden.npy", "index.npz"
STAGED_INDEX = f"{INDEX}.part"

logger = logging.getLogger(__name__)


class TooLargeForHalfError(TrainingError):
    """A hidden state exceeds half precision."""


class NoRoomError(TrainingError):
    """The disk has no place for the hidden states."""


def bytes_of(model: FastBertModel, tokens: int) -> int:
    """Return how many bytes the hidden states of so many tokens take."""
    return 2 * tokens * (model.num_exits - 1) * model.backbone.hidden_size


class HiddenCache:
    """What every student reads of every row, and the teacher's logits, by row number."""

    def __init__(
        self,
        hidden: Float[np.ndarray, "tokens students width"],
        logits: Float[np.ndarray, "rows outputs"],
        offsets: Int[np.ndarray, " rows_and_end"],
    ) -> None:
        """Wrap the arrays: row r owns the tokens from `offsets[r]` to `offsets[r + 1]`."""
        self.hidden = hidden
        self.logits = logits
        self.offsets = offsets

    @classmethod
    @torch.no_grad()
    def build(
        cls,
        model: FastBertModel,
        batches: Iterable[Mapping[str, Tensor]],
        lengths: Int[np.ndarray, " rows"],
        folder: Path,
        *,
        identity: str,
        bf16: bool,
    ) -> "HiddenCache":
        """Run the backbone over all rows and write down what the students will read.

        Args:
            model: Whose frozen backbone and teacher are run.
            batches: Encoders' arguments and `row`, the numbers of the rows.
            lengths: Tokens of each row.
            folder: Where the file goes.
            identity: Of the tokens and the weights; `load` wants the same.
            bf16: Compute in bfloat16.

        Raises:
            TooLargeForHalfError: A hidden state is too large for half precision.
            NoRoomError: The disk is too small.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        shape = (int(offsets[-1]), model.num_exits - 1, model.backbone.hidden_size)
        _reserve(folder / HIDDEN, shape)
        hidden = np.lib.format.open_memmap(folder / HIDDEN, mode="r+")
        logits = np.empty((len(lengths), model.task.outputs), np.float32)
        progress, done = Progress("hidden states", len(lengths), "row"), 0
        for batch in batches:
            tokens = {
                name: tensor.to(model.device) for name, tensor in batch.items() if name != "row"
            }
            with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                readings, answers = model.teach(**tokens)
            stacked = torch.stack([reading.half() for reading in readings], dim=2)
            if not torch.isfinite(stacked).all():
                raise TooLargeForHalfError(
                    "a hidden state exceeds half precision; train with --no-cache-hidden-states"
                )
            real = batch["attention_mask"].bool()
            rows = batch["row"].numpy()
            parts = np.split(stacked[real].cpu().numpy(), np.cumsum(lengths[rows])[:-1])
            for row, part in zip(rows, parts, strict=True):
                hidden[offsets[row] : offsets[row + 1]] = part
            logits[rows] = answers.float().cpu().numpy()
            done += len(rows)
            progress.move_to(done)
        progress.close()
        hidden.flush()
        # Last and at once: it says that all is there.
        with (folder / STAGED_INDEX).open("wb") as file:
            np.savez(file, logits=logits, offsets=offsets, identity=identity)
        (folder / STAGED_INDEX).rename(folder / INDEX)
        return cls(hidden, logits, offsets)

    @classmethod
    def load(cls, folder: Path, identity: str) -> "HiddenCache | None":
        """Return the cache that an earlier run has finished here, if it was of this `identity`."""
        if not (folder / INDEX).exists():
            return None
        with np.load(folder / INDEX) as index:
            if "identity" not in index or index["identity"].item() != identity:
                logger.warning("%s: is of other texts or weights, and made anew", folder / HIDDEN)
                return None
            hidden = np.load(folder / HIDDEN, mmap_mode="r")
            return cls(hidden, index["logits"], index["offsets"])

    def teach(
        self, row: Tensor, attention_mask: Tensor, **_tokens: Tensor
    ) -> tuple[Sequence[Tensor], Tensor]:
        """Return what each student reads of the rows, padded as their batch, and the logits."""
        rows = row.cpu().numpy()
        tokens = np.concatenate([self.hidden[self.offsets[r] : self.offsets[r + 1]] for r in rows])
        device = attention_mask.device
        padded = torch.zeros(*attention_mask.shape, *tokens.shape[1:], device=device)
        padded[attention_mask.bool()] = torch.from_numpy(tokens).to(device).float()
        return padded.unbind(2), torch.from_numpy(self.logits[rows]).to(device)


def _reserve(path: Path, shape: tuple[int, ...]) -> None:
    """Make a file for half-precision numbers, with all its place on the disk taken.

    Of a sparse file a mapped page that finds no place later kills the process without a word.

    Raises:
        NoRoomError: There is not so much place; the file is removed.
    """
    size, free = 2 * math.prod(shape), shutil.disk_usage(path.parent).free
    try:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f2", "fortran_order": False, "shape": shape}
            )
            file.flush()
            file.truncate(file.tell() + size)
            os.posix_fallocate(file.fileno(), 0, file.tell() + size)
    except (AttributeError, OSError) as error:  # macOS has no such call, some disks no such thing
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if is_full or size > free:
            path.unlink(missing_ok=True)
            raise NoRoomError(
                f"{path}: the hidden states need {size:,} bytes, the disk has {free:,} free; make "
                "room, or train with --no-cache-hidden-states"
            ) from error
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
