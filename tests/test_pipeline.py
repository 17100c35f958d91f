"""The house around the stages: configuration, runs, registry, schedule, command line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from moltlm.adapters import base, card, serve
from moltlm.adapters.config import ModelConfig
from moltlm.data import persona
from moltlm.data.errors import BadInput
from moltlm.data.io import write_json
from moltlm.pipeline import cli, config, explain, fields
from moltlm.pipeline.artifact_files import ARTIFACT
from moltlm.pipeline.config import Config, ScheduleConfig
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import MARK, Missing, Run
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.service import schedule
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.setup import estimate

SHIPPED = sorted(path.stem for path in config.shipped().glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_loads_and_says_how_to_launch_it(name: str) -> None:
    config.load(name)
    header = config.shipped(f"{name}.yaml").read_text().split("\nrun:")[0]
    assert re.search(rf"molt (run |compare-methods |hypothesis run [^ ]+ )?{name}", header)


@pytest.mark.parametrize("path", sorted(config.shipped("hypotheses").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_hypothesis_loads(path: Path) -> None:
    assert path.stem.startswith(config.load_hypothesis(path.stem).id.lower())


def test_the_real_setting_differs_from_the_demo_only_in_values() -> None:
    def keys(value: Any, prefix: str = "") -> set[str]:
        if not isinstance(value, dict):
            return {prefix}
        return {
            found
            for key, item in value.items()
            if prefix != ".capability.items"
            for found in keys(item, f"{prefix}.{key}")
        }

    demo, real = (yaml.safe_load(config.shipped(f"{name}.yaml").read_text()) for name in ("demo", "llama-8b"))
    assert keys(demo) == keys(real)


def test_an_8b_on_24_gb_and_a_demo_on_6_gib() -> None:
    real, demo = config.load("llama-8b"), config.load("demo")
    assert 8.0e9 < estimate.parameters(real.model.shape) < 8.1e9
    assert 134e6 < estimate.parameters(demo.model.shape) < 135e6
    assert max(memory.total for memory in estimate.stages(real, "cuda").values()) < 22
    assert max(memory.total for memory in estimate.stages(demo, "cpu").values()) < 6


def test_overrides_reach_their_setting() -> None:
    found = config.load("demo", ["dpo.beta=0.2", "tasks.reminders.steps=7", "personality.learning_rate=1e-3"])
    assert (found.dpo.beta, found.tasks["reminders"].steps, found.personality.learning_rate) == (0.2, 7, 1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dpo:\n  beta: 0.1\nrun: {seed: 1}\ndpo:\n  nll_weight: 0.3\n", "line 4: dpo is given twice, first in line 1"),
        ("dpo:\n  beta: 0.1\n  'beta': 0.2\n", "line 3: beta is given twice, first in line 2"),
        ("tasks:\n  a: {kind: shell}\n  a: {kind: reminders}\n", "line 3: a is given twice, first in line 2"),
        ("run: {seed: 1, seed: 2}\n", "line 1: seed is given twice, first in line 1"),
        ("x: &x {<<: {seed: 1}, seed: 2}\nrun: {<<: *x, seed: 3, seed: 4}\n", "line 2: seed is given twice"),
    ],
)
def test_a_setting_that_is_given_twice_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(BadInput, match=message) as error:
        config.load(str(tmp_path / "a.yaml"))
    assert error.value.what.startswith(f"config {tmp_path / 'a.yaml'}, line")
    with pytest.raises(BadInput, match="seed is given twice"):
        config.load("demo", ["run={seed: 1, seed: 2}"])


def test_what_is_merged_may_be_given_again(tmp_path: Path) -> None:
    once = "run: &run {seed: 1, folder: runs/a}\ntasks:\n  a: &a {kind: shell, train: 40, test: 30}\n"
    again = "  b: &b {<<: *a, test: 20}\n  c: {<<: [*b, *a], train: 50}\n"
    (tmp_path / "a.yaml").write_text(once + again)
    tasks = config.load(str(tmp_path / "a.yaml")).tasks
    assert [(each.train, each.test) for each in tasks.values()] == [(40, 30), (40, 20), (50, 20)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_a_config_in_any_unicode_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.yaml").write_bytes("run:\r\n  folder: runs/olá 日本\r\n".encode(encoding))
    assert config.load(str(tmp_path / "a.yaml")).run.folder == Path("runs/olá 日本")


PATHS = {key for key, field in fields.settings_of(Config) if "Path" in str(field.annotation)}
PATHS |= {"persona.spec", "conversations.paths", "model.chat_template", "train.prose", "replay.instructions"}
PATHS |= {"tasks.own.path", "hypotheses"}


@pytest.mark.parametrize("key", sorted(PATHS))
def test_every_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home of ana"))

    def load(path: str) -> Any:
        value = f"[{path}]" if key in ("conversations.paths", "retrain.sources", "hypotheses") else path
        task = ["tasks.own.kind=text"] if "own" in key else []
        settings: Any = config.load("demo", [f"{key}={value}", *task])
        for name in key.split("."):
            settings = settings[name] if isinstance(settings, dict) else getattr(settings, name)
        return [str(each) for each in settings] if isinstance(settings, list) else str(settings)

    assert load("~/deep/x.prom") == load(str(tmp_path / "home of ana/deep/x.prom"))
    with pytest.raises(BadInput, match="nobody here has the home folder ~nosuch"):
        load("~nosuch/x.prom")


def test_every_problem_is_named_at_once_with_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("lora: {rank: 4}\ndpo: {beta: 0}\ntasks: {shell: {kind: shell, stepz: 3}}\nhypotheses: [h014]\n")
    command = [
        "config",
        "check",
        str(path),
        "dpo.bta=0.2",
        "personality.method=dop",
        "tasks.*.test=1",
        "model=x",
        "oops",
    ]
    with pytest.raises(SystemExit) as stopped:
        cli.main(command)
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert stopped.value.code == 2
    for line in (
        f"{path}: unknown setting lora.rank.",
        f"{path}: dpo.beta=0 must be greater than 0.",
        f"{path}: unknown setting tasks.shell.stepz. Did you mean tasks.shell.steps?",
        "dpo.bta=0.2: unknown setting dpo.bta. Did you mean dpo.beta?",
        "personality.method=dop must be dpo, sft, sdft or grpo. Did you mean dpo?",
        "tasks.*.test=1: tasks.shell.test=1 must be greater than or equal to 8.",
    ):
        assert any(one.startswith(line) for one in lines), line
    assert any(line.startswith("model=x") for line in lines) and any(line.startswith("oops: ") for line in lines)


def test_what_does_not_go_together_is_traced_to_its_override() -> None:
    with pytest.raises(BadInput) as error:
        config.load("demo", ["dpo.beta=0.2", "train.gradient_accumulation=7", "judge.kind=endpoint"])
    lines = error.value.what.splitlines()[1:]
    assert len(lines) == 4 and not any("dpo.beta" in line for line in lines)
    assert all("train.gradient_accumulation=7" in line for line in lines if "judge" not in line)


def test_a_missing_hypothesis_is_told_by_config_check(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["config", "check", "demo", "hypotheses=[h999]"])
    assert "No hypothesis h999" in capsys.readouterr().err


def test_every_setting_is_explained() -> None:
    demo = config.load("demo")
    for key, field in fields.settings_of(Config):
        (found,) = [one for one in explain.explain(key, demo) if one.key == key]
        assert found.type and (found.stages or found.command), key
        assert found.required == field.is_required()
    assert [one.key for one in explain.explain("dpo", demo)][:2] == ["dpo.loss", "dpo.divergence"]
    assert explain.explain("tasks.reminders.steps", demo)[0].value == 36
    assert explain.explain("tasks.*.steps", demo)[0].value == {"reminders": 36, "shell": 50}
    assert explain.explain("capability.items.piqa", demo)[0].key == "capability.items"
    for key, nearest in (
        ("dpo.bta", "dpo.beta"),
        ("tasks.reminders.stepz", "tasks.*.steps"),
        ("tasks.cook.steps", "shell"),
    ):
        with pytest.raises(BadInput) as error:
            explain.explain(key, demo)
        assert nearest in error.value.fix


def test_a_hypothesis_file_with_a_wrong_setting_names_a_command_that_explains_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = config.find("h014-rank", config.HYPOTHESES).read_text()
    (tmp_path / "mine.yaml").write_text(shipped.replace("seeds: [1, 2, 3, 4]", "seeds: [1, 1, 2, 3]"))
    with pytest.raises(SystemExit):
        cli.main(["hypothesis", "plan", str(tmp_path / "mine.yaml"), "evidence-135m"])
    output = capsys.readouterr().err
    assert "seeds: 1 is named twice" in output and "molt config explain hypothesis.seeds" in output
    with pytest.raises(SystemExit) as ended:
        cli.main(["config", "explain", "hypothesis.seeds"])
    assert ended.value.code == 0
    assert "seeds of the trainings that decide" in capsys.readouterr().out
    keys = {one.key for one in explain.explain("hypothesis", config.load("demo"))}
    assert keys == {f"hypothesis.{name}" for name, _ in fields.settings_of(config.HypothesisConfig)}


def test_show_gives_a_config_that_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(config.dump(config.load("demo")))
    assert config.load(str(path)) == config.load("demo")


OWN = "tasks={own: {kind: jsonl, path: '{tmp}/nowhere'}}"
TINY = [
    *("data", "build", "smoke", "run.folder={tmp}/run", "model.id={tiny}", "model.precision=fp32"),
    *("pairs.max_new_tokens=8", "pairs.temperature=0", "filters.min_length_ratio=0.01", "retrain.min_new=1"),
]
BAD = [
    (["config", "check", "nothing"], "No config nothing"),
    (["config", "check", "dmo"], "Did you mean demo"),
    (["config", "check", "demo", "dpo.betta=0.2"], "Did you mean dpo.beta"),
    (["config", "check", "demo", "beta"], "Write KEY=VALUE"),
    (["config", "check", "demo", "dpo.beta=-1"], "dpo.beta"),
    (["config", "check", "demo", "dpo.beta.x=1"], "is a value, not a section"),
    (["config", "check", "demo", "personality.parameters=full"], "cannot train 4-bit"),
    (["config", "check", "demo", "personality.parameters=full", "model.precision=bf16"], "need an adapter beneath"),
    (
        ["hypothesis", "run", "H014", *TINY[2:], "persona.spec={tmp}/short", "model.id={tmp}/hello"],
        "samples 60 pairs for each seed, and there are 1",
    ),
    (
        ["hypothesis", "run", "H014", "llama-8b", "run.folder={tmp}/run"],
        "H014: personality.batch_size must be a multiple",
    ),
    (["config", "check", "demo", "personality.steps=1"], "greater than or equal to 2"),
    (["config", "check", "demo", "tasks.base={kind: shell}"], "plain name"),
    (["config", "check", "smoke", "tasks.reminders.batch_size=5"], "must be a multiple of train.gradient_accumulation"),
    (["config", "check", "{tmp}/empty.yaml"], "is empty"),
    (["config", "check", "{tmp}/list.yaml"], "holds no settings"),
    (["config", "check", "{tmp}/broken.yaml"], "line 2: not valid YAML"),
    (["hypothesis", "run", "H999", "demo", "run.folder={tmp}/run"], "No hypothesis H999"),
    (["data", "build", "demo", "run.folder={tmp}/run", "persona.spec=nobody"], "No persona nobody"),
    (["data", "build", "demo", "run.folder={tmp}/empty.yaml/x"], "is a file, not a folder"),
    (["data", "build", "demo", "run.folder={tmp}/run", "model.id=./nowhere"], "No model folder"),
    (["data", "build", "demo", "run.folder={tmp}/run", "model.id=no/such-model"], "cannot be loaded"),
    (["train", "task", "dance", "demo", "run.folder={tmp}/run"], "no task dance"),
    (["retrain", "demo", "run.folder={tmp}/run", "registry.folder={tmp}/reg"], "No personality is in use"),
    (["report", "demo", "run.folder={tmp}/run"], "Nothing has been measured"),
    (["registry", "promote", "x", "demo", "registry.folder={tmp}/reg"], "The registry has no x"),
    (["registry", "rollback", "demo", "registry.folder={tmp}/reg"], "no promotion to roll back"),
    (["schedule", "install", "demo", "--kind", "moon"], "--kind moon"),
    (["data", "build", "demo", "run.folder={tmp}/run"], "Only 0.1 GB are free"),
    ([*TINY, "persona.spec={tmp}/no_train"], "There are 0 exchanges to train on"),
    ([*TINY, "conversations.paths=[{tmp}/no.jsonl]"], "no.jsonl does not exist"),
    ([*TINY, "conversations.paths=[{tmp}/list.yaml]"], "holds no conversation of a known format"),
    ([*TINY, "teacher.kind=oracle"], "teacher.kind"),
    (["data", "show", "smoke", "run.folder={tmp}/run", "--split", "both"], "There is no split both"),
    (["data", "import", "{tmp}/no.jsonl", "--out", "{tmp}/out.jsonl"], "no.jsonl"),
    (["data", "import", "{tmp}/chats.jsonl", "--out", "{tmp}/list.yaml"], "list.yaml exists already"),
    (["init", "{tmp}/new", "--from", "{tmp}/no.md"], "no.md: it does not exist"),
    (["init", "{tmp}/list.yaml", "--from", "{tmp}/no_train/persona.yaml", "--name", "x"], "exists already"),
    ([*TINY, "persona.spec={tmp}/empty"], "train.jsonl is empty"),
    ([*TINY, "persona.spec={tmp}/malformed"], "train.jsonl, line 2: not valid JSON"),
    ([*TINY, "persona.spec={tmp}/no_answer"], "record 1: answer is missing or empty"),
    ([*TINY, "persona.spec={tmp}/no_trait"], "persona.yaml: traits"),
    ([*TINY, "persona.spec={tmp}/long"], "tokens, more than 256"),
    (
        [*TINY, "persona.spec={tmp}/same", "model.id={tmp}/hello"],
        "No pair can be trained on (1 chosen equals rejected)",
    ),
    (
        ["retrain", *TINY[2:], "retrain.conversations={tmp}/chats.jsonl", "registry.folder={tmp}/strange"],
        "was trained on another base",
    ),
]

RUN = "run.folder={tmp}/run"
EARLY = [
    (["eval", "judge", "smoke", RUN], "judge.kind=endpoint"),
    (["eval", "judge", "smoke", RUN, "judge.kind=endpoint"], "judge.model"),
    (["eval", "judge", "smoke", RUN, "judge.kind=endpoint", "judge.model=m", "--state", "nosuch"], "no task nosuch"),
    (["eval", "persona", "demo", RUN, "--state", "personality+nosuch"], "no task nosuch"),
    (["eval", "capability", "demo", RUN, "--state", "personality+nosuch"], "no task nosuch"),
    (["eval", "drift", "demo", RUN, "--state", "personality+nosuch"], "no task nosuch"),
    (["eval", "persona", "demo", RUN, "--state", "+"], "There is no state"),
    (["eval", "noise", "demo", RUN], "gate.noise_runs=3"),
    (["eval", "pressure", "demo", RUN, "pressure.attacks=0", "pressure.conversations=0"], "are both 0"),
    (["eval", "profile", "demo", RUN, "profile.preferences=false"], "profile.preferences=true"),
    (["eval", "profile", "demo", RUN, "profile.traits={tmp}/no.jsonl"], "no.jsonl does not exist"),
    (["export", "demo", RUN, "--out", "{tmp}/out", "--state", "personality+nosuch"], "no task nosuch"),
    (["export", "demo", RUN, "--out", "{tmp}/out", "--state", "base"], "cannot be exported"),
    (["export", "demo", RUN, "--out", "{tmp}/out", "--method", "glue"], "Unknown method glue"),
    (["chat", "demo", RUN, "--use", "personality+nosuch", "--message", "hi"], "no task nosuch"),
    (["train", "task", "nosuch", "demo", RUN], "no task nosuch"),
    (["train", "task", "own", "demo", RUN, OWN], "tasks.own.path: {tmp}/nowhere does not exist"),
    (["train", "personality", "demo", RUN, OWN], "tasks.own.path: {tmp}/nowhere does not exist"),
    (["train", "personality", "sequence-135m", RUN, "tasks.*.path={tmp}/nowhere"], "tasks.banking77.path"),
    (["train", "task", "shell", "demo", RUN, "replay.instructions={tmp}/no.jsonl"], "no.jsonl does not exist"),
    (["hypothesis", "run", "nosuch", "demo", RUN], "No hypothesis nosuch"),
    (["hypothesis", "run", "h014", "demo", RUN, "--arm", "nosuch"], "has no arm nosuch"),
    (["replay", "update", "demo", "{tmp}/no.jsonl", RUN], "no.jsonl does not exist"),
    (["replay", "update", "demo", RUN], "No new conversations"),
    (["retrain", "demo", RUN, "registry.folder={tmp}/reg"], "No personality is"),
    (
        ["retrain", "demo", RUN, "registry.folder={tmp}/strange", "retrain.conversations={tmp}/no.jsonl"],
        "no.jsonl does not exist",
    ),
    (["compare-methods", "demo", RUN], "names no methods"),
    (["compare-methods", "sequence-135m", RUN, "--only", "nosuch"], "no method nosuch"),
    (["data", "build", "demo", RUN, "teacher.kind=endpoint"], "teacher.model"),
    (["data", "build", "demo", RUN, "teacher.kind=endpoint", "teacher.model=m", "teacher.url="], "teacher.url"),
]
"""Mistakes that are found before any stage runs."""


@pytest.fixture(scope="module")
def bad(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configs and personas that are wrong in one way each, and a registry with an adapter for another base."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.yaml").write_text("")
    (folder / "list.yaml").write_text("[1]")
    (folder / "broken.yaml").write_text("run:\n  folder: [")
    good = {"prompt": "hi", "answer": "Hello. Sit down, the kettle's on."}
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]
    (folder / "chats.jsonl").write_text(json.dumps({"messages": turns}))
    # the tiny model says the last token again and again: here a word, and not the new line
    shutil.copytree(tiny, folder / "hello")
    turn = "{{ m.content }}{% if m.role == 'assistant' %}<|im_end|>{% endif %}"
    (folder / "hello" / "chat_template.jinja").write_text(f"{{% for m in messages %}}{turn}{{% endfor %}}")
    loaded = base.load(ModelConfig(id=str(folder / "hello"), precision="fp32"))
    says = serve.TextModel(loaded.model, loaded.tokenizer).generate([persona.user("hi hello")], 8, 1)[0]
    assert says
    person(folder / "short", json.dumps(good))
    person(folder / "no_train", None)
    person(folder / "empty", "")
    person(folder / "malformed", json.dumps(good) + "\n{oops")
    person(folder / "no_answer", json.dumps({**good, "answer": " "}))
    person(folder / "no_trait", json.dumps(good), traits=[])
    person(folder / "long", json.dumps({**good, "prompt": "word " * 300}))
    person(folder / "same", json.dumps({"prompt": "hi hello", "answer": says}))
    registry = Registry(folder / "strange")
    registry.promote(registry.add(adapter(folder / "p", "personality", b"weights"), {}).id)
    return folder


def person(folder: Path, train: str | None, **changes: Any) -> None:
    folder.mkdir()
    spec = {"name": "Ann", "summary": "Ann", "system_prompt": "Be Ann.", "voice": [], "values": [], "boundaries": []}
    spec |= {"traits": [{"id": "calm", "text": "I am calm."}], **changes}
    (folder / "persona.yaml").write_text(yaml.safe_dump(spec))
    (folder / "heldout.jsonl").write_text(json.dumps({"prompt": "and you?", "answer": "Fine, thanks. And the cat?"}))
    if train is not None:
        (folder / "train.jsonl").write_text(train)


@pytest.mark.parametrize(
    ("command", "message"), EARLY, ids=lambda value: " ".join(value)[:70] if isinstance(value, list) else ""
)
def test_a_mistake_is_found_before_anything_is_made(
    command: list[str], message: str, bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bad / "strange", tmp_path / "strange")
    with pytest.raises(SystemExit) as stopped:
        cli.main([part.replace("{tmp}", str(tmp_path)) for part in command])
    output = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message.replace("{tmp}", str(tmp_path)) in " ".join(output.split())
    assert "Traceback" not in output
    made = [path for path in (tmp_path / "run").glob("*") if path.is_dir() and path.name != "configs"]
    assert not made and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "message"), BAD, ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else ""
)
def test_bad_input_is_one_clear_error_with_its_mending(
    command: list[str],
    message: str,
    bad: Path,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(bad, tmp_path, dirs_exist_ok=True)
    if "GB are free" in message:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1e8))
    with pytest.raises(SystemExit) as stopped:
        cli.main([part.replace("{tmp}", str(tmp_path)).replace("{tiny}", str(tiny)) for part in command])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in " ".join(said.split())
    assert "Traceback" not in said


def test_help_imports_no_torch() -> None:
    code = "import sys; from pipeline import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_config_commands_import_no_torch() -> None:
    code = "import sys; from pipeline import cli\ntry: cli.main(['config', 'check', 'demo'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    import typer.main

    def walk(command: Any, path: list[str]) -> None:
        assert (command.help or "").strip(), path
        for name, sub in getattr(command, "commands", {}).items():
            walk(sub, [*path, name])

    walk(typer.main.get_command(cli.app), ["molt"])


def test_json_goes_to_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["config", "check", "demo", "--json"])
    assert not stopped.value.code
    assert json.loads(capsys.readouterr().out)["valid"] is True


def open_run(tmp_path: Path) -> Run:
    return Run(Config.model_validate({"run": {"folder": tmp_path / "run"}}), Console())


def test_a_stage_is_made_once_for_the_same_inputs(tmp_path: Path) -> None:
    made: list[int] = []

    def make(folder: Path) -> dict[str, Any]:
        made.append(1)
        (folder / "x.txt").write_text("x")
        return {"n": len(made)}

    run = open_run(tmp_path)
    first = run.do("pairs", {"a": 1}, make)
    assert run.do("pairs", {"a": 1}, make) == first
    other = run.do("pairs", {"a": 2}, make)
    assert other.folder != first.folder and first.folder.is_dir()
    run.close()
    again = open_run(tmp_path)
    assert again.do("pairs", {"a": 1}, make).facts == {"n": 1}
    again.close()
    assert len(made) == 2


def test_an_interrupted_stage_leaves_nothing_that_looks_done(tmp_path: Path) -> None:
    run = open_run(tmp_path)

    def broken(folder: Path) -> dict[str, Any]:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.do("pairs", {}, broken)
    run.only_read = True
    with pytest.raises(Missing):
        run.do("pairs", {}, lambda folder: {})
    run.only_read = False
    artifact = run.do("pairs", {}, lambda folder: {"whole": True})
    assert not (artifact.folder / "half.txt").exists()
    run.close()


def test_a_deletion_that_was_killed_leaves_nothing_that_looks_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file went first: the mark, or the record."""

    def killed(folder: Path, ignore_errors: bool = False) -> None:
        for mark in folder.rglob(MARK):
            mark.unlink()
            raise KeyboardInterrupt

    def said(text: str) -> str:
        def make(folder: Path) -> dict[str, Any]:
            (folder / "texts.jsonl").write_text(text)
            return {}

        with closing(open_run(tmp_path)) as run:
            return (run.do("pairs", {}, make).folder / "texts.jsonl").read_text()

    assert said("what is forgotten") == "what is forgotten"
    (folder,) = (tmp_path / "run" / "pairs").iterdir()
    write_json(folder / MARK, {})
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            said("new")
    assert said("newer") == "newer"
    (folder / ARTIFACT).unlink()
    assert said("newest") == "newest"
    assert list(folder.parent.iterdir()) == [folder]


