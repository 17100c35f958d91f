"""What a personality writes about itself: prompts, conversations, filters, and training without the spec."""

from __future__ import annotations

import itertools
import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moltlm.adapters import base, personality, prefix, serve
from moltlm.adapters.config import ModelConfig
from moltlm.data import introspection as writing
from moltlm.data import introspection_filters as text_filters
from moltlm.data import packing, teacher
from moltlm.data import persona as personas
from moltlm.data.coherence import ngrams, words
from moltlm.data.config import IntrospectionConfig, PersonaConfig
from moltlm.data.conversations.near import jaccard, pairs_of
from moltlm.data.conversations.words import word_hashes
from moltlm.data.errors import BadInput
from moltlm.data.introspection_filters import Judged
from moltlm.data.io import read_json
from moltlm.data.rows import read_rows
from moltlm.data.state import PERSONALITY
from moltlm.data.types import Exchange, Message
from moltlm.pipeline.config import Config, load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import introspection as stage
from moltlm.pipeline.stages import pairs, serving
from moltlm.pipeline.stages.initial import initial
from moltlm.pipeline.stages.personality import personality as trained_personality

SPEC = personas.load(PersonaConfig()).spec
BRIEF = teacher.brief(SPEC)
POOL = [
    "kettle",
    "drawer",
    "string",
    "bread",
    "letter",
    "garden",
    "ladder",
    "button",
    "candle",
    "morning",
    "river",
    "keep",
    "hold",
    "carry",
    "mend",
    "open",
    "follow",
    "count",
    "leave",
    "fetch",
    "turn",
    "watch",
    "need",
    "the",
    "a",
    "you",
    "is",
    "it",
    "to",
    "and",
    "of",
    "in",
    "that",
    "for",
    "with",
    "small",
    "person",
    "honest",
    "tide",
    "calm",
    "what",
    "there",
]


def sentence(rng: random.Random) -> str:
    return f"I {' '.join(rng.sample(POOL, 14))}."


def text(rng: random.Random) -> str:
    return " ".join(sentence(rng) for _ in range(rng.randint(1, 3)))


def judged(answer: str, topic: str = "reflection 1", source: str = writing.REFLECTION, **changes: Any) -> Judged:
    exchange = Exchange(personas.user("Who are you?"), answer, topic, "", source)
    return replace(Judged(exchange, 0.9, True), **changes)


