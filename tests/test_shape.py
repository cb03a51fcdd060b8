from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastbert.exits.criteria import EntropyCriterion, uncertainty
from fastbert.exits.engine import ExitResult, classify, record
from fastbert.head_shapes import PaperHead, heads_by_depth
from fastbert.shape import ModelShape
from fastbert.text import TokenBatch

BERT_BASE = ModelShape(768, 3072, 12, 2, heads_by_depth("paper", 11))
TINY = ModelShape(24, 40, 5, 3, heads_by_depth("paper:1,queries/2/7:1,mean:1,queries/2/7", 4))


def test_the_papers_baseline_is_reproduced_to_the_digit() -> None:
    assert BERT_BASE.paper_layer_flops == 1_811_939_328
    assert BERT_BASE.paper_head_flops == 41_975_808
    assert BERT_BASE.paper_full_flops == 21_785_247_744


def test_the_papers_cost_of_k_layers_is_reproduced_to_the_digit() -> None:
    layers = np.arange(1, 13)

    assert BERT_BASE.paper_row_flops(layers).tolist() == [k * 1_853_915_136 for k in range(1, 13)]


@pytest.mark.parametrize(
    ("exit_layer", "printed_millions", "printed_speedup"), [(6, 11123, 1.95), (2, 3707, 5.87)]
)
def test_the_papers_fixed_depth_rows_are_reproduced(
    exit_layer: int, printed_millions: int, printed_speedup: float
) -> None:
    layers = np.full(7, exit_layer)

    assert BERT_BASE.paper_row_flops(layers)[0] // 10**6 == printed_millions
    assert BERT_BASE.paper_speedup(layers) == pytest.approx(printed_speedup, abs=0.01)


def test_the_papers_largest_and_smallest_speedup_are_reproduced() -> None:
    assert BERT_BASE.paper_speedup(np.ones(4, dtype=np.int64)) == pytest.approx(11.75, abs=0.002)
    assert 1 / BERT_BASE.paper_speedup(np.full(4, 12)) == pytest.approx(1.021, abs=0.0005)


def test_the_number_of_classes_does_not_enter_the_papers_count() -> None:
    many = replace(BERT_BASE, num_labels=14)

    assert many.paper_full_flops == BERT_BASE.paper_full_flops


def test_the_true_count_contains_the_attention_products() -> None:
    # Section A4 of the reference: 50.3 M a layer, 2.8 %, at 128 tokens.
    products = BERT_BASE.layer_flops(128) - BERT_BASE.paper_layer_flops

    assert products == 4 * 128**2 * 768
    assert products / BERT_BASE.paper_layer_flops == pytest.approx(0.028, abs=0.001)


def test_a_row_pays_for_its_layers_its_students_and_its_answer() -> None:
    exit_layers = np.array([1, 3, 5])
    lengths = np.array([7, 11, 2])
    costs = TINY.row_flops(exit_layers, lengths)

    expected = [
        1 * TINY.layer_flops(7) + TINY.student_flops(7)[0],
        3 * TINY.layer_flops(11) + TINY.student_flops(11)[:3].sum(),
        5 * TINY.layer_flops(2) + TINY.student_flops(2).sum() + TINY.teacher_head_flops(2),
    ]
    assert costs.tolist() == expected


def test_a_row_pays_for_no_student_that_nobody_asks() -> None:
    lengths = np.array([7, 11, 2])
    costs = TINY.row_flops(np.array([1, 3, 5]), lengths, watched=[2, 3, 5])

    layers = np.array([1, 3, 5]) * TINY.layer_flops(lengths)
    at_end = np.array([0, 0, 1]) * TINY.teacher_head_flops(lengths)
    second_and_third = TINY.student_flops(lengths)[1:3].sum(axis=0) * [0, 1, 1]
    assert costs.tolist() == (layers + second_and_third + at_end).tolist()


