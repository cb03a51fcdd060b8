"""A stage of the paper's scheme by itself, on texts in memory."""

from pathlib import Path

from fastbert.data.example import Example
from fastbert.nn.model import FastBertModel
from fastbert.recipes.outcome import known_truth
from fastbert.text import TextTokenizer
from fastbert.training.stage import Stage
from fastbert.training.stream import TrainingTexts
from fastbert.training.tokens import TokenFile
from fastbert.training.trainer import run_stage


def learn(
    stage: Stage,
    model: FastBertModel,
    tokenizer: TextTokenizer,
    train: list[Example],
    dev: list[Example],
    work: Path,
) -> None:
    """Run a stage in a working folder, in which the tokens lie too."""

    def tokens(name: str, examples: list[Example]) -> TokenFile:
        texts = (example.content for example in examples)
        return TokenFile.write(work / name, texts, tokenizer)

    texts = TrainingTexts(
        tokens("tokens-train", train),
        known_truth(model.task, train),
        tokens("tokens-dev", dev) if dev else None,
        known_truth(model.task, dev),
    )
    run_stage(stage, model, tokenizer, texts, work)
