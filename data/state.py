"""What a model is served as: the base alone, or with adapters active above it."""

from __future__ import annotations

from dataclasses import dataclass

from moltlm.data.errors import BadInput

CONTROL = "-control"
"""Ends the name of a control. No task can be called so, since the names of tasks are identifiers."""


@dataclass(frozen=True, order=True)
class Adapter:
    """An adapter of a run: the personality's, a task's, or that task's control, trained without replay."""

    name: str
    control: bool = False

    def __str__(self) -> str:
        """The name under which it is loaded and stored."""
        return self.name + CONTROL if self.control else self.name

    @classmethod
    def parse(cls, text: str) -> Adapter:
        """The adapter of this name, as `str` writes it."""
        return cls(text.removesuffix(CONTROL), text.endswith(CONTROL))


PERSONALITY_ADAPTER = Adapter("personality")


@dataclass(frozen=True)
class State:
    """The adapters that are active, lowest first; none of them is the base.

    With `routes`, a router sends each request (or each token) to one of these adapters above the active ones, or to
    none of them.
    """

    adapters: tuple[Adapter, ...] = ()
    routes: tuple[Adapter, ...] = ()

    @property
    def top(self) -> Adapter:
        """The adapter that was added last. Raises ValueError for the base and for a routed state."""
        if self.routes or not self.adapters:
            raise ValueError(f"{self} has no single adapter on top")
        return self.adapters[-1]

    @property
    def is_control(self) -> bool:
        return any(adapter.control for adapter in self.adapters)

    @property
    def members(self) -> tuple[Adapter, ...]:
        """All adapters that may be active, lowest first."""
        return self.adapters + self.routes

    @property
    def gated(self) -> tuple[Adapter, ...]:
        """The adapters to activate where gates choose at each token: all routes are the experts of one adapter."""
        return self.adapters + ((Adapter(f"{'|'.join(map(str, self.routes))}|"),) if self.routes else ())

    def above(self, *adapters: Adapter) -> State:
        """This state with these adapters on top."""
        return State(self.adapters + adapters, self.routes)

    def routed_to(self, adapter: Adapter | None) -> State:
        """The state that answers a request which the router sends to this adapter, or to none."""
        return State(self.adapters + ((adapter,) if adapter else ()))

    def __str__(self) -> str:
        """`base`, `personality`, `personality+a`, or `personality+a|b|`: how records and the command line write it."""
        stacked = "+".join(map(str, self.adapters)) or "base"
        return f"{stacked}+{'|'.join(map(str, self.routes))}|" if self.routes else stacked

    @classmethod
    def parse(cls, text: str) -> State:
        """The state that `str` writes so. Raises BadInput for anything else."""
        stacked, routed = text, ""
        if text.endswith("|"):
            stacked, _, routed = text[:-1].rpartition("+")
        names = [] if stacked == "base" else stacked.split("+")
        routes = routed.split("|") if routed else []
        state = cls(tuple(map(Adapter.parse, names)), tuple(map(Adapter.parse, routes)))
        if str(state) != text or not all(adapter.name.isidentifier() for adapter in state.members):
            raise BadInput(f"There is no state {text!r}.", "Write base, personality, or personality+TASK")
        return state


BASE = State()
PERSONALITY = State((PERSONALITY_ADAPTER,))


def of(*names: str) -> State:
    """The state of adapters with these names, lowest first."""
    return State(tuple(map(Adapter.parse, names)))
