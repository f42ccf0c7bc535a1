"""What becomes of each artifact: which files it is, where each goes, and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kaos_runner.errors import KaosRunnerError
from kaos_runner.workspace.intake import Declined, Stored
from kaos_runner.workspace.listing import Wanted
from kaos_runner.workspace.names import below, joined, shown

if TYPE_CHECKING:
    from pathlib import Path

    from kaos_runner.recipe.model import PathArtifact
    from kaos_runner.workspace.listing import Found


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


class Delivery:
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
            self._faults.append(shown(error.message))

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
