"""Training on a tiny real model: what must move moves, what must not does not, and the loss is the one intended."""

from __future__ import annotations

import gc
import json
import math
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from moltlm.adapters import base, card, serve
from moltlm.adapters.config import (
    AdaptersConfig,
    DpoConfig,
    LoraSettings,
    ModelConfig,
    PersonalityConfig,
    TrainSettings,
)
from moltlm.adapters.personality import PersonalityJob, train_personality
from moltlm.adapters.protections import Context, Material
from moltlm.adapters.protections.anchor import KlToReference
from moltlm.adapters.task import TaskJob, train_task
from moltlm.adapters.trainers import PersonalityTrainer
from moltlm.adapters.training import TrainingResult
from moltlm.adapters.training_data import completions
from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.persona import user
from moltlm.data.state import BASE, PERSONALITY, State
from moltlm.data.types import Exchange, Message, Pair, Progress, silent
from tests.conftest import talkative

PAIRS = [
    Pair(
        str(i),
        user(f"hello, what should i do on day {i}?"),
        f"Open drawer {i}. Empty it. Then tea.",
        f"I am glad you asked {i}",
    )
    for i in range(8)
]
NEW_PAIR = Pair("new", user("will it rain?"), "Take the coat.", "It might rain")
NEUTRAL = [Exchange(user("what is rain?"), "Rain is water."), Exchange(user("what is tea?"), "Tea is a drink.")]


def settings(tiny: Path, precision: str = "fp32", **changes: Any) -> AdaptersConfig:
    return AdaptersConfig(
        model=ModelConfig.model_validate({"id": str(tiny), "precision": precision, **changes.get("model", {})}),
        lora=LoraSettings(r=4, alpha=8),
        train=TrainSettings.model_validate({"warmup_steps": 0, **changes.get("train", {})}),
        personality=PersonalityConfig.model_validate(
            {"steps": 3, "batch_size": 4, "learning_rate": 5e-3, **changes.get("personality", {})}
        ),
        dpo=DpoConfig.model_validate(changes.get("dpo", {})),
    )


def personality(
    tiny: Path, folder: Path, precision: str = "fp32", start: Path | None = None, **changes: dict
) -> TrainingResult:
    return train_personality(job(settings(tiny, precision, **changes), folder, neutral=NEUTRAL, start=start))


def job(config: AdaptersConfig, folder: Path, **changes: Any) -> PersonalityJob:
    given = {"base": base.load(config.model), "pairs": PAIRS, **changes}
    return PersonalityJob(config=config, folder=folder, seed=0, **given)


def task(
    config: AdaptersConfig, settings: TaskConfig, mix: list[Exchange], below: Path, folder: Path
) -> TrainingResult:
    return train_task(
        TaskJob(
            config=config,
            base=base.load(config.model),
            folder=folder,
            seed=0,
            name="shell",
            adapters_below={"personality": below},
            task=settings,
            mix=mix,
        )
    )


def losses(folder: Path, key: str = "loss") -> list[float]:
    return [json.loads(line)[key] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
def test_dpo_moves_every_adapter_tensor_and_nothing_else(tiny: Path, tmp_path: Path, precision: str) -> None:
    trained = personality(tiny, tmp_path / "p", precision, personality={"steps": 8})
    assert trained.changed_tensors == 28  # 2 layers x 7 matrices x A and B
    assert trained.frozen_tensors > 0
    found = losses(tmp_path / "p")
    assert found[-1] < found[0]
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / "p").values())


def test_the_first_dpo_loss_is_log_2_whatever_the_start(tiny: Path, tmp_path: Path) -> None:
    """With the reference equal to the model the margin is 0: for a fresh adapter, and for one that is continued."""
    plain = {"nll_weight": 0.0}
    personality(tiny, tmp_path / "first", dpo=plain)
    personality(tiny, tmp_path / "second", start=tmp_path / "first", dpo=plain)
    for name in ("first", "second"):
        assert losses(tmp_path / name)[0] == pytest.approx(0.693147, abs=1e-5)


def test_without_a_reference_the_first_loss_is_not_log_2(tiny: Path, tmp_path: Path) -> None:
    personality(tiny, tmp_path / "p", dpo={"nll_weight": 0.0, "reference": "none"})
    assert abs(losses(tmp_path / "p")[0] - 0.693147) > 1e-3


