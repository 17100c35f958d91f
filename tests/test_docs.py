"""What the documents say is so: quoted results, answers, commands, settings and links."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import moltlm
from moltlm.adapters import base
from moltlm.pipeline import cli, config
from moltlm.pipeline.console import Console
from moltlm.pipeline.reporting import story
from moltlm.pipeline.reporting.results import Results, load_results
from moltlm.pipeline.run import Run
from moltlm.pipeline.studies import archive as records
from moltlm.pipeline.studies import grid
from moltlm.pipeline.studies.verdict import GridVerdict
from moltlm.pipeline.typed_json import read_document

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*sorted(ROOT.glob("*.md")), ROOT / "llms.txt", *sorted((ROOT / "docs").rglob("*.md"))]
}
"""Every document by its path from the root."""
RESULTS = load_results(ROOT / "docs" / "results" / "demo.json")
STUDIES = {
    "evidence": [],
    "control": ["hypotheses=[h015-control-135m]"],
    "odile": [
        "persona.spec=odile",
        "model.precision=fp32",
        "hypotheses=[h014-replication,h015-replication,h014-placement,h014-rank]",
    ],
    "qwen": [
        "model.id=qwen2.5-coder-0.5b-instruct-q4_k_m",
        "model.eval_batch_size=16",
        "hypotheses=[h014-second-model,h015-second-model]",
    ],
}
"""The folders of committed trainings, with the settings that they were run with."""
FILE_ENDINGS = {"md", "py", "json", "jsonl", "yaml", "toml", "txt", "html", "sh", "bin", "gguf", "jinja"}
PACKAGES = {"moltlm", "pipeline", "adapters", "data", "evals"}
GATE = "molt gate small.yaml || test $? -eq 3"


@dataclass(frozen=True)
class Imported:
    """Committed trainings, unpacked into a run.

    Attributes:
        files: how many are committed.
        folders: where they lie in the run.
        results: the committed results.
    """

    run: Run
    files: int
    folders: list[Path]
    results: Results


@pytest.fixture(scope="module", params=STUDIES)
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    settings, folder = STUDIES[request.param], ROOT / "docs" / "results" / request.param
    apart = tmp_path_factory.mktemp(request.param)
    run = Run(config.load("evidence-135m", [*settings, f"run.folder={apart}"]), Console())
    files = len(list(folder.glob(f"*{records.SUFFIX}")))
    yield Imported(run, files, records.import_trainings(run, folder), load_results(folder.with_suffix(".json")))
    run.close()


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 1000


def test_the_figures_of_the_documents_are_those_of_the_committed_results() -> None:
    """Each line of the summaries stands in a document, five of the demo in the README, and each answer that is quoted
    is one that the model gave: word for word."""
    pages = {name: " ".join(text.split()) for name, text in PAGES.items()}
    studies = [load_results(ROOT / "docs" / "results" / f"{name}.json") for name in STUDIES]
    for line in [line for results in (RESULTS, *studies) for line in story.summary(results)]:
        assert any(line in text for text in pages.values()), line
    assert sum(line in pages["README.md"] for line in story.summary(RESULTS)) >= 5
    demo = PAGES["docs/findings/demo.md"]
    quoted = re.findall(r"^> (.+)$", demo, flags=re.MULTILINE)
    answers = {" ".join(sample.answers["personality"].answer.split()) for sample in RESULTS.samples}
    assert len(quoted) >= 4 and set(quoted) <= answers


def test_the_committed_verdicts_are_those_of_the_committed_trainings(
    imported: Imported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained: a training that was missing would be an error."""
    run = imported.run
    monkeypatch.setattr(base, "load", None)
    for name, committed in zip(run.config.hypotheses, imported.results.hypotheses, strict=True):
        verdict = read_document(grid.verdict(run, name).folder / "verdict.json", GridVerdict)
        assert (verdict.outcome, verdict.reasons) == (committed.outcome, committed.reasons)
        assert verdict.by_authorship and committed.by_authorship
        assert verdict.by_authorship.reasons == committed.by_authorship.reasons
        for one, other in zip(verdict.comparisons, committed.comparisons, strict=True):
            assert one.values == pytest.approx(other.values)


