from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.recipe.model import Artifact, PatchArtifact, PathArtifact
from kaos_runner.secrets import Mask
from kaos_runner.workspace import ArtifactOutcome, Baseline, collect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.workspace.boxes import Box

SECRET = "correct-horse-battery-staple"


def brought(
    box: Box,
    home: Path,
    *artifacts: Artifact,
    change: Callable[[], object] | None = None,
    **more: Any,
) -> list[ArtifactOutcome]:
    async def main() -> list[ArtifactOutcome]:
        baseline = None
        if change:
            baseline = await Baseline.take(box.kaos, str(box.workdir))
            change()
        box.kaos.operations = 0
        outcomes = await collect(
            box.kaos, artifacts, workdir=str(box.workdir), baseline=baseline, into=home, **more
        )
        if baseline:
            await baseline.remove()
        await box.kaos.end()
        return outcomes

    return asyncio.run(main())


def one(box: Box, home: Path, artifact: Artifact, **more: Any) -> ArtifactOutcome:
    (outcome,) = brought(box, home, artifact, **more)
    return outcome


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "run" / "artifacts"


def path(name: str, to: str | None = None, *, optional: bool = False) -> PathArtifact:
    return PathArtifact(path=name, to=to, optional=optional)


def test_a_file(box: Box, home: Path) -> None:
    content = os.urandom(1_000_003)
    box.write("out dir/ünï.bin", content).chmod(0o4755)
    outcome = one(box, home, path("./out dir/ünï.bin"))
    assert outcome.ok
    assert outcome.required
    assert outcome.name == "out dir/ünï.bin"
    assert outcome.size == len(content)
    assert outcome.sha256 == hashlib.sha256(content).hexdigest()
    assert outcome.path == home / "out dir" / "ünï.bin"
    assert outcome.path.read_bytes() == content
    assert stat.S_IMODE(outcome.path.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("to", "place"),
    [("x", "x"), ("x/y.txt", "x/y.txt"), ("x/", "x/a.txt"), (".", "a.txt")],
)
def test_the_name_at_home(full: Box, home: Path, to: str, place: str) -> None:
    full.write("d/a.txt", "a")
    assert one(full, home, path("d/a.txt", to)).name == place
    assert tree(home) == {place: b"a"}


def test_a_directory(box: Box, home: Path) -> None:
    for name in ("out/a", "out/b/c", "out/.hidden", "out/b/line\nend", "other"):
        box.write(name, name)
    (box.workdir / "out" / "empty").mkdir()
    outcome = one(box, home, path("out"))
    assert outcome.ok
    assert outcome.detail == "4 files"
    assert outcome.path == home / "out"
    assert outcome.size == sum(f.size for f in outcome.files)
    assert tree(home) == {
        "out/a": b"out/a",
        "out/b/c": b"out/b/c",
        "out/.hidden": b"out/.hidden",
        "out/b/line%0Aend": b"out/b/line\nend",
    }


@pytest.mark.parametrize(
    ("pattern", "to", "names"),
    [
        ("*.txt", None, ["a.txt"]),
        ("**/*.txt", None, ["a.txt", "d/b.txt", "d/e/c.txt"]),
        ("d/*.txt", None, ["d/b.txt"]),
        ("d/**/*.txt", "got", ["got/b.txt", "got/e/c.txt"]),
        ("d/[!a]*", None, ["d/b.txt"]),
        ("**", "all", ["all/a.txt", "all/d/b.txt", "all/d/e/c.txt", "all/z.bin"]),
        ("?.bin", None, ["z.bin"]),
    ],
)
def test_a_glob(box: Box, home: Path, pattern: str, to: str | None, names: list[str]) -> None:
    for name in ("a.txt", "d/b.txt", "d/e/c.txt", "z.bin"):
        box.write(name, name)
    outcome = one(box, home, path(pattern, to))
    assert outcome.ok
    assert sorted(tree(home)) == names
    assert [f.name for f in outcome.files] == names


def test_everything_is_two_operations(full: Box, home: Path) -> None:
    full.write("a", "a")
    full.write("d/b", "b")
    outcomes = brought(full, home, path("a"), path("d"), path("**/b", "again"))
    assert all(o.ok for o in outcomes)
    assert full.kaos.operations == 2
    assert sorted(tree(home)) == ["a", "again/d/b", "d/b"]


def test_one_place_wanted_twice_is_one_file(full: Box, home: Path) -> None:
    full.write("a", "a")
    assert all(o.ok for o in brought(full, home, path("a"), path("*")))
    assert tree(home) == {"a": b"a"}


