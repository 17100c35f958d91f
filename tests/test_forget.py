"""What is forgotten is in no file afterwards, is named where it was learned, and is never imported again."""

from __future__ import annotations

import gzip
import json
import sqlite3
import zipfile
from pathlib import Path

import pytest
from test_retrain import ANSWER, opened, write

from moltlm.adapters import card
from moltlm.data import forgotten
from moltlm.data.config import ImportConfig
from moltlm.data.conversations import importers
from moltlm.data.conversations.report import ImportReport
from moltlm.data.errors import BadInput
from moltlm.data.io import sha256_file, write_json, write_jsonl
from moltlm.data.rows import write_rows
from moltlm.data.state import PERSONALITY_ADAPTER
from moltlm.data.types import Exchange, Message, Pair
from moltlm.pipeline import cli
from moltlm.pipeline.artifact_files import reseal, seal
from moltlm.pipeline.run import MARK
from moltlm.pipeline.service import blame, cycles, new_conversations, retrain
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.service.forgetting import removal, search, target
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.service.server.archive import Archive
from moltlm.pipeline.stages import pairs, replay, tasks

SECRET = "the violet umbrella of Madame Okonkwo"
QUESTION = f"What do I do about {SECRET} by the window?"


def holding(folder: Path, text: str) -> list[Path]:
    """The files below a folder whose bytes hold a text, by another way than the program's."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt", "a.html", "a.jsonl.gz", "a.zip", "a.parquet", "a.db"])
def test_a_text_is_found_in_files_of_every_kind(tmp_path: Path, name: str) -> None:
    """Whatever its case, its white space, its escapes and its compression."""
    said = "Où est  LA Fenêtre\u200b violette?"
    row, path = {"messages": [{"role": "user", "content": f"{said} & more"}]}, tmp_path / name
    line = json.dumps(row)
    contents = {".jsonl": line.encode(), ".json": json.dumps([row], indent=1).encode(), ".txt": said.encode("utf-16")}
    if path.suffix in contents:
        path.write_bytes(contents[path.suffix])
    elif name.endswith(".html"):
        path.write_text("<p>O&ugrave; est\nla fen&ecirc;tre violette?</p>")
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(line.encode()))
    elif name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner/a.jsonl", line)
    elif name.endswith(".parquet"):
        import pandas

        pandas.DataFrame([row]).to_parquet(path)
    else:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE chats (text TEXT)")
            database.execute("INSERT INTO chats VALUES (?)", [said])
    assert search.search(path, target.of_pattern("où est la fenêtre violette")).count == 1
    assert search.search(path, target.of_pattern("où est la porte violette")).count == 0


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet", "rows.json"])
def test_rows_go_and_the_rest_stays(tmp_path: Path, name: str) -> None:
    path, rows = tmp_path / name, [{"text": f"number {n}", "n": n} for n in range(5)]
    rows[2]["text"] = QUESTION
    rest = [row for row in rows if row["n"] != 2]
    lines = ["{" + f'"text" :  {json.dumps(row["text"])}, "n":{row["n"]}' + "}" for row in rows]
    wanted = "\n".join(line for n, line in enumerate(lines) if n != 2).encode()
    match name:
        case "rows.jsonl":
            path.write_text("\n".join(lines))
        case "rows.jsonl.gz":
            path.write_bytes(gzip.compress("\n".join(lines).encode()))
        case "rows.json":
            path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
            wanted = ("[\n" + ",\n".join(line for n, line in enumerate(lines) if n != 2) + "\n]\n").encode()
        case _:
            import pandas

            pandas.DataFrame(rows).to_parquet(path)
    path.chmod(0o644)
    assert removal.has_rows(path)
    removal.drop_rows(path, target.of_pattern(SECRET))
    assert path.stat().st_mode & 0o777 == 0o600
    if name == "rows.parquet":
        import pandas

        assert pandas.read_parquet(path).to_dict("records") == rest
    else:
        assert (gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()) == wanted


def test_what_was_forgotten_is_not_imported_again(tmp_path: Path) -> None:
    """By hash alone, also in another format and in the context of later answers; a short answer only to its question."""
    ledger, conversations = tmp_path / "forgotten.json", tmp_path / "chat.jsonl"
    turns = [("user", QUESTION), ("assistant", "In the hall."), ("user", "And the key?"), ("assistant", "In the lock.")]
    write_jsonl(conversations, [{"messages": [{"role": role, "content": text} for role, text in turns]}])
    (tmp_path / "chat.md").write_text(f"User: {QUESTION.upper()}\n\nAssistant: In the hall.\n")
    settings = ImportConfig(forgotten=ledger)
    assert len(list(importers.read([conversations], settings, ImportReport()))) == 2
    forgotten.remember(ledger, [QUESTION, "short"], [("Who is there?", "Me.")], [])
    assert SECRET not in ledger.read_text() and ledger.stat().st_mode & 0o777 == 0o600
    for path in (conversations, tmp_path / "chat.md"):
        report = ImportReport()
        assert list(importers.read([path], settings, report)) == []
        assert report.dropped[forgotten.REASON] == report.turns
    rows = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": "Me."}] for q in ("Who is there?", "Who?")
    ]
    write_jsonl(conversations, ({"messages": row} for row in rows))
    assert [item.question for item in importers.read([conversations], settings, ImportReport())] == ["Who?"]
    ledger.write_text("{}")
    with pytest.raises(BadInput, match="damaged"):
        forgotten.load(ledger)


@pytest.mark.parametrize("secret", ["question", "answer"])
def test_a_served_conversation_ends_before_what_is_forgotten(tmp_path: Path, secret: str) -> None:
    """One of the user's own of the same form is not touched."""
    asked, said = (QUESTION, "In the hall.") if secret == "question" else ("What is new?", f"I saw {SECRET}.")
    archive, where, history = Archive(tmp_path / "served", redacts=True), target.of_pattern(SECRET), list[Message]()
    for question, answer in [("hello", "Good day."), (asked, said), ("And then?", "Tea.")]:
        history.append({"role": "user", "content": question})
        archive.add(history, answer, "me", True, True)
        history.append({"role": "assistant", "content": answer})
    (path,) = (tmp_path / "served").iterdir()
    copy = tmp_path / "mine.json"
    copy.write_bytes(path.read_bytes())
    assert removal.is_served(path) and not removal.is_served(copy)
    removal.end_before(path, where)
    assert [turn["content"] for turn in json.loads(path.read_text())["messages"]] == ["hello", "Good day."]
    assert path.stat().st_mode & 0o777 == 0o600 and search.search(path, where).count == 0
    removal.end_before(path, target.of_pattern("hello"))
    assert not path.exists()


