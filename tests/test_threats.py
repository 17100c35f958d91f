"""A configuration or a folder of a stranger reads, writes and tells nothing that its user has not named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moltlm.data import endpoint, forgotten, io
from moltlm.data.conversations import corrections
from moltlm.data.errors import BadInput
from moltlm.data.persona import user
from moltlm.evals.config import JudgeConfig
from moltlm.pipeline.config import load
from moltlm.pipeline.service.forgetting import plan, target


def test_nothing_is_appended_through_a_link(tmp_path: Path) -> None:
    """A run folder or a folder of conversations that somebody gave away could hold a link to any file."""
    private, link = tmp_path / ".profile", tmp_path / "run.jsonl"
    private.write_text("mine\n")
    link.symlink_to(private)
    with pytest.raises(BadInput, match="is a link"):
        io.append_line(link, "{}")
    with pytest.raises(BadInput, match="is a link"):
        corrections.append(link, user("Hi"), "Hello.", "Good day.")
    io.write_json(link, {})  # takes the place of the link
    assert private.read_text() == "mine\n" and not link.is_symlink()


def test_metrics_overwrite_no_other_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"ends in \.prom"):
        load("demo", [f"schedule.metrics_file={tmp_path / '.bashrc'}"])


def test_what_is_forgotten_overwrites_no_other_kind_of_file(tmp_path: Path) -> None:
    profile = tmp_path / ".bashrc"
    for text in ("export A=1\n", "{}", "[1]", ""):
        profile.write_text(text)
        with pytest.raises(BadInput):
            forgotten.remember(profile, ["a text that is long enough to stand alone"], [], [])
        assert profile.read_text() == text


def test_forgetting_changes_nothing_that_molt_did_not_write(tmp_path: Path) -> None:
    """A run folder may be any folder of the user, and a registry too."""
    secret = "the violet umbrella of Madame Okonkwo"
    mine = [tmp_path / name for name in ("notes.txt", "photos/2026/list.jsonl", "entries/a/b.json", "report.docx")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"text": "{secret}"}}\n')
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.jsonl").symlink_to(mine[0])
    written = tmp_path / "invocations.jsonl"
    written.write_text(f'{{"persona": "{secret}"}}\n')
    missing = [f"{key}={tmp_path / 'none'}" for key in ("retrain.conversations", "conversations.forgotten")]
    settings = load("demo", [f"run.folder={tmp_path}", f"registry.folder={tmp_path}", *missing])
    made = plan.make(settings, target.of_pattern(secret), [])
    assert {place.path for place in made.places} == {*mine, written}
    assert [place.path for place in made.removable] == [written]


@pytest.mark.parametrize(
    ("url", "allowed", "told"),
    [
        ("https://api.openai.com/v1", "", True),
        ("http://localhost:8000/v1", "", True),
        ("https://stranger.example/v1", "", False),
        ("https://stranger.example/v1", "stranger.example", True),
    ],
)
def test_a_judge_is_told_answers_only_where_its_user_named_it(
    monkeypatch: pytest.MonkeyPatch, url: str, allowed: str, told: bool
) -> None:
    """Without a key, too: a stranger's configuration could name your files and its own server."""
    monkeypatch.setenv(endpoint.ALLOWED_HOSTS, allowed)
    settings = JudgeConfig(kind="endpoint", url=url, model="m", api_key_env="")
    if told:
        endpoint.check_told(settings)
    else:
        with pytest.raises(BadInput, match=r"stranger\.example"):
            endpoint.check_told(settings)


def test_the_page_of_threats_names_tests_that_exist() -> None:
    root = Path(__file__).parent
    named = set(re.findall(r"`(test_\w+)`", (root.parent / "docs" / "concepts" / "threat-model.md").read_text()))
    written = {
        name for file in root.glob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert len(named) > 15 and not named - written
