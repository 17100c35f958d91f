"""The tasks in use survive a new personality: kept as they are, trained again, or the candidate is kept out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import molt
from test_retrain import opened, write

from moltlm.data.state import PERSONALITY_ADAPTER, Adapter
from moltlm.evals.records import TaskRecord, read_records
from moltlm.pipeline.service import cycles, origin, rebase, retrain
from moltlm.pipeline.service.bundles import Bundle
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.stages import tasks

TEXTS = [f"The clock in room {n} is slow. Please remind me today. The rain is at the window." for n in range(16)]
MARGINS = ("capability", "persona", "coherence", "anchor", "task")


@pytest.fixture
def arguments(tiny_project: Path, tmp_path: Path) -> list[str]:
    """A run with a task of texts, whose score is no count of right answers, so every training shows in it. Margins let
    every candidate pass."""
    write(tmp_path / "chats" / "first.jsonl", [f"What do I do about drawer {n} by the window?" for n in range(6)])
    for split in ("train", "test"):
        path = tmp_path / "texts" / f"{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps({"text": f"{split}: {text}"}) + "\n" for text in TEXTS))
    task = {"kind": "text", "path": str(tmp_path / "texts"), "answer": "{text}", "passage_words": 16}
    task |= {"train": 8, "test": 8, "steps": 3, "batch_size": 4, "learning_rate": 5e-3, "replay_ratio": 0.25}
    settings = [f"tasks={json.dumps({'letters': task})}", "sequence={}", "hypotheses=[]", "retrain.min_new=1"]
    settings += [f"gate.{name}_margin=1000" for name in MARGINS]
    settings += [f"conversations.paths=[{tmp_path / 'chats'}]", f"registry.folder={tmp_path / 'registry'}"]
    settings += [f"retrain.conversations={tmp_path / 'chats'}", f"run.folder={tmp_path / 'run'}"]
    return [str(tiny_project / "project.yaml"), *settings]


@pytest.fixture
def registry(arguments: list[str], tmp_path: Path) -> Registry:
    """With the run's personality and its task in use, and something new to learn."""
    registry = Registry(tmp_path / "registry")
    with opened(arguments) as run:
        for adapter in (PERSONALITY_ADAPTER, Adapter("letters")):
            registry.promote(registry.add(tasks.trained(run, adapter).folder, {}).id)
    write(tmp_path / "chats" / "second.jsonl", ["Is there rain in the garden tonight?"])
    return registry


