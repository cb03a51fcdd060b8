import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from fastbert.exits.criteria import Seen
from tests.seen import seen

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"


def test_the_example_criterion_lets_rows_leave_when_two_exits_agree() -> None:
    [source] = re.findall(r"```python\n(.*?)```", CONTRIBUTING.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {"np": np, "Bool": Bool, "Seen": Seen}
    exec(source, names)
    criterion = names["AgreementCriterion"]()

    answers = np.array([[0, 2, 1], [2, 2, 0], [2, 1, 1], [2, 1, 0]])  # [exits, rows]
    logits = np.eye(4)[answers]  # four classes
    leaving = [criterion.leaves(seen(logits[: exits + 1])).tolist() for exits in range(4)]
    assert leaving == [
        [False, False, False],
        [False, True, False],
        [True, False, False],
        [True, True, False],
    ]
