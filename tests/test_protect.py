"""What a task stage adds against forgetting: at weight 0 nothing, at a large weight all, in between the formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from moltlm.adapters import base, card, serve, stack, training
from moltlm.adapters.config import (
    AdaptersConfig,
    DpoConfig,
    LoraSettings,
    ModelConfig,
    PersonalityConfig,
    ProtectConfig,
    TrainSettings,
)
from moltlm.adapters.grpo import GrpoJob, train_grpo
from moltlm.adapters.personality import PersonalityJob, train_personality
from moltlm.adapters.protections import Context, Material, Protection
from moltlm.adapters.protections.agem import project
from moltlm.adapters.protections.anchor import Features, LiveDistillation
from moltlm.adapters.protections.average import RunningAverage
from moltlm.adapters.protections.drift import StopOnDrift
from moltlm.adapters.protections.elastic import FISHER, Pull, fisher
from moltlm.adapters.protections.orthogonal import OrthogonalLora
from moltlm.adapters.protections.stored import StoredDistillation
from moltlm.adapters.task import TaskJob, train_task
from moltlm.adapters.training import TrainingResult
from moltlm.data import prose, topk
from moltlm.data import state as states
from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput
from moltlm.data.persona import user
from moltlm.data.state import PERSONALITY
from moltlm.data.types import Exchange, Pair, Progress, TaskExample, silent
from tests.conftest import talkative

PAIRS = [Pair(str(i), user(f"hello {i}"), f"Open drawer {i}. Then tea.", f"I am glad {i}") for i in range(8)]
NEUTRAL = [Exchange(user("what is rain?"), "Rain is water."), Exchange(user("what is tea?"), "Tea is a drink.")]
REPLAY = [Exchange(user(f"hello {i}"), f"Open drawer {i}. Then tea.") for i in range(3)]
MIX = [Exchange(user(f"list files {i}"), "ls") for i in range(24)]
TASK = TaskConfig(kind="shell", steps=6, learning_rate=5e-3)


def settings(
    tiny: Path, precision: str = "fp32", dropout: float = 0.0, every: int = 0, **protect: Any
) -> AdaptersConfig:
    return AdaptersConfig(
        model=ModelConfig(id=str(tiny), precision=precision),  # type: ignore[arg-type]
        lora=LoraSettings(r=4, alpha=8, dropout=dropout),
        train=TrainSettings(warmup_steps=0, checkpoint_every=every),
        personality=PersonalityConfig(steps=6, batch_size=4, learning_rate=5e-3),
        dpo=DpoConfig(),
        protect=ProtectConfig.model_validate(protect),
    )


@pytest.fixture(scope="module")
def beneath(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("personality")
    config = settings(tiny)
    train_personality(PersonalityJob(config=config, base=base.load(config.model), folder=folder, seed=0, pairs=PAIRS))
    return {"personality": folder}


def stored(tiny: Path, beneath: dict[str, Path]) -> list[topk.TopK]:
    served = serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
    served.load("personality", beneath["personality"])
    with served.state(PERSONALITY):
        return [row.top for row in served.top_k(REPLAY, 8, 2)]


def task(
    config: AdaptersConfig, beneath: dict[str, Path], folder: Path, rows: list[topk.TopK] | None = None, **more: Any
) -> TrainingResult:
    job: dict[str, Any] = {
        "name": "shell",
        "task": TASK,
        "material": Material(neutral=NEUTRAL, replay=REPLAY, stored=rows or []),
        **more,
    }
    return train_task(
        TaskJob(
            config=config,
            base=base.load(config.model),
            folder=folder,
            seed=0,
            adapters_below=beneath,
            mix=MIX,
            **job,
        )
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(first: Path, second: Path) -> bool:
    ours, theirs = weights(first), weights(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def drift(tiny: Path, beneath: dict[str, Path], folder: Path, rows: list[Exchange]) -> float:
    served = serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
    served.load("personality", beneath["personality"])
    served.load("shell", folder)
    with served.state(states.of("personality", "shell")):
        found = served.kl_from(PERSONALITY, [row.prompt for row in rows], [row.answer for row in rows], 2)
    return sum(found) / len(found)


def loss(tiny: Path, beneath: dict[str, Path], folder: Path, rows: list[Exchange]) -> float:
    """Nats a token of these answers, above the personality and the adapter in `folder`."""
    served = serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
    for name, path in {**beneath, "shell": folder}.items():
        served.load(name, path)
    with served.state(states.of("personality", "shell")):
        found = served.score([row.prompt for row in rows], [row.answer for row in rows], 2)
    return -sum(row.per_token for row in found) / len(found)


TERMS = {
    "kl": ({"kl_weight": 300.0}, NEUTRAL),
    "kl on prose": ({"kl_weight": 300.0, "kl_on": "text", "anchor_batch": 8}, prose.anchor()[:40]),
    "distil": ({"distill_weight": 300.0}, REPLAY),
    "stored": ({"distill_weight": 300.0, "distill": "stored"}, REPLAY),
    "feature": ({"feature_weight": 3000.0}, REPLAY),
    "ewc": ({"ewc_weight": 1e7}, REPLAY),
    "l2": ({"l2_weight": 1e5}, REPLAY),
}


@pytest.mark.parametrize("term", TERMS)
def test_a_large_weight_pins_the_model(tiny: Path, tmp_path: Path, beneath: dict[str, Path], term: str) -> None:
    protect, rows = TERMS[term]
    task(settings(tiny), beneath, tmp_path / "plain")
    task(settings(tiny, **protect), beneath, tmp_path / "pinned", stored(tiny, beneath))
    free, pinned = (drift(tiny, beneath, tmp_path / name, rows) for name in ("plain", "pinned"))
    assert free > 1e-3 and pinned < free / 2, (free, pinned)


@pytest.mark.parametrize("term", [*TERMS, "orthogonal"])
def test_weight_0_is_the_plain_trainer(tiny: Path, tmp_path: Path, beneath: dict[str, Path], term: str) -> None:
    """To the bit; and a weight too small to matter gives almost the same, so nothing but the term is added."""
    protect = TERMS[term][0] if term in TERMS else {"orthogonal_weight": 1.0}
    keys: dict[str, Any] = {name: 0.0 for name, value in protect.items() if isinstance(value, float)}
    task(settings(tiny), beneath, tmp_path / "plain")
    task(settings(tiny, **{**protect, **keys}), beneath, tmp_path / "zero", stored(tiny, beneath))
    assert same(tmp_path / "plain", tmp_path / "zero")
    tiny_weights: dict[str, Any] = {**protect, **dict.fromkeys(keys, 1e-12)}
    task(settings(tiny, **tiny_weights), beneath, tmp_path / "hardly", stored(tiny, beneath))
    ours, theirs = weights(tmp_path / "plain"), weights(tmp_path / "hardly")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


class Bench:
    """A personality with a task adapter of noise above it; `model` is trainable in the latter only."""

    def __init__(self, tiny: Path, beneath: dict[str, Path]) -> None:
        loaded = base.load(ModelConfig(id=str(tiny), precision="fp32"))
        lora = training.lora_config(LoraSettings(r=4, alpha=8), loaded.model)
        self.model = stack.stack_adapters(loaded, beneath)
        self.model.add_adapter("shell", lora)
        tuner: Any = self.model.base_model
        tuner.set_adapter(["personality", "shell"])
        for name, value in self.model.named_parameters():
            value.requires_grad = ".shell." in name
        self.text = serve.TextModel(self.model, loaded.tokenizer)
        self.path = tiny

    def start(self, protection: Protection, material: Material | None = None, **protect: Any) -> Protection:
        """The protection, started on this model as it is now."""
        config = settings(self.path, **protect)
        protection.start(
            Context(
                text=self.text,
                config=config,
                settings=config.protect,
                stage="task",
                adapter="shell",
                adapters_below=["personality"],
                seed=0,
                material=material or Material(neutral=NEUTRAL, replay=REPLAY),
            )
        )
        return protection

    def shake(self, seed: int = 1) -> None:
        torch.manual_seed(seed)
        with torch.no_grad():
            for value in self.model.parameters():
                if value.requires_grad:
                    value.add_(0.05 * torch.randn_like(value))

    def logprobs(self, rows: list[Exchange]) -> list[np.ndarray]:
        encoded = self.text.encode([row.prompt for row in rows], [row.answer for row in rows])
        with torch.no_grad():
            found = [self.text.completion_logits([row])[0].double().cpu() for row in encoded]
        return [torch.log_softmax(row, -1).numpy() for row in found]


def penalty(protection: Protection, bench: Bench, call: int = 0) -> float:
    value = protection.penalty(bench.model, call)
    assert value is not None
    return float(value.detach())


def test_the_anchor_is_the_kl_at_a_temperature(tiny: Path, beneath: dict[str, Path]) -> None:
    bench, heat = Bench(tiny, beneath), 2.0
    bench.shake()
    anchor = bench.start(LiveDistillation(), distill_weight=0.7, temperature=heat, anchor_batch=2)
    before = bench.logprobs(REPLAY)
    assert penalty(anchor, bench) == pytest.approx(0.0, abs=1e-6)
    bench.shake(2)
    after = bench.logprobs(REPLAY)

    def tempered(row: np.ndarray) -> np.ndarray:
        return row / heat - np.log(np.exp(row / heat).sum(-1, keepdims=True))

    for call, chosen in ((0, [0, 1]), (1, [2, 0])):
        old, new = (np.concatenate([tempered(rows[i]) for i in chosen]) for rows in (before, after))
        expected = 0.7 * heat**2 * (np.exp(old) * (old - new)).sum(-1).mean()
        assert penalty(anchor, bench, call) == pytest.approx(expected, rel=1e-4)
    whole = bench.start(LiveDistillation(), distill_weight=1.0, anchor_batch=3)
    watch = StopOnDrift()
    bench.start(watch, Material(neutral=REPLAY), stop_kl=1.0)
    bench.shake(3)
    drifted = penalty(whole, bench)
    assert drifted > 0 and watch.drift(bench.model) == pytest.approx(drifted, rel=1e-5)


def test_stored_distributions_compare_the_listed_tokens_and_the_rest(tiny: Path, beneath: dict[str, Path]) -> None:
    rows = stored(tiny, beneath)
    bench = Bench(tiny, beneath)
    term = bench.start(
        StoredDistillation(), Material(replay=REPLAY, stored=rows), distill_weight=2.0, distill="stored", anchor_batch=3
    )
    assert penalty(term, bench) == pytest.approx(0.0, abs=1e-5)  # a fresh adapter: the personality itself
    bench.shake()
    total = tokens = 0.0
    for found, row in zip(bench.logprobs(REPLAY), rows, strict=True):
        q = np.take_along_axis(found, row.ids.astype(int), 1)
        q = np.concatenate([q, np.log1p(-np.exp(q).sum(1, keepdims=True))], 1)
        p = np.concatenate([row.logprobs, row.log_tail[:, None]], 1).astype(np.float64)
        p -= np.log(np.exp(p).sum(1, keepdims=True))
        total += (np.exp(p) * (p - q)).sum()
        tokens += len(q)
    assert penalty(term, bench) == pytest.approx(2 * total / tokens, rel=1e-3)


def test_the_feature_term_is_the_share_of_squared_change(tiny: Path, beneath: dict[str, Path]) -> None:
    bench = Bench(tiny, beneath)
    bench.shake()
    anchor = bench.start(Features(), feature_weight=3.0, feature_layers=[1], anchor_batch=1)
    encoded = bench.text.encode([REPLAY[0].prompt], [REPLAY[0].answer])[0]

    def states() -> np.ndarray:
        ids = torch.tensor([encoded[0] + encoded[1]], device=bench.model.device)
        with torch.no_grad():
            found = bench.model(input_ids=ids, output_hidden_states=True).hidden_states[1]
        return found[0, len(encoded[0]) - 1 : -1].double().cpu().numpy()

    before = states()
    bench.shake(2)
    expected = 3.0 * ((states() - before) ** 2).sum() / (before**2).sum()
    assert penalty(anchor, bench) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(BadInput, match="layer 2"):
        bench.start(Features(), feature_weight=1.0, feature_layers=[2])


def test_fisher_and_ewc_agree_with_a_float64_reference(tiny: Path, beneath: dict[str, Path]) -> None:
    bench = Bench(tiny, beneath)
    bench.shake()
    found = fisher(bench.text, REPLAY, seed=3)
    assert not any(value.grad is not None for value in bench.model.parameters())
    bench.model.double()
    generator = torch.Generator().manual_seed(3)
    names = list(found)
    parameters = [dict(bench.model.named_parameters())[name] for name in names]
    expected = [torch.zeros_like(value) for value in parameters]
    for row in bench.text.encode([row.prompt for row in REPLAY], [row.answer for row in REPLAY]):
        ids = torch.tensor([row[0] + row[1]], device=bench.model.device)
        logits = bench.model(input_ids=ids).logits[0, len(row[0]) - 1 : -1]
        drawn = torch.multinomial(logits.softmax(-1).float().cpu(), 1, generator=generator).to(ids.device)
        loss = torch.nn.functional.cross_entropy(logits, drawn[:, 0], reduction="sum")
        for place, gradient in enumerate(torch.autograd.grad(loss, parameters)):
            expected[place] += gradient**2 / len(REPLAY)
    for name, value in zip(names, expected, strict=True):
        assert torch.allclose(found[name].double(), value, rtol=1e-2, atol=1e-3 * float(value.max()))
    term = Pull(bench.model, 4.0, {name: value.double() for name, value in found.items()})
    start = [value.detach().clone() for value in parameters]
    bench.shake(2)
    by_hand = sum(
        float((found[name].double() * (now - then) ** 2).sum())
        for name, now, then in zip(names, parameters, start, strict=True)
    )
    assert float(term.penalty(bench.model)) == pytest.approx(2.0 * by_hand, rel=1e-4)
    with pytest.raises(BadInput, match="lacks"):
        Pull(bench.model, 1.0, {})


def test_orthogonality_is_the_overlap_of_what_both_read(tiny: Path, beneath: dict[str, Path]) -> None:
    bench = Bench(tiny, beneath)
    bench.shake()
    named = dict(bench.model.named_parameters())
    expected = sum(
        float((named[name.replace(".shell.", ".personality.")] @ value.T).square().sum())
        for name, value in named.items()
        if "lora_A.shell" in name
    )
    overlap = bench.start(OrthogonalLora(), orthogonal_weight=0.5)
    assert penalty(overlap, bench) == pytest.approx(0.5 * expected, rel=1e-5)


def test_agem_takes_off_what_conflicts_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)

    def vector() -> list[torch.Tensor]:
        return [torch.randn(size, generator=generator, dtype=torch.float64) for size in ((3, 4), (5,))]

    def dot(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
        return float(sum((a * b).sum() for a, b in zip(left, right, strict=True)))

    conflicts = 0
    for _ in range(50):
        gradient, reference = vector(), vector()
        result, before = project(gradient, reference), dot(gradient, reference)
        if before >= 0:
            assert all(torch.equal(*both) for both in zip(result, gradient, strict=True))
            continue
        conflicts += 1
        assert dot(result, reference) == pytest.approx(0, abs=1e-12)
        change = [new - old for new, old in zip(result, gradient, strict=True)]
        # along the reference alone, so the result is the nearest gradient without conflict
        parallel = dot(change, reference) ** 2
        assert parallel == pytest.approx(dot(change, change) * dot(reference, reference), rel=1e-9)
    assert 10 < conflicts < 40


def test_agem_forgets_less_of_what_is_replayed(tiny: Path, tmp_path: Path, beneath: dict[str, Path]) -> None:
    """The task's answers have what is replayed unlearned, as far as it is in their way."""
    task(settings(tiny), beneath, tmp_path / "plain")
    task(settings(tiny, agem=True, anchor_batch=3), beneath, tmp_path / "agem")
    free, held = (loss(tiny, beneath, tmp_path / name, REPLAY) for name in ("plain", "agem"))
    assert held < free - 0.01, (free, held)