def test_a_task_that_holds_is_kept_and_answers_above_the_new_personality(
    arguments: list[str], registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = registry.current()
    assert molt("retrain", *arguments, "--json") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    after = registry.current()
    assert after["letters"] == before["letters"] and after["personality"] != before["personality"]
    assert "letters: kept as it is. as it is: task: " in printed.err
    assert cycles.last(tmp_path / "run").tasks == {"letters": rebase.KEPT}  # type: ignore[union-attr]
    entry = registry.entry(after["letters"])
    assert entry.parents["personality"].startswith(before["personality"].rpartition("-")[2])
    (measured,) = entry.measured
    assert measured.passed and measured.above["personality"].startswith(after["personality"].rpartition("-")[2])
    assert entry.fits(before) and entry.fits(after)
    bundle = registry.bundle()
    assert bundle.buffer == origin.buffer_id(Path(result["folder"]) / "replay")
    lineage = registry.entry(after["personality"]).lineage
    assert lineage.continues == before["personality"] and lineage.data == result["data"]
    assert molt("registry", "show", "current", *arguments) == 0
    page = capsys.readouterr().out
    assert "still the first one? yes" in page and f"as it is, above {after['personality']}" in page
    records = [
        read_records(Path(result["folder"]) / f"letters_{side}+former-letters.jsonl", TaskRecord)
        for side in ("current", "candidate")
    ]
    assert [len(side) for side in records] == [8, 8] and records[0] != records[1]

    question = ["--message", "hello", "--max-new-tokens", "8", "--json"]
    assert molt("chat", *arguments, *question) == 0
    printed = capsys.readouterr()
    answers = json.loads(printed.out)
    assert list(answers) == ["base", "personality", "personality+letters"]
    assert f"personality: {after['personality']}, in use since" in printed.err
    assert registry.rollback() == before
    registry.promote(after["personality"])  # by hand: it was measured above this one
    assert registry.current() == after


def test_a_task_that_is_kept_again_and_again_is_compared_with_what_it_was_when_it_was_trained(
    arguments: list[str], registry: Registry, tmp_path: Path
) -> None:
    before = registry.current()
    assert molt("retrain", *arguments) == 0
    write(tmp_path / "chats" / "third.jsonl", ["Is the clock in the kitchen right?"])
    assert molt("retrain", *arguments) == 0
    after = registry.current()
    assert after["letters"] == before["letters"] and after["personality"] != before["personality"]
    first, second = registry.entry(after["letters"]).measured
    assert [len(each.verdict["checks"]) for each in (first, second)] == [1, 2]
    assert "since it was trained, task: " in second.verdict["checks"][1]["sentence"]
    (records,) = (tmp_path / "run" / "retrain").glob("*/letters_first-personality+former-letters.jsonl")
    begun = (tmp_path / "run" / "retrain").glob("*/letters_current+former-letters.jsonl")
    assert records.read_text() in [path.read_text() for path in begun if path.parent != records.parent]


def test_a_task_that_does_not_hold_is_trained_again_and_promoted_with_the_personality(
    arguments: list[str], registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is it may not lose anything; with longer training it gains."""
    before = registry.current()
    longer = [*arguments, "gate.task_margin=1e-9", "tasks.letters.steps=30"]
    assert molt("retrain", *longer, "--json") == 0
    after = registry.current()
    assert after["letters"] not in before.values() and len(registry.history()) == 3
    entry = registry.entry(after["letters"])
    assert entry.judged_against == before["letters"] and not entry.fits(before) and entry.fits(after)
    checks = [check["source"] for check in entry.verdict["checks"]]
    assert checks == ["task.correct", "persona.score", "persona.coherent"]
    assert "letters: trained again. as it is: task: " in capsys.readouterr().err
    assert molt("chat", *longer, "--use", "personality+letters", "--message", "hello", "--max-new-tokens", "4") == 0
    assert registry.rollback() == before


@pytest.mark.parametrize(("rate", "entries"), [("1e-5", 4), ("1e-20", 3)], ids=["learns less", "cannot be trained"])
def test_a_candidate_that_would_lose_a_task_is_kept_out_with_it(
    arguments: list[str],
    registry: Registry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rate: str,
    entries: int,
) -> None:
    """What was trained again for it is kept in the registry, too."""
    before = registry.current()
    strict = [*arguments, "gate.task_margin=1e-9", "tasks.letters.steps=2", f"tasks.letters.learning_rate={rate}"]
    assert molt("retrain", *strict) == 3
    printed = capsys.readouterr()
    assert "since letters would be lost" in printed.err and "letters: lost. as it is: task: " in printed.out
    assert ". trained again: " in printed.out
    print(printed.out)
    assert registry.current() == before and len(registry.entries()[0]) == entries
    candidate = registry.resolve("candidate")
    assert isinstance(candidate, Bundle) and list(candidate.adapters) == ["personality"]
    assert registry.history()[-1].reason.startswith("letters: lost. as it is: task: ")
    assert cycles.last(tmp_path / "run").tasks == {"letters": rebase.LOST}  # type: ignore[union-attr]


def test_a_task_in_use_that_nothing_can_measure_ends_the_cycle_before_training(
    arguments: list[str], registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    before = registry.current()
    without = [*arguments, "tasks={}"]
    assert molt("retrain", *without) == 2
    assert "molt registry retire letters" in capsys.readouterr().err
    assert molt("registry", "retire", "shell", *without) == 2
    assert molt("registry", "retire", "letters", *without) == 0
    assert registry.current() == {"personality": before["personality"]}
    assert molt("retrain", *without) == 0
    assert list(registry.current()) == ["personality"]


def test_a_task_that_came_into_use_meanwhile_is_not_taken_out(
    arguments: list[str], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promoted between the verdict and the promotion: nothing says whether it survives, so nothing is switched."""
    before = registry.current()
    registry.retire("letters")
    conclude = retrain._conclude

    def late(*values: object) -> None:
        registry.promote(before["letters"])
        conclude(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(retrain, "_conclude", late)
    assert molt("retrain", *arguments) == 2
    assert registry.current() == before
    monkeypatch.undo()
    assert molt("retrain", *arguments) == 0
    assert registry.current()["letters"] == before["letters"]