def test_the_mean_reference_is_the_same_for_all_pairs(tiny: Path, tmp_path: Path) -> None:
    """Each pair then begins off its own reference, but all of them together at a mean margin of 0."""
    config = settings(tiny, dpo={"nll_weight": 0.0, "reference": "mean"}, personality={"batch_size": 8})
    train_personality(job(config, tmp_path / "alike", pairs=[replace(PAIRS[0], id=str(i)) for i in range(8)]))
    assert losses(tmp_path / "alike")[0] == pytest.approx(0.693147, abs=1e-5)
    train_personality(job(config, tmp_path / "different", pairs=[*PAIRS[:7], NEW_PAIR]))
    assert losses(tmp_path / "different", "rewards/margins")[0] == pytest.approx(0.0, abs=1e-5)
    assert losses(tmp_path / "different")[0] - 0.693147 > 1e-5


FIRST = {"sigmoid": math.log(2), "sigmoid_norm": math.log(2), "hinge": 1.0, "ipo": 25.0, "robust": math.log(2),
         "nca_pair": 2 * math.log(2), "apo_zero": 1.0, "apo_down": 1.0}  # fmt: skip


@pytest.mark.parametrize("loss", [*FIRST, "exo_pair"])
def test_every_loss_begins_where_its_formula_does_and_falls(tiny: Path, tmp_path: Path, loss: str) -> None:
    """At the reference all log-ratios are 0."""
    smoothing = 0.1 if loss in ("robust", "exo_pair") else 0.0
    options = {"loss": loss, "nll_weight": 0.0, "label_smoothing": smoothing}
    trained = personality(tiny, tmp_path / "p", dpo=options, personality={"steps": 8, "batch_size": 8})
    found = losses(tmp_path / "p")
    assert trained.changed_tensors == 28 and found[-1] < found[0]
    exo = 0.5 * (math.log(0.5) - math.log(0.9)) + 0.5 * (math.log(0.5) - math.log(0.1))
    assert found[0] == pytest.approx(FIRST.get(loss, exo), rel=1e-4)


@pytest.mark.parametrize("divergence", ["forward_kl", "js_divergence", "alpha_divergence"])
def test_another_divergence_changes_the_path_and_not_the_start(tiny: Path, tmp_path: Path, divergence: str) -> None:
    plain = {"nll_weight": 0.0}
    personality(tiny, tmp_path / "kl", dpo=plain)
    personality(tiny, tmp_path / "other", dpo={**plain, "divergence": divergence})
    ours, theirs = losses(tmp_path / "other"), losses(tmp_path / "kl")
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5) and ours[-1] != theirs[-1]


def scored(tiny: Path) -> tuple[list[serve.TokenScore], list[serve.TokenScore]]:
    """Of the bare model, with the token that ends a turn, as a trainer counts it."""
    loaded = base.load(ModelConfig(id=str(tiny), precision="fp32"))
    text, prompts = serve.TextModel(loaded.model, loaded.tokenizer), [pair.prompt for pair in PAIRS]
    sides = ([f"{pair.chosen}<|im_end|>\n" for pair in PAIRS], [f"{pair.rejected}<|im_end|>\n" for pair in PAIRS])
    chosen, rejected = (text.score(prompts, side, 8) for side in sides)
    return chosen, rejected


def test_simpo_and_orpo_begin_at_their_formulas(tiny: Path, tmp_path: Path) -> None:
    chosen, rejected = ([score.per_token for score in side] for side in scored(tiny))
    whole = {"steps": 8, "batch_size": 8}
    options = {"reference": "none", "nll_weight": 0.0, "beta": 2.0, "margin": 0.4}
    personality(tiny, tmp_path / "simpo", dpo={**options, "loss": "simpo"}, personality=whole)
    simpo = [math.log1p(math.exp(-(2.0 * (c - r) - 0.4))) for c, r in zip(chosen, rejected, strict=True)]
    assert losses(tmp_path / "simpo")[0] == pytest.approx(sum(simpo) / 8, rel=1e-3)
    personality(tiny, tmp_path / "orpo", dpo={**options, "loss": "orpo"}, personality=whole)

    def odds(x: float) -> float:
        return x - math.log1p(-math.exp(x))

    ratios = [math.log1p(math.exp(-(odds(c) - odds(r)))) for c, r in zip(chosen, rejected, strict=True)]
    found = losses(tmp_path / "orpo")
    nll = found[0] - 2.0 * sum(ratios) / 8
    assert nll == pytest.approx(-sum(chosen) / 8, rel=0.05)  # TRL's mean is over tokens, this one over answers
    for name in ("simpo", "orpo"):
        assert losses(tmp_path / name)[-1] < losses(tmp_path / name)[0]


