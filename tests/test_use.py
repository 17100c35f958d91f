"""What was trained is used: chat and export on the command line, on a tiny real model."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import molt
from safetensors.torch import load_file, save_file
from test_teacher import serving

from moltlm.adapters import base, card, serve, streaming
from moltlm.adapters.config import ModelConfig
from moltlm.adapters.rendering import encode_prompt
from moltlm.data import state as states
from moltlm.data.errors import BadInput
from moltlm.data.io import sha256_file
from moltlm.data.state import BASE, PERSONALITY, PERSONALITY_ADAPTER, Adapter
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import chat as chats
from moltlm.pipeline.service.export import LAYOUTS
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.stages import tasks
from moltlm.pipeline.stages.serving import serve as serve_state


def test_a_judge_compares_states_and_pays_once(trained_project: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert molt("eval", "judge", trained_project) == 2
    assert "judge.kind=endpoint" in capsys.readouterr().err
    with serving() as (url, seen):
        settings = ["judge.kind=endpoint", f"judge.url={url}", "judge.model=m"]
        assert molt("eval", "judge", trained_project, *settings, "--state", "personality+shell") == 0
        asked = len(seen)
        assert 0 < asked <= 6 * 2 * 2  # prompts, orders, the base and the personality; the same is not asked twice
        assert molt("report", trained_project, *settings) == 0 and len(seen) == asked
    folder = Path(load(trained_project).run.folder)
    found = json.loads((folder / "results.json").read_text())["judge"]
    assert found["states"]["personality+shell"]["base"]["win_rate"]["mean"] == 0.5  # it says 0 each time
    assert "personality" not in found["states"]
    assert "A language model as the judge" in (folder / "report.html").read_text()


def test_the_same_training_twice_comes_out_the_same(trained_project: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert molt("eval", "noise", trained_project, "gate.noise_runs=2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["identical"] and found["persona"]["largest"] == found["capability"]["largest"] == 0
    folders = list((Path(load(trained_project).run.folder) / "personality").glob("*/inputs.json"))
    hashes = {path: sha256_file(path.with_name("adapter_model.safetensors")) for path in folders}
    (again,) = (path for path in folders if json.loads(path.read_text()).get("personality", {}).get("repeat") == 1)
    assert hashes.pop(again) in hashes.values()
    assert molt("eval", "noise", trained_project, "gate.noise_runs=1") == molt("eval", "noise", trained_project) == 2
    assert "gate.noise_runs=3" in capsys.readouterr().err


def test_chat_answers_in_every_state_once(trained_project: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert molt("chat", trained_project, "--message", "hello", "--max-new-tokens", "4", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["base", "personality", "personality+reminders", "personality+shell"]
    assert len(set(found.values())) > 1


def test_a_long_talk_loses_its_oldest_turns_and_chat_says_so(trained_project: str) -> None:
    run = Run(load(trained_project), Console())
    run.only_read = True
    chat = chats.Chat(serve_state(run, PERSONALITY), [BASE, PERSONALITY], 4, system="Be brief.")
    room = streaming.context(chat.model) - chat.max_new_tokens
    said: list[str] = []
    chats.talk(chat, iter([f"{i} " + "word " * (room // 12) for i in range(12)]), said.append)
    history = chat.histories[BASE]
    assert history[0]["role"] == "user" and history[-2]["content"].startswith("11 word") and len(history) < 24
    assert len(encode_prompt(chat.model.tokenizer, [*chat._system(), *history[:-1]])) <= room
    assert any("of the oldest messages no longer fit" in line for line in said)
    before = dict(chat.histories)
    with pytest.raises(BadInput, match=f"there is room for {room}"):
        chat.answers("word " * room)
    assert chat.histories == before


def test_chat_reads_a_pipe_and_survives_mistakes(
    trained_project: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "hello",
        "/dance",
        "/use nobody",
        "/use base",
        "/scale shell 0.5",
        "hello",
        "",
        "/states",
        "/quit",
        "unheard",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert molt("chat", trained_project, "--use", "base,personality", "--max-new-tokens", "4") == 0
    told = capsys.readouterr().out
    assert "base: " in told and "personality: " in told
    assert "Unknown command: /dance" in told and "No adapter nobody is loaded" in told
    assert "answering: base" in told and "unheard" not in told


def test_each_state_has_a_history_of_its_own(trained_project: str) -> None:
    run = Run(load(trained_project), Console())
    chat = chats.Chat(serve_state(run, PERSONALITY), [BASE, PERSONALITY], 4)
    first = chat.answers("hello")
    assert chat.histories[BASE][1]["content"] == first[BASE]
    chat.command("/system Be brief.")
    with chat.model.state(PERSONALITY):
        asked = [{"role": "system", "content": "Be brief."}, *chat.histories[PERSONALITY]]
        expected = chat.model.generate([[*asked, {"role": "user", "content": "and now?"}]], 4, 1)
    assert [chat.answers("and now?")[PERSONALITY]] == expected
    chat.command("/reset")
    assert not chat.histories
    run.close()


def test_chat_does_not_train(trained_project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert molt("chat", trained_project, f"run.folder={tmp_path / 'empty'}", "--message", "hello") == 1
    assert "has not been run with these settings" in capsys.readouterr().err


@pytest.mark.parametrize("to", LAYOUTS)
def test_export_on_the_command_line(
    trained_project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    out, state = tmp_path / "out", "personality+shell"
    assert molt("export", trained_project, "--to", to, "--state", state, "--out", str(out), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kl"] < 1e-3 and found.get("error", 0.0) < 1e-6
    assert molt("export", trained_project, "--to", to, "--state", state, "--out", str(out)) == 2
    expected = {
        "adapter": {"adapter_model.safetensors", "chat_template.jinja", "README.md"},
        "merged": {"model.safetensors", "chat_template.jinja"},
        "gguf": {"model.gguf"},
        "gguf-adapter": {"adapter.gguf", "chat_template.jinja"},
        "ollama": {"model.gguf", "Modelfile"},
        "vllm": {"adapter_model.safetensors", "serve.sh", "chat_template.jinja"},
        "hub": {"adapter_model.safetensors", "chat_template.jinja", "README.md"},
    }
    assert expected[to] <= set(found["files"]) == {file.name for file in out.iterdir()}
    here = [str(place).encode() for place in (load(trained_project).model.id, tmp_path.parent, Path.home())]
    assert not [file for file in out.iterdir() if any(place in file.read_bytes() for place in here)]
    if "adapter_config.json" in found["files"]:
        assert isinstance(json.loads((out / "adapter_config.json").read_text())["lora_alpha"], int)
    if to == "adapter":
        served = serve.Served(base.load(ModelConfig(id=load(trained_project).model.id, precision="fp32")))
        served.load("mine", out)
        with served.state(states.of("mine")):
            assert served.generate([[{"role": "user", "content": "hello"}]], 4, 1)


def test_an_approximation_is_told(trained_project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--state", "personality+shell", "--method", "svd", "--rank", "2", "--out", str(tmp_path / "out")]
    assert molt("export", trained_project, *options) == 0
    assert "differs from the exact stack" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "moon"], "Nothing is exported to moon"),
        (["--state", "base"], "cannot be exported"),
        (["--method", "glue"], "Unknown method glue"),
        (["--state", "personality+dance"], "no task dance"),
        (["--to", "gguf", "--quant", "Q1"], "no form Q1"),
        (["--to", "merged", "--method", "svd"], "Leave out --method"),
        (["--to", "hub", "--push", "a/b/c"], "no name of a repository"),
        (["--to", "vllm", "--push", "me/mine"], "only to a hub"),
        (["--base-name", "llama3"], "is for Ollama"),
    ],
)
def test_what_cannot_be_exported(
    trained_project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert molt("export", trained_project, *options, "--out", str(tmp_path / "out")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_in_use_answers_and_is_exported(
    trained_project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After another personality was promoted, chat, export and evaluations take it, and say so; `--own` does not."""
    registry = Registry(tmp_path / "registry")
    setting = f"registry.folder={tmp_path / 'registry'}"
    run = Run(load(trained_project), Console())
    own, shell = (tasks.trained(run, adapter).folder for adapter in (PERSONALITY_ADAPTER, Adapter("shell")))
    run.close()
    for folder in (own, shell):
        registry.promote(registry.add(folder, {}).id)

    def answers(*options: str) -> tuple[dict[str, str], str]:
        assert (
            molt("chat", trained_project, setting, "--message", "hello", "--max-new-tokens", "8", "--json", *options)
            == 0
        )
        captured = capsys.readouterr()
        return json.loads(captured.out), captured.err

    first, said = answers()
    assert "in use since" not in said and len(first) == 4
    other = retrained(own, tmp_path / "other")
    identity = registry.add(other, {}).id
    registry.promote(identity)
    second, said = answers()
    assert f"personality: {identity}, in use since" in said
    assert list(second) == ["base", "personality"] and second["personality"] != first["personality"]
    assert second["base"] == first["base"]
    mine, said = answers("--own")
    assert mine == first and "the run's own adapters" in said
    changed, _ = answers("personality.steps=4")  # not trained so, and what is in use answers all the same
    assert changed == second

    for options, weights in (([], other), (["--own"], own)):
        out = tmp_path / f"out{len(options)}"
        assert molt("export", trained_project, setting, "--out", str(out), *options) == 0
        exported, expected = (load_file(each / "adapter_model.safetensors") for each in (out, weights))
        assert all(exported[name].equal(value) for name, value in expected.items())
    assert molt("chat", trained_project, setting, "--use", "personality+shell", "--message", "hello") == 1
    assert "shell is not in use above" in capsys.readouterr().err
    assert molt("eval", "persona", trained_project, setting, "--json") == 0
    measured = json.loads(capsys.readouterr().out)
    assert len(measured) == 2
    assert molt("eval", "persona", trained_project, setting, "--json", "--state", "personality", "--own") == 0
    assert json.loads(capsys.readouterr().out)["folder"] not in {each["folder"] for each in measured}


def retrained(adapter: Path, folder: Path) -> Path:
    """A copy of an adapter whose weights are others."""
    shutil.copytree(adapter, folder, ignore=shutil.ignore_patterns("artifact.json", "inputs.json"))
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: value * -40 for name, value in weights.items()}, folder / "adapter_model.safetensors")
    card.write(folder, card.Manifest(**json.loads((folder / card.MANIFEST).read_text())))
    return folder


def test_what_reads_a_finished_run_imports_no_model_library(trained_project: str) -> None:
    assert molt("eval", "persona", trained_project, "--state", "personality") == 0
    reading = [["report", trained_project], ["status", trained_project], ["registry", "list", trained_project]]
    code = "import sys; from moltlm.pipeline import cli\ntry: cli.main(sys.argv[1:])\nexcept SystemExit as stop: print(stop.code, sorted(sys.modules.keys() & {'torch', 'transformers', 'peft', 'datasets'}))"
    for command in reading:
        ran = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
        assert ran.stdout.splitlines()[-1] == "0 []", (command, ran.stderr)
