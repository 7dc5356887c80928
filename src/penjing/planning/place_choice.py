"""What was taken at a place and what came nearest to being taken, as data for journals and reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from penjing.graph import Option, Place
from penjing.graph.places import Json


@dataclass(frozen=True)
class PricedOption:
    """One of the options at a place, with what the network would cost there.

    Attributes:
        option: the option; None where the place is left as it is, or goes with a branch.
        goes_with: path of the branch with which the place goes; "" where it doesn't.
        latency: the predicted latency over that of the original, of the kernels that tell the place's two options apart; None
            where no latency was asked for, so that none was measured.
        size_bytes: bytes of these kernels' weights and biases.
        damage: the expected increase of the loss.
        used: the share that these kernels take of each limit that is counted in a graph, such as "macs", by its name.
    """

    option: Option | None
    goes_with: str
    latency: float | None
    size_bytes: float
    damage: float
    used: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Returns it as plain JSON."""
        option = None if self.option is None else self.option.to_json()
        return vars(self) | {"option": option, "used": dict(self.used)}

    def as_row(self) -> dict[str, Json]:
        """Returns its part of a row in a report."""
        option = self.option
        return {
            "technique": None if option is None else option.technique,
            "setting": None if option is None else dict(option.setting),
            "before": None if option is None else option.before,
            "after": None if option is None else option.after,
            "goes_with": self.goes_with,
            "latency": self.latency,
            "size_bytes": self.size_bytes,
            "damage": self.damage,
            "used": dict(self.used),
        }


@dataclass(frozen=True)
class PlaceChoice:
    """What was taken at a place, and the option that came nearest to being taken.

    Attributes:
        place: the place.
        taken: what was taken.
        rival: its rival; None where nothing else could be taken. See `penjing.planning.rivals`.
    """

    place: Place
    taken: PricedOption
    rival: PricedOption | None

    def to_json(self) -> dict[str, Json]:
        """Returns it as plain JSON, which `records.convert` reads back."""
        return {
            "place": vars(self.place),
            "taken": self.taken.to_json(),
            "rival": None if self.rival is None else self.rival.to_json(),
        }

    def as_row(self) -> dict[str, Json]:
        """Returns the place's row in a report."""
        return {
            "place": self.place.path,
            "kind": self.place.kind,
            "taken": self.taken.as_row(),
            "rival": None if self.rival is None else self.rival.as_row(),
        }
