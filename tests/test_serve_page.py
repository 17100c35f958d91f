"""The page of `molt serve` in a real browser."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import PROGRAM, Page, browsing
from test_serve import Served, plain, server
from test_serve_archive import exchanges

__all__ = ["plain"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="no chromium: apt-get install chromium")]
SHOTS = os.environ.get("SCREENSHOTS")
"""A folder to write screenshots into."""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """The tab, which must not have met any error, nor fetched anything from another server."""
    tab.errors.clear()
    tab.asked.clear()
    tab.look(1280, 800)
    yield tab
    assert tab.errors == []
    assert {url.split("/")[2] for url in tab.asked if not url.startswith(("data:", "about:"))} <= {
        tab.run("location.host")
    }


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    return tmp_path / "chats"


@pytest.fixture
def running(trained_project: str, tmp_path: Path, chats: Path) -> Iterator[Served]:
    with server(trained_project, f"registry.folder={tmp_path}/registry", f"retrain.conversations={chats}") as served:
        yield served


def begin(page: Page, served: Served, mode: str = "chat") -> None:
    page.open(served.url)
    page.wait("document.querySelectorAll('.column').length > 0")
    if mode != "chat":
        page.run(f"document.querySelector('[value={mode}]').click()")
    page.run("document.getElementById('tokens').value = 8")


def ask(page: Page, text: str) -> None:
    """Type a message and press Enter, once the former one is answered."""
    page.wait("document.getElementById('send').checkVisibility()")
    page.run("document.getElementById('text').focus()")
    page.type(text)
    page.press("Enter", 13, "\r")


def cards(page: Page) -> list[str]:
    """The texts of the last turn's answers, once all of them are there."""
    page.wait(
        "document.getElementById('stop').hidden && document.querySelectorAll('.turn:last-child .card').length > 0"
    )
    page.wait("document.querySelectorAll('[aria-busy=true]').length == 0")
    return page.run("[...document.querySelectorAll('.turn:last-child .said')].map(each => each.textContent)")


def click(page: Page, selector: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).click()")


def test_chat_thumbs_and_an_edit(page: Page, running: Served, chats: Path) -> None:
    begin(page, running)
    ask(page, "hello")
    (answer,) = cards(page)
    assert answer
    click(page, ".up")
    page.wait("document.querySelector('.up').ariaPressed == 'true'")
    assert exchanges(chats) == [(["hello"], answer.strip(), "")]
    click(page, ".down")
    page.wait(
        "document.querySelector('.down').ariaPressed == 'true' && document.querySelector('.up').ariaPressed == 'false'"
    )
    assert exchanges(chats) == []
    click(page, ".edit")
    assert page.run("document.activeElement.value") == answer
    page.run("document.activeElement.select()")
    page.type("<b>Tea</b>, then.")
    click(page, ".editor [type=submit]")
    page.wait("document.querySelector('.card .note').textContent.includes('written to')")
    assert page.run("document.querySelector('.said').textContent") == "<b>Tea</b>, then."
    assert exchanges(chats) == [(["hello"], "<b>Tea</b>, then.", answer.strip())]
    ask(page, "and now?")
    cards(page)
    click(page, ".turn:last-child .up")
    page.wait("document.querySelector('.turn:last-child .up').ariaPressed == 'true'")
    assert any(asked == ["hello", "<b>Tea</b>, then.", "and now?"] for asked, _, _ in exchanges(chats))
    click(page, "#new")
    assert page.run("document.querySelectorAll('.turn').length") == 0


def test_states_side_by_side_with_strengths(page: Page, plain: Served) -> None:
    begin(page, plain, "compare")
    assert page.run("[...document.querySelectorAll('.column select')].map(each => each.value)") == [
        "personality",
        "base",
    ]
    click(page, "#add")
    set_strength = "const each = document.querySelectorAll('.column input')[0]; each.value = 0; each.dispatchEvent(new Event('input'))"
    page.run(f"(() => {{ {set_strength} }})()")
    ask(page, "hello")
    off, base, task = cards(page)
    assert off == base != task
    titles = page.run("[...document.querySelectorAll('.card h2')].map(each => each.textContent)")
    assert titles == ["personality at 0.00", "base", "personality+reminders"]
    click(page, ".remove")
    assert page.run("document.querySelectorAll('.column').length") == 2


def test_a_blind_vote_hides_names_and_keeps_the_score(page: Page, plain: Served) -> None:
    begin(page, plain, "blind")
    for number in range(1, 4):
        ask(page, "hello")
        page.wait("document.querySelector('.vote') != null")
        titles = "[...document.querySelectorAll('.turn:last-child h2')].map(each => each.textContent)"
        assert page.run(titles) == ["Answer 1", "Answer 2"]
        assert "personality" not in page.run("document.querySelector('.turn:last-child').outerHTML")
        assert page.run("document.activeElement.closest('.vote') != null")  # by keyboard, too
        if number < 3:
            page.press("Enter", 13, "\r")
        else:
            click(page, ".vote [value='']")
        page.wait("!document.querySelector('.vote')")
        assert sorted(page.run(titles)) == ["base", "personality"]
    score = page.wait(
        "document.getElementById('score').textContent.includes('without') && document.getElementById('score').textContent"
    )
    assert "of 2 against base" in score and "95% interval" in score and "1 without a difference" in score


