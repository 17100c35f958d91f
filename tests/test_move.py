"""A personality moves to another base and back: other tokenizer, other shape, other family; on tiny real models."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import molt
from conftest import TEMPLATE, talkative

from moltlm.data import carried as carrying
from moltlm.data.io import write_jsonl
from moltlm.data.persona import user
from moltlm.data.state import PERSONALITY_ADAPTER, Adapter
from moltlm.data.topk import TopK
from moltlm.data.types import EDITED, Exchange, Pair
from moltlm.evals import gate, identity, likeness
from moltlm.evals.config import GateConfig
from moltlm.evals.style import Labelled
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import bundles
from moltlm.pipeline.service.bundles import Bundle, Change
from moltlm.pipeline.service.forgetting import removal
from moltlm.pipeline.service.forgetting.target import Target
from moltlm.pipeline.service.moving import carry
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.stages import pairs, tasks

MARGINS = ("capability", "persona", "coherence", "task")
THINGS = ("drawer", "clock", "window", "kettle", "garden", "lamp", "stair", "book", "door", "roof", "boat", "coat")
SPEC = {
    "name": "Pim",
    "system_prompt": "You are Pim. You answer in a few words.",
    "traits": [{"id": "short", "text": "I answer in a few words."}, {"id": "calm", "text": "I am calm."}],
    "facts": {"name": "Pim", "home": "a tin by the window"},
}


def other_base(folder: Path) -> Path:
    """A three-layer Qwen2 of random weights, whose tokenizer was trained on other words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from tokenizers.decoders import ByteLevel
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = ByteLevel()
    special, alphabet = ["<|im_end|>", "<pad>", "<|im_start|>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    raw.train_from_iterator(["the kettle on the stove is calm, and so is the window"], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<pad>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=0,
        pad_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    model = Qwen2ForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bases(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`first`, `other` (another tokenizer, shape and family), and `sibling`, of the first's vocabulary."""
    folder = tmp_path_factory.mktemp("bases")
    return {
        "first": talkative(tiny, folder / "first"),
        "other": other_base(folder / "other"),
        "sibling": talkative(tiny, folder / "sibling", head=0.9),
    }


@pytest.fixture(scope="module")
def trained(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `pim.yaml`, whose personality is trained on the first base and in use."""
    folder = tmp_path_factory.mktemp("pim")
    persona = folder / "persona"
    persona.mkdir()
    (persona / "persona.yaml").write_text(yaml.safe_dump(SPEC))
    rows = [
        {"prompt": f"Where is the {thing} number {n}?", "answer": f"Calm. The {thing} is here.", "topic": thing}
        for thing in THINGS
        for n in range(2)
    ]
    write_jsonl(persona / "train.jsonl", rows)
    heldout = [{"prompt": f"Who took my {thing} today?", "answer": f"Calm. The {thing} is here."} for thing in THINGS]
    write_jsonl(persona / "heldout.jsonl", heldout)
    small = {"train": 16, "test": 8, "steps": 3, "batch_size": 4, "learning_rate": 5e-3, "replay_ratio": 0.25}
    raw = {
        "run": {"folder": str(folder / "run")},
        "model": {"id": str(bases["first"]), "precision": "fp32", "eval_batch_size": 32},
        "persona": {"spec": str(persona)},
        "pairs": {"max_new_tokens": 12, "temperature": 1.0},
        "filters": {"min_length_ratio": 0.01, "language": False},
        "personality": {"steps": 60, "batch_size": 8, "learning_rate": 1e-2},
        "persona_eval": {"max_new_tokens": 32},
        "capability": {"items": {"arc_easy": 4}},
        "tasks": {"shell": {"kind": "shell", **small}},
        "move": {"samples": 2, "min_score": 0.0},
        "gate": {f"{name}_margin": 1000 for name in MARGINS},
        "registry": {"folder": str(folder / "registry")},
    }
    (folder / "pim.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    with opened(folder / "pim.yaml") as run:
        registry = Registry(folder / "registry")
        registry.promote(registry.add(tasks.trained(run, PERSONALITY_ADAPTER).folder, {}).id)
        tasks.trained(run, Adapter("shell"))
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(trained, tmp_path / "pim")
    text = (tmp_path / "pim" / "pim.yaml").read_text().replace(str(trained), str(tmp_path / "pim"))
    (tmp_path / "pim" / "pim.yaml").write_text(text)
    return tmp_path / "pim"


@contextmanager
def opened(path: Path) -> Iterator[Run]:
    with closing(Run(load(str(path)), Console())) as run:
        yield run


def one_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def learned(run_folder: Path) -> str:
    """Everything in a run that a personality learned from."""
    files = [*run_folder.glob("carried/*/train.jsonl"), *run_folder.glob("pairs/*/train.jsonl")]
    assert files
    return "\n".join(file.read_text() for file in files)


def test_it_moves_to_another_base_and_back_with_its_task(
    project: Path, bases: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pim, there = str(project / "pim.yaml"), str(project / "pim-on-other.yaml")
    registry = Registry(project / "registry")
    with opened(project / "pim.yaml") as run:
        registry.promote(registry.add(tasks.trained(run, Adapter("shell")).folder, {}).id)
    first = registry.bundle()
    assert molt("move", pim, str(bases["other"]), "tasks={}", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "24 written" in printed and "the vocabularies differ" in printed and "left behind: shell: " in printed
    assert registry.bundle() == first and not (project / "run-on-other").exists() and not Path(there).exists()

    assert molt("move", pim, str(bases["other"]), "--json") == 0
    result = one_json(capsys)
    carried, moved = result["carried"], registry.bundle()
    assert carried["own_answers"] > 5 and not result["distilled"]
    assert result["tasks"][0]["outcome"] == "trained again" and moved.get("shell") not in ("", first.get("shell"))
    assert registry.entry(moved.get("shell")).lineage.moved_from == first.get("shell")
    assert (moved.base, moved.get("personality")) == (str(bases["other"]), result["id"]) and moved.id != first.id
    assert registry.rollback() == first.adapters
    registry.promote(moved.id)
    assert registry.anchor() == moved.get("personality")
    measured = (project / "persona" / "heldout.jsonl").read_text().splitlines()
    questions = [json.loads(line)["prompt"] for line in measured]
    assert not [question for question in questions if question in learned(project / "run-on-other")]
    answers = carrying.load(next((project / "run-on-other").glob("carried/*"))).train
    assert {item.source for item in answers} == {carrying.OWN}
    assert {item.answer for item in answers} & {pair.chosen for pair in training_pairs(there)}  # but for filtered ones

    assert molt("registry", "show", "current", there) == 0
    page = capsys.readouterr().out
    assert f"moved from {first.get('personality')} on {bases['first']}, trained anew" in page
    assert "still the first one? yes: moved from" in page
    assert molt("registry", "verify", there) == molt("registry", "diff", "previous", "current", there) == 0
    capsys.readouterr()
    question = ["--message", "Where is the drawer number 0?", "--max-new-tokens", "8", "--json"]
    assert molt("chat", there, *question) == 0
    assert set(one_json(capsys)) == {"base", "personality", "personality+shell"}
    assert molt("chat", pim, *question) == 0
    assert f"model.id={bases['other']}" in capsys.readouterr().err
    assert molt("status", there) == 0
    assert molt("export", there, "--to", "adapter", "--out", str(project / "export")) == 0

    # twice the steps, since what 60 gain in identity is not resolved by 12 prompts on every processor
    assert molt("move", there, str(bases["first"]), "--set", "personality.steps=120", "--json") == 0
    assert (project / "pim-on-first.yaml").is_file() and (project / "run-on-first").is_dir()
    assert registry.bundle().base == str(bases["first"])
    assert molt("registry", "show", "current", pim) == 0
    descent = " <- ".join([registry.current()["personality"], str(result["id"]), first.get("personality")])
    assert f"descent: {descent}" in capsys.readouterr().out


def training_pairs(config: str) -> list[Pair]:
    with opened(Path(config)) as run:
        return pairs.load_pairs(pairs.pairs(run), "train")


def test_what_fails_its_proof_leaves_the_former_in_use(
    project: Path, bases: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(project / "registry")
    before = registry.bundle()
    arguments = [str(project / "pim.yaml"), str(bases["other"]), "--set", "gate.persona_margin=1e-9"]
    arguments += ["--set", "personality.steps=2"]
    assert molt("move", *arguments) == 3
    assert "which may be worse by" in capsys.readouterr().out
    history = registry.history()
    assert registry.bundle() == before and history[-1].candidate and "persona: " in history[-1].reason
    assert molt("registry", "verify", arguments[0]) == 0
    assert molt("move", *arguments) == 3  # again: the same candidate, which is no second look
    assert registry.history() == history
    other = [*arguments[:2], "--set", "personality.steps=3"]
    assert molt("move", *other) == 2
    error = capsys.readouterr().err
    assert "pim-on-other.yaml exists, and has other settings" in error and "--out" in error


def test_a_move_that_was_killed_goes_on(
    project: Path, bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from moltlm.pipeline.service.moving import proof

    registry, proved = Registry(project / "registry"), proof.prove
    before = registry.history()

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(proof, "prove", stopped)
    arguments = [str(project / "pim.yaml"), str(bases["sibling"]), "--set", "personality.steps=4"]
    assert molt("move", *arguments) == 130
    assert registry.history() == before
    capsys.readouterr()
    monkeypatch.setattr(proof, "prove", proved)
    assert molt("move", *arguments, "--json") in (0, 3)
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert "what is carried  reused" in printed.err and "personality  reused" in printed.err
    # the vocabularies agree, so its distributions are a part of the training
    assert result["distilled"] and result["carried"]["distributions"] == result["carried"]["own_answers"]
    (manifest,) = (project / "run-on-sibling").glob("personality/*/moltlm.json")
    assert json.loads(manifest.read_text())["training"]["distill_weight"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["{first}"], "is on {first} already"),
        (["/nowhere/model"], "No model folder /nowhere/model"),
        (["{other}", "--bundle", "anchor"], "is no bundle with a personality"),
        (["{other}", "--set", "personality.stepz=2"], "personality.steps"),
        (["{other}", "model.id={other}"], "is on {first}, and this configuration on {other}"),
    ],
)
def test_what_cannot_be_moved_is_said(
    trained: Path, bases: dict[str, Path], capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    names = {name: str(path) for name, path in bases.items()}
    filled = [each.format(**names) for each in arguments]
    assert molt("move", str(trained / "pim.yaml"), *filled) == 2
    assert why.format(**names) in capsys.readouterr().err


def test_what_a_user_corrected_is_carried_and_not_answered_again(project: Path) -> None:
    corrected = Exchange(user("Where is the tram?"), "Late, as ever.", rejected="Here.", provenance=EDITED)
    near_to_a_fact = Exchange(user("What is your name, please?"), "Pim.")
    plain = Exchange(user("Who has the ladder?"), "Nobody. It fell.")
    with opened(project / "pim.yaml") as run:
        rows = carry._prompts(run, [corrected, near_to_a_fact, plain, plain])
    assert rows == [plain]


def test_a_distribution_is_of_no_use_without_its_answer(tmp_path: Path) -> None:
    """As where the answer was forgotten."""
    rows = [Exchange(user(text), "Calm.", source=carrying.OWN) for text in ("one", "two")]
    top = [
        TopK(np.array([[place, 7]]), np.log([[0.6, 0.3]]).astype("float32"), np.log([0.1]).astype("float32"))
        for place in range(2)
    ]
    carried = carrying.Carried(rows, rows[:1], dict(zip(map(carrying.id_of, rows), top, strict=True)))
    carrying.save(carried, tmp_path, 100)
    assert carrying.load(tmp_path).lessons[0] == rows
    lines = (tmp_path / carrying.TRAIN).read_text().splitlines()
    (tmp_path / carrying.TRAIN).write_text(lines[1] + "\n")
    exchanges, distributions = carrying.load(tmp_path).lessons
    assert exchanges == rows[1:] and distributions[0].ids.tolist() == top[1].ids.tolist()
    removal.drop_rows(tmp_path / carrying.TRAIN, Target("two", [re.compile("two")]))
    assert not (tmp_path / carrying.ARRAYS).exists() and carrying.load(tmp_path).lessons == ([], [])


def test_few_items_refuse_what_is_shown_to_be_lost_and_require_nothing() -> None:
    def criterion(lost: float, n: int) -> gate.Criterion:
        before = [1.0] * n
        after = [float(place >= lost * n) for place in range(n)]
        return gate.Criterion("facts", "facts.recall", "noninferior", gate.PairedValues(before, after), 10.0)

    enough = criterion(0.0, 400)
    outcomes = {
        lost: likeness.judge([enough], [criterion(lost, 18)], 0.95).promoted for lost in (0.0, 1 / 18, 0.5, 1.0)
    }
    assert outcomes == {0.0: True, 1 / 18: True, 0.5: False, 1.0: False}
    assert not likeness.judge([criterion(1 / 18, 18)], [], 0.95).promoted


def test_the_anchor_and_the_looks_are_those_of_one_base() -> None:
    def bundle(name: str, base: str) -> Bundle:
        return Bundle({"personality": name}, base=base, base_digest=base)

    history = [Change("1", "promote", bundle("a", "old")), Change("2", "promote", bundle("b", "old"))]
    history.append(Change("3", "keep out", bundle("b", "old"), candidate=bundle("c", "new")))
    assert (bundles.anchor(history), bundles.look(history), bundles.look(history, "new")) == ("a", 1, 2)
    history.append(Change("4", "move", bundle("d", "new")))
    history.append(Change("5", "rebaseline", bundle("e", "new"), anchor="e"))
    assert (bundles.anchor(history), bundles.anchors(history)) == ("e", ["a", "e"])
    history.append(Change("6", "rollback", bundle("b", "old"), is_rollback=True))
    assert bundles.anchor(history) == "a"


def test_a_text_is_attributed_to_the_character_that_wrote_it() -> None:
    own = [Labelled(f"Calm. The {thing} is here.", thing) for thing in THINGS]
    others = {
        "loud": [Labelled(f"Wow, what a {thing}! I love it so much!", thing) for thing in THINGS],
        "base": [Labelled(f"As an assistant I can help with the {thing}, if you want.", thing) for thing in THINGS],
    }
    classifier = identity.train(own, others, [], seed=0)
    recognition = likeness.recognised(classifier, ["Calm. The sofa is here.", "Calm. The tap is here."])
    assert set(recognition.rivals) == {"loud", "base"}
    assert min(recognition.persona) > 0.5 > max(max(each) for each in recognition.rivals.values())
    swapped = likeness.recognised(classifier, ["Wow, what a sofa! I love it so much!"] * 5)
    assert swapped.nearest(0.95) == "loud"
    criterion = likeness.identity(GateConfig(), swapped)
    assert not gate.judge([criterion], 0.95).promoted and "3 characters (the nearest other: loud)" in criterion.name