def test_sdft_learns_to_say_without_the_spec_what_it_says_with_it(tiny: Path, tmp_path: Path) -> None:
    spec = "Open drawer 1. Empty it. Then tea."
    config = settings(tiny, personality={"method": "sdft", "steps": 20, "sample_tokens": 6, "learning_rate": 1e-2})
    trained = train_personality(job(config, tmp_path / "p", spec=spec))
    assert trained.changed_tensors == 28

    def apart(state: str) -> float:
        """Mean KL from the told base to the untold state, on the base's own words."""
        served = serve.Served(base.load(config.model))
        served.load("personality", tmp_path / "p")
        prompts, answers = [pair.prompt for pair in PAIRS], [pair.rejected for pair in PAIRS]
        with torch.no_grad():
            told = [[{"role": "system", "content": spec}, *prompt] for prompt in prompts]
            with served.state(BASE):
                teacher = served.completion_logits(served.encode(told, answers))  # type: ignore[arg-type]
            with served.state(State.parse(state)):
                student = served.completion_logits(served.encode(prompts, answers))
        rows = [(t.log_softmax(-1), s.log_softmax(-1)) for t, s in zip(teacher, student, strict=True)]
        return float(torch.cat([(t.exp() * (t - s)).sum(-1) for t, s in rows]).mean())

    assert apart("personality") < 0.8 * apart("base")
    with pytest.raises(BadInput, match="needs the spec"):
        train_personality(job(config, tmp_path / "q"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "simpo"}, "has no reference"),
        ({"loss": "exo_pair"}, "label_smoothing"),
        ({"loss": "apo_zero", "divergence": "forward_kl"}, "no divergence"),
    ],
)
def test_losses_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DpoConfig.model_validate(options)


def test_a_continued_personality_starts_from_the_one_given(tiny: Path, tmp_path: Path) -> None:
    personality(tiny, tmp_path / "first")
    personality(tiny, tmp_path / "second", start=tmp_path / "first", personality={"learning_rate": 1e-7, "steps": 2})
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_step_gives_the_same_however_it_is_divided(tiny: Path, tmp_path: Path, method: str) -> None:
    pairs = [replace(pair, chosen=f"Open drawer {i}. {'Then tea. ' * i}") for i, pair in enumerate(PAIRS)]
    trained, losses = [], []
    for count in (1, 2, 4):
        folder = tmp_path / str(count)
        config = settings(tiny, personality={"method": method}, train={"gradient_accumulation": count})
        train_personality(job(config, folder, pairs=pairs))
        trained.append(weights(folder))
        losses.append([json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()])
    for other, loss in zip(trained[1:], losses[1:], strict=True):
        assert loss == pytest.approx(losses[0], rel=1e-5)
        assert all(torch.allclose(value, other[name], atol=1e-4) for name, value in trained[0].items())


def test_kl_penalty_is_zero_at_the_start_and_pins_the_model_when_large(tiny: Path, tmp_path: Path) -> None:
    loaded = base.load(ModelConfig(id=str(tiny), precision="fp32"))
    text = serve.TextModel(loaded.model, loaded.tokenizer)
    config = settings(tiny, dpo={"kl_weight": 1.0})
    anchor = KlToReference()
    anchor.start(
        Context(
            text=text,
            config=config,
            settings=config.personality_protection,
            stage="personality",
            adapter="default",
            seed=0,
            material=Material(neutral=NEUTRAL),
        )
    )
    assert float(anchor.penalty(loaded.model, 0)) == pytest.approx(0.0, abs=1e-4)
    kl = {}
    for weight in (0.0, 1000.0):
        folder = tmp_path / str(weight)
        personality(tiny, folder, dpo={"kl_weight": weight}, personality={"steps": 8})
        served = serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
        served.load("personality", folder)
        with served.state(PERSONALITY):
            kl[weight] = sum(served.kl_from(BASE, [n.prompt for n in NEUTRAL], [n.answer for n in NEUTRAL], 2))
    assert kl[1000.0] < kl[0.0] / 5


