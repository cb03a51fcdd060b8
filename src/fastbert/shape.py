"""The shape of a model: the widths that decide what it computes, and its FLOPs in two counts.

`true` is what this program executes for a row at its real length: the attention products, the
students that were asked and the teacher's head included. `paper` is the paper's own count, which
reproduces its printed figures: every text padded to 128 tokens, linear layers only. Both count
matrix products alone, two FLOPs for each multiply and add; softmax, norms, activations and
look-ups are left out, as in PyTorch's FlopCounterMode. Nothing here runs a model.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from fastbert.head_shapes import (
    DEFAULT_HEADS,
    Counts,
    Heads,
    HeadShape,
    PaperHead,
    heads_by_depth,
    in_64_bits,
)

# Of the teacher: the family's own, or the paper's.
TeacherHead = Literal["pretrained"] | PaperHead

PAPER_LENGTH = 128  # the authors pad every text to it

# Where a family's config.json has its own word for a common key.
_OWN_NAMES = {
    "distilbert": {
        "hidden_size": "dim",
        "intermediate_size": "hidden_dim",
        "num_hidden_layers": "n_layers",
    }
}
_GATED_FFN = {"modernbert"}  # three matrices instead of two


def config_value(config: Mapping[str, Any], name: str) -> int:
    """Return a whole number of a config.json under its common name, whatever the family calls it.

    Raises:
        ValueError: The key is missing or is no positive whole number.
    """
    own_name = _OWN_NAMES.get(str(config.get("model_type")), {}).get(name, name)
    value = config.get(own_name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'key "{own_name}" must be a positive whole number, got {value!r}')
    return value


@dataclass(frozen=True)
class ModelShape:
    """The widths that decide what a model costs.

    Args:
        hidden_size: Width of the backbone, `d` below.
        intermediate_size: Inner width of the feed-forward block, `f` below.
        num_layers: Encoder layers.
        num_labels: Classes, `N` below.
        students: The head of each student, the first layer's first.
        ffn_matrices: Matrices of d × f in the feed-forward block: 2, or 3 where it is gated.
        embedding_size: Width of the embeddings where a projection to `d` follows, else None.
        relative_keys: With how many vectors of relative position each token is compared in every
            layer (DeBERTa), else 0.
        teacher_head: What head the teacher has: the family's own or the paper's.

    Raises:
        ValueError: There is not one student for each layer but the last.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_labels: int
    students: tuple[HeadShape, ...]
    ffn_matrices: int = 2
    embedding_size: int | None = None
    relative_keys: int = 0
    teacher_head: TeacherHead = "pretrained"

    def __post_init__(self) -> None:
        """Refuse another number of students."""
        heads_by_depth(self.students, self.num_layers - 1)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        num_labels: int,
        *,
        teacher_head: TeacherHead = "pretrained",
        students: Heads = DEFAULT_HEADS,
    ) -> "ModelShape":
        """Read the widths from what a checkpoint's config.json holds.

        Args:
            config: What it holds.
            num_labels: Classes.
            teacher_head: What head the teacher has.
            students: The heads of the students.

        Raises:
            ValueError: A width is missing or is no positive whole number, or there is another
                number of students.
        """
        hidden_size = config_value(config, "hidden_size")
        family = config.get("model_type")
        embedding_size = config.get("embedding_size") or hidden_size
        projects = family == "albert" or embedding_size != hidden_size
        num_layers = config_value(config, "num_hidden_layers")
        return cls(
            hidden_size=hidden_size,
            intermediate_size=config_value(config, "intermediate_size"),
            num_layers=num_layers,
            num_labels=num_labels,
            students=heads_by_depth(students, num_layers - 1),
            ffn_matrices=3 if family in _GATED_FFN else 2,
            embedding_size=embedding_size if projects else None,
            relative_keys=_relative_keys(config),
            teacher_head=teacher_head,
        )

    # The true count. Every `length` is in tokens, special tokens included, padding not.

    def embedding_flops(self, length: Counts) -> Int[np.ndarray, "*rows"]:
        """Return the cost before the first layer: 2·n·e·d where the embeddings are projected."""
        return np.asarray(2 * in_64_bits(length) * (self.embedding_size or 0) * self.hidden_size)

    def layer_flops(self, length: Counts) -> Int[np.ndarray, "*rows"]:
        """Return the cost of one encoder layer.

        2n(4d² + 2df) of the linear layers (3df where gated) and 4n²d of the products QKᵀ and AV.
        DeBERTa adds 2nrd for its r relative positions. Its projection of the position vectors
        themselves, 2rd² a layer and batch, and its convolution are left out: the first is
        shared by the rows of a batch.
        """
        n, d = in_64_bits(length), self.hidden_size
        linear = 2 * n * (4 * d**2 + self.ffn_matrices * d * self.intermediate_size)
        return np.asarray(linear + 4 * n**2 * d + 2 * n * self.relative_keys * d)

    def student_flops(self, length: Counts) -> Int[np.ndarray, "students *rows"]:
        """Return the cost of asking each student."""
        costs = {shape: self._head_flops(shape, length) for shape in set(self.students)}
        none = np.zeros((0, *in_64_bits(length).shape), np.int64)
        return np.stack([costs[shape] for shape in self.students]) if costs else none

    def teacher_head_flops(self, length: Counts) -> Int[np.ndarray, "*rows"]:
        """Return the cost of the teacher's answer.

        Every family here has a square layer on one pooled token and a classifier, 2d² + 2dN; in the
        teacher's head of the paper it has what a student has.
        """
        if self.teacher_head != "pretrained":
            return self._head_flops(self.teacher_head, length)
        once = 2 * self.hidden_size**2 + 2 * self.hidden_size * self.num_labels
        return np.asarray(once + 0 * in_64_bits(length))

    def full_flops(self, length: Counts) -> Int[np.ndarray, "*rows"]:
        """Return the cost of the full model without students, the baseline of `speedup`."""
        layers = self.num_layers * self.layer_flops(length)
        return np.asarray(self.embedding_flops(length) + layers + self.teacher_head_flops(length))

    def row_flops(
        self,
        exit_layers: Int[np.ndarray, " rows"],
        lengths: Int[np.ndarray, " rows"],
        watched: Collection[int] | None = None,
    ) -> Int[np.ndarray, " rows"]:
        """Return what each row cost.

        Args:
            exit_layers: How many encoder layers each row ran, counted from 1.
            lengths: Real tokens of each row.
            watched: The exits, counted from 1, that the criterion asks; None means all.

        Raises:
            ValueError: An exit layer is not one of the model's.
        """
        self._check(exit_layers)
        by_teacher = exit_layers == self.num_layers
        return np.asarray(
            self.embedding_flops(lengths)
            + in_64_bits(exit_layers) * self.layer_flops(lengths)
            + self._asked_flops(exit_layers, lengths, watched)
            + by_teacher * self.teacher_head_flops(lengths)
        )

    def _asked_flops(
        self,
        exit_layers: Int[np.ndarray, " rows"],
        lengths: Int[np.ndarray, " rows"],
        watched: Collection[int] | None,
    ) -> Int[np.ndarray, " rows"]:
        """Return what the students cost that each row asked on its way, each at its own price."""
        cost = np.zeros(len(lengths), np.int64)
        for shape in set(self.students):
            theirs = {layer for layer, head in enumerate(self.students, 1) if head == shape}
            asked = self.students_asked(
                exit_layers, theirs if watched is None else theirs & set(watched)
            )
            cost += asked * self._head_flops(shape, lengths)
        return cost

    def _head_flops(self, shape: HeadShape, length: Counts) -> Int[np.ndarray, "*rows"]:
        return shape.flops(length, self.hidden_size, self.num_labels)

    def students_asked(
        self, exit_layers: Int[np.ndarray, " rows"], watched: Collection[int] | None = None
    ) -> Int[np.ndarray, " rows"]:
        """Return how many students each row asked on its way.

        Args:
            exit_layers: How many encoder layers each row ran, counted from 1.
            watched: The exits, counted from 1, that the criterion asks; None means all.
        """
        exits = np.arange(1, self.num_layers)  # the last exit is the teacher
        asked = exits if watched is None else exits[np.isin(exits, list(watched))]
        return np.searchsorted(asked, exit_layers, side="right")

    def speedup(
        self,
        exit_layers: Int[np.ndarray, " rows"],
        lengths: Int[np.ndarray, " rows"],
        watched: Collection[int] | None = None,
    ) -> float:
        """Return how many times fewer FLOPs the rows took than in the full model without students.

        A ratio of sums, true count. It is exactly 1 when nothing is watched (speed 0), and below
        1 when every student was asked in vain.

        Args:
            exit_layers: How many encoder layers each row ran, counted from 1.
            lengths: Real tokens of each row.
            watched: The exits, counted from 1, that the criterion asks; None means all.

        Raises:
            ValueError: There are no rows, or an exit layer is not one of the model's.
        """
        spent = self.row_flops(exit_layers, lengths, watched).sum()
        return float(self.full_flops(lengths).sum() / spent)

    # The paper's count.

    @property
    def paper_layer_flops(self) -> int:
        """2n(4d² + 2df) at n = 128: 1,811,939,328 for BERT-base."""
        inner = self.ffn_matrices * self.hidden_size * self.intermediate_size
        return 2 * PAPER_LENGTH * (4 * self.hidden_size**2 + inner)

    @property
    def paper_head_flops(self) -> int:
        """2ndc + 2n·4c² + 2c² at n = 128: 41,975,808 for BERT-base.

        The paper's own head, with keys, queries, values and output for all 128 tokens. The
        classifier's 2cN is not in the printed figures, which are the same for every data set, so it
        is not counted here either. Its width c is that of the first student that has the paper's
        head; where none has, the paper's own.
        """
        papers = (shape for shape in self.students if isinstance(shape, PaperHead))
        c = next(papers, PaperHead()).width
        return 2 * PAPER_LENGTH * (self.hidden_size * c + 4 * c**2) + 2 * c**2

    @property
    def paper_full_flops(self) -> int:
        """All layers and one head: 21,785,247,744 for BERT-base."""
        return self.num_layers * self.paper_layer_flops + self.paper_head_flops

    def paper_row_flops(self, exit_layers: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
        """Return the paper's cost of each row: 1,853,915,136 a layer for BERT-base.

        A head is counted with every layer, also at speed 0, where this package runs none.

        Raises:
            ValueError: An exit layer is not one of the model's.
        """
        self._check(exit_layers)
        return np.asarray(
            in_64_bits(exit_layers) * (self.paper_layer_flops + self.paper_head_flops)
        )

    def paper_speedup(self, exit_layers: Int[np.ndarray, " rows"]) -> float:
        """Return the paper's speed-up, at most 11.75 for BERT-base.

        Raises:
            ValueError: There are no rows, or an exit layer is not one of the model's.

        Source: Table 2 of Liu et al., FastBERT (ACL 2020).
        """
        spent = self.paper_row_flops(exit_layers).sum()
        return float(len(exit_layers) * self.paper_full_flops / spent)

    def _check(self, exit_layers: Int[np.ndarray, " rows"]) -> None:
        if not len(exit_layers):
            raise ValueError("a cost needs at least one row, got none")
        if exit_layers.min() < 1 or exit_layers.max() > self.num_layers:
            raise ValueError(
                f"exit layers must be between 1 and {self.num_layers}, "
                f"got {exit_layers.min()} to {exit_layers.max()}"
            )


def _relative_keys(config: Mapping[str, Any]) -> int:
    """Return DeBERTa's 2 × span positions for each direction in which they are compared."""
    if not config.get("relative_attention"):
        return 0
    kinds = config.get("pos_att_type") or []
    directions = {"c2p", "p2c"} & set(kinds.split("|") if isinstance(kinds, str) else kinds)
    span = int(config.get("position_buckets") or -1)
    if span < 1:
        span = int(config.get("max_relative_positions") or -1)
    if span < 1:
        span = config_value(config, "max_position_embeddings")
    return len(directions) * 2 * span
