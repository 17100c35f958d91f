"""What machines write into the turns of people and personas: one table of marks.

To add one, append a row to `MARKS`, and an example to `EXAMPLES` in `tests/test_machine_text.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal, NamedTuple

SIDES = ("user", "assistant", "")
FLAGS = re.DOTALL | re.MULTILINE


@dataclass(frozen=True)
class Mark:
    """Text that nobody said.

    Args:
        name: what the report counts it as.
        side: in whose turns it stands; "" for both.
        action: strip: remove the matched part. elements: remove what begins with a match and ends with the closing
            tag. drop: remove the whole turn, which has to begin with a match. interrupt: likewise, and what the
            assistant says next is an answer to the machine.
        pattern: a regular expression. It takes linear time.
        hints: a text without any of these has no match, and a turn that does not begin with one is not dropped.
            They are sought first, which is fast.
    """

    name: str
    side: Literal["user", "assistant", ""]
    action: Literal["strip", "elements", "drop", "interrupt"]
    pattern: re.Pattern[str]
    hints: tuple[str, ...]
    begins: bool = False
    """It is only at the beginning of a turn, which then begins with a hint."""


class Cleaned(NamedTuple):
    """A text without machine text, and the action of the mark that removed the whole turn, or ""."""

    text: str
    action: str = ""
    name: str = ""


def _strip(name: str, side: Literal["user", "assistant", ""], pattern: str, *hints: str) -> Mark:
    return Mark(name, side, "strip", re.compile(pattern, FLAGS), hints)


def _strip_beginning(name: str, side: Literal["user", "assistant", ""], pattern: str, *beginnings: str) -> Mark:
    return Mark(name, side, "strip", re.compile(rf"\A\s*(?:{pattern})", FLAGS), beginnings, begins=True)


def _drop(name: str, side: Literal["user", "assistant", ""], *beginnings: str) -> Mark:
    """A turn that begins with one of these texts."""
    return Mark(name, side, "drop", re.compile("|".join(map(re.escape, beginnings))), beginnings)


def _whole(name: str, side: Literal["user", "assistant", ""], pattern: str, *hints: str) -> Mark:
    """A turn that is nothing else."""
    return Mark(name, side, "drop", re.compile(rf"(?:{pattern})\Z", re.DOTALL), hints)


def _interrupt(name: str, *beginnings: str) -> Mark:
    return Mark(name, "user", "interrupt", re.compile("|".join(map(re.escape, beginnings))), beginnings)


def _command(name: str, pattern: str) -> Mark:
    """A turn of a user that is nothing but a command to a bot, such as `/start`."""
    return Mark(name, "user", "interrupt", re.compile(rf"(?:{pattern})\Z"), ("/",))


def _elements(name: str, side: Literal["user", "assistant", ""], tags: str) -> Mark:
    """Elements `<tag ...>...</tag>` that are closed."""
    return Mark(name, side, "elements", re.compile(rf"<({'|'.join(tags.split())})(?:\s[^<>]*)?>"), ("</",))


NOTICE = "notice of an agent"
ERROR = "error instead of an answer"
HARNESS = "text of the harness"
INFO = "information about the chat"
THINKING = "thinking"
COMMAND = "command to a bot"

TOOLS = """
    read_file write_to_file replace_in_file apply_diff insert_content search_and_replace execute_command search_files
    list_files list_code_definition_names codebase_search browser_action use_mcp_tool access_mcp_resource
    update_todo_list switch_mode new_task fetch_instructions