def test_the_average_is_the_exponential_one_of_the_path(tiny: Path, tmp_path: Path, beneath: dict[str, Path]) -> None:
    bench = Bench(tiny, beneath)
    average = bench.start(RunningAverage(), average_decay=0.75)
    trained = [value for value in bench.model.parameters() if value.requires_grad]
    expected = [value.detach().clone() for value in trained]
    for step in (1, 2, 3):
        bench.shake(step)
        average.after_step(bench.model, step)
        expected = [0.75 * mean + 0.25 * value.detach() for mean, value in zip(expected, trained, strict=True)]
    average.finish(bench.model, tmp_path)
    assert all(torch.allclose(*both, atol=1e-7) for both in zip(trained, expected, strict=True))


def test_interpolation_goes_from_the_start_to_the_end(tiny: Path, tmp_path: Path, beneath: dict[str, Path]) -> None:
    task(settings(tiny), beneath, tmp_path / "end")
    task(settings(tiny, interpolation=0.25), beneath, tmp_path / "part")
    end, part = weights(tmp_path / "end"), weights(tmp_path / "part")
    assert all(torch.allclose(part[name], 0.25 * end[name], atol=1e-7) for name in end if "lora_B" in name)
    assert any(not torch.allclose(part[name], end[name]) for name in end if "lora_A" in name)