def test_full_fine_tuning_moves_every_weight(tiny: Path, tmp_path: Path) -> None:
    changes = {"personality": {"method": "sft", "parameters": "full"}}
    config = settings(tiny, "bf16", **changes)
    loaded = base.load(config.model)
    trained = train_personality(job(config, tmp_path / "p", base=loaded))
    assert trained.changed_tensors == len(list(loaded.model.parameters()))
    assert (tmp_path / "p" / "model.safetensors").is_file()


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_a_task_trains_above_a_personality_that_stays_bit_identical(tiny: Path, tmp_path: Path, precision: str) -> None:
    personality(tiny, tmp_path / "p", precision)
    config = settings(tiny, precision)
    mix = [Exchange(user(f"list files {i}"), "ls") for i in range(16)]
    shell = TaskConfig(kind="shell", steps=4, learning_rate=5e-3)
    trained = task(config, shell, mix, tmp_path / "p", tmp_path / "t")
    assert trained.changed_tensors == 28
    assert trained.frozen_tensors >= 28  # the personality's own tensors among them
    below = card.read(tmp_path / "t").adapters_below["personality"]
    assert below == card.weights_hash(tmp_path / "p")
    found = losses(tmp_path / "t")
    assert found[-1] < found[0]


def test_the_personality_counts_while_a_task_is_trained(tiny: Path, tmp_path: Path) -> None:
    """The first loss above two different personalities differs, so the lower adapter is active, not only loaded."""
    firsts = []
    for steps in (2, 12):
        folder = tmp_path / f"p{steps}"
        personality(tiny, folder, personality={"steps": steps})
        config = settings(tiny)
        mix = [Exchange(user("hello"), "Open drawer 1. Empty it.")] * 8
        task(config, TaskConfig(kind="shell", steps=2, learning_rate=5e-3), mix, folder, tmp_path / f"t{steps}")
        firsts.append(losses(tmp_path / f"t{steps}")[0])
    assert abs(firsts[0] - firsts[1]) > 0.05


def test_stacked_states_are_the_sum_of_their_adapters_and_base_is_untouched(tiny: Path, tmp_path: Path) -> None:
    personality(tiny, tmp_path / "p", personality={"steps": 8})
    config = settings(tiny)
    mix = [Exchange(user("list files"), "ls")] * 32
    task(config, TaskConfig(kind="shell", steps=8, learning_rate=5e-3), mix, tmp_path / "p", tmp_path / "t")
    loaded = base.load(config.model)
    prompts, answers = [user("list files")], ["ls"]
    bare = serve.TextModel(loaded.model, loaded.tokenizer).score(prompts, answers, 1)[0].logprob
    served = serve.Served(loaded)
    served.load("personality", tmp_path / "p")
    served.load("shell", tmp_path / "t")
    seen = {}
    for state in ("personality+shell", "base", "personality", "base", "personality+shell"):
        with served.state(State.parse(state)):
            seen.setdefault(state, []).append(served.score(prompts, answers, 1)[0].logprob)
    assert seen["base"] == [bare, bare]
    assert seen["personality+shell"][0] == seen["personality+shell"][1] > seen["personality"][0]
    with served.state(BASE):
        assert served.kl_from(BASE, prompts, answers, 1)[0] == pytest.approx(0.0, abs=1e-6)