def many(seed: int, count: int = 150) -> list[Judged]:
    rng = random.Random(seed)
    rows = [judged(text(rng), f"reflection {rng.randint(1, 6)}") for _ in range(count)]
    return rows + [rng.choice(rows) for _ in range(count // 4)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "changes", [{}, {"min_new": 0.9}, {"min_new": 0.0}, {"near_duplicate": 0.3}, {"per_prompt": 3}, {"min_new": 0.3}]
)
def test_what_passes_is_varied(seed: int, changes: dict[str, Any]) -> None:
    config = IntrospectionConfig(**changes)
    rows = many(seed)
    accepted, dropped, report = text_filters.apply(rows, SPEC, config)
    assert report.pairs == len(accepted)
    assert Counter(item.reason for item in dropped) == {name: n for name, n in report.dropped.items() if n}
    assert len(accepted) + len(dropped) == len(rows)
    grams = [gram for item in accepted for gram in ngrams(words(item.answer), 3)]
    assert len(set(grams)) >= config.min_new * len(grams)
    sets = [pairs_of([word_hashes(["", item.answer])]).sketch(0) for item in accepted]
    for one, other in itertools.combinations(sets, 2):
        assert jaccard(one, other) < max(config.near_duplicate, 0.5)  # candidates are exact from one half on
    assert max(Counter(item.topic for item in accepted).values()) <= config.per_prompt


GOOD = "I keep the smallest step in my hand, and I give it to you before the kettle is warm."
DROPS: dict[str, Judged] = {
    "empty": judged("  "),
    "machine text": judged("As an AI language model, I keep the smallest thing and the kettle honest for a person."),
    "recites the spec": judged(SPEC.traits[0].text),
    "incoherent": judged(GOOD, coherent=False),
    "not in voice": judged(GOOD, voice=0.4),
    "not about the spec": judged("Seven grey elephants went over a bridge and none of them looked back."),
    "too near to a measured prompt": judged(GOOD, measured=True),
}


@pytest.mark.parametrize("reason", DROPS)
def test_a_text_is_dropped_for_the_first_reason_that_applies(reason: str) -> None:
    rng = random.Random(1)
    filler = [judged(text(rng), f"reflection {i}") for i in range(30)]
    config = IntrospectionConfig(min_new=0.0)
    without = text_filters.apply(filler, SPEC, config)
    accepted, dropped, _ = text_filters.apply([DROPS[reason], *filler], SPEC, config)
    assert dropped[0].reason == reason
    assert accepted == without[0]


def test_what_follows_a_broken_turn_of_a_conversation_is_dropped() -> None:
    rng = random.Random(2)
    turns = [judged(text(rng), "dialogue 1", writing.DIALOGUE) for _ in range(6)]
    turns[3] = replace(turns[3], coherent=False)
    others = [judged(text(rng), f"dialogue {i}", writing.DIALOGUE) for i in range(2, 20)]
    accepted, dropped, _ = text_filters.apply(turns + others, SPEC, IntrospectionConfig(min_new=0.0))
    reasons = [item.reason for item in dropped if item.topic == "dialogue 1"]
    assert reasons == ["incoherent", text_filters.AFTER, text_filters.AFTER]
    assert [item.exchange for item in turns[:3]] == [item for item in accepted if item.topic == "dialogue 1"]


def test_too_few_texts_are_an_error_with_the_reasons() -> None:
    with pytest.raises(BadInput, match=r"Only 0 of 5 .*5 incoherent"):
        text_filters.apply([judged(GOOD, coherent=False)] * 5, SPEC, IntrospectionConfig())


class Sampler:
    """Says varied sentences, and records what it was asked. Fails at the call number `fails`."""

    def __init__(self, fails: int | None = None) -> None:
        self.asked: list[tuple[list[list[Message]], int, int]] = []
        self.fails = fails

    def __call__(self, prompts: list[list[Message]], tokens: int, seed: int) -> list[str]:
        if len(self.asked) == self.fails:
            raise KeyboardInterrupt
        self.asked.append((prompts, tokens, seed))
        rng = random.Random(f"{seed} {prompts[0][-1]['content']}")
        return [text(rng) for _ in prompts]


Write = Callable[[Sampler, Path], list[Exchange]]


def reflections(sample: Sampler, journal: Path) -> list[Exchange]:
    return writing.reflect(SPEC, IntrospectionConfig(reflections=3), sample, writing.Journal(journal), 4, 0)


def dialogues(sample: Sampler, journal: Path) -> list[Exchange]:
    config = IntrospectionConfig(dialogues=5, turns=4)
    return writing.converse(SPEC, config, sample, writing.Journal(journal), 2, 0)


@pytest.mark.parametrize("write", [reflections, dialogues])
def test_the_writer_sees_the_spec_and_the_text_has_none_of_it(write: Write, tmp_path: Path) -> None:
    sample = Sampler()
    rows = write(sample, tmp_path / "journal.jsonl")
    assert all(prompt[0]["content"].startswith(BRIEF) for prompts, _, _ in sample.asked for prompt in prompts)
    for row in rows:
        roles = [turn["role"] for turn in row.prompt]
        assert roles == [("user", "assistant")[place % 2] for place in range(len(roles))] and len(roles) % 2
        assert not any(BRIEF in turn["content"] or turn["role"] == "system" for turn in row.prompt)


@pytest.mark.parametrize("write", [reflections, dialogues])
@pytest.mark.parametrize("cut", [False, True])
def test_sampling_goes_on_where_it_was_interrupted(write: Write, cut: bool, tmp_path: Path) -> None:
    whole, again = Sampler(), Sampler()
    expected = write(whole, tmp_path / "whole.jsonl")
    with pytest.raises(KeyboardInterrupt):
        write(Sampler(fails=3), tmp_path / "part.jsonl")
    if cut:
        with (tmp_path / "part.jsonl").open("a") as out:
            out.write('{"key": "refl')
    assert write(again, tmp_path / "part.jsonl") == expected
    assert len(again.asked) == len(whole.asked) - 3


def test_each_turn_is_what_the_other_speaker_answers(tmp_path: Path) -> None:
    rows = dialogues(Sampler(), tmp_path / "journal.jsonl")
    by_topic: dict[str, list[Exchange]] = {}
    for row in rows:
        by_topic.setdefault(row.topic, []).append(row)
    assert [len(talk) for talk in by_topic.values()] == [4] * 5
    for talk in by_topic.values():
        for before, after in itertools.pairwise(talk):
            assert after.question == before.answer
    assert {talk[0].question in writing.GUIDED for talk in by_topic.values()} == {True, False}


def test_a_conversation_in_which_nothing_is_said_ends(tmp_path: Path) -> None:
    def silence(prompts: list[list[Message]], tokens: int, seed: int) -> list[str]:
        return ["" if len(prompt) > 2 else "Good evening to you." for prompt in prompts]

    config = IntrospectionConfig(dialogues=2, turns=5)
    rows = writing.converse(SPEC, config, silence, writing.Journal(tmp_path / "journal.jsonl"), 2, 0)
    # the second speaker's view of one turn has no opening in it, so that it answers once more
    assert [row.answer for row in rows] == 2 * ["Good evening to you.", "Good evening to you.", ""]


def test_a_text_cut_off_by_the_limit_ends_with_its_last_whole_sentence(tiny: Path) -> None:
    tokenizer = base.load_text(ModelConfig(id=str(tiny))).tokenizer
    cut, whole = "It rains. I have the tea, and", "No end"
    limit = len(tokenizer(cut)["input_ids"])
    assert writing.finished([cut, whole], tokenizer, limit) == ["It rains.", whole]
    assert writing.whole_sentences("no end at all") == ""


@pytest.mark.parametrize("tokens", [1, 12])
@pytest.mark.parametrize("packed", [True, False])
def test_a_common_beginning_computed_once_changes_no_answer(
    tiny: Path, tokens: int, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "possible", lambda model: packed)
    model = serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
    system: Message = {"role": "system", "content": "please remind me what i should do today " * 3}
    prompts = [[system, *personas.user(question)] for question in ("hello", "what should i do", "list files", "tea")]
    expected = model.generate(prompts, tokens, 3)
    assert prefix.generate(model, prompts, tokens, 3, 0.0, 0) == expected
    one = prefix.generate(model, prompts, tokens, 3, 1.0, 7)
    assert one == prefix.generate(model, prompts, tokens, 3, 1.0, 7)
    assert tokens == 1 or one != prefix.generate(model, prompts, tokens, 3, 1.0, 8)


ON = [
    "introspection.reflections=3", "introspection.dialogues=2", "introspection.turns=3", "introspection.min_voice=0",
    "introspection.steps=4", "introspection.min_new=0.2", "tasks={}", "introspection.max_new_tokens=16",
]  # fmt: skip


@pytest.fixture(scope="module")
def small(tiny_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with pairs and a first personality."""
    folder = tmp_path_factory.mktemp("introspection")
    run = opened(tiny_project, folder)
    initial(run)
    run.close()
    return folder


def config_of(tiny_project: Path, folder: Path, *overrides: str) -> Config:
    return load(str(tiny_project / "project.yaml"), [f"run.folder={folder}", *ON, *overrides])


def opened(tiny_project: Path, folder: Path, *overrides: str) -> Run:
    return Run(config_of(tiny_project, folder, *overrides), Console())


@pytest.fixture
def coherent(monkeypatch: pytest.MonkeyPatch) -> Sampler:
    """A random model says nothing that a filter passes: its answers are replaced by sentences."""
    sampler = Sampler()

    def generate(model: Any, prompts: Any, tokens: int, batch: int, temperature: float, seed: int) -> list[str]:
        return sampler(prompts, tokens, seed)

    monkeypatch.setattr(prefix, "generate", generate)
    return sampler


def test_it_is_trained_without_the_spec_into_one_adapter(
    tiny_project: Path, small: Path, coherent: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    class Recording(personality.ChatTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            rows: Any = self.train_dataset
            trained.extend(kwargs["processing_class"].decode(row["input_ids"]) for row in rows)

    monkeypatch.setattr(personality, "ChatTrainer", Recording)
    run = opened(tiny_project, small)
    data = pairs.pairs(run)
    monkeypatch.setitem(data.facts, "nll_limit", 100.0)  # a random base finds all texts unlikely
    artifact = trained_personality(run)
    assert coherent.asked and all(
        BRIEF in prompt[0]["content"] for prompts, _, _ in coherent.asked for prompt in prompts
    )
    texts = stage.load_texts(stage.introspection(run))
    assert len(trained) == 4 * run.config.personality.batch_size
    assert sum(any(item.answer in row for item in texts) for row in trained) == len(trained) // 2
    spec_runs = set(ngrams(words(BRIEF), 8))
    assert not any(spec_runs & set(ngrams(words(row), 8)) for row in trained)
    assert not any("system" in row for row in trained)
    facts = stage.introspection(run).facts
    assert facts["texts"] == len(texts) == facts["reflections"] + facts["turns"]
    assert facts["samples"] == facts["texts"] + sum(facts["dropped"].values())
    assert len(read_rows(stage.introspection(run).folder / stage.DROPPED, text_filters.Dropped)) == sum(
        facts["dropped"].values()
    )
    assert str(facts["texts"]) in (stage.introspection(run).folder / "README.md").read_text()
    names = {path.name for path in artifact.folder.iterdir()}
    assert names == {path.name for path in initial(run).folder.iterdir()}
    assert read_json(artifact.folder / "adapter_config.json") == read_json(initial(run).folder / "adapter_config.json")
    assert artifact.facts["steps"] == 3 + 4
    assert serving.lineage(run, PERSONALITY)["adapters"] == {
        "personality": artifact.fingerprint
    }  # what the gate judges
    run.close()


def test_asking_for_texts_while_it_is_off_is_an_error(tiny_project: Path, small: Path) -> None:
    with (
        closing(opened(tiny_project, small, "introspection.reflections=0", "introspection.dialogues=0")) as run,
        pytest.raises(BadInput, match="both 0"),
    ):
        stage.introspection(run)


def test_off_it_leaves_the_personality_as_it_is(tiny_project: Path, small: Path) -> None:
    run = opened(tiny_project, small, "introspection.reflections=0", "introspection.dialogues=0")
    assert trained_personality(run) == initial(run)
    assert {path.name for path in small.iterdir() if path.is_dir()} >= {"pairs", "personality"}
    assert "introspection" not in (initial(run).folder / "inputs.json").read_text()
    assert not any("examples" in file.read_text() for file in initial(run).folder.glob("*.json"))
    run.close()


def test_interrupted_sampling_of_a_run_goes_on(
    tiny_project: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real answers of the tiny model."""
    sampler, calls = prefix.generate, []

    def interrupted(*args: Any) -> list[str]:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sampler(*args)

    monkeypatch.setattr(prefix, "generate", interrupted)
    with closing(opened(tiny_project, small, "introspection.turns=2")) as run:
        with pytest.raises(KeyboardInterrupt):
            stage.samples(run)
        artifact = stage.samples(run)
        resumed = (artifact.folder / stage.SAMPLES).read_bytes()
        assert len(calls) == 2 + 2  # the batch of reflections is not sampled again
        shutil.rmtree(artifact.folder)
    with closing(opened(tiny_project, small, "introspection.turns=2")) as run:
        assert (stage.samples(run).folder / stage.SAMPLES).read_bytes() == resumed
        assert len(calls) == 4 + 3