def test_training_stops_when_the_drift_is_too_large(tiny: Path, tmp_path: Path, beneath: dict[str, Path]) -> None:
    stopped = task(settings(tiny, stop_kl=1e-4, stop_every=2), beneath, tmp_path / "a")
    through = task(settings(tiny, stop_kl=1e4, stop_every=2), beneath, tmp_path / "b")
    assert stopped.steps in (2, 4) and through.steps == TASK.steps
    assert '"drift"' in (tmp_path / "a" / "metrics.jsonl").read_text()


class Kill(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3, 4, 5])
def test_a_killed_training_goes_on_to_the_same_tensors(
    tiny: Path, tmp_path: Path, beneath: dict[str, Path], at: int
) -> None:
    config = settings(tiny, dropout=0.2, every=2, kl_weight=0.5, average_decay=0.5)
    assert task(config, beneath, tmp_path / "whole").steps == 6

    def killed(done: int, total: int, note: str) -> None:
        if done == at:
            raise Kill

    with pytest.raises(Kill):
        task(config, beneath, tmp_path / "cut", progress=killed)
    assert not (tmp_path / "cut" / "adapter_model.safetensors").exists()
    seen: list[int] = []
    task(config, beneath, tmp_path / "cut", progress=lambda done, total, note: seen.append(done))
    assert seen[0] == {1: 1, 3: 3, 4: 3, 5: 5}[at]  # checkpoints are written after steps 2 and 4
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert (tmp_path / "whole" / "metrics.jsonl").read_text().count("\n") == 6
    assert (tmp_path / "cut" / "metrics.jsonl").read_text().count("\n") == 6
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_a_killed_dpo_goes_on_with_the_reference_it_began_with(tiny: Path, tmp_path: Path) -> None:
    config = settings(tiny, every=2)

    def killed(done: int, total: int, note: str) -> None:
        if done == 5:
            raise Kill

    def train(folder: Path, progress: Progress = silent) -> None:
        loaded = base.load(config.model)
        job = PersonalityJob(config=config, base=loaded, folder=folder, seed=0, progress=progress, pairs=PAIRS)
        train_personality(job)

    train(tmp_path / "whole")
    with pytest.raises(Kill):
        train(tmp_path / "cut", killed)
    train(tmp_path / "cut")
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_stacked_tasks_train_above_earlier_ones_that_stay(tiny: Path, tmp_path: Path, beneath: dict[str, Path]) -> None:
    task(settings(tiny), beneath, tmp_path / "first", name="first")
    before = weights(tmp_path / "first")
    layers = {**beneath, "first": tmp_path / "first"}
    trained = task(settings(tiny), layers, tmp_path / "second", name="second")
    assert trained.changed_tensors == 28 and trained.frozen_tensors >= 56
    assert list(card.read(tmp_path / "second").adapters_below) == ["personality", "first"]
    assert all(torch.equal(before[name], value) for name, value in weights(tmp_path / "first").items())


