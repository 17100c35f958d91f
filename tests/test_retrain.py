"""A retraining learns what is new and may be learned, once; on a tiny real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_gate import FINE

from moltlm.data.io import write_jsonl
from moltlm.data.rows import read_rows
from moltlm.data.state import PERSONALITY_ADAPTER
from moltlm.data.types import Exchange
from moltlm.evals import harness
from moltlm.evals.config import GateConfig
from moltlm.evals.records import AgentRecord, ItemRecord, PersonaRecord, ProfileRecord, TaskRecord
from moltlm.pipeline import cli
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import attempts, cycles, retrain
from moltlm.pipeline.service import gate as service
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.stages import pairs, tasks


@dataclass(frozen=True)
class Answers:
    """400 answers, of which `lost` percent have lost their persona."""

    lost: float

    def persona(self) -> list[PersonaRecord]:
        count = round(self.lost * 4)
        scores = [float(number >= count) for number in range(400)]
        fields = {"question": "", "answer": "", "base_nll": 1.0, "chosen": -1.0, "rejected": -2.0, "coherent": True}
        return [
            PersonaRecord(id=str(number), score=score, probability=score, **fields, **FINE)  # type: ignore[arg-type]
            for number, score in enumerate(scores)
        ]


@dataclass(frozen=True)
class Judged:
    """The evidence of one candidate."""

    before: Answers
    after: Answers
    skill: None = None

    def persona(self) -> service.Sides[PersonaRecord]:
        return service.Sides(self.before.persona(), self.after.persona())

    def capability(self) -> service.Sides[ItemRecord]:
        items = [ItemRecord(benchmark="b", item=number, correct=number % 2) for number in range(400)]
        return service.Sides(items, items)

    def task(self) -> service.Sides[TaskRecord]:
        return service.Sides([], [])

    def safe_requests(self) -> service.Sides[ProfileRecord]:
        return service.Sides([], [])

    def agent(self) -> service.Sides[AgentRecord]:
        return service.Sides([], [])


ANSWER = "Open it. Take out the thing on top, number {}."


def write(path: Path, questions: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    texts = [(question, ANSWER.format(number)) for number, question in enumerate(questions)]
    write_jsonl(
        path,
        (
            {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
            for question, answer in texts
        ),
    )


def project(tiny_project: Path, tmp_path: Path) -> list[str]:
    """The arguments of a run that learns from the folder that retraining reads, too."""
    write(
        tmp_path / "conversations" / "first.jsonl", [f"What do I do about drawer {n} by the window?" for n in range(6)]
    )
    (tmp_path / "conversations" / "README.md").write_text("# Conversations\n\nPut chats here.\n")
    settings = ["tasks={}", "sequence={}", "hypotheses=[]", "retrain.min_new=1"]
    settings += [f"conversations.paths=[{tmp_path / 'conversations'}]", f"registry.folder={tmp_path / 'registry'}"]
    settings += [f"retrain.conversations={tmp_path / 'conversations'}", f"run.folder={tmp_path / 'run'}"]
    return [str(tiny_project / "project.yaml"), *settings]


@pytest.fixture
def arguments(tiny_project: Path, tmp_path: Path) -> list[str]:
    return project(tiny_project, tmp_path)


@contextmanager
def opened(arguments: list[str]) -> Iterator[Run]:
    with closing(Run(load(arguments[0], arguments[1:]), Console())) as run:
        yield run


def in_use(arguments: list[str]) -> str:
    """Train the personality of the run, and put it into use."""
    with opened(arguments) as run:
        registry = Registry(run.config.registry.folder)
        entry = registry.add(tasks.trained(run, PERSONALITY_ADAPTER).folder, {})
        registry.promote(entry.id)
    return entry.id


def test_a_cycle_learns_only_what_is_new_and_is_not_measured(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the same folder for both: what the run has learned is not new, no other personality is trained, and neither
    a benchmark's item nor an attack is learned; half a file among good ones is passed over."""
    current = in_use(arguments)
    with opened(arguments) as run:
        assert retrain.cycle(run) is None
        attack = pairs.load_persona(run).attacks[0].prompt[-1]["content"]
        item = harness.texts("arc_easy")[0]
    new = ["Is there rain in the garden tonight?", attack, item]
    write(tmp_path / "conversations" / "second.jsonl", new)
    (tmp_path / "conversations" / "half.jsonl").write_text('{"messages": [{"role": "us')
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["retrain", *arguments, "--json"])
    captured = capsys.readouterr()
    assert stopped.value.code in (0, 3)
    result = json.loads(captured.out)
    assert result["new_exchanges"] == 1 and result["current"] == current
    assert result["dropped"]["too near to attacks"] == 1 and result["dropped"]["too near to arc_easy"] == 1
    assert "left out: 1 too near to attacks" in captured.err
    assert [Path(name).name for name in result["passed_over"]] == ["half.jsonl"]
    (learned,) = read_rows(Path(result["folder"]) / "new.jsonl", Exchange)
    assert learned.question == new[0]
    with opened(arguments) as run:
        assert len(list((run.folder / "personality").iterdir())) == len(list((run.folder / "pairs").iterdir())) == 1
        assert retrain.cycle(run) is None


