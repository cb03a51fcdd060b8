"""What a record tells of a training; what contenders come to is in test_compare.py."""

from pathlib import Path

from fastbert.recipes.contenders import contender_named
from fastbert.recipes.records import read_facts
from tests.recipes.test_compare import SETTINGS, run, with_test


def test_a_record_tells_stages_history_seconds_and_the_machine(tmp_path: Path) -> None:
    files = with_test(tmp_path)
    run(files, contenders=[contender_named("joint", SETTINGS, "mean")])
    facts = read_facts(files["output"] / "seed42", "joint")
    assert list(facts["trained"]["stages"]) == ["teacher", "students", "exits"]
    assert [len(epochs) for epochs in facts["history"].values()] == [1, 1, 1]
    assert facts["seconds"] > 0
    assert facts["machine"].keys() >= {"processor", "cores", "threads", "accelerator"}
    assert facts["asked"]["heads"] == "mean"
    assert facts["trained"]["stages"]["exits"]["settings"]["bf16"] is False