def test_a_shared_adapter_goes_on_from_the_one_before_and_gathers_fisher(
    tiny: Path, tmp_path: Path, beneath: dict[str, Path]
) -> None:
    config = settings(tiny, ewc_weight=1e-9, ewc_decay=0.5)
    task(config, beneath, tmp_path / "first", name="first")
    slow = TASK.model_copy(update={"learning_rate": 1e-6})
    task(config, beneath, tmp_path / "second", name="second", task=slow, start=tmp_path / "first")
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)
    earlier, later = (load_file(tmp_path / name / FISHER) for name in ("first", "second"))
    assert all(bool((later[name] >= 0.5 * earlier[name] - 1e-12).all()) for name in earlier)
    assert any(bool((later[name] > earlier[name]).any()) for name in earlier)


@pytest.mark.parametrize("setting", ["kl_weight", "distill_weight", "feature_weight", "ewc_weight", "stop_kl"])
def test_a_term_without_what_it_compares_with_is_an_error(
    tiny: Path, tmp_path: Path, beneath: dict[str, Path], setting: str
) -> None:
    weight: dict[str, Any] = {setting: 1.0}
    config = settings(tiny, **weight)
    with pytest.raises(BadInput, match=setting):
        task(config, beneath, tmp_path / "t", material=Material())


