"""From ``served:URL``, or a checkpoint and ``model.engine=vllm``, to a policy: the same families, chat models and learner as elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import ValidationError

from envs.base import Modality
from envs.errors import LabError, PolicyError, UsageError
from policies.base import Policy
from policies.sampling import SamplingConfig
from policies.served import wire
from policies.served.client import Client, ServedOptions
from policies.served.files import write_files
from policies.served.process import Process, made_kind, sees_tinted, vllm_arguments

PREFIX = "served:"
STARTED = ("device", "dtype", "max_batch")
"""Engine options that a server which is started here takes too."""
IMAGES = 32
"""Pictures of a prompt that a server started here allows; families show five."""


def client_of(name: str, options: Mapping[str, Any], token: str | None = None) -> Client:
    """The connection that ``served:URL`` and its options name.

    Raises:
        UsageError: a bad option or address.
        SetupError: no token.
    """
    own = {key: value for key, value in options.items() if key in ServedOptions.model_fields}
    try:
        served = ServedOptions.model_validate(own)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"Bad policy option: {details}.", f"Options: {', '.join(ServedOptions.model_fields)}.") from error
    return Client(name.removeprefix(PREFIX), served, token)


def needs_of(name: str, options: Mapping[str, Any]) -> frozenset[Modality]:
    """What an observation must have for a served policy: the server says.

    Raises:
        InfrastructureError, PolicyError: it does not.
    """
    client = client_of(name, options)
    try:
        return frozenset({"picture"}) if _info(client)["vision"] else frozenset({"text"})
    finally:
        client.close()


def load_served(name: str, sampling: SamplingConfig, options: Mapping[str, Any]) -> Policy:
    """The policy of a server that runs.

    Raises:
        UsageError: a bad option or address, or the family of the model cannot be told.
        InfrastructureError: the server does not answer.
        PolicyError: it refuses, or speaks another protocol.
    """
    client = client_of(name, options)
    try:
        return _policy(name, client, sampling, {k: v for k, v in options.items() if k not in ServedOptions.model_fields})
    except BaseException:
        client.close()
        raise


def start_served(name: str, source: str, sampling: SamplingConfig, options: Mapping[str, Any]) -> Policy:
    """A checkpoint's policy on a server that is started for it, and ends with it.

    Args:
        name: The policy as the user wrote it.
        source: Folder or hub id.
        sampling: How replies are drawn.
        options: ``dtype`` and ``max_batch``, those of a server, and those of the model's family or of chat models.

    Raises:
        SetupError: vLLM is not here; the hint installs it.
        UsageError: an option that only the in-process engine has.
        PolicyError: the server does not start.
    """
    for option in ("attn_implementation", "window_s", "vision_cache_mb", "prefix_cache_mb"):
        if option in options:
            raise UsageError(
                f"model.{option} is an option of the in-process engine.", "Leave it out, or use model.engine=transformers."
            )
    if options.get("device") not in (None, kind := made_kind()):
        raise UsageError(
            f"vLLM was fetched for {kind}, not for {options['device']}.", f"agentlab fetch vllm --device {options['device']}"
        )
    folder = tempfile.TemporaryDirectory(prefix="agentlab-served-")
    model = servable(source, Path(folder.name))
    log = Path(folder.name) / "server.log"
    extra = vllm_arguments(dtype=options.get("dtype"), max_batch=options.get("max_batch"), images=IMAGES)
    process = Process(model, extra=extra, log=log)
    client = None
    try:
        url = process.wait()
        rest = {key: value for key, value in options.items() if key not in STARTED}
        client = client_of(f"{PREFIX}{url}", rest, process.token)
        policy = _policy(name, client, sampling, {k: v for k, v in rest.items() if k not in ServedOptions.model_fields})
    except BaseException as error:
        if client is not None:
            client.close()
        process.close()
        if isinstance(error, LabError) and log.is_file():  # what the server said outlives its folder
            kept = Path(tempfile.gettempdir()) / f"agentlab-vllm-{Path(folder.name).name[-8:]}.log"
            kept.write_bytes(log.read_bytes())
            error.message = error.message.replace(str(log), str(kept))
        folder.cleanup()
        raise
    closing = policy.close

    def close() -> None:
        closing()
        process.close()
        folder.cleanup()

    policy.close = close  # type: ignore[method-assign]
    return policy


def servable(source: str, folder: Path) -> str:
    """What vLLM is to load: ``source``, or the bundled policy with wider heads (:mod:`policies.nano.wide`), written into ``folder``."""
    if sees_tinted(source):
        from policies.nano.wide import save_wide

        return str(save_wide(Path(source).expanduser(), folder / "model"))
    return str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source


def _info(client: Client) -> dict[str, Any]:
    info = client.json("GET", "/info")
    if info.get("protocol") != wire.PROTOCOL:
        raise PolicyError(
            f"The server {client.url} speaks version {info.get('protocol')} of the protocol, this is {wire.PROTOCOL}.",
            "Use the same version of agentlab on both sides.",
        )
    return info


def _policy(name: str, client: Client, sampling: SamplingConfig, options: Mapping[str, Any]) -> Policy:
    info = _info(client)
    _, files = client.tensors("GET", "/checkpoint")
    with tempfile.TemporaryDirectory(prefix="agentlab-checkpoint-") as temporary:
        folder = Path(temporary)
        write_files(files, folder)
        make: Callable[..., Policy] = _vision if info["vision"] else _text
        return make(name, client, info, folder, sampling, options)


def _generation_config(folder: Path, tokenizer: Any) -> Any:
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(str(folder))
    return SimpleNamespace(eos_token_id=tokenizer.eos_token_id)


def _vision(
    name: str, client: Client, info: dict[str, Any], folder: Path, sampling: SamplingConfig, options: Mapping[str, Any]
) -> Policy:
    from policies.checkpoint import described_as, family_of, load_processor, settings_of
    from policies.families.policy import ModelPolicy
    from policies.families.settings import CHOICES, checked_platform
    from policies.served.engine import ServedVision

    model = str(info["model"])
    checkpoint = described_as(model, folder)
    family = family_of(model if name.startswith(PREFIX) else name, checkpoint, options.get("family"))
    settings = settings_of(family, checkpoint, {k: v for k, v in options.items() if k not in CHOICES}, ServedOptions.model_fields)
    processor = _loaded(model, lambda: load_processor(str(folder)))
    engine = ServedVision(client, info, processor, _generation_config(folder, processor.tokenizer))
    return ModelPolicy(name, engine, family, settings, sampling, checked_platform(options))


def _text(
    name: str, client: Client, info: dict[str, Any], folder: Path, sampling: SamplingConfig, options: Mapping[str, Any]
) -> Policy:
    from transformers import AutoTokenizer

    from policies.causal.policy import CausalPolicy
    from policies.causal.settings import settings_of
    from policies.served.engine import ServedText

    settings = settings_of(name, dict(options))
    tokenizer: Any = _loaded(str(info["model"]), lambda: AutoTokenizer.from_pretrained(str(folder)))
    return CausalPolicy(name, ServedText(client, info, tokenizer, _generation_config(folder, tokenizer)), settings, sampling)


def _loaded(model: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise PolicyError(
            f"The files that the server has of {model} cannot be read: {' '.join(str(error).split())[:300]}"
        ) from error
