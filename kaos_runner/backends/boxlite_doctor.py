"""What `doctor` says about BoxLite: that KVM opens proves nothing, so `--online` boots a VM."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.backends.base import Diagnosis
from kaos_runner.backends.boxlite_config import (
    ELSEWHERE,
    KEY_ENV,
    URL_ENV,
    BoxliteConfig,
    kvm_fault,
    server_url,
)
from kaos_runner.backends.boxlite_errors import mapped
from kaos_runner.errors import KaosRunnerError

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOT_SECONDS = 90.0
NAME = "kaos-runner-boot"


async def diagnose(environ: Mapping[str, str], *, online: bool) -> list[Diagnosis]:
    """The SDK; the server, or else KVM."""
    from importlib.metadata import version

    found = [Diagnosis(subject="boxlite SDK", ok=True, detail=version("boxlite"))]
    if url := server_url(BoxliteConfig(), environ):
        found.append(_key(environ))
        if online:
            found.append(await _server(url, environ))
        return found
    found.append(_kvm())
    if found[-1].ok and online:
        found.append(await _boot())
    elif found[-1].ok:
        detail = "not tried: that /dev/kvm opens proves nothing"
        hint = "`kaos-runner doctor --online` boots one, within a minute and a half"
        found.append(Diagnosis(subject="boxlite micro-VM", ok=None, detail=detail, hint=hint))
    return found


def _kvm() -> Diagnosis:
    if sys.platform != "linux":
        detail = "not needed: macOS has a hypervisor of its own"
        return Diagnosis(subject="boxlite KVM", ok=None, detail=detail)
    fault = kvm_fault()
    if fault:
        return Diagnosis(subject="boxlite KVM", ok=False, detail=fault[0], hint=fault[1])
    detail = "/dev/kvm is present, and this user may use it"
    return Diagnosis(subject="boxlite KVM", ok=True, detail=detail)


def _key(environ: Mapping[str, str]) -> Diagnosis:
    if environ.get(KEY_ENV):
        return Diagnosis(subject="boxlite key", ok=True, detail=f"{KEY_ENV} is set")
    detail = f"{KEY_ENV} is not set; only a server on this machine may do without"
    return Diagnosis(subject="boxlite key", ok=None, detail=detail)


async def _server(url: str, environ: Mapping[str, str]) -> Diagnosis:
    from kaos_runner.backends.boxlite_listing import boxes
    from kaos_runner.backends.boxlite_runtime import open_place

    try:
        place = await open_place(None, environ)
        total = len([box async for box in boxes(place)])
    except KaosRunnerError as error:
        hint = error.hint or f"check {URL_ENV}"
        return Diagnosis(subject="boxlite server", ok=False, detail=error.message, hint=hint)
    return Diagnosis(subject="boxlite server", ok=True, detail=f"{url} answers; {total} boxes")


async def _boot() -> Diagnosis:
    """Boot a micro-VM from an image of one file, in a home that is thrown away."""
    from kaos_runner.backends.boxlite_layout import write_layout

    subject = "boxlite micro-VM"
    with tempfile.TemporaryDirectory(prefix="kaos-boot-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        write_layout(directory / "image", {"etc/hostname": b"box\n"})
        try:
            await _boot_in(directory)
        except KaosRunnerError as error:
            hint = error.hint or ELSEWHERE
            return Diagnosis(subject=subject, ok=False, detail=error.message, hint=hint)
    return Diagnosis(subject=subject, ok=True, detail="one was booted")


async def _boot_in(directory: Path) -> None:
    from kaos_runner.backends.boxlite_runtime import open_place
    from kaos_runner.backends.boxlite_sandbox import remove
    from kaos_runner.kaos.boxlite_sdk import call, sdk

    place = await open_place(BoxliteConfig(home=str(directory / "home")), {})
    options = sdk().BoxOptions(
        rootfs_path=str(directory / "image"), cpus=1, memory_mib=256, auto_remove=False
    )
    try:
        box = await call("create box", lambda: place.runtime.create(options, name=NAME))
        await call("start box", box.start, seconds=BOOT_SECONDS)
    except (RuntimeError, TimeoutError) as error:
        raise mapped(error, "boot a micro-VM") from error
    finally:
        await remove(place.runtime, NAME)
        await place.release(failed=True)