def test_in_four_bits_the_terms_pull_the_same_way(tiny: Path, tmp_path: Path, beneath: dict[str, Path]) -> None:
    for precision in ("fp32", "nf4"):
        free = task(settings(tiny, precision), beneath, tmp_path / f"{precision}-free")
        held = task(settings(tiny, precision, kl_weight=300.0), beneath, tmp_path / f"{precision}-held")
        assert free.changed_tensors == held.changed_tensors == 28
        sizes = [
            sum(float(value.square().sum()) for name, value in weights(one.folder).items() if "lora_B" in name)
            for one in (free, held)
        ]
        assert sizes[1] < sizes[0]


def test_grpo_moves_the_task_alone_towards_what_is_rewarded(
    tiny: Path, tmp_path: Path, beneath: dict[str, Path]
) -> None:
    """Rewarded for an answer that begins with an even character, as some do: nearly all do afterwards."""
    config = settings(talkative(tiny, tmp_path / "model", head=0.3))
    task(config, beneath, tmp_path / "sft")
    rewarding = TASK.model_copy(
        update={"on_policy_steps": 15, "batch_size": 32, "generations": 8, "max_new_tokens": 2,
                "on_policy_learning_rate": 5e-3}
    )  # fmt: skip
    examples = [TaskExample(user(f"list files {i}"), "e") for i in range(16)]
    seen: list[float] = []

    def reward(answers: list[str], references: list[str]) -> list[int]:
        found = [int(bool(answer) and ord(answer[0]) % 2 == 0) for answer in answers]
        seen.append(sum(found) / len(found))
        return found

    trained = train_grpo(
        GrpoJob(
            config=config,
            base=base.load(config.model),
            folder=tmp_path / "grpo",
            seed=0,
            name="shell",
            adapters_below=beneath,
            start=tmp_path / "sft",
            task=rewarding,
            examples=examples,
            reward=reward,
        )
    )
    assert trained.changed_tensors == 28 and trained.frozen_tensors >= 28
    assert card.read(tmp_path / "grpo").adapters_below == card.read(tmp_path / "sft").adapters_below
    assert not same(tmp_path / "sft", tmp_path / "grpo")
    assert seen[0] < 0.7 and sum(seen[-5:]) > 4.5