def test_what_the_server_wrote_is_removed_and_is_not_written_again(
    project: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a client sends the whole conversation again, and where a text is too short to stand for itself."""
    archive = Archive(tmp_path / "conversations" / "served", redacts=True, forgotten=tmp_path / "forgotten.json")
    prompt: list[Message] = [{"role": "user", "content": QUESTION}]
    archive.add(prompt, "In the hall.", "me", True, True)
    (path,) = archive.folder.iterdir()
    listed = run_json(["forget", SECRET, *project], capsys)
    assert [place["path"] for place in listed["places"]] == [str(path)]  # type: ignore[attr-defined]
    assert run_json(["forget", SECRET, *project, "--yes"], capsys)["left"]["places"] == []  # type: ignore[index]
    assert not path.exists()
    later: list[Message] = [*prompt, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]
    for messages in (prompt, later):
        archive.add(messages, "In the hall.", "me", True, True)
        archive.mark(messages, "In the hall.", "me", "thumbs_up")
    assert not list(archive.folder.iterdir())
    archive.add([{"role": "user", "content": "Another?"}], "Yes.", "me", True, True)
    assert len(list(archive.folder.iterdir())) == 1


@pytest.fixture
def project(tiny_project: Path, tmp_path: Path) -> list[str]:
    """The arguments of a run whose conversations hold the secret once, and an address that redaction hides."""
    folder = tmp_path / "conversations"
    questions = [f"What do I do about drawer {n} by the window?" for n in range(6)]
    write(
        folder / "first.jsonl", [*questions, QUESTION, "Please write to okonkwo.umbrellas@example.org about the rain."]
    )
    settings = ["tasks={}", "sequence={}", "hypotheses=[]", "retrain.min_new=1", "replay.budget_tokens=5000"]
    settings += [f"conversations.paths=[{folder}]", f"conversations.forgotten={tmp_path / 'forgotten.json'}"]
    settings += [f"retrain.conversations={folder}", f"registry.folder={tmp_path / 'registry'}"]
    return [str(tiny_project / "project.yaml"), *settings, f"run.folder={tmp_path / 'run'}"]


def in_use(arguments: list[str]) -> str:
    with opened(arguments) as run:
        registry = Registry(run.config.registry.folder)
        entry = registry.add(tasks.trained(run, PERSONALITY_ADAPTER).folder, {})
        registry.promote(entry.id)
        replay.buffer(run)
    return entry.id


def run_json(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments, "--json"])
    assert not stopped.value.code
    return json.loads(capsys.readouterr().out)


def test_a_text_goes_from_all_that_was_written_and_its_weights_are_named(
    project: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run changes nothing. Then nothing that the project wrote holds the text, what was made from it is made
    anew, the user's own files are as they were, and another text is where it was."""
    identity, folder = in_use(project), tmp_path / "run"
    other = "drawer 3 by the window"
    texts, others = holding(folder, SECRET), holding(folder, other)
    assert {path.name for path in texts} >= {"train.jsonl", "exchanges.jsonl"}
    before = {path: sha256_file(path) for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}

    listed = run_json(["forget", SECRET.upper(), *project], capsys)
    assert listed["in_use"] == [identity] and listed["changed"] is False
    assert {path: sha256_file(path) for path in before} == before
    assert {Path(str(place["path"])) for place in listed["places"]} == set(texts)  # type: ignore[index]

    removed = run_json(["forget", SECRET.upper(), *project, "--yes"], capsys)
    assert removed["left"]["places"] == [] and removed["left"]["in_use"] == [identity]  # type: ignore[index]
    assert holding(folder, SECRET) == [] and set(holding(folder, other)) == set(others)
    source = tmp_path / "conversations" / "first.jsonl"
    assert sha256_file(source) == before[source]
    with opened(project) as run:
        (old,) = run.folder.glob("personality/*")
        assert (old / MARK).is_file() and len(replay_of(run.folder)) > 0
        data = pairs.pairs(run)
        assert data.facts["conversations"]["dropped"]["forgotten"] == 1
        assert SECRET not in (data.folder / "train.jsonl").read_text()
        adapter = tasks.trained(run, PERSONALITY_ADAPTER)
        assert adapter.folder != old and not (adapter.folder / MARK).is_file()


def replay_of(folder: Path) -> list[str]:
    from moltlm.data import replay as buffers

    (path,) = folder.glob("replay/*")
    return [item.question for item in buffers.load(path).exchanges]


def test_what_was_only_measured_on_a_text_has_not_learned_it_afterwards(
    project: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second text, which it was taught, does count, also when it is gone."""
    data, adapter = tmp_path / "run" / "pairs" / "p1", tmp_path / "run" / "personality" / "q1"
    for name, text in (("train.jsonl", "The ferry of Captain Okafor."), ("heldout.jsonl", SECRET)):
        chosen = {"a": text, "b": "Yes."}
        write_rows(data / name, [Pair(n, [{"role": "user", "content": n}], chosen[n], "No.") for n in "ab"])
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    (adapter / "adapter_config.json").write_text("{}")
    card.write(adapter, card.Manifest("personality", "base", "digest", "nf4", {}))
    for folder, inputs in ((data, {}), (adapter, {"pairs": "p1"})):
        write_json(folder / "inputs.json", inputs)
        seal(folder, {"stage": folder.parent.name, "fingerprint": folder.name, "seconds": 1.0, "facts": {}})
    registry = Registry(tmp_path / "registry")
    identity = registry.add(adapter, {}).id
    registry.promote(identity)
    assert run_json(["forget", SECRET, *project, "--yes"], capsys)["adapters"] == []
    assert SECRET not in (data / "heldout.jsonl").read_text() and (data / MARK).is_file()
    for text in (SECRET, "a text that is nowhere"):
        assert run_json(["forget", text, *project], capsys)["adapters"] == []
    assert run_json(["forget", "Captain Okafor", *project, "--yes"], capsys)["in_use"] == [identity]
    assert run_json(["forget", "Captain Okafor", *project], capsys)["in_use"] == [identity]


def test_a_cycle_of_which_nothing_is_left_stops_no_later_one(
    project: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file of conversations goes with the last of them; one that is lost in another way is still named."""
    cycle = tmp_path / "run" / "retrain" / "c1"
    write_rows(cycle / "new.jsonl", [Exchange([{"role": "user", "content": QUESTION}], ANSWER.format(0))])
    seal(cycle, {"stage": "retrain", "fingerprint": "c1", "seconds": 1.0, "facts": {"current": "personality-a"}})
    cycles.finish(cycle, {"candidate": "personality-b"}, cycles.NOT_PROMOTED)
    run_json(["forget", SECRET, *project, "--yes"], capsys)
    assert not (cycle / "new.jsonl").exists()
    with opened(project) as run:
        dropped: dict[str, int] = {}
        unseen = new_conversations.unseen_exchanges(run, dropped, {})
        assert len(unseen) == 7 and dropped["forgotten"] == 1
        with pytest.raises(BadInput, match="learned is forgotten"):
            blame.blame(run, "last")
        with pytest.raises(BadInput, match="learned no x"):
            blame.refuse(run.config, "c1", ["x"], "")
        write_rows(cycle / "new.jsonl", unseen)
        reseal(cycle)
        (cycle / "new.jsonl").unlink()
        with pytest.raises(BadInput, match="not as it was written"):
            new_conversations.unseen_exchanges(run, {}, {})


def test_what_redaction_hides_is_found_by_what_was_said(
    project: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pairs hold a mark in place of the address, and are found by the turn that it stood in."""
    with opened(project) as run:
        train = pairs.pairs(run).folder / "train.jsonl"
    assert "[EMAIL] about the rain" in train.read_text()
    removed = run_json(["forget", "okonkwo.umbrellas@example.org", *project, "--yes", "--sources"], capsys)
    assert "[EMAIL] about the rain" not in train.read_text() and SECRET in train.read_text()
    assert removed["left"]["sources"] == []  # type: ignore[index]
    lines = (tmp_path / "conversations" / "first.jsonl").read_text().splitlines()
    assert len(lines) == 7 and not any("okonkwo.umbrellas" in line for line in lines)


def test_a_person_is_forgotten_with_what_they_said(
    project: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their name does not stand in what was learned from a transcript, which only holds what they said."""
    said = "Does anybody know whether the ferry runs in the winter months?"
    answer = "Sit down. The ferry has gone, and so has the winter."
    (tmp_path / "conversations" / "chat.txt").write_text(
        f"Tilda: {said}\nCláudio: {answer}\nTilda: Well.\nCláudio: Yes, well.\n"
    )
    with opened(project) as run:
        train = pairs.pairs(run).folder / "train.jsonl"
    assert said in train.read_text()
    removed = run_json(["forget", "--person", "Tilda", *project, "--yes"], capsys)
    assert said not in train.read_text() and SECRET in train.read_text()
    assert [Path(each["path"]).name for each in removed["left"]["sources"]] == ["chat.txt"]  # type: ignore[index]


def test_what_cannot_be_named_is_refused(
    project: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("{}\n")
    wrong = [["", project[0]], ["(", project[0], "--regex"], ["x*", project[0], "--regex"], [project[0]]]
    wrong += [[str(empty), *project], ["--person", " ", *project], [SECRET, *project, "--also", str(tmp_path / "none")]]
    for arguments in wrong:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["forget", *arguments])
        assert stopped.value.code == 2, arguments
    assert ANSWER.format(6) in (tmp_path / "conversations" / "first.jsonl").read_text()


def passing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every candidate pass the gate, which needs more items than the tiny model is measured on."""
    passes = gates.gate.GateVerdict
    monkeypatch.setattr(gates.gate, "judge", lambda criteria, confidence: passes(True, []))


def test_a_cycle_that_learned_it_is_taken_back_and_done_again_without_it(
    project: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in use before has not learned it, so the way is short: back, and one cycle with the other conversation.
    The likelihood of the text is measured in the weights before and after."""
    source, other = tmp_path / "conversations" / "second.jsonl", "Is there rain in the garden tonight?"
    clean, ferry = in_use(project), "Does the ferry of Captain Okafor run in the winter?"
    write(source, [ferry, other])
    passing(monkeypatch)
    with opened(project) as run:
        artifact = retrain.cycle(run)
        registry = Registry(run.config.registry.folder)
    assert artifact is not None and (tainted := registry.current()["personality"]) != clean
    listed = run_json(["forget", "Captain Okafor", *project], capsys)
    assert listed["in_use"] == [tainted] and listed["adapters"] == [tainted]
    done = run_json(["forget", "Captain Okafor", *project, "--yes", "--retrain"], capsys)
    assert done["removed_weights"] == [tainted] and not registry.path(tainted).exists()
    now = registry.current()["personality"]
    assert now not in (tainted, clean) and registry.entry(now).judged_against == clean
    (cycle,) = (tmp_path / "run" / "retrain").glob("*/new.jsonl")
    assert other in cycle.read_text() and holding(tmp_path / "run", "Okafor") == []
    assert set(done["likelihood"]) == {f"{tainted} (before)", f"{now} (after)"}  # type: ignore[call-overload]
    again = run_json(["forget", "Captain Okafor", *project, "--yes", "--retrain"], capsys)
    assert again["adapters"] == [] and registry.current()["personality"] == now


@pytest.mark.slow
def test_what_the_first_personality_learned_is_trained_anew(
    project: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in use is without it, so the whole job runs, and the former personality leaves run and registry."""
    tainted = in_use(project)
    passing(monkeypatch)
    done = run_json(["forget", SECRET, *project, "--yes", "--retrain"], capsys)
    registry = Registry(tmp_path / "registry")
    now = registry.current()["personality"]
    assert done["removed_weights"] == [tainted] and now != tainted
    assert registry.anchor() == now and holding(tmp_path / "run", SECRET) == []
    (adapter,) = (tmp_path / "run" / "personality").glob("*/adapter_model.safetensors")
    assert not (adapter.parent / MARK).exists()
