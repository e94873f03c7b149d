"""Keys and passwords are taken out of every text before it is written, printed, exported or tracked.

What is secret: the values of environment variables that are named as keys are (``OPENAI_API_KEY``), what :func:`remember` was told (the
key and the user of an endpoint's address), and, in messages and configurations, whatever has the form of a secret.
"""

from __future__ import annotations

import base64
import functools
import html
import json
import os
import re
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

HIDDEN = "***"
SHORTEST, SHORTEST_OF_ENVIRONMENT = 4, 8
DISTINCT = 12
"""Characters from which on a secret is no part of an ordinary word: it is then taken out wherever it stands, also within one."""
PLACEHOLDERS = frozenset(
    {"none", "null", "empty", "dummy", "test", "token", "not-needed", "no-key", "sk-no-key-required", "changeme"}
)
"""What people give to servers that want no key; they are ordinary words, not secrets."""

_NAMED = re.compile(r"(?:^|_)(?:KEY|APIKEY|TOKEN|SECRET|PASSWORD|PASSWD)S?(?:$|_)", re.IGNORECASE)
_QUERY = r"api[-_]?key|key|access[-_]?token|auth|token|sig|signature|password|passwd|secret"
_FORMS = (
    (re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://)[^/?#\s@]{1,4096}@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    (re.compile(rf"([?&](?:{_QUERY})=)[^&#\s\"'<>]{{1,4096}}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bauthorization\b[\\\"']{0,4}\s{0,4}[:=]\s{0,4}[\\\"'\[]{0,4})(?:\w{1,20} )?[^\s\\\"',}\]]{1,4096}", re.IGNORECASE),
     rf"\1{HIDDEN}"),
    (re.compile(r"(\b(?:bearer|basic) )[\w.~+/=-]{8,4096}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:sk|hf|gh[opsu]|xox[abp])[-_][\w-]{16,4096}"), HIDDEN),
)  # fmt: skip
_told: set[str] = set()


def remember(secret: str | None) -> None:
    """From now on ``secret`` appears in no text of ours."""
    if secret and len(secret) >= SHORTEST and secret.lower() not in PLACEHOLDERS:
        _told.add(secret)


def remember_address(url: str | None) -> None:
    """The same for the user, the password and the keys in the query of an address."""
    try:
        parts = urlsplit(url or "")
    except ValueError:
        return
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    for secret in (password, parts.password, user if not password else None):
        remember(secret)
    if user or password:
        remember(base64.b64encode(f"{user}:{password}".encode()).decode())
    for name, value in parse_qsl(parts.query):
        if re.fullmatch(_QUERY, name, re.IGNORECASE):
            remember(value)


def without_secrets(text: str) -> str:
    """The text without the secrets that are known."""
    pattern = _pattern(frozenset(_told | _environment()))
    return pattern.sub(HIDDEN, text) if pattern else text


def redact(text: str) -> str:
    """The text without the secrets that are known, and without what has the form of one: for messages and configurations."""
    text = without_secrets(text)
    for form, instead in _FORMS:
        text = form.sub(instead, text)
    return text


def redacted(data: Any) -> Any:
    """A copy of JSON-like ``data`` whose texts are redacted."""
    if isinstance(data, str):
        return redact(data)
    if isinstance(data, dict):
        return {key: redacted(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [redacted(value) for value in data]
    return data


def _environment() -> set[str]:
    values = ((name, value) for name, value in os.environ.items() if _is_named(name))
    return {
        value
        for _, value in values
        if len(value) >= SHORTEST_OF_ENVIRONMENT and value[0] != "/" and value.lower() not in PLACEHOLDERS
    }


@functools.lru_cache(maxsize=4096)
def _is_named(name: str) -> bool:
    return _NAMED.search(name) is not None


@functools.lru_cache(maxsize=16)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    """All ways in which a secret stands in a file: as it is, as JSON and HTML write it, and as an address does."""
    forms = {form for secret in secrets for form in _spelled(secret)}
    if not forms:
        return None
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile("|".join(map(_found, longest_first)))


def _spelled(secret: str) -> set[str]:
    plain = {secret, secret.strip()} if len(secret.strip()) >= SHORTEST else {secret}
    return {
        *plain,
        *(json.dumps(form, ensure_ascii=ascii_only)[1:-1] for form in plain for ascii_only in (True, False)),
        *(html.escape(form, quote=marks) for form in plain for marks in (True, False)),
        *(quote(form, safe=left) for form in plain for left in ("", "/")),
    }


def _found(form: str) -> str:
    return re.escape(form) if len(form) >= DISTINCT else rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])"