def test_two_files_for_one_place(full: Box, home: Path) -> None:
    full.write("a", "a")
    full.write("b", "b")
    first, second = brought(full, home, path("a", "x"), path("b", "x"))
    assert first.ok
    assert not second.ok
    assert "taken" in second.detail
    assert tree(home) == {"x": b"a"}


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("nope", "it is not there"),
        ("a/b/c", "it is not there"),
        ("**/*.nope", "nothing matches"),
        ("empty", "it holds no files"),
    ],
)
@pytest.mark.parametrize("optional", [False, True])
def test_what_is_missing(box: Box, home: Path, wanted: str, reason: str, *, optional: bool) -> None:
    box.write("a", "a")
    (box.workdir / "empty").mkdir()
    outcome = one(box, home, path(wanted, optional=optional))
    assert not outcome.ok
    assert outcome.required is not optional
    assert outcome.detail == reason
    assert (outcome.size, outcome.sha256, outcome.path) == (None, None, None)


@pytest.mark.parametrize("wanted", ["/etc/passwd", "../x", "a/../../x", ".."])
def test_a_path_outside_the_workdir(full: Box, home: Path, wanted: str) -> None:
    (full.top / "x").write_text("outside")
    assert "not below the workdir" in one(full, home, path(wanted)).detail
    full.write("a", "a")
    assert "not below the workdir" in one(full, home, path("a", wanted)).detail
    assert not home.exists() or tree(home) == {}


def test_symlinks_inside_come_home_as_files(box: Box, home: Path) -> None:
    box.write("real", "content")
    box.write("d/inner", "inner")
    (box.workdir / "link").symlink_to("real")
    (box.workdir / "absolute").symlink_to(box.workdir / "d" / "inner")
    (box.workdir / "way").symlink_to("d")
    outcomes = brought(box, home, path("link"), path("absolute"), path("way"), path("way/inner"))
    assert [o.detail for o in outcomes] == ["", "", "", ""]
    assert tree(home) == {"link": b"content", "absolute": b"inner", "way/inner": b"inner"}
    assert not any(p.is_symlink() for p in home.rglob("*"))


@pytest.mark.parametrize("wanted", ["link", "way", "way/secret", "chain", "**/*", "."])
def test_symlinks_out_of_the_workdir_are_refused(box: Box, home: Path, wanted: str) -> None:
    (box.top / "outside").mkdir()
    (box.top / "outside" / "secret").write_text("secret")
    (box.workdir / "link").symlink_to("../outside/secret")
    (box.workdir / "chain").symlink_to("link")
    (box.workdir / "way").symlink_to(box.top / "outside")
    outcome = one(box, home, path(wanted))
    assert not outcome.ok
    assert "out of the workdir" in outcome.detail or "outside the workdir" in outcome.detail
    assert not home.exists() or tree(home) == {}


def test_the_rest_of_a_directory_comes_home(box: Box, home: Path) -> None:
    box.write("d/a", "a")
    (box.workdir / "d" / "bad").symlink_to("/etc/passwd")
    (box.workdir / "d" / "nowhere").symlink_to("nope")
    os.mkfifo(box.workdir / "d" / "pipe")
    outcome = one(box, home, path("d"))
    assert not outcome.ok
    assert tree(home) == {"d/a": b"a"}
    for reason in ("symlink out of", "points nowhere", "neither a file nor"):
        assert reason in outcome.detail


def test_links_in_a_circle(box: Box, home: Path) -> None:
    box.write("d/a", "a")
    (box.workdir / "d" / "self").symlink_to(".")
    (box.workdir / "loop").symlink_to("loop")
    assert one(box, home, path("d")).ok
    assert "points nowhere" in one(box, home, path("loop")).detail


