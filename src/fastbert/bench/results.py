"""What a run of the bench found, as values and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

ACCURACY = "accuracy"


@dataclass(frozen=True)
class Measurement:
    """One contender at one batch size.

    Args:
        name: No other contender is called so.
        runtime: `torch`, `onnx` or `openvino`.
        precision: `fp32`, `bf16` or `int8`.
        threads: Processor threads it may use.
        batch_size: Texts computed together; at 1 each text was timed alone.
        rows_per_second: Texts answered in a second, tokenisation included, by the median round.
        p50_ms: Half of the texts took at most so long; None where they came in bulk.
        p95_ms: Likewise 95 % of them.
        p99_ms: Likewise 99 % of them.
        accuracy: What its answers to the timed texts are worth by `Bench.metric`, the share of
            right ones or another; None without labels.
        agreement: How far they are answered as the plain model does: the pipeline or, where that
            does not take part, this model at full depth; None where neither does.
        mean_exit_layer: Encoder layers a text ran on average.
        layers: Encoder layers there are.
        share_of_saving: How many times faster it was than the same runtime at full depth, paired by
            round, over the bound `layers / mean_exit_layer`; None for what runs every layer.
        share_of_saving_by_tokens: The same over the bound in which texts weigh by their tokens.
    """

    name: str
    runtime: str
    precision: str
    threads: int
    batch_size: int
    rows_per_second: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    accuracy: float | None
    agreement: float | None
    mean_exit_layer: float
    layers: int
    share_of_saving: float | None
    share_of_saving_by_tokens: float | None

    @property
    def bound(self) -> float:
        """How many times faster than full depth it could be, if time were layers."""
        return self.layers / self.mean_exit_layer


@dataclass(frozen=True)
class Ratio:
    """How many times the rows a second of one contender another one answers.

    Args:
        numerator: Whose speed.
        denominator: Over whose.
        batch_size: Texts computed together.
        median: The median of the rounds.
        rounds: The ratio of each round.
    """

    numerator: str
    denominator: str
    batch_size: int
    median: float
    rounds: tuple[float, ...]


@dataclass(frozen=True)
class Rate:
    """The rate of a matrix product, the best of its rounds.

    Args:
        runtime: What computed it.
        precision: In what.
        product: Rows, inner width and columns.
        gops: Billions of operations in a second, two for each multiply and add.
    """

    runtime: str
    precision: str
    product: tuple[int, int, int]
    gops: float


@dataclass(frozen=True)
class Achieved:
    """The rate of the whole stack of layers on a batch without padding.

    Args:
        name: Which contender; it runs every layer.
        runtime: What computed it.
        precision: In what.
        rows: Rows of the batch.
        length: Tokens of each row.
        gops: Billions of operations in a second by the median round; of matrix products only,
            `ModelShape.full_flops`.
        share_of_peak: Over the best product of that precision; None if none was measured.
        share_of_runtime_peak: Over the best product of that precision in the same runtime.
    """

    name: str
    runtime: str
    precision: str
    rows: int
    length: int
    gops: float
    share_of_peak: float | None
    share_of_runtime_peak: float | None


@dataclass(frozen=True)
class Failure:
    """A contender that could not take part, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Bench:
    """Everything that one run found.

    Args:
        machine: Processor, cores, load and more.
        versions: Of the packages that are installed.
        rows: How many texts were timed, `bulk` and `latency`.
        rounds: How often each contender had its turn.
        tokenised_per_second: Rows a second of the tokenizer alone, on the texts in bulk; what it
            takes is not among the layers that can be saved.
        products: The rates of matrix products.
        achieved: The rates of whole models.
        contenders: The measurements, those in bulk first.
        ratios: Speeds compared, round by round.
        failures: Who could not take part.
        metric: The column of the metric that is meant, which JSON calls each accuracy by.
    """

    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    rows: Mapping[str, int]
    rounds: int
    tokenised_per_second: float
    products: tuple[Rate, ...]
    achieved: tuple[Achieved, ...]
    contenders: tuple[Measurement, ...]
    ratios: tuple[Ratio, ...]
    failures: tuple[Failure, ...] = ()
    metric: str = ACCURACY

    @property
    def peak(self) -> dict[str, Rate]:
        """The best product of each precision."""
        by_rate = sorted(self.products, key=lambda rate: rate.gops)
        return {rate.precision: rate for rate in by_rate}  # the last one stays

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, as JSON takes it."""
        found = asdict(self)
        metric = found.pop("metric")
        found["contenders"] = [
            {metric if name == ACCURACY else name: value for name, value in row.items()}
            for row in found["contenders"]
        ]
        peak = {precision: asdict(rate) for precision, rate in sorted(self.peak.items())}
        return found | {"peak": peak}

    def ratio(self, numerator: str, denominator: str, batch_size: int) -> Ratio | None:
        """Return how two contenders compare, if they were compared."""
        wanted = (numerator, denominator, batch_size)
        for ratio in self.ratios:
            if (ratio.numerator, ratio.denominator, ratio.batch_size) == wanted:
                return ratio
        return None
