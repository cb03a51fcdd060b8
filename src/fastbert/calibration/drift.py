"""Drift: whether new texts still behave like those of the calibration.

Two signs that need no labels are compared with what the same thresholds gave on the calibration
rows: how many rows leave at each exit, and how often the answer is the full model's. Both are
counts, so a contingency table says whether they differ by more than chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2_contingency, fisher_exact

from fastbert.exits.criteria import ExitCriterion
from fastbert.exits.recorded import RecordedExits
from fastbert.tasks.task import Task

ALARM = 0.001  # chance of a false alarm, for each of the two signs


@dataclass(frozen=True)
class Drift:
    """How new rows compare with the calibration rows at one setting.

    Args:
        mean_exit_layer: Of the calibration rows and of the new ones.
        agreement: Share of answers like the full model's, of the calibration rows and of the new.
        p_exits: How likely exit layers so different were if nothing had changed.
        p_agreement: The same for the agreement.
    """

    mean_exit_layer: tuple[float, float]
    agreement: tuple[float, float]
    p_exits: float
    p_agreement: float

    def warnings(self) -> list[str]:
        """Return a line for each sign beyond chance."""
        lines = []
        if self.p_exits < ALARM:
            before, now = self.mean_exit_layer
            lines.append(
                f"the texts leave at other layers than the calibration's: {now:.2f} on average, "
                f"{before:.2f} there (p = {self.p_exits:.1g})"
            )
        if self.p_agreement < ALARM:
            before, now = self.agreement
            lines.append(
                f"answers agree with the full model's in {now:.1%} of the texts, in {before:.1%} "
                f"of the calibration's (p = {self.p_agreement:.1g})"
            )
        return lines


def compare(
    before: RecordedExits, now: RecordedExits, criterion: ExitCriterion, task: Task
) -> Drift:
    """Replay one setting on calibration rows and on new ones, and compare.

    Args:
        before: What all exits answered on the calibration rows.
        now: The same on new rows.
        criterion: The exit rule in use.
        task: What is answered.
    """
    layers, agreeing = zip(
        *(_signs(recorded, criterion, task) for recorded in (before, now)), strict=True
    )
    exits = [np.bincount(exit_layers, minlength=before.num_exits + 1) for exit_layers in layers]
    answers = [[int(agrees.sum()), int((~agrees).sum())] for agrees in agreeing]
    return Drift(
        mean_exit_layer=(float(layers[0].mean()), float(layers[1].mean())),
        agreement=(float(agreeing[0].mean()), float(agreeing[1].mean())),
        p_exits=_p_same(exits),
        p_agreement=float(fisher_exact(answers).pvalue),
    )


def _signs(
    recorded: RecordedExits, criterion: ExitCriterion, task: Task
) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's exit layer, and whether its answer is the teacher's."""
    result = recorded.replay(criterion)
    losses = task.losses(task.decide(result.logits), task.decide(recorded.recorded[-1]))
    return result.exit_layer, losses == 0


def _p_same(counts: Sequence[np.ndarray]) -> float:
    """Return the p-value of Pearson's chi-squared test, with rare exits put together.

    The test wants five expected rows a cell; exits are merged with the next until there are.
    """
    table = np.array(counts)
    share = table.sum(axis=1).min() / table.sum()
    columns, column = [], np.zeros(len(table))
    for exit_counts in table.T:
        column = column + exit_counts
        if column.sum() * share >= 5:
            columns.append(column)
            column = np.zeros(len(table))
    if columns:
        columns[-1] = columns[-1] + column
    if len(columns) < 2:
        return 1.0
    return float(chi2_contingency(np.array(columns).T).pvalue)
