"""What was said to `molt serve`, and what is thought of it, as the next retraining reads it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import openai
import pytest
from test_serve import HELLO, molt, server

from moltlm.data.config import ImportConfig
from moltlm.data.conversations import importers
from moltlm.data.conversations.report import ImportReport
from moltlm.data.state import PERSONALITY_ADAPTER
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.service.server.archive import Archive
from moltlm.pipeline.stages import tasks


def exchanges(folder: Path) -> list[tuple[list[str], str, str]]:
    """What the importer learns: the turns before, the answer, and the rejected one."""
    items = importers.read([folder], ImportConfig(near_duplicate=1), ImportReport())
    return sorted(([turn["content"] for turn in item.prompt], item.answer, item.rejected) for item in items)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_a_conversation_is_kept_once_and_retrain_reads_it(
    trained_project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chats, registry = tmp_path / "chats", Registry(tmp_path / "registry")
    places = [f"registry.folder={registry.folder}", f"retrain.conversations={chats}"]
    run = Run(load(trained_project), Console())
    registry.promote(registry.add(tasks.trained(run, PERSONALITY_ADAPTER).folder, {}).id)
    run.close()
    with server(trained_project, *places, keep=True) as running:
        history: list[Any] = [{"role": "system", "content": "Be brief."}]
        answers = []
        for text in ("hello", "mail ann@example.org please", "list files"):
            history.append(user(text))
            options: Any = {"max_tokens": 60, "temperature": 1.0, "seed": 5, "stream": text == "list files"}
            answer = running.client().chat.completions.create(model="personality", messages=history, **options)
            pieces = [each.choices[0].delta.content or "" for each in answer] if options["stream"] else []
            answers.append("".join(pieces) or answer.choices[0].message.content)
            history.append(said(answers[-1]))
        ask: Any = {"messages": [user("rain")], "max_tokens": 3}
        for more in ({"store": False}, {"model": "base"}, {"adapter_scale": 0.5, "model": "personality"}):
            assert running.fetch("/v1/chat/completions", {**ask, **more})[0] == 200
    files = sorted((chats / "served").iterdir())
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * 2
    assert stat.S_IMODE((chats / "served").stat().st_mode) == 0o700
    text = "".join(path.read_text() for path in files)
    assert "ann@example.org" not in text and "[EMAIL]" in text and "Be brief" not in text
    whole = [json.loads(path.read_text())["messages"] for path in files if "hello" in path.read_text()]
    assert [len(messages) for messages in whole] == [6]
    learned = exchanges(chats)
    assert {answer for _, answer, _ in learned} <= set(answers) and all("rain" not in asked for asked, _, _ in learned)
    finished = [turn for turn in whole[0] if turn["role"] == "assistant" and "finish_reason" not in turn]
    assert len(learned) == len(finished)
    assert molt("retrain", trained_project, *places, "retrain.min_new=99") == 0
    assert f"{len(learned)} new exchanges in {chats}" in capsys.readouterr().err


def test_nothing_is_written_unless_it_is_asked_for(trained_project: str, tmp_path: Path) -> None:
    with server(
        trained_project, f"registry.folder={tmp_path}/registry", f"retrain.conversations={tmp_path}/chats"
    ) as running:
        running.client().chat.completions.create(model="personality", messages=HELLO, max_tokens=3)
    assert not (tmp_path / "chats").exists()


def test_an_answer_that_the_end_of_the_server_cuts_off_is_not_kept(trained_project: str, tmp_path: Path) -> None:
    chats = tmp_path / "chats"
    with server(
        trained_project, f"registry.folder={tmp_path}/registry", f"retrain.conversations={chats}", keep=True
    ) as running:
        stream = running.client().chat.completions.create(model="base", messages=HELLO, max_tokens=480, stream=True)
        next(stream)
        running.engine.close()
        with pytest.raises(openai.APIError, match="being stopped"):
            list(stream)
    assert not chats.exists()


def test_answers_are_kept_as_they_stand(tmp_path: Path) -> None:
    """An answer given again replaces the former, an answer of somebody else is context, and branches are apart."""
    archive = Archive(tmp_path / "served", redacts=True)
    for answer in ("one", "one", "two"):
        archive.add([user("q")], answer, "me", True, True)  # type: ignore[list-item]
    assert exchanges(tmp_path) == [(["q"], "two", "")]
    archive.add([user("q"), said("two"), user("r")], "three", "me", True, True)  # type: ignore[list-item]
    archive.add([user("q"), said("changed"), user("r")], "four", "me", True, True)  # type: ignore[list-item]
    archive.add([user("q"), said("two"), user("other")], "cut of", "me", True, False)  # type: ignore[list-item]
    archive.add([user("q"), said("two"), user("plain")], "base", "base", False, True)  # type: ignore[list-item]
    archive.add([{"role": "system", "content": "x"}], "nothing", "me", True, True)
    archive.add([user("q"), said("begun")], "continued", "me", True, True)  # type: ignore[list-item]
    assert exchanges(tmp_path) == [
        (["q"], "two", ""),
        (["q", "changed", "r"], "four", ""),
        (["q", "two", "r"], "three", ""),
    ]
    path = next(path for path in (tmp_path / "served").iterdir() if "three" in path.read_text())
    path.write_text("[1, 2")  # the user's editor
    archive.add([user("q")], "five", "me", True, True)  # type: ignore[list-item]
    assert path.read_text() == "[1, 2"


def test_thumbs_decide_what_is_learned(trained_project: str, tmp_path: Path) -> None:
    chats = tmp_path / "chats"
    with server(trained_project, f"registry.folder={tmp_path}/registry", f"retrain.conversations={chats}") as running:

        def thumb(value: str | None, answer: str, *before: Any) -> None:
            body = {"messages": list(before), "answer": answer, "model": "personality", "thumb": value}
            assert running.fetch("/molt/thumbs", body) == (200, {"thumb": value})

        thumb("up", "tea", user("hello"))
        assert exchanges(chats) == [(["hello"], "tea", "")]
        thumb("up", "rain", user("hello"), said("tea"), user("and now?"))
        thumb("down", "clock", user("hello"), said("tea"), user("and now?"), said("rain"), user("really?"))
        assert exchanges(chats) == [(["hello"], "tea", ""), (["hello", "tea", "and now?"], "rain", "")]
        thumb("down", "rain", user("hello"), said("tea"), user("and now?"))
        thumb(None, "tea", user("hello"))
        assert exchanges(chats) == [] and len(list((chats / "served").iterdir())) == 1
        thumb("down", "bad", user("q"))
        thumb("up", "good", user("q"))
        assert exchanges(chats) == [(["q"], "good", "bad")]  # a preference
        thumb("up", "liked", user("z"))
        thumb("down", "not liked", user("z"))
        assert (["z"], "liked", "not liked") in exchanges(chats)
        thumb("up", "liked more", user("z"))
        assert (["z"], "liked more", "not liked") in exchanges(chats) and len(exchanges(chats)) == 2
        assert running.fetch("/molt/thumbs", {"messages": [said("x")], "answer": "y", "thumb": "up"})[0] == 400
        assert running.fetch("/molt/thumbs", {"messages": [user("x")], "answer": "y", "thumb": "sideways"})[0] == 400
    archive = Archive(chats / "served", redacts=True)
    archive.add([user("w")], "liked", "me", True, True)  # type: ignore[list-item]
    archive.mark([user("w")], "liked", "me", "thumbs_up")  # type: ignore[list-item]
    archive.add([user("w")], "again", "me", True, True)  # type: ignore[list-item]
    assert (["w"], "liked", "") in exchanges(chats)


def test_an_edited_answer_is_a_preference(trained_project: str, tmp_path: Path) -> None:
    chats = tmp_path / "chats"
    with server(
        trained_project, f"registry.folder={tmp_path}/registry", f"retrain.conversations={chats}", keep=True
    ) as running:
        answer = running.client().chat.completions.create(model="personality", messages=HELLO, max_tokens=3)
        text = answer.choices[0].message.content or ""
        body = {"messages": HELLO, "answer": text, "better": "Tea.", "model": "personality"}
        assert running.fetch("/molt/corrections", body) == (
            200,
            {"written": True, "notes": [f"written to {chats}/corrections.jsonl"]},
        )
        assert running.fetch("/molt/corrections", {**body, "better": text})[1]["written"] is False
        assert running.fetch("/molt/corrections", {**body, "better": " "})[0] == 400
        assert exchanges(chats) == [(["hello"], "Tea.", text.strip())]
        (row,) = (json.loads(line) for line in (chats / "corrections.jsonl").read_text().splitlines())
        assert row["provenance"] == "edited" and row["said_by"] == "personality"
