"""The child of :mod:`envs.reasoning.mathematics`: lines of JSON [gold, answer] in, {"form", "equal"} out."""

from __future__ import annotations

import json
import logging
import re
import resource
import sys
from typing import Any

MAX_FORM = 300


def main() -> None:
    logging.disable(logging.CRITICAL)  # it warns that without signals somebody else must watch the time: that is our parent
    limit = int(sys.argv[1]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    from math_verify import parse, verify

    def read(text: str) -> list[Any]:
        found: list[Any] = parse(_as_latex(text), parsing_timeout=None)  # type: ignore[arg-type]
        return found

    print("ready", flush=True)
    for line in sys.stdin:
        gold, answer = json.loads(line)
        try:
            left, right = read(gold), read(answer)
            equal = bool(right) and bool(verify(left, right, timeout_seconds=None))
            form = str(right[0])[:MAX_FORM] if right else None
        except Exception:  # noqa: BLE001 - whatever sympy makes of a stranger's text, it is not an answer
            equal, form = False, None
        print(json.dumps({"form": form, "equal": equal}), flush=True)


def _as_latex(text: str) -> str:
    """The expression in one pair of dollars, unless it says itself where its mathematics is."""
    text = text.strip().rstrip(".").strip()
    if re.search(r"\\boxed|\\\(|\\\[|\$", text):
        return text
    text = re.sub(r"\bsqrt\s?\(([^()]*)\)", r"\\sqrt{\1}", text).replace("**", "^").replace("√", r"\sqrt ")
    return f"${text}$"


if __name__ == "__main__":
    main()
