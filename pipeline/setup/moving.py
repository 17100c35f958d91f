"""What `molt move` would carry, and how long it takes here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from moltlm.data.carried import LEARNED
from moltlm.pipeline import layout
from moltlm.pipeline.service.moving import carry
from moltlm.pipeline.service.moving import tasks as moved_tasks
from moltlm.pipeline.service.moving.carry import Source
from moltlm.pipeline.service.moving.move import Move, opened
from moltlm.pipeline.setup import estimate, forecast
from moltlm.pipeline.setup.parts import parts
from moltlm.pipeline.setup.work import Work
from moltlm.pipeline.stages import pairs


@dataclass(frozen=True)
class Forecast:
    """What a move would carry and cost.

    Attributes:
        prompts: numbers of prompts that the personality answers itself, by where they come from.
        memory_gib: at the peak of the training on the new base.
        seconds: by part.
    """

    base: str
    personality: str
    prompts: dict[str, int]
    heldout: int
    distils: bool
    tasks: list[str]
    left_behind: dict[str, str]
    memory_gib: float
    seconds: dict[str, float]

    def lines(self) -> list[str]:
        """For a reader."""
        listed = ", ".join(f"{count} {name}" for name, count in self.prompts.items())
        teacher = "answers, and its distributions over them" if self.distils else "answers; the vocabularies differ"
        lines = [
            f"{self.personality} would be moved to {self.base}",
            f"  it answers the prompts that it was trained on: {listed}",
            f"  the new one learns from these {teacher}",
            f"  both are measured on {self.heldout} held-out prompts, none of which is learned",
            f"  memory of the training: about {self.memory_gib:.1f} GiB",
            *(f"  {name}: about {forecast.minutes(each)}" for name, each in self.seconds.items()),
        ]
        lines += [f"  trained again: {', '.join(self.tasks)}"] if self.tasks else []
        return [*lines, *(f"  left behind: {slot}: {why}" for slot, why in self.left_behind.items())]


def look_ahead(job: Move) -> Forecast:
    """What the move would carry and how long it takes; both bases are loaded, and nothing is trained."""
    old = job.old
    old.only_read = True
    source = carry.source(old, job.bundle)
    with opened(job.target, old.console) as new:
        left, distils = moved_tasks.left_behind(new, job.bundle), carry.shares_vocabulary(old, new)
        seconds = {"own answers on the former base": _answering(job, len(source.prompts))}
        old.release()
        speed = forecast.measure(new)
        growth = 2 * len(source.prompts) / max(1, len(pairs.load_persona(new).train))
        names = {"pairs": growth, "personality": 1.0, "evidence": 2 / len(layout.states(new))}
        every = [part for part in parts(new, forecast.counter(new)) if part.name in names]
        seconds |= {part.name: names[part.name] * speed.seconds(part.work) for part in every}
        memory = estimate.training_memory(new.config).total
    tasks = [slot for slot in job.bundle.adapters if slot != "personality" and slot not in left]
    return Forecast(
        job.target.model.id,
        job.former,
        _by_source(source),
        len(source.heldout),
        distils,
        tasks,
        left,
        memory,
        seconds,
    )


def _answering(job: Move, prompts: int) -> float:
    """Seconds for the personality's own answers and their scores."""
    config, speed, counter = job.old.config, forecast.measure(job.old), forecast.counter(job.old)
    answers, length = prompts * config.move.samples, config.persona_eval.max_new_tokens
    writing = counter.write([[0] * length] * answers, [length] * answers, length, 1)
    scores = Work(read=counter.forward(4 * answers * length, 2 * answers * length, 1), loads=1)
    return speed.seconds(writing + scores)


def _by_source(source: Source) -> dict[str, int]:
    """Numbers of the prompts that are answered: the written ones, and those of conversations and retrainings."""
    learned = {item.question for item in source.exchanges}
    return dict(Counter(LEARNED if item.question in learned else "written" for item in source.prompts))
