"""What a recipe wants brought home, also after a failure: files, directories, globs and patches."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from kaos_runner.errors import KaosRunnerError
from kaos_runner.recipe.model import PatchArtifact
from kaos_runner.workspace.fetch import fetch
from kaos_runner.workspace.intake import Declined, Incoming, Intake, Stored
from kaos_runner.workspace.listing import Wanted, list_files
from kaos_runner.workspace.names import below, joined, shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kaos import Kaos

    from kaos_runner.recipe.model import Artifact, PathArtifact
    from kaos_runner.workspace.baseline import Baseline
    from kaos_runner.workspace.incoming import Member
    from kaos_runner.workspace.intake import NewScan
    from kaos_runner.workspace.listing import Found

MAX_BYTES = 2**30
MAX_FILES = 10_000


@dataclass(frozen=True, slots=True)
class ArtifactOutcome:
    """What became of one artifact. Names and details are safe for terminals and for JSON."""

    name: str
    """Relative to the folder of artifacts."""
    kind: Literal["path", "patch"]
    ok: bool
    """It came home, whole."""
    required: bool
    """Whether the run fails when it is not ok: it is not optional, or holds a secret."""
    size: int | None = None
    """Bytes of all its files."""
    sha256: str | None = None
    """Of its file, where it is a single one."""
    detail: str = ""
    """The stat of a patch, the number of files, the reason of a failure."""
    path: Path | None = None
    """Its place on the host: the file, or the folder of several."""
    files: tuple[Stored, ...] = ()


async def collect(
    kaos: Kaos,
    artifacts: Sequence[Artifact],
    *,
    workdir: str,
    baseline: Baseline | None,
    into: Path,
    scan: NewScan = lambda: lambda _chunk: False,
    max_bytes: int = MAX_BYTES,
    max_files: int = MAX_FILES,
) -> list[ArtifactOutcome]:
    """Bring the artifacts into the folder `into`; an outcome for each, in their order.

    Two operations for all paths together, and what `Baseline.patch` takes for each patch. `scan`
    makes a search for the run's secrets over the chunks of one file. Expected failures are told
    in the outcomes, a sandbox that went away included; none is raised.
    """
    intake = Intake(into, scan, max_bytes=max_bytes, max_files=max_files)
    paths = [_Delivery(a) for a in artifacts if not isinstance(a, PatchArtifact)]
    patches = [
        await _patch(artifact, baseline, intake)
        for artifact in artifacts
        if isinstance(artifact, PatchArtifact)
    ]
    if paths:
        await _deliver(kaos, workdir, paths, intake)
    outcomes = {True: iter(patches), False: (p.outcome(into) for p in paths)}
    return [next(outcomes[isinstance(a, PatchArtifact)]) for a in artifacts]


async def _patch(
    artifact: PatchArtifact, baseline: Baseline | None, intake: Intake
) -> ArtifactOutcome:
    name = shown(artifact.to)
    required = not artifact.optional
    failed = ArtifactOutcome(name, "patch", ok=False, required=required)
    if baseline is None:
        return _with(failed, "there is no baseline to compare with")
    try:
        place = below(artifact.to, "`to`")
        incoming = await asyncio.to_thread(intake.incoming, prefixed=True)
    except KaosRunnerError as error:
        return _with(failed, _reason(error))
    try:
        stat = await baseline.patch(
            artifact.patch, lambda chunk: asyncio.to_thread(incoming.feed, chunk)
        )
        if not stat.files:
            return _with(failed, "nothing changed")
        stored = await asyncio.to_thread(incoming.store, place)
    except KaosRunnerError as error:
        return _with(failed, _reason(error))
    finally:
        incoming.discard()
    if isinstance(stored, Declined):
        required = required or stored.secret
        return ArtifactOutcome(name, "patch", ok=False, required=required, detail=stored.reason)
    return ArtifactOutcome(
        name, "patch", ok=True, required=required, size=stored.size, sha256=stored.sha256,
        detail=str(stat), path=stored.path, files=(stored,),
    )  # fmt: skip


async def _deliver(
    kaos: Kaos, workdir: str, deliveries: Sequence[_Delivery], intake: Intake
) -> None:
    """List what is wanted, then fetch it; what goes wrong is noted in the deliveries."""
    sound = [d for d in deliveries if d.wanted]
    try:
        found = await list_files(
            kaos, workdir, [d.wanted for d in sound if d.wanted], max_files=intake.max_files
        )
        for delivery, listed in zip(sound, found, strict=True):
            delivery.expect(listed)
        names = sorted({name for delivery in sound for name in delivery.places})
        if names:
            await _fetch(kaos, workdir, names, sound, intake)
    except KaosRunnerError as error:
        for delivery in sound:
            delivery.interrupted(_reason(error))


async def _fetch(
    kaos: Kaos,
    workdir: str,
    names: Sequence[str],
    deliveries: Sequence[_Delivery],
    intake: Intake,
) -> None:
    unloading = _Unloading(deliveries, intake)
    try:
        ended = await fetch(kaos, workdir, names, unloading)
    finally:
        unloading.close()
    if ended.exit_code:
        for delivery in deliveries:
            delivery.complained(shown(ended.complaint))


class _Delivery:
    """One `path` artifact on its way: which files, and where each goes."""

    def __init__(self, artifact: PathArtifact) -> None:
        self._artifact = artifact
        self._required = not artifact.optional
        self.wanted: Wanted | None = None
        self._to: str | None = None
        self.places: dict[str, str] = {}
        """The name at home of each file that is expected."""
        self._stored: dict[str, Stored] = {}
        self._faults: list[str] = []
        self._missing = ""
        self._complaint = ""
        try:
            self.wanted = Wanted.of(artifact.path)
            self._to = below(artifact.to, "`to`") if artifact.to is not None else None
        except KaosRunnerError as error:
            self.wanted = None
            self._faults.append(_reason(error))

    def expect(self, found: Found) -> None:
        """Take over what was listed."""
        assert self.wanted is not None
        if found.outside is not None:
            self._faults.append(f"it is outside the workdir, at {shown(found.outside)}")
        self._faults += [f"{shown(name)}: {why}" for name, why in found.refused.items()]
        if found.incomplete:
            self._faults.append("some of it could not be listed, or there are too many files")
        self.places = {name: self._place(name, found) for name in found.files}
        if not found.files and not self._faults:
            if self.wanted.glob is not None:
                self._missing = "nothing matches"
            else:
                self._missing = "it holds no files" if found.directory else "it is not there"

    def arrived(self, name: str, result: Stored | Declined) -> None:
        """One file has come, or was refused at the door."""
        if isinstance(result, Stored):
            self._stored[name] = result
            return
        self._required |= result.secret
        self._faults.append(f"{shown(name)}: {result.reason}")
        del self.places[name]

    def complained(self, complaint: str) -> None:
        """The sandbox said something while it sent."""
        self._complaint = complaint
        if "shrank" in complaint:
            self._faults.append(complaint)

    def interrupted(self, reason: str) -> None:
        """Nothing more comes."""
        if not self.complete:
            self._faults.append(reason)

    @property
    def complete(self) -> bool:
        """Whether everything that is expected has come."""
        return self.places.keys() == self._stored.keys() and bool(self.places or self._missing)

    def outcome(self, into: Path) -> ArtifactOutcome:
        """What became of it."""
        files = tuple(self._stored[name] for name in sorted(self._stored))
        name = self._to or (self.wanted.path if self.wanted else self._artifact.path)
        single = files[0] if len(files) == 1 and not self._faults else None
        folder = single is None and self.wanted is not None and self.wanted.glob is None
        return ArtifactOutcome(
            name=single.name if single else shown(name),
            kind="path",
            ok=bool(files) and self.complete and not self._faults,
            required=self._required,
            size=sum(f.size for f in files) if files else None,
            sha256=single.sha256 if single else None,
            detail=self._detail(len(files)),
            path=single.path if single else into / name if files and folder else None,
            files=files,
        )

    def _detail(self, count: int) -> str:
        parts = list(self._faults)
        if self._missing:
            parts.append(self._missing)
        late = len(self.places) - count
        if late and not self._faults:
            parts.append(f"{late} of {len(self.places)} files did not come")
        if self._complaint and (late or "file changed" in self._complaint):
            parts.append(self._complaint)
        if not parts and count > 1:
            parts.append(f"{count} files")
        shortened = parts[:10] + ([f"and {len(parts) - 10} more"] if len(parts) > 10 else [])
        return "; ".join(shortened)

    def _place(self, name: str, found: Found) -> str:
        """The name at home of a listed file."""
        assert self.wanted is not None
        if self._to is None:
            return name
        if self.wanted.glob is None and not found.directory:
            slash = (self._artifact.to or "").endswith("/") or self._to == "."
            return joined(self._to, name.rpartition("/")[2]) if slash else self._to
        place = self.wanted.place
        return joined(self._to, name if place == "." else name.removeprefix(f"{place}/"))


@dataclass(slots=True)
class _Unloading:
    """Puts each file that arrives where it is wanted; what nobody asked for is dropped."""

    deliveries: Sequence[_Delivery]
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


def _reason(error: KaosRunnerError) -> str:
    return shown(error.message)


def _with(outcome: ArtifactOutcome, detail: str) -> ArtifactOutcome:
    return replace(outcome, detail=detail)
