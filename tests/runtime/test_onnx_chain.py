"""The graph for a text alone in ONNX Runtime: what lies in it, and where."""

from pathlib import Path

import onnx
import pytest

from fastbert.exits.measures import MaxProbability
from fastbert.folder.export import open_export
from fastbert.folder.read import open_folder
from fastbert.runtime.onnx_chain import chain_of


@pytest.fixture(scope="module")
def pieces(folders: dict[str, Path]) -> list[onnx.ModelProto]:
    opened = open_export(open_folder(folders["fp32"]), "onnx").open_pieces()
    return [onnx.load_from_string(piece.graph) for piece in opened]


def branches(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    return [
        attribute.g
        for node in model.graph.node
        if node.op_type == "If"
        for attribute in node.attribute
        if attribute.name == "then_branch"
    ]


@pytest.mark.parametrize("exits", [(1, 2, 3, 4, 5), (2, 4, 5), (3, 5)])
def test_each_exit_after_the_first_has_a_branch_and_none_lies_within_another(
    pieces: list[onnx.ModelProto], exits: tuple[int, ...]
) -> None:
    found = branches(chain_of(pieces, exits, MaxProbability()))
    assert len(found) == len(exits) - 1
    assert not any(node.op_type == "If" for branch in found for node in branch.node)


def test_exits_that_are_not_asked_are_left_out(pieces: list[onnx.ModelProto]) -> None:
    def weights(exits: tuple[int, ...]) -> set[str]:
        return {item.name for item in chain_of(pieces, exits, MaxProbability()).graph.initializer}

    left_out = weights((1, 2, 3, 4, 5)) - weights((2, 4, 5))
    assert {name.split("/")[0] for name in left_out if "/" in name} == {"1", "3"}
    assert all(name.split("/")[1] == "exit" for name in left_out if "/" in name)


def test_weights_are_named_after_their_piece_and_lie_outermost(
    pieces: list[onnx.ModelProto],
) -> None:
    model = chain_of(pieces, (2, 5), MaxProbability())
    numbers = {item.name.partition("/")[0] for item in model.graph.initializer if "/" in item.name}
    assert numbers == {"0", "1", "2", "3", "4", "5"}
    assert not any(branch.initializer for branch in branches(model))