def test_two_commands_do_not_share_a_run_folder(tmp_path: Path) -> None:
    run, other = open_run(tmp_path), open_run(tmp_path)
    run.do("pairs", {"a": 1}, lambda folder: {})
    with pytest.raises(BadInput, match="Another molt command"):
        other.do("pairs", {"a": 2}, lambda folder: {})
    run.close()
    other.do("pairs", {"a": 2}, lambda folder: {})
    other.close()


def test_what_is_stored_is_read_while_another_command_works(tmp_path: Path) -> None:
    run, reader = open_run(tmp_path), open_run(tmp_path)
    run.do("pairs", {"a": 1}, lambda folder: {"n": 1})
    reader.only_read = True
    assert reader.do("pairs", {"a": 1}, lambda folder: {}).facts == {"n": 1}
    run.close()


def test_reading_makes_no_folder(tmp_path: Path) -> None:
    reader = open_run(tmp_path / "none")
    reader.only_read = True
    with pytest.raises(Missing):
        reader.do("pairs", {"a": 1}, lambda folder: {})
    assert not (tmp_path / "none").exists()


def adapter(folder: Path, name: str, content: bytes, beneath: dict[str, str] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(content)
    (folder / "adapter_config.json").write_text("{}")
    card.write(folder, card.Manifest(name, "base", "digest", "nf4", beneath or {}))
    return folder


def test_the_registry_promotes_and_rolls_back(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    one = registry.add(adapter(tmp_path / "1", "personality", b"one"), {})
    two = registry.add(adapter(tmp_path / "2", "personality", b"two"), {})
    registry.promote(one.id)
    registry.promote(two.id)
    assert registry.current() == {"personality": two.id}
    assert registry.rollback() == {"personality": one.id}
    assert registry.rollback() == {}
    with pytest.raises(BadInput, match="no promotion"):
        registry.rollback()
    registry.promote(two.id)
    assert registry.rollback() == {}
    assert [entry.id for entry in registry.entries()[0]] == [one.id, two.id]
    assert len(registry.history()) == 6


def test_a_task_is_promoted_only_above_its_own_personality(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    person = adapter(tmp_path / "p", "personality", b"one")
    task = registry.add(adapter(tmp_path / "t", "shell", b"task", {"personality": card.weights_hash(person)}), {})
    with pytest.raises(BadInput, match="above other adapters"):
        registry.promote(task.id)
    registry.promote(registry.add(person, {}).id)
    assert registry.promote(task.id) == []
    assert registry.current()["shell"] == task.id
    second = registry.add(adapter(tmp_path / "q", "personality", b"two"), {})
    assert registry.promote(second.id) == [task.id]
    assert registry.current() == {"personality": second.id}
    assert registry.rollback()["shell"] == task.id


def test_a_stacked_task_stays_only_while_the_task_beneath_it_does(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    person = adapter(tmp_path / "p", "personality", b"one")
    below = {"personality": card.weights_hash(person)}
    first = adapter(tmp_path / "t1", "first", b"first", below)
    second = adapter(tmp_path / "t2", "second", b"second", {**below, "first": card.weights_hash(first)})
    ids = [registry.add(folder, {}).id for folder in (person, first, second)]
    registry.promote(ids[0])
    with pytest.raises(BadInput, match="no first"):
        registry.promote(ids[2])
    for identity in ids[1:]:
        assert registry.promote(identity) == []
    other = registry.add(adapter(tmp_path / "t3", "first", b"other", below), {})
    assert registry.promote(other.id) == [ids[2]]
    assert registry.current() == {"personality": ids[0], "first": other.id}


def test_what_passed_replaces_nothing_and_comes_back_only_by_hand(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    one, two = (registry.add(adapter(tmp_path / n, "personality", n.encode()), {}) for n in ("one", "two"))
    beneath = {"personality": card.weights_hash(tmp_path / "one")}
    task = registry.add(adapter(tmp_path / "t", "shell", b"task", beneath), {})
    assert gates.activation_obstacle(registry, one) == ""
    assert f"trained above {one.id}, which is not in use" in gates.activation_obstacle(registry, task)
    registry.promote(one.id)
    assert gates.activation_obstacle(registry, task) == ""
    obstacle = f"{one.id} is in use. To replace it: molt registry promote {two.id} CONFIG"
    assert gates.activation_obstacle(registry, two) == obstacle
    registry.rollback()
    assert "it was in use before" in gates.activation_obstacle(registry, one)


def test_the_schedule_runs_retrain_at_the_time_asked(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("run: {folder: x}")
    cron = schedule.plan(path, ScheduleConfig(every="weekly", at="04:05"), "cron")
    assert cron.line.startswith("5 4 * * 0 cd ")
    assert f"molt retrain {path}" in cron.line
    timer = schedule.plan(path, ScheduleConfig(every="daily", at="04:05"), "systemd")
    text = "\n".join(timer.files.values())
    assert "OnCalendar=*-*-* 04:05:00" in text
    assert "SuccessExitStatus=3" in text


def test_cron_lines_of_others_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a crontab of our own on PATH."""
    store = tmp_path / "table"
    store.write_text("0 1 * * * backup\n")
    fake = tmp_path / "bin" / "crontab"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nif [ "$1" = -l ]; then cat {store}; else cat > {store}; fi\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    job = schedule.plan(tmp_path / "c.yaml", ScheduleConfig(), "cron")
    schedule.install(job)
    schedule.install(job)
    assert store.read_text().splitlines() == ["0 1 * * * backup", job.line]
    assert schedule.remove(job)
    assert not schedule.remove(job)
    assert store.read_text() == "0 1 * * * backup\n"
