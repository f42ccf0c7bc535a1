"""A sandbox that lies: its tools are the agent's, and what they send is anything."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import shlex
import tarfile
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from kaos_runner.errors import SandboxError
from kaos_runner.recipe.model import PathArtifact
from kaos_runner.workspace import Baseline, collect
from kaos_runner.workspace.fetch import fetch
from kaos_runner.workspace.incoming import Member, PlainReader, TarReader

if TYPE_CHECKING:
    from pathlib import Path

    from kaos_runner.workspace import ArtifactOutcome
    from kaos_runner.workspace.incoming import Reader
    from tests.unit.workspace.boxes import Box


class Taken:
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.members: list[tuple[Member, bytes]] = []
        self._member: Member | None = None
        self._content = b""

    def begin(self, member: Member) -> None:
        assert self._member is None
        self._member, self._content = member, b""

    def feed(self, chunk: bytes) -> None:
        self._content += chunk

    def end(self) -> None:
        assert self._member is not None
        self.members.append((self._member, self._content))
        self._member = None


def tar(*members: tuple[str, bytes, dict[str, object]], format_: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        for name, content, more in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in more.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def lying(box: Box, tool: str, answer: bytes, code: int = 0) -> None:
    """Make a tool of the sandbox answer with some bytes."""
    (box.top / "answer").write_bytes(answer)
    folder = box.top / "lies"
    folder.mkdir(exist_ok=True)
    (folder / tool).write_text(
        f"#!/bin/sh\ncat >/dev/null\ncat {shlex.quote(str(box.top / 'answer'))}\nexit {code}\n"
    )
    (folder / tool).chmod(0o755)
    box.kaos.env["PATH"] = f"{folder}:{box.kaos.env['PATH']}"


def brought(box: Box, home: Path, *names: str, max_bytes: int = 2**24) -> list[ArtifactOutcome]:
    return asyncio.run(
        collect(
            box.kaos,
            [PathArtifact(path=name) for name in names],
            workdir=str(box.workdir),
            baseline=None,
            into=home,
            max_bytes=max_bytes,
        )
    )


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("**/*") if p.is_file()}


EVIL: list[tuple[str, bytes, dict[str, object]]] = [
    ("../escaped", b"x", {}),
    ("/tmp/escaped", b"x", {}),
    ("d/../../escaped", b"x", {}),
    ("link", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc"}),
    ("link/passwd", b"x", {}),
    ("hard", b"", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
    ("device", b"", {"type": tarfile.CHRTYPE}),
    ("pipe", b"", {"type": tarfile.FIFOTYPE}),
    ("not asked for", b"x", {}),
]


def test_only_what_was_asked_for_is_written(full: Box, tmp_path: Path) -> None:
    full.write("a", "a")
    full.write("hard", "hard")
    lying(full, "tar", tar(*EVIL, ("a", b"other", {"mode": 0o4777}), ("a", b"twice", {})))
    home = tmp_path / "deep" / "home"
    first, second = brought(full, home, "a", "hard")
    assert first.ok
    assert not second.ok
    assert everything(tmp_path / "deep") == {"home/a": b"other"}
    assert (home / "a").stat().st_mode & 0o7777 == 0o755
    assert not (tmp_path / "escaped").exists()


def test_a_symlink_for_an_asked_file_is_no_file(full: Box, tmp_path: Path) -> None:
    full.write("a", "a")
    lying(full, "tar", tar(("a", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})))
    (outcome,) = brought(full, tmp_path / "home", "a")
    assert not outcome.ok
    assert list((tmp_path / "home").glob("**/*")) == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"x" * 10,
        b"x" * 512,
        tar(("a", b"content" * 1000, {}))[:2000],
        tar(("a", b"content", {}))[:512],
        b"\xff" * 1024,
    ],
)
def test_a_stream_that_makes_no_sense(full: Box, tmp_path: Path, answer: bytes) -> None:
    full.write("a", "a")
    lying(full, "tar", answer)
    (outcome,) = brought(full, tmp_path / "home", "a")
    assert not outcome.ok
    assert outcome.detail
    assert everything(tmp_path / "home") == {}


def test_a_size_that_lies_is_cut_at_the_cap(full: Box, tmp_path: Path) -> None:
    full.write("a", "a")
    header = tar(("a", b"", {}))[:512]
    info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    info.size = 2**60
    lying(full, "tar", info.tobuf(tarfile.GNU_FORMAT) + bytes(2**21))
    (outcome,) = brought(full, tmp_path / "home", "a", max_bytes=2**20)
    assert not outcome.ok
    assert "exceed their cap" in outcome.detail
    assert everything(tmp_path / "home") == {}


@pytest.mark.parametrize("answer", [b"f\0" * 500, b"f\0../../etc/passwd\0", b"\0" * 99, b"l\0a\0"])
def test_a_listing_that_lies(full: Box, tmp_path: Path, answer: bytes) -> None:
    (full.workdir / "d").mkdir()
    full.write("a", "a")
    lying(full, "find", answer)
    outcomes = brought(full, tmp_path / "home", "d", "a")
    assert not outcomes[0].ok
    assert set(everything(tmp_path / "home")) <= {"a"}


@pytest.mark.parametrize("answer", [b"\0" * 3, b"f\0" + b"9" * 5000 + b"\0"])
def test_a_manifest_that_lies(slim: Box, answer: bytes) -> None:
    lying(slim, "find", answer)
    with pytest.raises(SandboxError):
        asyncio.run(Baseline.take(slim.kaos, str(slim.workdir)))


def test_a_manifest_that_names_files_of_the_host(slim: Box, tmp_path: Path) -> None:
    ignores = b"i\0./../../../rules/.gitignore\0Kgo=\n\0" + b"i\0/x/.gitignore\0Kgo=\n\0"
    ignores += b"i\0./.git/config\0Kgo=\n\0" + b"l\0./../up\0target\n\0" + b"l\0./.GIT/x\0y\n\0"
    lying(slim, "find", ignores)
    before = set(tmp_path.rglob("*"))

    async def main() -> bytes:
        baseline = await Baseline.take(slim.kaos, str(slim.workdir))
        lying(slim, "find", ignores.replace(b"target", b"other"))
        pieces: list[bytes] = []

        async def take(chunk: bytes) -> None:
            pieces.append(chunk)

        await baseline.patch(".", take)
        await baseline.remove()
        return b"".join(pieces)

    assert asyncio.run(main()) == b""
    new = {p for p in set(tmp_path.rglob("*")) - before if "lies" not in p.parts}
    assert new == set()


def test_endless_answers_end(full: Box, tmp_path: Path) -> None:
    (full.workdir / "d").mkdir()
    folder = full.top / "lies"
    folder.mkdir()
    (folder / "find").write_text("#!/bin/sh\nexec yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n")
    (folder / "find").chmod(0o755)
    full.kaos.env["PATH"] = f"{folder}:{full.kaos.env['PATH']}"
    tracemalloc.start()
    (outcome,) = brought(full, tmp_path / "home", "d")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not outcome.ok
    assert "more than this operation may keep" in outcome.detail
    assert peak < 200 * 2**20


def whole(reader: type[TarReader | PlainReader], stream: bytes, sizes: list[int]) -> Taken:
    taken = Taken()
    parser: Reader = reader(taken)
    at = 0
    while at < len(stream):
        size = sizes[at % len(sizes)]
        parser.feed(stream[at : at + size])
        at += size
    parser.finish()
    return taken


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("sizes", [[1], [511, 1, 7], [512], [100_000]])
def test_archives_in_pieces(format_: int, sizes: list[int]) -> None:
    long = "d" * 90 + "/" + ("n" * 9 if format_ == tarfile.USTAR_FORMAT else "n" * 200 + "ü")
    contents = {"a": b"", "b": b"x", "c": b"y" * 512, long: b"z" * 5000, "./e": b"e"}
    stream = tar(*((name, content, {}) for name, content in contents.items()), format_=format_)
    two = whole(TarReader, stream + tar(("last", b"l", {})), sizes)
    expected = {name.removeprefix("./"): c for name, c in contents.items()} | {"last": b"l"}
    assert {member.name: content for member, content in two.members} == expected


def test_archives_of_real_tools(box: Box) -> None:
    name = "long " * 40
    box.write(name, "x" * 1000)
    box.write("b", "")
    os.link(box.workdir / "b", box.workdir / "c")
    taken = Taken()
    asyncio.run(fetch(box.kaos, str(box.workdir), [name, "b", "c"], taken))
    assert [member.name for member, _ in taken.members] == [name, "b", "c"]
    assert taken.members[0][1] == b"x" * 1000


def test_garbage_ends_in_an_error_of_ours() -> None:
    """Bytes at random, and archives with bytes changed at random, never end in anything else."""
    chance = random.Random(4)
    sound = tar(("a" * 150, b"x" * 700, {}), ("b", b"y", {}), format_=tarfile.PAX_FORMAT)
    for _ in range(400):
        stream = bytearray(sound)
        for _ in range(chance.randrange(1, 8)):
            stream[chance.randrange(len(stream))] = chance.randrange(256)
        for reader in (TarReader, PlainReader):
            with contextlib.suppress(SandboxError):
                whole(reader, bytes(stream[: chance.randrange(len(stream))]), [777])


def test_a_long_name_has_a_limit() -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**31
    with pytest.raises(SandboxError, match="name that is too long"):
        TarReader(Taken()).feed(info.tobuf(tarfile.GNU_FORMAT))
    endless = PlainReader(Taken())
    endless.feed(b"x" * 2**20)
    with pytest.raises(SandboxError, match="name that is too long"):
        endless.feed(b"x")
