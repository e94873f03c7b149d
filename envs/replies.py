"""What an OpenAI-compatible endpoint answered, looked at before anything believes it: for the policies and for the writers of words."""

from __future__ import annotations

from typing import Any

from envs.redaction import redact, without_secrets

MOST_BYTES = 16 * 2**20
"""Most bytes of one answer that are read.  The longest replies that models write are a few hundred kilobytes."""
MOST_TOKENS = 2**31
MOST_QUOTED = 2**20
SHOWN = 400
"""Characters of an endpoint's own words in a message of ours."""

FAULTS_OF_PARSING = (ValueError, TypeError, AttributeError, LookupError, RecursionError, OverflowError)
"""What reading a reply that is not a chat completion may raise, in the client or here."""


def clean_text(text: Any) -> str:
    """The text of a reply, fit to be written: no key that was echoed, and no half of a surrogate pair.  None is "".

    Raises:
        TypeError: it is not text.
    """
    if text is None:
        return ""
    if not isinstance(text, str):
        raise TypeError(f"the reply's text is {type(text).__name__}")
    return without_secrets(text.encode("utf-8", "replace").decode("utf-8"))


def count_of(usage: Any, name: str) -> int:
    """A number of tokens; 0 where the endpoint does not say.

    Raises:
        ValueError: it is not such a number.
    """
    count = getattr(usage, name, None)
    if count is None:
        return 0
    if isinstance(count, bool) or not isinstance(count, int | float) or not 0 <= count < MOST_TOKENS or count != int(count):
        raise ValueError(f"{name} is not a number of tokens")
    return int(count)


def why(error: BaseException) -> str:
    """The error in one line that a terminal can show, with the cause where the client hides it ("Connection error.")."""
    cause = error.__cause__
    said = f"{error}" + (f" ({cause})" if cause is not None and f"{cause}" and f"{cause}" not in f"{error}" else "")
    said = redact(said[:MOST_QUOTED])[: 20 * SHOWN]  # before it is cut: half of a key is also one
    line = redact(" ".join("".join(c if c.isprintable() else " " for c in said).split()))
    return line if len(line) <= SHOWN else line[:SHOWN] + " …"
