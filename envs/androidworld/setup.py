"""What this machine needs for AndroidWorld, and getting it."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from envs.androidworld import recipe, tasks
from envs.androidworld.addresses import parse_address
from envs.androidworld.knobs import KNOBS, value_of
from envs.androidworld.options import check
from envs.androidworld.providers import OUR_DOCKERFILE, OUR_IMAGE, UPSTREAM_IMAGE, OurProvider, require_kvm
from envs.benchmark import Watcher
from envs.containers import build_image, connect, engine_errors, require_image
from envs.errors import SetupError, UsageError, did_you_mean
from envs.room import room

EMULATOR_GB, EMULATOR_CORES = 6.0, 4.0
"""What an emulator with its server wants."""
DISK_GB = 40
"""For upstream's image (Google's SDK, system image and a compiled Python), ours upon it, and the prepared device."""


def lacking(options: Mapping[str, Any]) -> Iterator[SetupError]:
    """What keeps a run with these environment options from starting; nothing where the emulators run already.

    Raises:
        UsageError: a bad value among the options.
    """
    check_names(options)
    check(options)
    provider, image = options.get("provider", "ours"), str(options.get("image", ""))
    if provider not in ("ours", "upstream"):
        if isinstance(provider, str):
            parse_address(provider)
        return
    spec = {
        "ours": (image or OUR_IMAGE, "Build it: `agentlab fetch androidworld`."),
        "upstream": (image or UPSTREAM_IMAGE, _how_to_base(image or UPSTREAM_IMAGE)),
    }[provider]
    software = value_of(options, "accel") == "off"
    for needed in (*(() if software else (require_kvm,)), lambda: require_image(connect(), *spec)):
        try:
            needed()
        except SetupError as error:
            yield error


def places() -> int:
    """How many emulators this machine has room for.

    Raises:
        SetupError: it lacks what they need.
    """
    require_kvm()
    image_found()
    return room(EMULATOR_GB, EMULATOR_CORES)


def check_names(options: Mapping[str, Any]) -> None:
    """Refuse options that neither the environment nor its emulator has.

    Raises:
        UsageError: the nearest ones are offered.
    """
    from envs.androidworld.env import AndroidWorldEnv

    known = [name for name in inspect.signature(AndroidWorldEnv).parameters if name != "emulator_settings"] + list(KNOBS)
    for name in options:
        if name not in known:
            raise UsageError(f"AndroidWorld has no option {name!r}.", did_you_mean(name, known, what="option"))


def image_found() -> str:
    """Our image's tag.

    Raises:
        SetupError: it is not on this machine, or no engine answers.
    """
    require_image(connect(), OUR_IMAGE, "Build it: `agentlab fetch androidworld`.")
    return OUR_IMAGE


def free_gb() -> float:
    """Free disk space where the engine keeps images, or of the root file system where that folder is not visible.

    Raises:
        SetupError: no engine answers.
    """
    client = connect()
    with engine_errors("name its folder"):
        folder = Path(str(client.info().get("DockerRootDir") or "/"))
    try:
        return shutil.disk_usage(folder).free / 2**30
    except OSError:  # another user's folder, or an engine on another machine
        return shutil.disk_usage("/").free / 2**30


def enough_disk() -> str:
    """How much is free, where our image is here or would fit.

    Raises:
        SetupError: it is not here, and would not fit.
    """
    free = free_gb()
    try:
        image_found()
    except SetupError as error:
        if free < DISK_GB:
            raise SetupError(f"{free:.0f} GB free, {DISK_GB} GB needed for its images", "free some: docker system df") from error
    return f"{free:.0f} GB free"


def fetch(watch: Watcher, *, base: str = "", prepare: bool = True, knobs: Mapping[str, Any] | None = None) -> None:
    """Build our image, from its pinned inputs on, and install the benchmark's applications once.

    What is there already is used: downloads continue where they stopped, the engine keeps finished steps of a build, and an
    installed phone stays in its volume.

    Args:
        watch: Who is told what is going on.
        base: Tag of an image to build upon instead of ours: what upstream's own Dockerfile makes.
        prepare: Start an emulator and keep it, prepared, in a Docker volume.
        knobs: Settings of that emulator (:mod:`envs.androidworld.knobs`).

    Raises:
        SetupError: something is missing here; the hint says how to get it.
        InfrastructureError: the engine, the build or the emulator failed.
    """
    client, say = connect(), watch.say
    if prepare and value_of(knobs or {}, "accel") != "off":
        require_kvm()
    if base:
        require_image(client, base, _how_to_base(base))
    free = free_gb()
    if free < DISK_GB / 2:
        raise SetupError(
            f"Only {free:.0f} GB are free for images.", f"{DISK_GB} GB are needed in all; `docker system df` says what is used."
        )
    if not base:
        folder = recipe.fetch_inputs(watch)
        say(f"Building {recipe.BASE_IMAGE}: emulator, system image and upstream's package (minutes) ...")
        recipe.build_base(watch, folder)
        base = recipe.BASE_IMAGE
    say(f"Building {OUR_IMAGE} on {base} ...")
    build_image(OUR_DOCKERFILE, OUR_IMAGE, say, arguments={"BASE": base})
    if prepare:
        say("Starting an emulator and installing the benchmark's applications, once (5-10 minutes) ...")
        provider = OurProvider("prepare", knobs=knobs)
        try:
            provider.release(provider.acquire())
        finally:
            provider.close()
    say(f"{OUR_IMAGE} is ready.")


def _how_to_base(base: str) -> str:
    return (
        f"Upstream's own Dockerfile (google-research/android_world, commit {tasks.revision()[:12]}) does not build with today's "
        "setuptools. "
        f"`agentlab fetch androidworld` builds ours, without it; an image of upstream's that you have is named with --base TAG "
        f"(a run: --set androidworld.image=TAG), not {base}."
    )
