"""The prompt in training is the prompt that is served, token by token, for every chat template that TRL ships."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import AutoTokenizer

from moltlm.adapters import base, chat_template
from moltlm.adapters.config import ModelConfig
from moltlm.adapters.rendering import encode_answers, encode_prompt, fitted
from moltlm.adapters.training_data import completions, preferences
from moltlm.data.errors import BadInput
from moltlm.data.types import Exchange, Message, Pair

FOLDER = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.jinja"))}
OWN = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "inst": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% else %}{{ raise_exception('roles') }}{% endif %}"
    "{% endfor %}",
    "no generation prompt": "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}{% endfor %}",
    "plain words": "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}",
}
QUESTION: Message = {"role": "user", "content": "What should I do today?"}
SYSTEM: Message = {"role": "system", "content": "You are a cat."}
ANSWER = "Rain. Have some tea."
CONVERSATIONS: list[list[Message]] = [
    [QUESTION],
    [SYSTEM, QUESTION],
    [QUESTION, {"role": "assistant", "content": "Tea."}, {"role": "user", "content": "And then?"}],
    [{"role": "assistant", "content": "Hello."}, QUESTION],
    [QUESTION, {"role": "user", "content": "Hello?"}],
]


def tokenizer_of(tiny: Path, template: str) -> Any:
    """The tiny tokenizer with a template, and the special tokens that it writes."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokens = re.findall(r"<\|?[^<>\s'\"{}]{1,40}\|?>|\[/?INST\]", template)
    special = [token for token in dict.fromkeys(tokens) if not token.endswith(("think>", "tools>"))]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    tokenizer.chat_template = template
    return tokenizer


def settled(tiny: Path, template: str, thinking: Any = "off") -> tuple[Any, chat_template.TemplateFacts]:
    tokenizer = tokenizer_of(tiny, template)
    return tokenizer, chat_template.settle(tokenizer, thinking, [tokenizer.eos_token_id], "it")


@pytest.mark.parametrize("thinking", ["off", "on", "template"])
@pytest.mark.parametrize("name", [*TEMPLATES, *OWN])
def test_the_prompt_in_training_is_the_served_prompt(tiny: Path, name: str, thinking: str) -> None:
    tokenizer, facts = settled(tiny, {**TEMPLATES, **OWN}[name], thinking)
    for prompt in CONVERSATIONS:
        served = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
        start = encode_prompt(tokenizer, prompt)
        assert start == served["input_ids"]
        trained_after, (answer,) = encode_answers(tokenizer, prompt, [ANSWER])
        assert trained_after == start
        _, (scored,) = encode_answers(tokenizer, prompt, [ANSWER], closed=False)
        assert answer[: len(scored)] == scored
        written = tokenizer.decode(answer)
        assert ANSWER in written and facts.end in written[written.index(ANSWER) :]
        if thinking == "off":
            assert tokenizer.decode(answer, skip_special_tokens=True).strip() == ANSWER
        row = completions([Exchange(prompt, ANSWER)], tokenizer, 10_000)[0]
        assert row["input_ids"] == start + answer
        assert [token for token in row["labels"] if token != -100] == answer
        pair: Any = preferences([Pair("1", prompt, ANSWER, "No.", "", "")], tokenizer)[0]
        assert pair["prompt_ids"] == start and pair["chosen_ids"] == answer


@pytest.mark.parametrize("name", [*TEMPLATES, *OWN])
def test_a_written_conversation_goes_on_as_it_was_trained(tiny: Path, name: str) -> None:
    """What the template writes for a prompt and its answer begins with the prompt that is served, unless it hides
    thoughts by a rule of its own."""
    tokenizer, facts = settled(tiny, {**TEMPLATES, **OWN}[name])
    full = tokenizer.apply_chat_template([QUESTION, {"role": "assistant", "content": ANSWER}], tokenize=False)
    prompt = tokenizer.decode(encode_prompt(tokenizer, [QUESTION]))
    assert full.startswith(prompt) or facts.thinking == "off"


def test_settling_twice_changes_nothing(tiny: Path) -> None:
    for template in TEMPLATES.values():
        tokenizer, first = settled(tiny, template)
        before = encode_prompt(tokenizer, CONVERSATIONS[2])
        second = chat_template.settle(tokenizer, "off", [tokenizer.eos_token_id], "it")
        assert encode_prompt(tokenizer, CONVERSATIONS[2]) == before
        assert second.end == first.end


def test_the_facts_of_known_templates(tiny: Path) -> None:
    facts = {name: settled(tiny, template)[1] for name, template in {**TEMPLATES, **OWN}.items()}
    assert facts["qwen3"].thinking == "off" and facts["deepseek_r1_distill"].thinking == "off"
    assert facts["qwen2_5"].thinking == facts["chatml"].thinking == "none"
    assert facts["qwen2_5"].default_system.startswith("You are Qwen")
    assert not facts["gemma"].system and facts["llama3"].system
    assert facts["gemma3"].alternating and not facts["chatml"].alternating
    assert facts["llama3_1"].dated and facts["llama3_2"].dated and not facts["llama3"].dated
    assert facts["gemma"].end == "<end_of_turn>" and facts["llama3"].end == "<|eot_id|>"
    assert facts["glm4moe"].end == "<|user|>"
    assert "final" in facts["gptoss"].prefix


def test_the_date_does_not_change_a_prompt(tiny: Path) -> None:
    tokenizer, _ = settled(tiny, TEMPLATES["llama3_2"])
    assert chat_template.DATE in tokenizer.decode(encode_prompt(tokenizer, [QUESTION]))


@pytest.mark.parametrize(
    "template",
    [
        "### Instruction:\n{{ messages[0].content }}\n### Response:\n{% if not add_generation_prompt %}"
        "{{ messages[1].content }}{% endif %}",
        "{{ raise_exception('never') }}",
        "{% for m in messages %}{{ m.role }}{% endfor %}",
        "{{ messages[ }}",
        "<|im_start|>{{ messages[-1].content }}<|im_end|>",  # forgets what was said before
        OWN["chatml"].replace("m.content", "m.content | lower"),
        "{{ range(100000) | random }}" + OWN["chatml"],
    ],
)
def test_a_template_that_cannot_be_learned_is_refused(tiny: Path, template: str) -> None:
    with pytest.raises(BadInput, match="chat template") as caught:
        settled(tiny, template)
    assert "model.chat_template=" in caught.value.fix


def test_a_template_is_read_from_where_models_have_it(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").unlink()
    config = ModelConfig(id=str(tmp_path / "model"), precision="fp32")
    with pytest.raises(BadInput, match="has no chat template, so"):
        base.load_text(config)
    file = tmp_path / "model" / "chat_template.json"
    for value in (OWN["chatml"], {"default": OWN["chatml"], "tools": "x"}):
        file.write_text(json.dumps({"chat_template": value}))
        assert base.load_text(config).facts.end == "<|im_end|>"
    file.write_text(json.dumps({"chat_template": {"tools": "x"}}))
    with pytest.raises(BadInput, match="but those named tools"):
        base.load_text(config)


def test_the_oldest_turns_make_room(tiny: Path) -> None:
    tokenizer, _ = settled(tiny, OWN["chatml"])
    turns: list[Message] = [SYSTEM]
    for number in range(6):
        question: Message = {"role": "user", "content": f"tea {number}"}
        turns += [question, {"role": "assistant", "content": f"rain {number}"}]
    turns.append(QUESTION)
    whole = len(encode_prompt(tokenizer, turns))
    for room in range(1, whole + 1, 7):
        short = fitted(tokenizer, turns, room)
        assert short[0] == SYSTEM and short[-1] == QUESTION and short[1]["role"] == "user"
        assert short[1:] == turns[-len(short[1:]) :]
        assert len(encode_prompt(tokenizer, short)) <= room or len(short) == 2
    assert fitted(tokenizer, turns, whole) == turns