def commands_in(text: str) -> Iterator[list[str]]:
    """The words after `molt`, for each command in code spans and code blocks."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in [*lines, *(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))]:
        if line.strip().startswith("molt "):
            yield shlex.split(line.partition(" > ")[0], comments=True)[1:]


def misuse(words: list[str]) -> str:
    """Why these words after `molt` are no command of ours; empty if they are one."""
    command: Any = typer.main.get_command(cli.app)
    rest = list(words)
    while children := getattr(command, "commands", None):
        if not rest or rest[0].startswith("-") or rest[0].isupper():
            break  # a group, or the program itself with an option
        if rest[0] not in children:
            return f"no command {rest[0]}"
        command = children[rest.pop(0)]
    options = {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]}
    for word in rest:
        if word.startswith("-") and word.partition("=")[0] not in {*options, "--help"}:
            return f"no option {word}"
        key = word.partition("=")[0]
        if "=" in word and not word.startswith("-") and key.islower() and not setting_exists(key):
            return f"no setting {key}"
    return ""


def setting_exists(key: str) -> bool:
    """Whether a dotted key, in which `*` or NAME stands for any task or arm, is a section or setting."""
    node: Any = config.Config
    for part in key.split("."):
        fields = getattr(node, "model_fields", None)
        if fields is None:
            values = getattr(node, "__args__", ())
            node = values[1] if len(values) == 2 else None  # a dict: any name
            if node is None:
                return False
            continue
        if part == "KEY":
            return True
        if part not in fields:
            return False
        node = fields[part].annotation
    return True


@pytest.mark.parametrize("name", PAGES)
def test_every_command_in_the_documents_exists_with_its_options_and_settings(name: str) -> None:
    wrong = {shlex.join(words): why for words in commands_in(PAGES[name]) if (why := misuse(words))}
    assert not wrong


def test_a_wrong_command_is_noticed() -> None:
    text = "`molt demoo`, `molt eval persona --sate x`\n\n```\nmolt run demo dpo.beeta=1\nmolt config show\n```\n"
    assert [bool(misuse(words)) for words in commands_in(text)] == [True, False, True, True]


@pytest.mark.parametrize("name", PAGES)
def test_every_setting_that_the_documents_name_exists(name: str) -> None:
    key = r"[a-z_]+(?:\.(?:[A-Za-z_][A-Za-z_0-9]*|\*))+"
    spans = re.findall(rf"`({key})(?::[^`]*|=[^`]*)?`", PAGES[name])
    spans += re.findall(rf"(?<=[` ])({key})=", " ".join(re.findall(r"`([^`\n]+=[^`\n]+)`", PAGES[name])))
    named = [key for key in spans if key.split(".")[0] not in PACKAGES and key.rsplit(".", 1)[1] not in FILE_ENDINGS]
    assert [key for key in named if not setting_exists(key)] == []


@pytest.mark.parametrize("name", [name for name in PAGES if not name.startswith("docs/")])
def test_the_links_outside_of_the_site_lead_somewhere(name: str) -> None:
    """mkdocs checks those of the site."""
    links = re.findall(r"\]\(([^)\s#]+)", PAGES[name])
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_python_page_uses_what_a_project_has() -> None:
    page = PAGES["docs/how-to/python-api.md"]
    (code,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    used = {
        node.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "project"
    }
    public = {name for name in vars(moltlm.Project) if not name.startswith("_")}
    assert used <= public
    assert set(re.findall(r"^\| `(\w+)", page, flags=re.MULTILINE)) == public


@pytest.mark.slow
def test_the_tutorial_runs_as_it_is_written(tmp_path: Path) -> None:
    """Its files, and the commands of its code blocks in order, word for word; only the browser stays closed."""
    tutorial = PAGES["docs/tutorial.md"]
    shutil.copytree(ROOT / "docs" / "assets" / "marla", tmp_path, dirs_exist_ok=True)
    commands = "".join(re.findall(r"^```\n(.*?)^```", tutorial, flags=re.MULTILINE | re.DOTALL))
    script = commands.replace("\\\n", " ").replace(" --open", "").replace("molt gate small.yaml", GATE)
    program = f'molt() {{ {shlex.quote(sys.executable)} -m moltlm.pipeline.cli "$@"; }}\nset -ex\n{script}'
    result = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    run = tmp_path / "marla" / "runs" / "small"
    assert (run / "report.html").is_file() and (run / "results.json").is_file()
    assert len(list((tmp_path / "marla" / "runs" / "small-registry" / "entries").iterdir())) == 2


def test_llms_txt_has_the_format_of_llmstxt_org() -> None:
    """A title, a summary, then lists of links with one line each."""
    lines = [line for line in PAGES["llms.txt"].splitlines() if line]
    assert lines[0].startswith("# ") and lines[1].startswith("> ")
    first = next(place for place, line in enumerate(lines) if line.startswith("## "))
    assert all(re.fullmatch(r"## .+|- \[.+\]\(\S+\): .+", line) for line in lines[first:])
    assert not any(line.startswith("#") for line in lines[2:first])


def test_the_skill_says_what_it_is_for() -> None:
    head = yaml.safe_load(PAGES["SKILL.md"].split("---")[1])
    assert set(head) == {"name", "description"}
    assert re.fullmatch(r"[a-z0-9-]{1,64}", head["name"]) and 0 < len(head["description"]) <= 1024


def test_the_committed_trainings_are_those_that_their_names_say(imported: Imported) -> None:
    assert len(imported.folders) == imported.files > 0
    assert {"pairs", "job-base", "job"} <= {folder.parent.name for folder in imported.folders} <= set(records.FILES)
