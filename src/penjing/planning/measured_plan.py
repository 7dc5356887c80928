"""A plan that was drafted, lowered and measured beside the original: a candidate of a solver."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from penjing.graph import Option, Plan
from penjing.graph.places import Json
from penjing.planning.assignment import DAMAGE
from penjing.techniques import find


@dataclass(frozen=True)
class MeasuredPlan:
    """A plan with its measurements.

    Attributes:
        plan: the plan; empty for the original.
        params: number of parameters that stay.
        latency: latency over that of the original, measured in turns in one process, by the fastest hundredth of both;
            None where it wasn't measured.
        latency_ms: what the fastest hundredth of the calls takes, in milliseconds; None where it wasn't measured.
        size_bytes: size of the lowered file.
        meets: whether the expected latency and the size keep the budget, with a margin.
        correction: how many times the measured latency a model with such numbers took once it was finished; 1 where no
            finished model told otherwise.
        counted: the costs that are counted in the drafted graph, by the names of a budget's limits; see `Cost.by_limit`.
    """

    plan: Plan
    params: int
    latency: float | None
    latency_ms: float | None
    size_bytes: int
    meets: bool
    correction: float = 1.0
    counted: Mapping[str, float] = field(default_factory=dict)

    @property
    def expected(self) -> float | None:
        """The latency over that of the original that a finished model is expected to have; None where none was measured."""
        return None if self.latency is None else self.latency * self.correction

    @property
    def integer(self) -> bool:
        """Whether anything is computed in fewer bits than in the original."""
        return any(option.before != option.after for option in self.numbers)

    @property
    def original_ms(self) -> float | None:
        """Median latency of the original in the same turns, in milliseconds; None where nothing was measured."""
        return self.latency_ms / self.latency if self.latency and self.latency_ms is not None else None

    @property
    def costs(self) -> dict[str, float | None]:
        """All that a budget can limit, by the limits' names; the latency as expected. None where it isn't known."""
        ms = None if self.latency_ms is None else self.latency_ms * self.correction
        return {"latency": ms, "size": self.size_bytes, **self.counted}

    @property
    def structure(self) -> tuple[Option, ...]:
        """The options that are carried out before recovery."""
        return tuple(option for option in self.plan if find(option.technique).stage == "structure")

    @property
    def numbers(self) -> tuple[Option, ...]:
        """The options that are carried out with recovery or after it."""
        return tuple(option for option in self.plan if find(option.technique).stage == "numbers")

    @property
    def left_alone(self) -> tuple[str, ...]:
        """Paths of the places that a technique of the stage "numbers" leaves as they are, in the plan's order."""
        return tuple(option.place.path for option in self.numbers if option.before == option.after)

    @property
    def damage(self) -> float | None:
        """The expected increase of the loss by all options together; None where the damage of one isn't known."""
        each = [option.found.get(DAMAGE) for option in self.structure]
        known = [float(one) for one in each if isinstance(one, int | float)]
        return math.fsum(known) if len(known) == len(each) else None

    def __str__(self) -> str:
        formats = dict.fromkeys(str(o.after) for o in self.numbers if o.before != o.after)
        kind = " and ".join(formats) or "float"
        kind += f" with {len(self.left_alone)} layers in float" if self.left_alone else ""
        steps = dict.fromkeys(option.setting.get("round_to") for option in self.structure)
        multiples = [str(step) for step in steps if step is not None]
        how = f"channels in multiples of {' and '.join(multiples)}" if multiples else self._techniques()
        return f"{self.params:,} parameters, {how}, {kind}" if self.structure else f"nothing removed, {kind}"

    def _techniques(self) -> str:
        return ", ".join(dict.fromkeys(option.technique for option in self.structure))

    def as_row(self) -> dict[str, Json]:
        """Returns the candidate's row in a report: its measurements and the gist of its plan."""
        shared = self.structure[0].setting if self.structure else {}
        return {
            "amount": shared.get("amount", 0.0),
            "round_to": shared.get("round_to"),
            "techniques": list(dict.fromkeys(option.technique for option in self.plan)),
            "params": self.params,
            "integer": self.integer,
            "in_float": list(self.left_alone),
            "latency": self.latency,
            "latency_ms": self.latency_ms,
            "correction": self.correction,
            "size_bytes": self.size_bytes,
            "meets": self.meets,
            "damage": self.damage,
            **self.counted,
        }

    def to_json(self) -> dict[str, Json]:
        """Returns the candidate as plain JSON, which `records.convert` reads back."""
        return vars(self) | {"plan": self.plan.record()}