def test_each_student_has_its_own_price() -> None:
    first, second, third, fourth = TINY.student_flops(np.array([9, 4]))

    assert second.tolist() == fourth.tolist()
    assert len({tuple(price.tolist()) for price in (first, second, third)}) == 3
    assert TINY.student_flops(9).tolist() == [first[0], second[0], third[0], fourth[0]]


def test_a_model_of_one_layer_has_no_students_to_pay_for() -> None:
    single = ModelShape(24, 40, 1, 3, ())

    assert single.student_flops(np.array([9, 4])).shape == (0, 2)
    assert single.speedup(np.array([1, 1]), np.array([9, 4])) == 1.0


def test_another_number_of_students_than_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="one for each of the 3 students of this model, got 4"):
        ModelShape(24, 40, 4, 3, TINY.students)


def test_the_papers_count_is_about_the_papers_head() -> None:
    queries = replace(BERT_BASE, students=heads_by_depth("queries", 11))
    narrow = replace(BERT_BASE, students=heads_by_depth("mean:1,paper/first/64", 11))

    assert queries.paper_head_flops == BERT_BASE.paper_head_flops
    assert narrow.paper_head_flops == 2 * 128 * (768 * 64 + 4 * 64**2) + 2 * 64**2


def test_all_students_up_to_the_exit_are_asked_but_never_one_after_the_last_layer() -> None:
    assert TINY.students_asked(np.array([1, 2, 4, 5])).tolist() == [1, 2, 4, 4]


def test_only_watched_students_are_asked() -> None:
    asked = TINY.students_asked(np.array([1, 2, 3, 4, 5]), watched=[2, 4, 5])

    assert asked.tolist() == [0, 1, 1, 2, 2]


def test_the_full_model_is_no_faster_than_itself_when_no_student_is_watched() -> None:
    lengths = np.array([3, 9, 4, 8])

    assert TINY.speedup(np.full(4, 5), lengths, watched=[]) == 1.0


def test_asking_every_student_in_vain_is_slower_than_the_full_model() -> None:
    lengths = np.array([3, 9, 4, 8])

    assert TINY.speedup(np.full(4, 5), lengths) < 1


def test_the_speedup_is_a_ratio_of_sums_over_rows_of_their_own_length() -> None:
    exit_layers, lengths = np.array([1, 5]), np.array([100, 3])
    cheap = TINY.layer_flops(100) + TINY.student_flops(100)[0]
    dear = TINY.full_flops(3) + TINY.student_flops(3).sum()

    expected = (TINY.full_flops(100) + TINY.full_flops(3)) / (cheap + dear)
    assert TINY.speedup(exit_layers, lengths) == pytest.approx(float(expected), rel=1e-12)


def test_small_integer_types_do_not_overflow() -> None:
    lengths = np.full(3, 512, dtype=np.int32)
    layers = np.full(3, 12, dtype=np.int8)

    assert BERT_BASE.row_flops(layers, lengths)[0] > 2**36
    assert BERT_BASE.paper_row_flops(layers)[0] == 12 * 1_853_915_136


@pytest.mark.parametrize("exit_layers", [[0], [6], [-1, 2]])
def test_an_exit_that_the_model_does_not_have_is_refused(exit_layers: list[int]) -> None:
    layers = np.array(exit_layers)

    with pytest.raises(ValueError, match="between 1 and 5"):
        TINY.paper_row_flops(layers)
    with pytest.raises(ValueError, match="between 1 and 5"):
        TINY.speedup(layers, np.full(len(layers), 4))


def test_the_cost_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        TINY.paper_speedup(np.array([], dtype=np.int64))


@pytest.mark.parametrize("missing", ["hidden_size", "intermediate_size", "num_hidden_layers"])
def test_a_config_without_a_width_is_refused_by_its_key(missing: str) -> None:
    config: dict[str, Any] = {
        "model_type": "bert",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 5,
    }
    config.pop(missing)

    with pytest.raises(ValueError, match=f'"{missing}"'):
        ModelShape.from_config(config, 3)