"""
"""The tools that Cline and Roo Code write as elements into an answer."""

MARKS = (
    # thinking
    _strip(
        THINKING, "assistant",
        r"<(think|thinking|thought|reasoning|antThinking)>.*?(?:</\1>|\Z)", "<th", "<reasoning", "<antThinking",
    ),
    _strip(THINKING, "assistant", r"\A(?:(?!<think>).)*?</think(?:ing)?>", "</think"),
    _strip(THINKING, "assistant", r"\[THINK\].*?(?:\[/THINK\]|\Z)", "[THINK]"),
    _strip(THINKING, "assistant", r"◁think▷.*?(?:◁/think▷|\Z)", "◁think▷"),
    _strip(THINKING, "assistant", r"<details type=\"reasoning\".*?(?:</details>|\Z)", '<details type="reasoning"'),
    _strip(THINKING, "assistant", r"<\|channel\|>analysis<\|message\|>.*?(?:<\|end\|>|\Z)", "<|channel|>analysis"),
    # chat templates
    _strip(
        "mark of a chat template", "",
        r"(?:<\|(?:im_end|eot_id|eom_id|eot|end|endoftext|end_of_text|return|END_OF_TURN_TOKEN)\|>|</s>|<end_of_turn>"
        r"|<｜end▁of▁sentence｜>)\s*\Z",
        "<|im_end|>", "<|eot", "<|eom_id|>", "<|end", "<|return|>", "</s>", "<end_of_turn>", "<|END_OF_TURN", "<｜end",
    ),
    # Claude's apps
    _strip(
        "block that was not exported", "assistant",
        r"(?:^```\w*\n)?^This block is not supported on your current device yet\.?[ \t]*(?:\n```[ \t]*$)?",
        "This block is not supported",
    ),
    _strip(
        "block that was not exported", "assistant",
        r"(?:^```\w*\n)?^Viewing artifacts created via the Analysis Tool[^\n]{0,80}[ \t]*(?:\n```[ \t]*$)?",
        "Analysis Tool",
    ),
    _strip("artifact", "assistant", r"<antArtifact\b[^<>]*>.*?(?:</antArtifact>|\Z)", "<antArtifact"),
    # ChatGPT
    _strip("citation mark", "assistant", "\ue200[^\ue200\ue201]*\ue201|[\ue200-\ue206]", *"\ue200\ue201\ue202\ue203"),
    _strip("citation mark", "assistant", "【\\s?\\d+[^】]{0,80}†[^】]{0,80}】", "†"),
    _strip("citation mark", "assistant", r"\b(?:file)?cite(?:turn\d{1,4}[a-z]{1,12}\d{1,4}){1,40}", "citeturn"),
    _strip_beginning(
        THINKING, "assistant",
        r"(?:Thought|Reasoned|Worked) for (?:\d{1,3}|an?)(?: [a-z]{1,8}){1,3}[^\n]{0,30}(?:\n|\Z)",
        "Thought for", "Reasoned for", "Worked for",
    ),
    # Open WebUI
    _strip(
        "tool call", "assistant",
        r"<details type=\"(?:tool_calls|code_interpreter)\".*?(?:</details>|\Z)", '<details type="',
    ),
    # calls that a model writes into its answer (Hermes, Anthropic, Mistral, Llama), and what came back
    _strip("tool call", "assistant", r"<tool_call>.*?(?:</tool_call>|\Z)", "<tool_call>"),
    _strip("tool call", "assistant", r"<function_calls>.*?(?:</function_calls>|\Z)", "<function_calls>"),
    _strip("tool call", "assistant", r"\[TOOL_CALLS\].*\Z", "[TOOL_CALLS]"),
    _strip("tool call", "assistant", r"<\|python_tag\|>.*\Z", "<|python_tag|>"),
    _strip("tool result", "user", r"<tool_response>.*?(?:</tool_response>|\Z)", "<tool_response>"),
    _strip("tool result", "user", r"<function_results>.*?(?:</function_results>|\Z)", "<function_results>"),
    # bots of messengers
    _strip_beginning(COMMAND, "user", r"/(?:ask|chat|gpt|ai|talk|prompt)(?:@\w{1,40})?[ \n]", "/"),
    _command(COMMAND, r"/(?:[A-Za-z]\w{3,31}|new)(?:@\w{1,40})?|/start(?:@\w{1,40})? \S{1,80}"),
    # Claude Code, Codex and other coding agents: what they put into a user's turns
    _interrupt(NOTICE, "<task-notification>", "<teammate-message", "<agent-notification>", "<subagent_notification>"),
    _interrupt(NOTICE, "This session is being continued from a previous conversation"),
    _interrupt(NOTICE, "Another language model started to solve this problem"),
    _interrupt(NOTICE, "Stop hook feedback:"),
    _drop(NOTICE, "user", "Base directory for this skill:", "Unknown slash command:", "Unknown skill:"),
    _drop(NOTICE, "user", "Caveat: The messages below were generated by the user while running local commands"),
    _strip(
        HARNESS, "user",
        r"^# AGENTS\.md instructions(?: for [^\n]*)?\n\s*(?:<INSTRUCTIONS>.*?(?:</INSTRUCTIONS>|\Z))?", "# AGENTS.md",
    ),
    _strip(
        HARNESS, "user",
        r"\A# Context from my IDE setup:.*?^## My request for Codex:[^\n]*\n", "# Context from my IDE",
    ),
    _elements(
        HARNESS, "user",
        """
        system-reminder system_reminder environment_context environment_details user_instructions INSTRUCTIONS
        command-name command-message command-args command-contents bash-input bash-stdout bash-stderr
        local-command-stdout local-command-stderr local-command-caveat user-prompt-submit-hook session-start-hook
        post-tool-use-hook user-memory-input ide_opened_file ide_selection ide_diagnostics new-diagnostics turn_aborted
        user_action skill collaboration_mode skills_instructions apps_instructions plugins_instructions model_switch
        user_shell_command personality_spec task-notification additional_data attached_files cursor_commands
        open_and_recently_viewed_files user_info git_status project_layout relevant-memories permissions
        """,
    ),
    _strip(HARNESS, "user", r"</?user_query>", "user_query>"),
    # Cline and Roo Code
    _drop("tool result", "user", *(f"[{tool} for '" for tool in TOOLS.split())),
    _strip(HARNESS, "user", r"^\[attempt_completion\] Result:[^\n]*$", "[attempt_completion]"),
    _strip(HARNESS, "user", r"^The user has provided feedback on the results\.[^\n]*$", "The user has provided"),
    Mark(
        "tool call", "assistant", "elements",
        re.compile(rf"^<({'|'.join(TOOLS.split())}|follow_up|options|task_progress)>", FLAGS), ("</",),
    ),
    _strip(HARNESS, "assistant", r"</?(?:ask_followup_question|plan_mode_respond|question|response)>\s*",
        "ask_followup_question>", "plan_mode_respond>"),
    _strip(
        HARNESS, "user",
        r"\A\s*<(?:task|feedback|user_message)>\s*|\s*</(?:task|feedback|user_message)>(?=\s*(?:\n\n|<|\Z))",
        "<task>", "<feedback>", "<user_message>",
    ),
    _strip(HARNESS, "assistant", r"</?(?:attempt_completion|result)>\s*", "attempt_completion>"),
    # Gemini CLI
    _interrupt(NOTICE, "This is the Gemini CLI. We are setting up the context"),
    _strip(HARNESS, "user", r"\[Request interrupted by user[^\]\n]*\]", "[Request interrupted"),
    _strip("attachment", "user", r"\[Image:? (?:#\d+|source: [^\]\n]*|original [^\]\n]*)\]", "[Image"),
    # what they put in place of an answer
    _whole(NOTICE, "assistant", r"No response requested\.?", "No response requested"),
    _whole(NOTICE, "assistant", r"\(no content\)|\[no content\]", "(no content)", "[no content]"),
    _whole(NOTICE, "assistant", r"Prompt is too long\.?|Request timed out\.?", "Prompt is", "Request timed out"),
    _whole(NOTICE, "assistant", r"API Error(?: \(|: (?:\d|\{|Request|Connection)).*", "API Error"),
    _drop(NOTICE, "assistant", "Credit balance is too low", "Invalid API key ·"),
    _drop(NOTICE, "assistant", "Claude AI usage limit reached", "You've hit your limit ·"),
    _whole(NOTICE, "assistant", r"\[Request interrupted by user[^\]\n]*\]", "[Request interrupted"),
    # what services show in place of an answer
    _whole(
        ERROR, "assistant",
        r"(?:There was an error generating a response|Error in message stream|Network error|Connection error"
        r"|Internal [Ss]erver [Ee]rror|(?:TypeError: )?Failed to fetch|Overloaded|Unable to load conversation)[.!]?\s*",
        "There was an error", "Error in message", "Network error", "Connection error", "Internal ", "Failed to fetch",
        "TypeError: Failed", "Overloaded", "Unable to load",
    ),
    _whole(
        ERROR, "assistant",
        r"(?:Something went wrong[.,]? (?:[Ii]f this issue persists|[Pp]lease try|while generating the response)"
        r"|The server had an error (?:while )?processing|Hmm\.\.\. ?something seems to have gone wrong"
        r"|An error occurred\. (?:Either the engine|If this issue persists)|Request failed with status code \d"
        r"|You['’]ve (?:reached|hit) (?:our limit of messages|your (?:usage )?limit|the current usage cap)"
        r"|Rate limit (?:reached for|exceeded)|This model's maximum context length is \d"
        r"|This content may violate our (?:usage|content) polic|Error code: \d{3}\b|Error: \{"
        r"|Error: (?:model requires more|an error was encountered|llama runner|could not connect)|\[ERROR\])"
        r"[^\n]{0,600}\s*",
        "Something went wrong", "The server had an error", "Hmm...", "An error occurred. ", "Request failed with",
        "You've reached", "You’ve reached", "You've hit", "You’ve hit", "Rate limit ", "This model's maximum",
        "This content may violate", "Error code: ", "Error: ", "[ERROR]",
    ),
    _whole(
        ERROR, "assistant",
        r"(?:Error:? ?)?(?:HTTP )?[45]\d\d:? (?:Too Many Requests|Bad Gateway|Internal Server Error|Service Unavailable"
        r"|Gateway Time-?out|Unauthorized|Forbidden|Bad Request|Not Found|Payload Too Large)[.!]?\s*",
        "Error", "HTTP ", "4", "5",
    ),
    # pictures, which no text model shows
    _strip("attachment", "assistant", r"\A\s*(?:!\[[^\]\n]{0,500}\]\([^)\s]{1,4000}\)\s*)+\Z", "!["),
    _strip(
        "attachment", "",
        r"!?\[[^\]\n]{0,500}\]\(data:[a-z]+/[^)\s]*\)|<img [^<>]{0,500}?src=[\"']data:[^<>]*>", "(data:", "<img ",
    ),
    # OpenClaw: what it puts into a user's turns
    Mark(
        NOTICE, "user", "interrupt",
        re.compile(r"(?:System(?: \([^)\n]*\))?: \[\d[^\]\n]*\][^\n]*(?:\n[ \t]*)*)+\Z"), ("System",),
    ),
    _strip(
        INFO, "user",
        r"^[A-Z][^\n:]{0,80}\((?:untrusted|metadata)[^\n:]{0,80}:\n```\w*\n.{0,4000}?\n```[ \t]*$",
        "(untrusted", "(metadata",
    ),
    _strip(INFO, "user", r"^System(?: \([^)\n]*\))?: \[\d[^\]\n]*\][^\n]*$", "System: [", "): ["),
    _strip(
        INFO, "user",
        r"\A\[Chat messages since your last reply.*?^\[Current message[^\]\n]*\]", "[Chat messages since",
    ),
    _strip(
        INFO, "user",
        r"^\[(?:Telegram|WhatsApp|Discord|Signal|Slack|iMessage|BlueBubbles|Matrix|Mattermost|WebChat|MSTeams|Teams|Line|"
        r"Feishu|Zalo|Nostr|IRC|Google ?Chat|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d{4}-\d\d-\d\d)\b"
        r"(?=[^\]\n]*\d)[^\]\n]*\] ?",
        "[",
    ),
    _strip(INFO, "user", r"^\[(?:message_id|from|chat_id): ?[^\]\n]*\][ \t]*$", "[message_id", "[from", "[chat_id"),
    _strip("attachment", "user", r"^\[media attached[^\]\n]*\][ \t]*$", "[media attached"),
    _strip(
        INFO, "user",
        r"\A\[Queued messages while agent was busy\]\s*|^---\nQueued #\d+[^\n]{0,80}\n", "[Queued messages", "Queued #",
    ),
    _strip(INFO, "user", r"\A\[Thread (?:starter|history) - for context\].*?(?:\n\n|\Z)", "[Thread "),
    _strip(INFO, "user", r"^To send an image back, prefer the message tool[^\n]*$", "To send an image back"),
    # OpenClaw: turns that nobody took, which may stand beneath such information
    _interrupt(NOTICE, "Read HEARTBEAT.md if it exists", "A new session was started via /new or /reset"),
    _interrupt(NOTICE, "Pre-compaction memory flush", "An async command you ran earlier has completed", "[cron:"),
    _interrupt(NOTICE, "A scheduled reminder has been triggered", "[Subagent Context]", "A background task \""),
    _whole(
        NOTICE, "assistant",
        r"[*_`]*(?:HEARTBEAT_OK|NO_REPLY|ANNOUNCE_SKIP|REPLY_SKIP)[*_`.!]*",
        "HEARTBEAT_OK", "NO_REPLY", "ANNOUNCE_SKIP", "REPLY_SKIP",
    ),
    _drop(NOTICE, "assistant", "⚠️ Agent failed before reply", "✅ New session started"),
    _strip(
        NOTICE, "assistant",
        r"^[*_`]*(?:HEARTBEAT_OK|NO_REPLY)[*_`]*[ \t]*$|(?:HEARTBEAT_OK|NO_REPLY)[*_`]*\s*\Z",
        "HEARTBEAT_OK", "NO_REPLY",
    ),
    _strip("delivery tag", "assistant", r"\[\[\s*(?:reply_to|audio_as_voice|tts|/tts)[^\]\n]*\]\] ?", "[["),
    _strip("delivery tag", "assistant", r"^MEDIA:\S+[ \t]*$", "MEDIA:"),
    _strip("delivery tag", "assistant", r"</?final>", "final>"),
)  # fmt: skip


BY_SIDE = {role: [mark for mark in MARKS if not (role and mark.side) or mark.side == role] for role in SIDES}
RARE = "◁†\ue200\ue201\ue202\ue203<[>#(_MT"
"""Characters by which hints are sought, the rarest first: one character is sought ten times as fast as a word."""


def _begins(mark: Mark) -> bool:
    return mark.begins or mark.action in ("drop", "interrupt")


def _gates(marks: list[Mark], is_ascii: bool) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The hints of the marks that may be anywhere, by a text that each of them holds: a rare character, or else itself.

    Args:
        is_ascii: of the texts in which they are sought.
    """
    gates: dict[str, list[str]] = {}
    for hint in dict.fromkeys(hint for mark in marks if not _begins(mark) for hint in mark.hints):
        if hint.isascii() or not is_ascii:
            gates.setdefault(next((char for char in RARE if char in hint), hint), []).append(hint)
    return tuple((gate, () if gate in hints else tuple(hints)) for gate, hints in gates.items())


