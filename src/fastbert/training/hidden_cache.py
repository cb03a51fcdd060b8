"""Hidden states on disk: the frozen backbone runs once, however many epochs the students take.

All layers of a row lie side by side in one file, real tokens only, so a row is one read. They
are kept in half precision: 2 bytes x width x students for each token.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from fastbert.errors import TrainingError
from fastbert.nn.model import FastBertModel

HIDDEN, INDEX = "hidden.npy", "index.npz"


class HiddenCache:
    """What every student reads of every row, and the teacher's logits, by row number."""

    def __init__(
        self,
        hidden: Float[np.ndarray, "tokens students width"],
        logits: Float[np.ndarray, "rows classes"],
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
        bf16: bool,
    ) -> "HiddenCache":
        """Run the backbone over all rows and write down what the students will read.

        Args:
            model: Whose frozen backbone and teacher are run.
            batches: Encoders' arguments and `row`, the numbers of the rows.
            lengths: Tokens of each row.
            folder: Where the file goes.
            bf16: Compute in bfloat16.

        Raises:
            TrainingError: A hidden state is too large for half precision.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        shape = (int(offsets[-1]), model.num_exits - 1, model.backbone.hidden_size)
        hidden = np.lib.format.open_memmap(
            folder / HIDDEN, mode="w+", dtype=np.float16, shape=shape
        )
        logits = np.empty((len(lengths), len(model.labels)), np.float32)
        for batch in tqdm(batches, desc="hidden states", leave=False, disable=None):
            tokens = {name: tensor for name, tensor in batch.items() if name != "row"}
            with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                readings, answers = model.teach(**tokens)
            stacked = torch.stack([reading.half() for reading in readings], dim=2)
            if not torch.isfinite(stacked).all():
                raise TrainingError(
                    "a hidden state exceeds half precision; distil without the cache on disk"
                )
            real = batch["attention_mask"].bool()
            rows = batch["row"].numpy()
            parts = np.split(stacked[real].cpu().numpy(), np.cumsum(lengths[rows])[:-1])
            for row, part in zip(rows, parts, strict=True):
                hidden[offsets[row] : offsets[row + 1]] = part
            logits[rows] = answers.float().cpu().numpy()
        hidden.flush()
        np.savez(folder / INDEX, logits=logits, offsets=offsets)  # last: it says that all is there
        return cls(hidden, logits, offsets)

    @classmethod
    def load(cls, folder: Path) -> "HiddenCache | None":
        """Return the cache that an earlier run has finished here, if it has."""
        if not (folder / INDEX).exists():
            return None
        with np.load(folder / INDEX) as index:
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
