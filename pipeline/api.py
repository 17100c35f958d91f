"""The same stages from Python: load a persona, build pairs, train, gate, chat."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from moltlm.data.state import PERSONALITY, Adapter, State
from moltlm.data.types import Exchange, Message, Pair
from moltlm.pipeline.config import Config, load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Artifact, Run

if TYPE_CHECKING:
    from moltlm.data.persona import Persona
    from moltlm.evals.gate import GateVerdict


class Project:
    """A run folder and its configuration, open until it is closed. Each method runs the stages that it needs and reuses
    what is there for the same settings, as the command line does.

    ```python
    import moltlm

    with moltlm.Project("molt.yaml", "personality.steps=40") as project:
        print(project.persona.spec.name, len(project.pairs()))
        project.train_personality()
        project.train_task("reminders")
        for name, verdict in project.gate().items():
            print(name, verdict.promoted)
        print(project.answer("my sourdough came out flat"))
    ```

    Args:
        config: A YAML file, the name of a shipped configuration, or a `Config`.
        overrides: Settings as `KEY=VALUE`, for a file or a name.

    Raises:
        BadInput: The configuration is not valid.
    """

    def __init__(self, config: str | Path | Config, *overrides: str) -> None:
        self.config = config if isinstance(config, Config) else load(str(config), list(overrides))
        self.run = Run(self.config, Console())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the model and the run folder."""
        self.run.close()

    @property
    def persona(self) -> Persona:
        """The spec, and what is written in its voice."""
        from moltlm.pipeline.stages.pairs import load_persona

        return load_persona(self.run)

    def pairs(self, split: str = "train") -> list[Pair]:
        """The preference pairs to learn from, or the `heldout` ones, built if they are not there."""
        from moltlm.pipeline.stages import pairs

        return pairs.load_pairs(pairs.pairs(self.run), split)

    def introspection(self) -> list[Exchange]:
        """What the personality wrote about itself and passed the filters, sampled if it is not there.

        Raises:
            BadInput: Introspection is off, or too little of it passes.
        """
        from moltlm.pipeline.stages import introspection

        return introspection.load_texts(introspection.introspection(self.run))

    def train_personality(self) -> Artifact:
        """Train the personality adapter. Its folder holds the weights, its facts what the training took."""
        from moltlm.pipeline.stages.personality import personality

        return personality(self.run)

    def train_task(self, name: str, control: bool = False) -> Artifact:
        """Train a task's adapter above the personality; its control is trained without replay."""
        from moltlm.pipeline.stages.tasks import trained

        return trained(self.run, Adapter(name, control))

    def gate(self) -> dict[str, GateVerdict]:
        """Measure and judge the personality and every task, and put into use what passes. By adapter."""
        from moltlm.pipeline.service import gate

        return gate.judge_all(self.run)

    def answer(self, message: str | list[Message], state: State | str = PERSONALITY, max_new_tokens: int = 128) -> str:
        """The greedy answer of a state, such as `personality+reminders`, to a message or a whole conversation."""
        from moltlm.pipeline.stages.serving import serve

        state = State.parse(state) if isinstance(state, str) else state
        prompt: list[Message] = [{"role": "user", "content": message}] if isinstance(message, str) else message
        model = serve(self.run, state)
        with model.state(state):
            return model.generate([prompt], max_new_tokens, 1)[0]

    def report(self) -> Path:
        """Write the report of what has been measured so far, and say where it is."""
        from moltlm.pipeline.reporting import writing

        return writing.write_report(self.run).report