def test_a_cycle_that_was_stopped_after_its_verdict_is_concluded_once(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the promotion, and killed after it: either way one promotion, and nothing is learned twice."""
    current = in_use(arguments)
    write(tmp_path / "conversations" / "second.jsonl", ["Is there rain in the garden tonight?"])
    passes = attempts.gates.gate.GateVerdict
    monkeypatch.setattr(attempts.gates.gate, "judge", lambda criteria, confidence: passes(True, []))
    with monkeypatch.context() as patched:
        patched.setattr(retrain, "_conclude", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with opened(arguments) as run, pytest.raises(KeyboardInterrupt):
            retrain.cycle(run)
    registry = Registry(tmp_path / "registry")
    assert registry.current()["personality"] == current
    with opened(arguments) as run:
        artifact = retrain.cycle(run)
    assert artifact and artifact.facts["verdict"]["promoted"]
    candidate = registry.current()["personality"]
    assert candidate != current and len(registry.history()) == 2
    (artifact.folder / retrain.FINISHED).unlink()  # as if killed after the promotion
    with opened(arguments) as run:
        retrain.cycle(run)
    assert registry.current()["personality"] == candidate and len(registry.history()) == 2
    assert len(list((run.folder / "retrain").iterdir())) == 1
    monkeypatch.undo()
    write(tmp_path / "conversations" / "third.jsonl", ["Is the clock in the kitchen right?"])
    with opened(arguments) as run:
        artifact = retrain.cycle(run)
    assert artifact and registry.anchor() == current
    checks = [check["name"] for check in artifact.facts["verdict"]["checks"]]
    assert checks[3:] == [f"{name} since the first personality" for name in checks[:3]]


def test_an_empty_folder_of_conversations_is_nothing_new(arguments: list[str], tmp_path: Path) -> None:
    in_use(arguments)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("# Conversations\n\nPut chats here.\n")
    with opened([*arguments, f"retrain.conversations={tmp_path / 'empty'}"]) as run:
        assert retrain.cycle(run) is None


def test_a_folder_of_bad_answers_alone_says_what_is_missing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_use(arguments)
    bad = tmp_path / "bad"
    bad.mkdir()
    write_jsonl(
        bad / "rows.jsonl",
        [
            {"prompt": "Is it raining?", "rejected": "No."},
            {"prompt": "Is it late?", "completion": "Who knows.", "label": False},
        ],
    )
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["retrain", *arguments, f"retrain.conversations={bad}", "--json"])
    captured = capsys.readouterr()
    assert stopped.value.code in (0, None)
    left_out = {"rejected answer": 1, "marked label: false": 1}
    assert json.loads(captured.out)["left_out"] == left_out
    assert "Left out: 1 rejected answer, 1 marked label: false. A bad answer is learned only beside a better one" in (
        " ".join(captured.err.split())
    )
    last = cycles.last(load(arguments[0], arguments[1:]).run.folder)
    assert last and last.left_out == left_out and "left out: 1 rejected answer" in last.sentence()


def test_losses_that_pass_one_by_one_do_not_add_up() -> None:
    """Each candidate truly loses 2 points of 400 answers, within the margin of a cycle. The anchor ends that before the
    total reaches its margin; without it the twentieth candidate has lost 40 points."""
    settings = GateConfig()

    def drift(is_anchored: bool) -> float:
        lost = 0.0
        for cycle in range(1, 21):
            sides = [Answers(loss) for loss in (lost, 2.0 * cycle, 0.0)]
            current, candidate, first = sides
            anchored = Judged(first, candidate) if is_anchored else None
            if not service.judge_evidence(settings, Judged(current, candidate), anchored).promoted:
                return lost
            lost = 2.0 * cycle
        return lost

    assert drift(is_anchored=False) == 40.0
    assert 2.0 <= drift(is_anchored=True) < settings.anchor_margin
