"""Every mark of machine text, with an example of what it removes; and what it leaves."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from moltlm.data.config import ImportConfig
from moltlm.data.conversations import importers, machine_text
from moltlm.data.conversations.machine_text import MARKS, clean
from moltlm.data.conversations.report import ImportReport

BLOCK = "```\nThis block is not supported on your current device yet.\n```"
METADATA = 'Conversation info (untrusted metadata):\n```json\n{\n  "chat_id": "telegram:1"\n}\n```'
GONE = ""

STRIPPED = [
    ("assistant", "<think>hm</think>Wind it.", "Wind it."),
    ("assistant", "<thinking>never closed", GONE),
    ("assistant", "<antThinking>simple</antThinking>Wind it.", "Wind it."),
    ("assistant", "no beginning</think>Wind it.", "Wind it."),
    ("assistant", "[THINK]hm[/THINK]Wind it.", "Wind it."),
    ("assistant", "◁think▷hm◁/think▷Wind it.", "Wind it."),
    ("assistant", '<details type="reasoning" done="true"><summary>Thought</summary>hm</details>\nWind it.', "Wind it."),
    ("assistant", "<|channel|>analysis<|message|>hm<|end|>Wind it.", "Wind it."),
    ("assistant", f"Wind it.\n\n{BLOCK}\n\nThen wait.", "Wind it.\n\nThen wait."),
    ("assistant", BLOCK, GONE),
    ("assistant", "This block is not supported on your current device yet.", GONE),
    (
        "assistant",
        "Wind it.\n```\nViewing artifacts created via the Analysis Tool web feature preview isn’t yet supported on mobile."
        "\n```",
        "Wind it.",
    ),
    ("user", "/ask Wind it?", "Wind it?"),
    ("user", "/chat@vex_bot\nWind it?", "Wind it?"),
    ("assistant", 'Here.\n\n<antArtifact identifier="v" title="Verge">\n# Verge\n</antArtifact>', "Here."),
    ("assistant", "Wind it.\ue200cite\ue202turn0search0\ue201", "Wind it."),
    ("assistant", "Wind it.【4:0†source】", "Wind it."),
    ("assistant", '<details type="tool_calls" name="clock">x</details>Wind it.', "Wind it."),
    ("user", "# AGENTS.md instructions for /w\n\n<INSTRUCTIONS>\nBe brief.\n</INSTRUCTIONS>", GONE),
    ("user", "# Context from my IDE setup:\n\n## Open tabs:\n- a.py\n\n## My request for Codex:\nWind it?", "Wind it?"),
    ("user", "<system-reminder>be brief</system-reminder>Wind it?", "Wind it?"),
    ("user", "<environment_context>\n  <cwd>/w</cwd>\n</environment_context>", GONE),
    ("user", "<turn_aborted>\nThe user interrupted the turn.\n</turn_aborted>", GONE),
    ("user", "<command-name>/clear</command-name>\n<command-args></command-args>", GONE),
    ("user", "<permissions instructions>\nsandbox\n</permissions instructions>Wind it?", "Wind it?"),
    ("user", "<user_query>\nWind it?\n</user_query>", "Wind it?"),
    ("user", "[Request interrupted by user for tool use]", GONE),
    ("user", "[Image #1] Wind it?", "Wind it?"),
    ("user", "[Image: source: /w/a.png]", GONE),
    ("user", f"{METADATA}\n\nSender (untrusted metadata):\n```json\n{{}}\n```\n\nWind it?", "Wind it?"),
    ("user", "System: [2026-01-01 10:00:00 UTC] Exec completed (a, code 0)\n\nWind it?", "Wind it?"),
    (
        "user",
        "[Chat messages since your last reply - for context]\nHob: hi\n\n[Current message - respond to this]\nWind it?",
        "Wind it?",
    ),
    ("user", "[Telegram Ana id:123456 +2m 2026-01-01 10:02 UTC] Wind it?\n[message_id: 78]", "Wind it?"),
    ("user", "[Thu 2026-01-01 10:02 UTC] Wind it?", "Wind it?"),
    ("user", "[media attached: /w/a.ogg (audio/ogg)]\nWind it?", "Wind it?"),
    ("user", "To send an image back, prefer the message tool (media/path).\nWind it?", "Wind it?"),
    ("user", "<task>\nWind it?\n</task>", "Wind it?"),
    ("user", "<feedback>\nWind it?\n</feedback>\n\n<environment_details>\nx\n</environment_details>", "Wind it?"),
    (
        "user",
        "[attempt_completion] Result: Done\n\nThe user has provided feedback on the results. Consider it.\n"
        "<feedback>\nWind it?\n</feedback>",
        "Wind it?",
    ),
    ("assistant", "<read_file>\n<path>a.py</path>\n</read_file>", GONE),
    ("assistant", "Wind it.\n\n<execute_command>\n<command>ls</command>\n</execute_command>", "Wind it."),
    ("assistant", "<plan_mode_respond>\n<response>Wind it.</response>\n</plan_mode_respond>", "Wind it."),
    (
        "assistant",
        "<ask_followup_question>\n<question>Wind it?</question>\n<follow_up>x</follow_up>\n</ask_followup_question>",
        "Wind it?",
    ),
    ("assistant", "\n\nThought for 3 seconds\n\nWind it.", "Wind it."),
    ("user", "[Queued messages while agent was busy]\n\n---\nQueued #1\nWind it?", "Wind it?"),
    ("user", "[Thread starter - for context]\nHob: hi\n\nWind it?", "Wind it?"),
    ("user", "<skill>\n<name>clock</name>\n</skill>", GONE),
    ("assistant", "<attempt_completion>\n<result>\nWind it.\n</result>\n</attempt_completion>", "Wind it."),
    ("assistant", "Wind it. citeturn0search1turn0news2", "Wind it."),
    ("assistant", "Wind it.【 4:0†source】", "Wind it."),
    ("assistant", "Wind it.<|im_end|>\n", "Wind it."),
    ("user", "Wind it?</s>", "Wind it?"),
    ("assistant", "Thought for 3 seconds\n\nWind it.", "Wind it."),
    ("assistant", "Reasoned for a couple of seconds\nWind it.", "Wind it."),
    ("assistant", "[[reply_to_current]] Wind it.", "Wind it."),
    ("assistant", "[[reply_to: 77]]Wind it.", "Wind it."),
    ("assistant", "Wind it.\nMEDIA:/w/a.png", "Wind it."),
    ("assistant", "<final>Wind it.</final>", "Wind it."),
    ("assistant", "Wind it.\n\nHEARTBEAT_OK", "Wind it."),
    ("assistant", '<tool_call>\n{"name": "wind"}\n</tool_call>Wind it.', "Wind it."),
    ("assistant", 'Wind it.\n<function_calls><invoke name="wind"></invoke></function_calls>', "Wind it."),
    ("assistant", 'Wind it.[TOOL_CALLS][{"name": "wind", "arguments": {}}]', "Wind it."),
    ("assistant", "Wind it.<|python_tag|>wind.call(times=3)", "Wind it."),
    ("user", "<tool_response>\nwound\n</tool_response>", GONE),
    ("user", "<function_results>wound</function_results>", GONE),
    ("assistant", "![a clock](https://example.org/clock.png)\n\n![](b.png)", GONE),
    ("user", "![a clock](data:image/png;base64,iVBORw0KGgo=)Wind it?", "Wind it?"),
    ("assistant", '<img alt="a clock" src="data:image/png;base64,iVBORw0KGgo=">Wind it.', "Wind it."),
]
DROPPED = [
    ("user", "Base directory for this skill: /w/.skills/xlsx\n\n# Spreadsheets"),
    ("user", "Unknown slash command: winding"),
    ("user", "Caveat: The messages below were generated by the user while running local commands. DO NOT respond."),
    ("user", "[read_file for 'a.py'] Result:\n\nprint(1)"),
    ("assistant", "No response requested."),
    ("assistant", "(no content)"),
    ("assistant", "Prompt is too long"),
    ("assistant", 'API Error: 529 {"type":"error"}'),
    ("assistant", "Credit balance is too low"),
    ("assistant", "Claude AI usage limit reached|1760000000"),
    ("assistant", "[Request interrupted by user]"),
    ("assistant", "HEARTBEAT_OK"),
    ("assistant", "**NO_REPLY**"),
    ("assistant", "⚠️ Agent failed before reply: no key"),
    ("assistant", "There was an error generating a response"),
    ("assistant", "Network error"),
    ("assistant", "Something went wrong. If this issue persists please contact us through our help center."),
    ("assistant", "The server had an error while processing your request. Sorry about that!"),
    ("assistant", "Hmm...something seems to have gone wrong."),
    ("assistant", "You've reached our limit of messages per hour. Please try again later."),
    ("assistant", "Error code: 429 - {'error': {'message': 'Rate limit reached'}}"),
    ("assistant", "Error: model requires more system memory (5.6 GiB) than is available (3.1 GiB)"),
    ("assistant", "Error: 429 Too Many Requests"),
    ("assistant", "502 Bad Gateway"),
]
INTERRUPTING = [
    "/start",
    "/start@vex_bot ref_7",
    "/settings",
    "/new",
    "<task-notification>\n<status>completed</status>\n</task-notification>",
    "This session is being continued from a previous conversation that ran out of context.",
    "Another language model started to solve this problem and produced a summary",
    "Stop hook feedback: tests fail",
    "Read HEARTBEAT.md if it exists (workspace context). If nothing needs attention, reply HEARTBEAT_OK.",
    "System: [2026-01-01 10:00 UTC] Exec completed (abc, code 0)\n\nRead HEARTBEAT.md if it exists.",
    "System: [2026-01-01 10:00 UTC] Node connected",
    "A new session was started via /new or /reset. Greet the user in your configured persona.",
    "Pre-compaction memory flush. Store durable memories now.",
    "[cron:abc backup] Make a backup.",
    "This is the Gemini CLI. We are setting up the context for our chat.",
    "[Subagent Context] You are running as a subagent.",
    'A background task "winding" just completed successfully.',
    "A scheduled reminder has been triggered. The reminder is: tea.",
]
HEARTBEAT, FINISHED = INTERRUPTING[8], INTERRUPTING[4]
ORDINARY = [
    ("user", "/s"),
    ("user", "/home/ana/clock is empty"),
    ("user", "/start over, please: what is a verge?"),
    ("assistant", "The prompt is too long, dear. Prompt is too long for a Sunday."),
    ("assistant", "API Error: that is what the kettle calls a whistle."),
    ("assistant", "Write `<read_file>`, and then `</read_file>`."),
    ("assistant", "I think <b>therefore</b> I wind. [[springs]] and </p>"),
    ("assistant", "No response requested was ever refused."),
    ("user", "System: is it [odd] that the clock stopped?"),
    ("user", "[Telegram] is down, and so is <git>."),
    ("user", "What does HEARTBEAT_OK mean, and NO_REPLY?"),
    ("user", "Caveat: I never wind it."),
    ("assistant", "Something went wrong with the spring, dear."),
    ("assistant", "Error: that is what the kettle calls a whistle."),
    ("assistant", "Overloaded, that mantelpiece."),
    ("assistant", "404 is a number, not found in nature."),
    ("assistant", "Look: ![a clock](https://example.org/clock.png)"),
    ("user", "There was an error generating a response, it says."),
]


@pytest.mark.parametrize(("role", "text", "left"), STRIPPED)
def test_what_is_stripped(role: str, text: str, left: str) -> None:
    noise: Counter[str] = Counter()
    cleaned = clean(text, role, noise)
    assert (cleaned.text.strip(), cleaned.action) == (left, "")
    assert noise.total() > 0


@pytest.mark.parametrize(
    ("role", "text", "action"),
    [*((*row, "drop") for row in DROPPED), *(("user", x, "interrupt") for x in INTERRUPTING)],
)
def test_what_is_dropped(role: str, text: str, action: str) -> None:
    cleaned = clean(text, role, Counter())
    assert (cleaned.text, cleaned.action) == ("", action)


@pytest.mark.parametrize(("role", "text"), ORDINARY)
def test_what_people_say_stays(role: str, text: str) -> None:
    noise: Counter[str] = Counter()
    assert clean(text, role, noise).text == text
    assert not +noise


def test_every_mark_has_an_example() -> None:
    texts = [text for _, text, _ in STRIPPED] + [text for _, text in DROPPED] + INTERRUPTING
    bare = [text.replace("System: [2026-01-01 10:00 UTC] Exec completed (abc, code 0)\n\n", "") for text in texts]
    for mark in MARKS:
        assert any(mark.pattern.search(text) for text in bare), mark
        assert all(any(hint in text for text in texts) for hint in mark.hints[:1]), mark


@pytest.mark.parametrize("place", range(len(MARKS)))
def test_marks_take_linear_time(place: int) -> None:
    """What begins as a mark does, over and over, without its end."""
    mark = MARKS[place]
    for hint in mark.hints:
        for unit in (hint, f"\n{hint} ", f"<{hint}>", f"[{hint}\n", f"{hint}:\n```json\n", " ", "*", "\n"):
            text = hint + unit * (100_000 // len(unit))
            began = time.perf_counter()
            clean(text, "user", Counter())
            clean(text, "assistant", Counter())
            assert time.perf_counter() - began < 5


def test_an_answer_to_a_machine_is_not_learned(tmp_path: Path) -> None:
    says = [
        ("user", "Wind it?"),
        ("assistant", "Wind it."),
        ("user", HEARTBEAT),
        ("assistant", "HEARTBEAT_OK"),
        ("user", FINISHED),
        ("assistant", "The job is done."),
        ("user", "And then?"),
        ("assistant", "Wait."),
        ("user", "hello?"),
        ("assistant", "No response requested."),
        ("user", "Still there?"),
        ("assistant", "Always."),
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"role": role, "content": text}) for role, text in says))
    report = ImportReport()
    found = list(importers.read([path], ImportConfig(), report))
    answers = [([turn["content"] for turn in item.prompt], item.answer) for item in found]
    assert answers == [(["Wind it?"], "Wind it."), (["And then?"], "Wait."), (["Still there?"], "Always.")]
    assert report.dropped == {machine_text.NOTICE: 2, "answer to a machine": 1}