def test_special_files_never_block(full: Box, home: Path) -> None:
    os.mkfifo(full.workdir / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(full.workdir)
        server.bind("s")
    for name in ("pipe", "s"):
        assert "neither a file nor a directory" in one(full, home, path(name)).detail


def test_hard_links_are_files_of_their_own(box: Box, home: Path) -> None:
    os.link(box.write("a", "content"), box.workdir / "b")
    outcome = one(box, home, path("*"))
    assert outcome.ok
    assert tree(home) == {"a": b"content", "b": b"content"}
    assert (home / "a").stat().st_nlink == 1


def test_names_that_do_harm(box: Box, home: Path) -> None:
    names = [
        b"\x1b[2J",
        b"a\nb",
        b"\xff\xfe",
        b"-rf",
        b"@list",
        b"\xe2\x80\xae",
        b"\\",
        b"*",
        b"%41",
    ]
    for name in names:
        box.write(f"d/{os.fsdecode(name)}", "x")
    outcome = one(box, home, path("d"))
    assert outcome.ok, outcome.detail
    found = sorted(p.name for p in (home / "d").iterdir())
    assert found == sorted(
        ["%1B[2J", "a%0Ab", "%FF%FE", "-rf", "@list", "%E2%80%AE", "%5C", "*", "%41"]
    )


def test_outcomes_can_be_printed_and_written_as_json(box: Box, home: Path) -> None:
    name = os.fsdecode(b"\xff\x1b[2J\n")
    (box.workdir / name).symlink_to(os.fsdecode(b"/\xff\n"))
    box.write(f"d/{name}", "x")
    outcomes = brought(box, home, path("*"), path("d"), path("\x1b[2J\n"))
    for outcome in outcomes:
        for text in (outcome.name, outcome.detail, *(f.name for f in outcome.files)):
            assert text.isprintable()
            json.dumps(text).encode()


def test_many_files(full: Box, home: Path) -> None:
    for number in range(3000):
        full.write(f"d/{number % 10}/{'long ' * 30}{number}", str(number))
    outcome = one(full, home, path("d"))
    assert outcome.ok
    assert len(outcome.files) == 3000
    assert full.kaos.operations == 2


def test_too_many_files(box: Box, home: Path) -> None:
    for number in range(20):
        box.write(f"d/{number}", "x")
    outcome = one(box, home, path("d"), max_files=10)
    assert not outcome.ok
    assert "too many files" in outcome.detail
    assert len(tree(home)) <= 10


def test_too_many_files_together(full: Box, home: Path) -> None:
    for number in range(8):
        full.write(f"d/{number}", "x")
        full.write(f"e/{number}", "x")
    first, second = brought(full, home, path("d"), path("e"), max_files=10)
    assert first.ok
    assert not second.ok
    assert second.detail == "the artifacts are more than 10 files"
    assert len(tree(home)) == 10


def test_too_many_bytes(box: Box, home: Path) -> None:
    box.write("a", bytes(1000))
    box.write("b", bytes(2 * 2**20))
    first, second = brought(box, home, path("a"), path("b"), max_bytes=2**20)
    assert first.ok
    assert not second.ok
    assert second.detail == "the artifacts together exceed their cap of 1 MiB"
    assert tree(home) == {"a": bytes(1000)}


def test_an_endless_file_ends_at_the_cap(full: Box, home: Path) -> None:
    with full.write("large").open("wb") as file:
        file.truncate(2**40)
    outcome = one(full, home, path("large"), max_bytes=8 * 2**20)
    assert "exceed their cap" in outcome.detail
    assert tree(home) == {}


@pytest.mark.parametrize("optional", [False, True])
def test_a_secret_withholds_its_file(box: Box, home: Path, *, optional: bool) -> None:
    box.write("good", "nothing")
    box.write("bad", f"password = {SECRET}\n")
    mask = Mask([SECRET])
    first, second = brought(box, home, path("good"), path("bad", optional=optional), scan=mask.scan)
    assert first.ok
    assert not second.ok
    assert second.required
    assert "secret" in second.detail
    assert SECRET not in second.detail
    assert tree(home) == {"good": b"nothing"}


@pytest.mark.parametrize("before", [2**18 - 5, 2**18 - 512 - 10, 2**20, 1_000_000])
def test_a_secret_over_the_borders_of_chunks(full: Box, home: Path, before: int) -> None:
    full.write("bad", b"x" * before + SECRET.encode() + b"x" * 1000)
    assert "secret" in one(full, home, path("bad"), scan=Mask([SECRET]).scan).detail
    assert tree(home) == {}


def test_two_files_do_not_make_a_secret_together(full: Box, home: Path) -> None:
    full.write("a", SECRET[:10])
    full.write("b", SECRET[10:])
    assert one(full, home, path("*"), scan=Mask([SECRET]).scan).ok


def test_a_secret_in_a_directory_or_a_name(full: Box, home: Path) -> None:
    full.write("d/good", "x")
    full.write("d/bad", SECRET)
    full.write(f"d/{SECRET}", "x")
    os.link(full.workdir / "d" / "bad", full.workdir / "d" / "zbad")
    outcome = one(full, home, path("d"), scan=Mask([SECRET]).scan)
    assert not outcome.ok
    assert sorted(tree(home)) == ["d/good"]


def test_a_patch(box: Box, home: Path) -> None:
    box.write("a", "one\n")
    outcome = one(box, home, PatchArtifact(patch="."), change=lambda: box.write("a", "two\n"))
    assert outcome.ok
    assert outcome.kind == "patch"
    assert outcome.name == "change.patch"
    assert outcome.detail == "1 file changed, 1 insertion(+), 1 deletion(-)"
    assert outcome.path is not None
    content = outcome.path.read_bytes()
    assert content.endswith(b"-one\n+two\n")
    assert outcome.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("optional", [False, True])
def test_an_empty_patch(full: Box, home: Path, *, optional: bool) -> None:
    artifact = PatchArtifact(patch=".", optional=optional)
    outcome = one(full, home, artifact, change=lambda: None)
    assert not outcome.ok
    assert outcome.required is not optional
    assert outcome.detail == "nothing changed"
    assert tree(home) == {}


def test_a_patch_without_a_baseline(full: Box, home: Path) -> None:
    assert "no baseline" in one(full, home, PatchArtifact(patch=".")).detail


@pytest.mark.parametrize(
    "secret", [SECRET, "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\nabcdefghijklmnop\n-----END KEY-----"]
)
def test_a_secret_in_a_patch(full: Box, home: Path, secret: str) -> None:
    outcome = one(
        full,
        home,
        PatchArtifact(patch=".", optional=True),
        change=lambda: full.write("a", f"x\n{secret}\n"),
        scan=lambda: _Whole(secret),
    )
    assert not outcome.ok
    assert outcome.required
    assert "secret" in outcome.detail
    assert tree(home) == {}


class _Whole:
    """Finds a secret only as a whole, with its line ends."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._seen = b""

    def __call__(self, chunk: bytes) -> bool:
        self._seen += chunk
        return self._secret in self._seen


def test_a_large_patch_ends_at_the_cap(full: Box, home: Path) -> None:
    outcome = one(
        full,
        home,
        PatchArtifact(patch="."),
        change=lambda: full.write("a", "line\n" * 1_000_000),
        max_bytes=2**20,
    )
    assert "exceed their cap" in outcome.detail
    assert tree(home) == {}


def test_the_order_is_the_recipes(full: Box, home: Path) -> None:
    full.write("a", "a")
    full.write("b", "b")
    outcomes = brought(
        full,
        home,
        path("b"),
        PatchArtifact(patch="."),
        path("a"),
        PatchArtifact(patch=".", to="two.patch"),
        change=lambda: full.write("b", "c"),
    )
    assert [o.name for o in outcomes] == ["b", "change.patch", "a", "two.patch"]
    assert all(o.ok for o in outcomes)


def test_a_sandbox_that_went_away(full: Box, home: Path) -> None:
    full.kaos.lost = True
    outcomes = brought(full, home, path("a"), path("b", optional=True))
    assert [o.ok for o in outcomes] == [False, False]
    assert [o.required for o in outcomes] == [True, False]
    assert all("the sandbox went away" in o.detail for o in outcomes)


def test_a_sandbox_that_goes_away_in_the_middle(full: Box, home: Path) -> None:
    full.write("a", "a")
    full.write("b", bytes(5_000_000))
    full.write("c", "c")
    full.kaos.cut_after = 3_000_000
    first, second, third = brought(full, home, path("a"), path("b"), path("c"))
    assert first.ok
    for outcome in (second, third):
        assert not outcome.ok
        assert "the sandbox went away" in outcome.detail
    assert tree(home) == {"a": b"a"}


def test_a_file_that_may_not_be_read(slim: Box, home: Path) -> None:
    slim.write("a", "a")
    secret = slim.write("b", "b")
    slim.kaos.before[1] = (
        secret.unlink
    )  # it is there when it is listed, and gone when it is fetched
    first, second = brought(slim, home, path("a"), path("b"))
    assert first.ok
    assert not second.ok
    assert "1 of 1 files did not come" in second.detail
    assert "b" in second.detail


def test_a_full_disk_here_is_told(full: Box, home: Path) -> None:
    full.write("a/b", "x")
    home.mkdir(parents=True)
    (home / "a").write_text("in the way")
    assert "cannot be written here" in one(full, home, path("a/b")).detail


def test_names_that_differ_in_case(full: Box, home: Path) -> None:
    full.write("d/a", "a")
    full.write("d/A", "A")
    assert one(full, home, path("d")).ok
    assert tree(home) == {"d/a": b"a", "d/A": b"A"}


def test_a_folder_that_cannot_be_written(full: Box, home: Path) -> None:
    home.parent.mkdir()
    home.write_text("in the way")
    full.write("a", "a")
    first, second = brought(
        full, home, path("a"), PatchArtifact(patch="."), change=lambda: full.write("a", "b")
    )
    assert "cannot be written here" in first.detail
    assert "cannot be written here" in second.detail


def test_nothing_asked_is_nothing_done(full: Box, home: Path) -> None:
    assert brought(full, home) == []
    assert full.kaos.operations == 0
