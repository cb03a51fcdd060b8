"""The torch backend of the adaptive loop."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fastbert.errors import BackboneError
from fastbert.folder.read import ModelFolder
from fastbert.nn.backbone import LayerState
from fastbert.nn.heads import padding_bias
from fastbert.nn.model import FastBertModel
from fastbert.running import Running
from fastbert.text import TokenBatch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TorchState:
    """The rows still running, after `exit_layer` layers."""

    exit_layer: int
    layer_state: LayerState
    bias: Float[Tensor, "rows 1 length"] | None


class TorchBackend:
    """Runs a `FastBertModel` from exit to exit, on the device where its weights are.

    Each exit costs one copy from the device, its logits; each compaction one copy to it, the
    numbers of the rows that stay.
    """

    def __init__(self, model: FastBertModel, dtype: torch.dtype = torch.float32) -> None:
        """Switch the model to inference: dropout is off, and the heads are folded.

        Args:
            model: In float32; its weights are rounded in place if `dtype` is another.
            dtype: What to compute in; logits are float32 in any case.

        Raises:
            BackboneError: The model does not compute in float32.
        """
        _refuse_other_precision(model)
        self.heads = [head.folded(dtype) for head in model.heads]
        self.model = model.eval().to(dtype)
        self._process = os.getpid()

    @property
    def num_exits(self) -> int:
        """The number of encoder layers."""
        return self.model.num_exits

    @torch.inference_mode()
    def start(self, batch: TokenBatch) -> TorchState:
        """Embed the tokens."""
        if self._process != os.getpid():
            self._use_one_thread()
        tokens = batch_tensors(batch, self.model.device)
        return _with_bias(0, self.model.backbone.start(**tokens))

    @torch.inference_mode()
    def advance(
        self, state: TorchState, exit_layer: int
    ) -> tuple[TorchState, Float[np.ndarray, "rows classes"]]:
        """Run the layers up to an exit, and ask it."""
        layer_state = state.layer_state
        for index in range(state.exit_layer, exit_layer):
            layer_state = self.model.backbone.layer(index, layer_state)
        state = TorchState(exit_layer, layer_state, state.bias)
        return state, self._ask(state).float().cpu().numpy()

    def _ask(self, state: TorchState) -> Float[Tensor, "rows classes"]:
        """Ask the student or the teacher after the layer that ran last."""
        if state.exit_layer > len(self.heads):
            return self.model.teacher_logits(state.layer_state)
        hidden = self.model.backbone.exit_view(state.layer_state.hidden)
        return self.heads[state.exit_layer - 1](hidden, state.bias)

    @torch.inference_mode()
    def keep(self, state: TorchState, rows: Int[np.ndarray, " rows"]) -> TorchState:
        """Compact every per-row tensor to the named rows."""
        index = torch.from_numpy(rows).to(self.model.device)
        return replace(
            state,
            layer_state=state.layer_state.keep(index),
            bias=None if state.bias is None else state.bias.index_select(0, index),
        )

    @torch.inference_mode()
    def merge(self, states: Sequence[TorchState]) -> TorchState:
        """Put the rows of all states one after another."""
        layer_states = [state.layer_state for state in states]
        return _with_bias(states[0].exit_layer, self.model.backbone.merge(layer_states))

    def _use_one_thread(self) -> None:
        """Go on with one thread in the child of a fork, where waiting for others never ends.

        OpenMP believes its threads to be there still, and they are the parent's.
        """
        torch.set_num_threads(1)
        logger.warning(
            "this process was forked after the model was loaded, so torch computes with one "
            "thread; load the classifier in the child to have more"
        )
        self._process = os.getpid()


def _with_bias(exit_layer: int, state: LayerState) -> TorchState:
    """Return the state of a backbone with what the students read besides."""
    return TorchState(exit_layer, state, padding_bias(state.attention_mask))


def open_torch_backend(folder: ModelFolder, running: Running) -> TorchBackend:
    """Load a model folder to be run in torch."""
    if running.threads is not None:
        use_threads(running.threads)
    place = running.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype: torch.dtype = getattr(torch, running.dtype or "float32")
    return TorchBackend(FastBertModel.load(folder).to(place), dtype)


def use_threads(threads: int) -> None:
    """Tell torch how many processor threads to use: one number for the whole process, which stays.

    A second classifier with another number changes the first one's speed, so that is said.
    """
    asked = _threads_asked_for
    if asked and asked[-1] != threads:
        logger.warning(
            "torch has one number of threads for the whole process: it was set to %d for another "
            "classifier and is %d from now on",
            asked[-1],
            threads,
        )
    asked[:] = [threads]
    torch.set_num_threads(threads)


_threads_asked_for: list[int] = []  # torch's number is the process's, and so is this note of it


def _refuse_other_precision(model: FastBertModel) -> None:
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and weight.dtype != torch.float32:
            raise BackboneError(
                f"torch answers in float32, and {name} is {weight.dtype}: call model.float(), or "
                "export the model in bf16 or int8"
            )


def batch_tensors(batch: TokenBatch, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return a batch as the keyword arguments that encoders take."""
    return {name: torch.from_numpy(array).to(device) for name, array in batch.arrays.items()}
