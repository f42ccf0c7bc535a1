"""Files as they arrive from a sandbox, each put where it is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kaos_runner.workspace.intake import Declined, Incoming, Intake, Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kaos_runner.workspace.delivery import Delivery
    from kaos_runner.workspace.incoming import Member


@dataclass(slots=True)
class Unloading:
    """Puts each file that arrives where it is wanted; what nobody asked for is dropped."""

    deliveries: Sequence[Delivery]
    intake: Intake
    _member: Member | None = None
    _incoming: Incoming | None = None
    _first: dict[str, Stored | Declined] = field(default_factory=dict)
    """What became of each name, for the hard links that come later."""

    def begin(self, member: Member) -> None:
        self._member, self._incoming = member, None
        asked = any(member.name in d.places for d in self.deliveries)
        if member.kind != "other" and asked and member.name not in self._first:
            self._incoming = self.intake.incoming()
            if member.kind == "hard link":
                self._copy(member, self._first.get(member.target))

    def feed(self, chunk: bytes) -> None:
        if self._incoming:
            self._incoming.feed(chunk)

    def end(self) -> None:
        member, incoming = self._member, self._incoming
        self._member = self._incoming = None
        if member is None or incoming is None:
            return
        try:
            self._store(member, incoming)
        finally:
            incoming.discard()

    def close(self) -> None:
        """Remove what did not come to its end."""
        if self._incoming:
            self._incoming.discard()

    def _copy(self, member: Member, source: Stored | Declined | None) -> None:
        assert self._incoming is not None
        if not isinstance(source, Stored):
            self._incoming.discard()
            self._incoming = None
            if source is not None:
                self._tell(member.name, source)
            return
        with source.path.open("rb") as file:
            while chunk := file.read(2**20):
                self._incoming.feed(chunk)

    def _store(self, member: Member, incoming: Incoming) -> None:
        """Store it once for each place that is wanted."""
        wanting = [d for d in self.deliveries if member.name in d.places]
        executable = bool(member.mode & 0o100)
        first = wanting[0].places[member.name]
        results = {first: incoming.store(first, executable=executable)}
        self._first[member.name] = results[first]
        for delivery in wanting:
            place = delivery.places[member.name]
            if place not in results:
                results[place] = self._again(place, results[first])
            delivery.arrived(member.name, results[place])

    def _again(self, place: str, first: Stored | Declined) -> Stored | Declined:
        if isinstance(first, Declined):
            return first
        copy = self.intake.incoming()
        try:
            with first.path.open("rb") as file:
                while chunk := file.read(2**20):
                    copy.feed(chunk)
            return copy.store(place, executable=bool(first.path.stat().st_mode & 0o100))
        finally:
            copy.discard()

    def _tell(self, name: str, result: Declined) -> None:
        for delivery in self.deliveries:
            if name in delivery.places:
                delivery.arrived(name, result)
