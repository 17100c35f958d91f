"""Commands that measure what was trained, item by item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moltlm.data.state import State
from moltlm.pipeline.commands.common import (
    ConfigArg,
    Json,
    Overrides,
    Own,
    arguments,
    group,
    loaded,
    print_artifacts,
    running,
)
from moltlm.pipeline.console import Console

if TYPE_CHECKING:
    from moltlm.pipeline.run import Run

app = typer.Typer()
InState = Annotated[
    str, typer.Option(help="state to measure: base, personality or personality+TASK; all states by default")
]
eval_app = group(app, "eval", "Measure capability, persona, drift and more, item by item.")


@eval_app.command("capability")
def eval_capability(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", own: Own = False, json_output: Json = False
) -> None:
    """Measure general ability on benchmarks of lm-evaluation-harness."""
    measured("capability", config, overrides, state, own, json_output)


@eval_app.command("persona")
def eval_persona(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", own: Own = False, json_output: Json = False
) -> None:
    """Measure persona and coherence of the answers to held-out prompts."""
    measured("persona_of", config, overrides, state, own, json_output)


@eval_app.command("drift")
def eval_drift(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", own: Own = False, json_output: Json = False
) -> None:
    """Measure KL to the base and cross-entropy on neutral answers and on the tasks' test examples."""
    measured("drift", config, overrides, state, own, json_output)


@eval_app.command("pressure")
def eval_pressure(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", own: Own = False, json_output: Json = False
) -> None:
    """Measure the persona under attack, over long conversations, and in facts about itself."""
    measured("pressure", config, overrides, state, own, json_output)


@eval_app.command("profile")
def eval_profile(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", own: Own = False, json_output: Json = False
) -> None:
    """Measure which traits the model claims; Big Five, other traits and refusals from your own files."""
    measured("profile", config, overrides, state, own, json_output)


@eval_app.command("agent")
def eval_agent(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", own: Own = False, json_output: Json = False
) -> None:
    """Measure what programs need: tool calls and JSON that parse, and harmless requests that are answered
    (agent.items)."""
    measured("agent", config, overrides, state, own, json_output)


@eval_app.command("judge")
def eval_judge(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", own: Own = False, json_output: Json = False
) -> None:
    """Let a language model judge whose answers are more in character, over an OpenAI-compatible endpoint."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline import layout, preconditions

        preconditions.judge(current.config)
        states = _states(current, state, layout.candidates(current), own)
        from moltlm.pipeline.stages import measures

        artifacts = [measures.judge(current, each) for each in states]
        artifacts += [measures.judge_of_labels(current)] if current.config.judge.labels else []
        print_artifacts(console, artifacts, f"molt report {arguments(config, overrides)}")


@eval_app.command("noise")
def eval_noise(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Train the personality gate.noise_runs times with the same seed, and measure how much the results differ."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline import preconditions

        preconditions.noise(current.config)
        from moltlm.pipeline.stages import measures

        print_artifacts(console, [measures.noise(current)], f"molt report {arguments(config, overrides)}")


def _states(run: Run, named: str, states: list[State], own: bool) -> list[State]:
    """The state of the option, if it names one; else those of `states` that can be had above what is in use, which is
    said."""
    from moltlm.pipeline import layout
    from moltlm.pipeline.service import in_use

    chosen = [State.parse(named)] if named else states
    for state in chosen:
        layout.check_state(run, state)
    for line in in_use.take(run, own):
        run.console.say(line)
    for state in chosen:
        in_use.check(run, state)
    if named or run.tasks_stand_alone:
        return chosen
    return [state for state in chosen if all(str(adapter) in run.in_use for adapter in state.adapters)]


def measured(what: str, config: str, overrides: list[str] | None, state: str, own: bool, json_output: bool) -> None:
    """Run one of `stages.measures` in one state, or in all of them."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline import layout, preconditions

        if what in preconditions.OF_MEASURES:
            preconditions.OF_MEASURES[what](current.config)
        states = _states(current, state, layout.states(current), own)
        from moltlm.pipeline.stages import measures

        artifacts = [getattr(measures, what)(current, each) for each in states]
        print_artifacts(console, artifacts, f"molt report {arguments(config, overrides)}")