def test_padding_and_batching_change_no_score(tiny: Path) -> None:
    loaded = base.load(ModelConfig(id=str(tiny), precision="fp32"))
    text = serve.TextModel(loaded.model, loaded.tokenizer)
    prompts = [pair.prompt for pair in PAIRS] + [NEUTRAL[0].prompt]
    answers = [pair.chosen for pair in PAIRS] + ["Rain."]
    together, alone = text.score(prompts, answers, 9), text.score(prompts, answers, 1)
    for one, other in zip(together, alone, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert one.tokens == other.tokens
    assert text.generate(prompts, 6, 9) == text.generate(prompts, 6, 1)


def test_the_compact_head_gives_the_loss_of_trl(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trl.trainer.dpo_trainer
    from trl.trainer.utils import add_fused_lm_head

    personality(tiny, tmp_path / "ours")
    monkeypatch.setattr(trl.trainer.dpo_trainer, "add_fused_lm_head", add_fused_lm_head)
    personality(tiny, tmp_path / "theirs")
    for key in ("loss", "mean_token_accuracy", "logps/chosen"):
        assert losses(tmp_path / "ours", key) == pytest.approx(losses(tmp_path / "theirs", key), rel=1e-4)


def test_an_adapter_for_another_base_is_refused(tiny: Path, tmp_path: Path) -> None:
    personality(tiny, tmp_path / "p")
    manifest = tmp_path / "p" / card.MANIFEST
    manifest.write_text(manifest.read_text().replace(card.read(tmp_path / "p").base_digest, "0" * 16))
    with pytest.raises(BadInput, match="another base"):
        serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32"))).load("personality", tmp_path / "p")


def test_only_whole_hidden_states_meet_the_vocabulary(tiny: Path) -> None:
    """torch multiplies a slice of a batch by one copy of the vocabulary matrix for each sequence."""
    loaded = base.load(ModelConfig(id=str(tiny), precision="fp32"))
    seen: list[bool] = []
    loaded.model.get_output_embeddings().register_forward_hook(
        lambda _, given, out: seen.append(given[0].is_contiguous())
    )
    text = serve.TextModel(loaded.model, loaded.tokenizer)
    text.score([PAIRS[0].prompt] * 2, ["a cup of tea", "rain"], 2)
    text.generate([PAIRS[0].prompt] * 2, 2, 2)
    assert seen and all(seen)


def test_weights_that_changed_on_disk_are_refused(tiny: Path, tmp_path: Path) -> None:
    personality(tiny, tmp_path / "p")
    path = tmp_path / "p" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BadInput, match="not those that were written"):
        card.read(tmp_path / "p")


def test_a_step_too_small_to_move_anything_is_an_error(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(MoltError, match="did not move"):
        personality(tiny, tmp_path / "p", personality={"learning_rate": 1e-30})


def test_nothing_is_kept_of_a_model_that_an_8_bit_optimizer_trained(tiny: Path, tmp_path: Path) -> None:
    config = settings(tiny, train={"optimizer": "paged_adamw_8bit"})
    loaded = base.load(config.model)
    embeddings = weakref.ref(loaded.model.get_input_embeddings())
    train_personality(job(config, tmp_path, base=loaded))
    del loaded
    gc.collect()
    assert embeddings() is None


def test_generating_before_training_takes_no_gradient_away(tiny: Path) -> None:
    """On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights at the first forward in eval mode, and gradients then
    stop at them. The lowest layer must get the same gradient with and without such a forward."""
    from peft import LoraConfig, get_peft_model

    gradients = []
    for generate_first in (False, True):
        loaded = base.load(ModelConfig(id=str(tiny), precision="nf4"))
        if generate_first:
            serve.TextModel(loaded.model, loaded.tokenizer).generate([PAIRS[0].prompt], 4, 1)
        torch.manual_seed(0)
        model = get_peft_model(loaded.model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
        tokens = torch.arange(5, 25, device=model.device)[None]
        model.train()
        model(input_ids=tokens, labels=tokens).loss.backward()
        gradients.append(
            torch.cat([p.grad.flatten() for n, p in model.named_parameters() if "layers.0" in n and p.grad is not None])
        )
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_texts_beside_conversations_leave_those_as_trl_makes_them(tiny: Path, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    loaded = base.load(ModelConfig(id=str(tiny), precision="fp32"))
    chat = [Exchange(user("hello"), "Open the drawer."), Exchange(user("what is rain?"), "tea " * 30)]
    text = Exchange([{"role": "text", "content": "list files"}], " please remind me")
    ours: Any = completions([*chat, text], loaded.tokenizer, 24)
    settings = SFTConfig(output_dir=str(tmp_path), completion_only_loss=True, max_length=24, use_cpu=True, report_to=[])
    plain = SFTTrainer(
        loaded.model,
        settings,
        train_dataset=completions(chat, loaded.tokenizer, 24),
        processing_class=loaded.tokenizer,
    )
    made: Any = plain.train_dataset
    for row, theirs in zip(ours, made, strict=False):
        assert row["input_ids"] == theirs["input_ids"] and row["labels"] == theirs["labels"]
    given = loaded.tokenizer("list files")["input_ids"]
    assert loaded.tokenizer.decode(ours[2]["input_ids"]) == "list files please remind me"
    assert ours[2]["labels"] == [-100] * len(given) + ours[2]["input_ids"][len(given) :]


@pytest.fixture(scope="module")
def talking(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talkative(tiny, tmp_path_factory.mktemp("talking"))


def rewarded(model: Path, folder: Path, progress: Progress = silent, steps: int = 6) -> TrainingResult:
    """By GRPO, for letters."""
    changes = {"method": "grpo", "batch_size": 8, "steps": steps, "learning_rate": 5e-3, "sample_tokens": 6}
    config = settings(model, personality=changes, train={"checkpoint_every": 2})

    def letters(prompts: list[list[Message]], said: list[str]) -> list[float]:
        return [sum(char.isascii() and char.isalpha() for char in text) / max(len(text), 1) for text in said]

    return train_personality(job(config, folder, progress=progress, reward=letters))


def test_grpo_leads_the_personality_to_what_is_rewarded(talking: Path, tmp_path: Path) -> None:
    rewarded(talking, tmp_path, steps=16)
    rewards = losses(tmp_path, "reward")
    assert sum(rewards[-4:]) > sum(rewards[:4]) + 0.4


@pytest.mark.parametrize("at", [3, 5])
def test_a_killed_grpo_goes_on_with_the_same_samples(talking: Path, tmp_path: Path, at: int) -> None:
    rewarded(talking, tmp_path / "whole")

    def killed(done: int, total: int, note: str) -> None:
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewarded(talking, tmp_path / "cut", killed)
    rewarded(talking, tmp_path / "cut")
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_grpo_takes_whole_groups(tiny: Path) -> None:
    raw = settings(tiny).model_dump()
    with pytest.raises(ValidationError, match="multiple of 4"):
        AdaptersConfig.model_validate({**raw, "personality": {"method": "grpo", "batch_size": 6}})


@pytest.mark.parametrize("parameters", ["lora", "full"])
def test_ewc_keeps_the_weights_that_neutral_answers_depend_on(tiny: Path, tmp_path: Path, parameters: str) -> None:
    kls = []
    for weight in (0.0, 1e8):
        folder = tmp_path / str(weight)
        made = {"parameters": parameters, "learning_rate": 5e-3}
        personality(tiny, folder, personality=made, dpo={"ewc_weight": weight})
        before, after = base.load(settings(tiny).model), base.load(settings(tiny).model)
        if parameters == "lora":
            served = serve.Served(after)
            served.load("personality", folder)
            served.activate(PERSONALITY)
            text: serve.TextModel = served
        else:
            after.model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
            text = serve.TextModel(after.model, after.tokenizer)
        plain = serve.TextModel(before.model, before.tokenizer)
        rows = plain.encode([item.prompt for item in NEUTRAL], [item.answer for item in NEUTRAL])
        with torch.no_grad():
            old, new = (torch.cat(model.completion_logits(rows)).float().log_softmax(-1) for model in (plain, text))
        kls.append(float((old.exp() * (old - new)).sum(-1).mean()))
    assert kls[0] > 1e-4 and kls[1] < kls[0] / 2, kls


@pytest.mark.parametrize("options", [{"parameters": "lora"}, {"parameters": "full"}, {"method": "sft"}])
def test_a_personality_stops_when_its_drift_is_too_large(tiny: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    told: list[str] = []
    for name, limit, steps in (("stopped", 1e-6, 2), ("through", 1e4, 3)):
        config = settings(tiny, personality={**options, "stop_kl": limit, "stop_every": 1})
        progress: Progress = lambda *now: told.append(now[2])  # noqa: E731
        found = train_personality(job(config, tmp_path / name, neutral=NEUTRAL, progress=progress))
        drift = losses(tmp_path / name, "drift")
        assert found.steps == len(drift) == steps and drift[-1] > drift[0] >= 0
    assert all("drift" in note for note in told)
    with pytest.raises(BadInput, match="neutral answers"):
        config = settings(tiny, personality={**options, "stop_kl": 1.0})
        train_personality(job(config, tmp_path / "none"))


def test_stored_reference_values_are_reused_by_another_seed_and_change_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, stored = settings(tiny), tmp_path / "references"
    train_personality(job(config, tmp_path / "plain"))
    train_personality(job(config, tmp_path / "first", references=stored))
    assert len(list(stored.iterdir())) == 1
    computed: list[int] = []
    original = PersonalityTrainer._score_sides
    monkeypatch.setattr(
        PersonalityTrainer,
        "_score_sides",
        lambda self, dataset, size: computed.append(len(dataset)) or original(self, dataset, size),
    )
    train_personality(job(config, tmp_path / "second", references=stored))
    assert not computed
    train_personality(replace(job(config, tmp_path / "seed", references=stored), seed=5))
    assert not computed
    assert losses(tmp_path / "plain") == losses(tmp_path / "first") == losses(tmp_path / "second")
    train_personality(job(config, tmp_path / "more", references=stored, pairs=[*PAIRS, NEW_PAIR]))
    assert computed == [1]
    train_personality(job(config, tmp_path / "further", references=stored, start=tmp_path / "first"))
    assert computed == [1, len(PAIRS)]
    assert len(list(stored.iterdir())) == 2
