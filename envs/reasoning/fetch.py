"""``agentlab fetch reasoning``: the papers' data sets, from the hub or out of a package, at one commit, checked and resumable."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

from envs.benchmark import Watcher
from envs.errors import SetupError, StoreError
from envs.reasoning.datasets import DATASETS, Dataset, convert, folder, load, rows_of, sha256


def fetch(name: str, watch: Watcher, *, revision: str = "", update: bool = False) -> Path:
    """Bring a data set and return its folder; what is there already is only checked.

    Args:
        name: One of :data:`envs.reasoning.datasets.DATASETS`.
        watch: Is told what happens.
        revision: Another commit than the one in the manifest or the table; only with ``update`` where there is a manifest.
        update: Take the newest (or the given) commit in the place of the one that is there.

    Raises:
        SetupError: it is unavailable; the same command continues.
        StoreError: its files are not those of the manifest.
    """
    dataset, place = DATASETS[name], folder(name)
    manifest = _manifest(place)
    if manifest and not update:
        if revision and revision != manifest["revision"]:
            raise SetupError(f"{dataset.title} is here at commit {manifest['revision'][:12]}.", "--update takes another one.")
        for file, digest in manifest["files"].items():
            if (place / "files" / file).is_file() and sha256(place / "files" / file) != digest:
                raise StoreError(f"{place / 'files' / file} is not the file that was fetched.", f"Remove {place}.")
        if (place / "items.jsonl").is_file():
            watch.say(f"{dataset.title}: {len(load(name))} questions are here (licence: {dataset.licence}).")
            return place
    wanted = revision or ("" if update else (manifest or {}).get("revision", "")) or dataset.revision
    watch.say(f"{dataset.title} from {dataset.source} (licence: {dataset.licence}).")
    place.mkdir(parents=True, exist_ok=True)
    commit = _from_package(dataset, place) if dataset.source.startswith("package:") else _from_hub(dataset, place, wanted)
    items = install(name, place, commit)
    watch.say(f"{dataset.title}: {items} questions, at {commit[:12]}, in {place}.")
    return place


def install(name: str, place: Path, commit: str) -> int:
    """Make the questions of the files in ``place/files``, and the manifest; returns how many there are.

    Raises:
        SetupError: the files hold no question of the form that is known.
    """
    files = sorted(path for path in (place / "files").rglob("*") if path.is_file() and ".cache" not in path.parts)
    rows = (row for path in files for row in rows_of(path))
    try:
        items = convert(name, rows)
    except (KeyError, TypeError, ValueError) as error:  # a later commit may have other columns
        raise SetupError(
            f"{DATASETS[name].title} at {commit[:12]} has another form than expected: {error!r}.",
            "Fetch the known commit: --revision.",
        ) from error
    if not items:
        raise SetupError(f"The files of {DATASETS[name].title} hold no question.", f"Remove {place} and fetch it again.")
    path = place / "items.jsonl"
    part = path.with_suffix(".part")
    part.write_text("".join(item.model_dump_json(exclude_defaults=True) + "\n" for item in items), encoding="utf-8")
    part.replace(path)
    found = {
        "name": name, "source": DATASETS[name].source, "licence": DATASETS[name].licence, "revision": commit, "questions": len(items),
        "items_sha256": sha256(path), "files": {str(f.relative_to(place / "files")): sha256(f) for f in files},
    }  # fmt: skip
    part = place / "manifest.part"
    part.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    part.replace(place / "manifest.json")
    return len(items)


def _manifest(place: Path) -> dict[str, Any] | None:
    path = place / "manifest.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found["revision"], str) and isinstance(found["files"], dict):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise StoreError(f"{path} cannot be read.", f"Remove {place} and fetch it again.")


def _from_hub(dataset: Dataset, place: Path, revision: str) -> str:
    """The files at ``revision`` (the newest commit if none is given) in ``place/files``; returns the commit."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    try:
        endpoint = os.environ.get("HF_ENDPOINT")  # read again: tests and users set it late
        commit = HfApi(endpoint=endpoint).dataset_info(dataset.source, revision=revision or None).sha
        snapshot_download(
            dataset.source, repo_type="dataset", revision=commit, allow_patterns=list(dataset.files), local_dir=place / "files",
            endpoint=endpoint,
        )  # fmt: skip
    except GatedRepoError as error:
        page = f"https://huggingface.co/datasets/{dataset.source}"
        raise SetupError(f"{dataset.title} is given out on request.", f"Ask on {page}, then `hf auth login`.") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SetupError(f"{dataset.title} is unavailable: {reason}", "The same command continues where it stopped.") from error
    return str(commit)


def _from_package(dataset: Dataset, place: Path) -> str:
    """HumanEval's file, which its package carries beside the code."""
    package = dataset.source.removeprefix("package:")
    spec = importlib.util.find_spec(package.replace("-", "_"))
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    found = next(
        (
            path
            for root in roots
            for up in (root, root.parent)
            for path in [*up.glob(f"data/{dataset.files[0]}"), *up.glob(dataset.files[0])]
        ),
        None,
    )
    if found is None:
        raise SetupError(f"{dataset.title} comes with the package {package}, which is not installed.", f"pip install {package}")
    (place / "files").mkdir(exist_ok=True)
    target = place / "files" / found.name.removesuffix(".gz")
    with gzip.open(found, "rb") as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
    from importlib import metadata

    return f"{package}-{metadata.version(package)}"