# Tiny random models. Widths are pairwise different, so a swapped one cannot pass unseen.
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3},
    "roberta": {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3},
    "mpnet": {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3},
    "ernie": {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3},
    "distilbert": {"dim": 48, "hidden_dim": 80, "n_layers": 3, "n_heads": 4},
    "modernbert": {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3},
    "albert": {
        "embedding_size": 16,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
    },
    "electra": {
        "embedding_size": 16,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
    },
    "deberta-v2": {
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
    },
}


def counted_by_torch(model: Any, *inputs: Any) -> int:
    """Return the FLOPs that PyTorch counts while a module runs without gradients."""
    torch = pytest.importorskip("torch")
    counter = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(*inputs)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [9, 70])
def test_the_full_model_agrees_with_pytorchs_counter(family: str, length: int) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    heads = {} if family == "distilbert" else {"num_attention_heads": 4}
    config = transformers.AutoConfig.for_model(
        family, vocab_size=60, num_labels=5, **heads, **FAMILIES[family]
    )
    config.pad_token_id = 0
    # PyTorch does not count its fused attention on CPU, so the plain one runs here.
    model = transformers.AutoModelForSequenceClassification.from_config(
        config, attn_implementation="eager"
    ).eval()
    rows = 7 if family != "deberta-v2" else 64  # its position projection is shared by the batch
    counted = counted_by_torch(model, torch.randint(3, 60, (rows, length)))

    shape = ModelShape.from_config(config.to_dict(), 5)
    per_cent = 1 if family != "deberta-v2" else 3
    assert rows * shape.full_flops(length) == pytest.approx(counted, rel=per_cent / 100)


HEADS = ("paper/first/36/3", "paper/mean/36/3", "queries/5/36", "queries/5/36/learned", "mean")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("length", [9, 300])
def test_a_student_agrees_with_pytorchs_counter(head: str, length: int) -> None:
    torch = pytest.importorskip("torch")
    from fastbert.nn.heads import exit_head

    shape = ModelShape(48, 80, 3, 5, heads_by_depth(f"mean:1,{head}", 2))
    folded = exit_head(48, 5, shape.students[1]).eval().folded()
    counted = counted_by_torch(folded, torch.randn(7, length, 48), None)

    assert 7 * shape.student_flops(length)[1] == counted


def test_a_teacher_with_the_papers_head_pays_for_its_own_shape() -> None:
    head = PaperHead("mean", 36, 3)
    shape = ModelShape(48, 80, 3, 5, heads_by_depth("mean", 2), teacher_head=head)

    assert shape.teacher_head_flops(9) == head.flops(9, 48, 5)


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "albert"])
@pytest.mark.parametrize("heads", [*HEADS, "queries/5/36:1,paper/mean/36/3"])
def test_what_the_adaptive_loop_runs_is_what_is_counted(family: str, heads: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from fastbert.nn.backend import TorchBackend
    from fastbert.nn.model import FastBertModel

    torch.manual_seed(3)
    attention = {} if family == "distilbert" else {"num_attention_heads": 4}
    config = transformers.AutoConfig.for_model(
        family, vocab_size=60, num_labels=5, pad_token_id=0, **attention, **FAMILIES[family]
    )
    teacher = transformers.AutoModelForSequenceClassification.from_config(
        config, attn_implementation="eager"
    )
    model = FastBertModel(teacher, heads)
    rows, length = 40, 23
    ids = torch.randint(3, 60, (rows, length)).numpy()
    batch = TokenBatch(ids, np.ones_like(ids), None)
    backend = TorchBackend(model)
    doubts = uncertainty(record(backend, batch))
    criterion = EntropyCriterion(float(np.median(doubts[0])))
    results: list[ExitResult] = []
    counted = counted_by_torch(lambda: results.append(classify(backend, batch, criterion)))

    exit_layers = results[0].exit_layer
    assert len(set(exit_layers.tolist())) > 1
    shape = ModelShape.from_config(config.to_dict(), 5, students=heads)
    lengths = np.full(rows, length)
    assert shape.row_flops(exit_layers, lengths).sum() == pytest.approx(counted, rel=0.01)