GATES = {(side, is_ascii): _gates(marks, is_ascii) for side, marks in BY_SIDE.items() for is_ascii in (False, True)}
BEGINNINGS = {
    side: tuple(hint for mark in marks if _begins(mark) for hint in mark.hints) for side, marks in BY_SIDE.items()
}
FIRST_LETTERS = {side: frozenset(hint[0] for hint in hints) for side, hints in BEGINNINGS.items()}
BLANK_LINES = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")


def is_likely(text: str, role: str) -> bool:
    """Whether a text may hold machine text. It is fast, and false for most texts."""
    for gate, hints in GATES[role, text.isascii()]:
        if gate in text and (not hints or any(map(text.__contains__, hints))):
            return True
    start = text.lstrip(" \t\r\n*_`")
    return start[:1] in FIRST_LETTERS[role] and start.startswith(BEGINNINGS[role])


def clean(text: str, role: str, noise: Counter[str]) -> Cleaned:
    """Remove machine text from a turn, and count what was removed.

    Args:
        role: user or assistant; "" for a speaker who is only named.
    """
    if not is_likely(text, role):
        return Cleaned(text)
    before = len(text)
    for mark in BY_SIDE[role]:
        for hint in mark.hints:
            if hint in text:
                break
        else:
            continue
        if mark.action == "strip":
            text, count = mark.pattern.subn("", text)
            noise[mark.name] += count
        elif mark.action == "elements":
            text, count = _without_elements(text, mark.pattern)
            noise[mark.name] += count
        elif mark.pattern.match(text.strip()):
            return Cleaned("", mark.action, mark.name)
    return Cleaned(text if len(text) == before else BLANK_LINES.sub("\n\n", text))


def _without_elements(text: str, opening: re.Pattern[str]) -> tuple[str, int]:
    """The text without elements, and how many there were. Their ends are sought once, so that it takes linear time."""
    parts, at, unclosed = list[str](), 0, set[str]()
    for match in opening.finditer(text):
        tag = match[1]
        if match.start() < at or tag in unclosed:
            continue
        close = f"</{tag} instructions>" if tag == "permissions" else f"</{tag}>"
        end = text.find(close, match.end())
        if end < 0:
            unclosed.add(tag)
            continue
        parts.append(text[at : match.start()])
        at = end + len(close)
    return "".join([*parts, text[at:]]), len(parts)