def test_an_answer_can_be_stopped_and_a_conversation_left(page: Page, running: Served, chats: Path) -> None:
    begin(page, running)
    page.run("document.getElementById('tokens').value = 450; document.getElementById('temperature').value = 1.5")
    ask(page, "hello")
    page.wait("document.querySelector('.said').textContent.length > 3")
    page.press("Escape", 27)
    page.wait("document.querySelector('.card .note').textContent == 'Stopped.'")
    assert page.run("document.querySelector('.actions').hidden")
    ask(page, "hello")
    page.wait("document.querySelector('.turn:last-child .said').textContent.length > 3")
    click(page, "#new")
    page.run("document.getElementById('tokens').value = 4; document.querySelector('[value=blind]').click()")
    ask(page, "hello")
    page.wait("document.querySelector('.vote') != null || document.body.textContent.includes('same')")
    page.run("document.querySelector('[value=chat]').click()")
    ask(page, "tea")
    (answer,) = cards(page)
    click(page, ".up")
    page.wait("document.querySelector('.up').ariaPressed == 'true'")
    assert exchanges(chats) == [(["tea"], answer.strip(), "")]  # nothing of what was left


def test_a_server_with_a_key_asks_for_it(
    page: Page, trained_project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLT_TEST_KEY", "secret")
    with server(trained_project, f"registry.folder={tmp_path}/registry", key_env="MOLT_TEST_KEY") as served:
        page.open(served.url)
        page.wait("document.getElementById('notice').textContent.includes('wants a key')")
        page.errors.clear()  # the browser reports the status 401
        page.run("document.getElementById('key').value = 'secret'")
        page.run("document.getElementById('key').dispatchEvent(new Event('change'))")
        page.wait("document.querySelectorAll('.column').length == 1")
        page.run("sessionStorage.clear()")


HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202e [x](javascript:1)"
)


@contextmanager
def hostile_server() -> Iterator[str]:
    """A server with OpenAI's interface whose answers are markup."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send("application/json", json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}))

        def do_POST(self) -> None:
            chunk: dict[str, Any] = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": HOSTILE}
            chunk["choices"] = [{"index": 0, "delta": {"content": HOSTILE}, "finish_reason": "stop"}]
            self._send("text/event-stream", f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n")

        def _send(self, kind: str, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_hostile_answers_are_text(page: Page, trained_project: str, tmp_path: Path) -> None:
    with hostile_server() as url, server(trained_project, f"registry.folder={tmp_path}/registry", engine=url) as served:
        begin(page, served)
        ask(page, HOSTILE)
        assert cards(page) == [HOSTILE]
        assert page.run("document.querySelector('.question').textContent") == HOSTILE
        assert page.run("document.title") == "moltlm" and page.run("document.images.length") == 0
        assert page.run("document.querySelector('.strength').hidden")  # the other server has no strength


def test_the_policy_forbids_everything_else(page: Page, plain: Served) -> None:
    begin(page, plain)
    blocked = "fetch('http://127.0.0.1:9/x').then(() => 'fetched', () => 'blocked')"
    assert page.run(blocked) == "blocked"
    assert (
        page.run(
            "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'written' } catch { return 'blocked' } })()"
        )
        == "blocked"
    )
    assert any("Content Security Policy" in error or "TrustedHTML" in error for error in page.errors)
    page.errors.clear()
    page.asked.clear()


@pytest.mark.parametrize("width", [380, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_can_be_read(page: Page, plain: Served, width: int, dark: bool) -> None:
    """Nothing is wider than the window, everything that can be pressed has a name, and text stands out."""
    page.look(width, 800, dark)
    for mode in ("chat", "compare", "blind"):
        begin(page, plain, mode)
        ask(page, "hello")
        if mode == "blind":
            page.wait("document.querySelector('.vote') != null")
        else:
            cards(page)
        if SHOTS:
            page.screenshot(Path(SHOTS) / f"{mode}-{width}-{'dark' if dark else 'light'}.png")
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        assert page.run(NAMELESS) == []
        assert page.run(PALE) == []
    page.run("document.getElementById('settings').open = true")
    if SHOTS:
        page.screenshot(Path(SHOTS) / f"settings-{width}-{'dark' if dark else 'light'}.png")
    assert page.run("document.documentElement.scrollWidth <= innerWidth") and page.run(NAMELESS) == []
    assert page.run("getComputedStyle(document.querySelector('.card .said'), '::after').animationName") == "none"


NAMELESS = """[...document.querySelectorAll('button, select, input, textarea')].filter(each =>
  !(each.ariaLabel || each.labels?.length || each.textContent.trim())).map(each => each.outerHTML)"""
PALE = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(each => each / 255)
    .map(each => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const pale = [];
  for (const element of document.querySelectorAll('body *')) {
    const hasText = [...element.childNodes].some(each => each.nodeType === 3 && each.textContent.trim());
    if (!hasText || !element.checkVisibility()) continue;
    const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) pale.push(element.outerHTML.slice(0, 100));
  }
  return pale;
})()"""
