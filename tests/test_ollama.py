"""Ollama's prompt is the prompt that the model was trained on, for every chat template that TRL ships."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from moltlm.adapters import ollama
from moltlm.data.errors import BadInput
from moltlm.data.types import Message
from tests.go_templates import render
from tests.test_rendering import OWN, TEMPLATES, settled

TURNS: list[Message] = [
    {"role": role, "content": f'turn {i}: {{{{ "häh" }}}}'} for i, role in enumerate(["user", "assistant"] * 3)
]
SYSTEM: Message = {"role": "system", "content": "You are\na cat."}
CONVERSATIONS = [before + TURNS[:count] for before in ([], [SYSTEM]) for count in (1, 3, 5)]
GO = """
package main

import ("encoding/json"; "fmt"; "os"; "text/template")

type Message struct { Role, Content string }

func main() {
	var cases []struct { Template, System string; Messages []Message }
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil { panic(err) }
	for _, each := range cases {
		parsed := template.Must(template.New("").Parse(each.Template))
		values := map[string]any{"System": each.System, "Messages": each.Messages}
		if err := parsed.Execute(os.Stdout, values); err != nil { panic(err) }
		fmt.Print("\\x00")
	}
}
"""


@pytest.mark.parametrize("name", [*TEMPLATES, *OWN])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_the_go_template_renders_what_was_trained(tiny: Path, name: str, adds_bos: bool) -> None:
    tokenizer, _ = settled(tiny, {**TEMPLATES, **OWN}[name])
    template = ollama.go_template(tokenizer, adds_bos)
    for messages in CONVERSATIONS:
        wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert render(template, messages) == wanted.removeprefix(tokenizer.bos_token if adds_bos else "")


def test_a_template_that_changes_what_is_said_is_refused(tiny: Path) -> None:
    changing = OWN["chatml"].replace("{{ m.content }}", "{{ m.content | replace('is', 'was') }}")
    with pytest.raises(BadInput, match="cannot be said in Ollama's"):
        ollama.go_template(settled(tiny, changing)[0], False)


def test_the_modelfile_decodes_as_the_model_is_measured(tiny: Path) -> None:
    tokenizer, facts = settled(tiny, TEMPLATES["llama3"])
    text = ollama.modelfile("./model.gguf", ollama.go_template(tokenizer, True), facts)
    lines = text.splitlines()
    assert lines[0] == "FROM ./model.gguf" and "ADAPTER" not in text
    assert {"PARAMETER temperature 0", "PARAMETER repeat_penalty 1", 'PARAMETER stop "<|eot_id|>"'} <= set(lines)
    above = ollama.modelfile("llama3.1", "x", facts, "./adapter.gguf")
    assert above.startswith("FROM llama3.1\n") and "\nADAPTER ./adapter.gguf\n" in above


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("go"), reason="there is no go on the PATH")
def test_go_itself_renders_the_same(tiny: Path, tmp_path: Path) -> None:
    cases, wanted = [], []
    for template in {**TEMPLATES, **OWN}.values():
        go = ollama.go_template(settled(tiny, template)[0], False)
        for messages in CONVERSATIONS:
            system = SYSTEM["content"] if messages[0] == SYSTEM else ""
            cases.append({"Template": go, "System": system, "Messages": messages})
            wanted.append(render(go, messages))
    (tmp_path / "main.go").write_text(GO)
    command = ["go", "run", str(tmp_path / "main.go")]
    process = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, check=True)
    assert process.stdout.split("\0")[:-1] == wanted
