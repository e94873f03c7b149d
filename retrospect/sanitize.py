"""Makes text that a model wrote, or copied from a screen, safe to put into the next prompt.

Guidance stands in a fence inside a prompt whose instruction must stay as it is.  So it is plain text of bounded length: no
control characters, no chat-template or box tokens, no tags, headings or fences, nothing that talks the agent out of its
instruction, and no coordinates but those the agent itself has used, or was told in its instruction.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from envs.errors import AdaptationError

# <|im_start|>, <|box_start|>, their full-width cousins, and the templates of Llama 2 and Gemma.
_SPECIAL = re.compile(r"<[|｜][^<>\n]{0,60}[|｜]>|\[/?INST\]|<</?SYS>>")
_TAG = re.compile(r"<(/?)([A-Za-z_][\w.:-]{0,40})(?:\s[^<>\n]{0,200})?/?>")
_STRUCTURAL = frozenset(
    {
        "s", "bos", "eos", "pad", "unk", "start_of_turn", "end_of_turn", "system", "user", "assistant", "human", "tool",
        "tool_call", "tool_response", "think", "thought", "action", "answer", "guidance", "hint", "hints", "instruction",
        "instructions", "task", "trace", "prompt", "image", "video", "point", "bbox", "box", "ref", "improved_variable",
        "variable", "feedback", "conversation", "context", "lm_input", "lm_output", "lm_system_prompt", "objective_function",
        "role", "constraints", "focus",
    }
)  # fmt: skip
_HEADING = re.compile(r"^[#>\s]+(?=\S)")
_RULER = re.compile(r"^[-=*_~+\s]{3,}$")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+")
_SUBVERSION = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\s+(?:(?:all|any|of|the|your|these|those|my|previous|prior|above|earlier|original"
    r"|given|user'?s?)\s+){1,5}(?:instructions?|prompts?|tasks?|goals?|rules?|guidance)\b"
    r"|\b(?:new|real|actual|true|updated|changed)\s+(?:user\s+)?(?:instructions?|tasks?|goals?)\s*(?:(?:is|are)\s+(?:now\s+)?to\b|:)"
    r"|\b(?:system|developer)\s+(?:prompt|message)\b|\byou\s+are\s+now\b",
    re.IGNORECASE,
)
_BEYOND = re.compile(
    r"\b(?:ignore|disregard|forget)\s+(?:everything|anything|all|whatever|what)\b[^.!?;]{0,40}"
    r"\b(?:above|before|told|said|earlier|previous(?:ly)?|asked)\b"
    r"|\b(?:do\s+not|don'?t|never|stop)\s+(?:follow|obey|heed)(?:ing)?\s+(?:\w+\s+){0,3}(?:instructions?|orders?|directions?|rules?)\b"
    r"|\bfrom\s+now\s+on\b"
    r"|\b(?:to|for|in)\s+(?:this\s+and\s+)?(?:to\s+|for\s+|in\s+)?(?:all|any|every|each)\s+(?:the\s+)?(?:later|following|future|other|next"
    r"|coming|further)\s+(?:questions?|tasks?|prompts?|requests?|sessions?)\b",
    re.IGNORECASE,
)
"""Orders about more than the task at hand: of its own guidance they may be, of what other tasks are shown not."""
_NUMBER = r"-?\d+(?:\.\d+)?"
_PAIR = re.compile(rf"({_NUMBER})(?:\s*,\s*|\s+)({_NUMBER})")
_COORDINATES = re.compile(
    rf"(?:\s+(?:at|near|around|to|on|from))?\s*(?:[(\[]\s*{_NUMBER}(?:\s*,\s*{_NUMBER}){{1,3}}\s*[)\]]"
    rf"|\b(?:coordinates?|position|point|pixels?)\s*:?\s+{_NUMBER}\s*,\s*{_NUMBER}"
    rf"|\bx['\"]?\s*[=:]\s*{_NUMBER}\s*,?\s*(?:and\s+)?['\"]?y['\"]?\s*[=:]\s*{_NUMBER})",
    re.IGNORECASE,
)
_MAX_PASSES = 8


def clean(text: str, limit: int) -> str:
    """``text`` as plain lines of at most ``limit`` characters in all; cleaning twice changes nothing more."""
    for _ in range(_MAX_PASSES):  # removing text may join the pieces of something forbidden: "<|im_<|x|>start|>"
        cleaned = "\n".join(line for line in map(_clean_line, _strip_tokens(_printable(text)).split("\n")) if line)
        if cleaned == text:
            break
        text = cleaned
    else:
        text = re.sub(r"[<>|｜`#~]", "", text)
    return shorten(text, limit)


def admit(text: str, sources: Iterable[str], limit: int) -> str:
    """A model's words as guidance: plain, at most ``limit`` characters, no coordinates but those in ``sources`` (what the agent did).

    Raises:
        AdaptationError: nothing usable is left.
    """
    text = clean(only_known_coordinates(clean(text, len(text) + 1), sources), limit)
    if not any(c.isalnum() for c in text):
        raise AdaptationError("The critic wrote no usable guidance.", "The attempt goes on without new guidance.")
    return text


def carries_orders(text: str) -> bool:
    """Whether ``text`` is not to be shown to other tasks: it has what :func:`clean` takes out because it could steer a model (control
    tokens, tags of prompts, orders to leave the task), or orders about more than its own task.
    """
    plain = _printable(text)
    structural = any(match.group(2).lower() in _STRUCTURAL for match in _TAG.finditer(plain))
    line = " ".join(plain.split())
    return structural or any(pattern.search(line) for pattern in (_SPECIAL, _SUBVERSION, _BEYOND))


def clean_line(text: str) -> str:
    """Like :func:`clean`, on one line and of any length."""
    return " ".join(clean(text, len(text) + 1).split())


def shorten(text: str, limit: int) -> str:
    """The beginning of ``text``, cut at a word and marked with an ellipsis if it is longer than ``limit`` characters."""
    if len(text) <= limit:
        return text
    head = text[: max(0, limit - 1)]
    space = max(head.rfind(" "), head.rfind("\n"))
    return (head[:space] if space > limit // 2 else head).rstrip() + "…" if limit else ""


def only_known_coordinates(text: str, sources: Iterable[str]) -> str:
    """``text`` without the coordinates that occur in none of ``sources``, however they are written; a list of numbers stays as a whole."""
    known: set[tuple[float, ...]] = set()
    for source in sources:
        known |= {_numbers(match) for pattern in (_PAIR, _COORDINATES) for match in pattern.finditer(source)}

    def keep(match: re.Match[str]) -> str:
        numbers = _numbers(match)
        pairs = [numbers[i : i + 2] for i in range(0, len(numbers), 2)]
        return match.group() if numbers in known or all(pair in known for pair in pairs) else ""

    return _COORDINATES.sub(keep, text)


def _numbers(match: re.Match[str]) -> tuple[float, ...]:
    return tuple(map(float, re.findall(_NUMBER, match.group())))


def _printable(text: str) -> str:
    """Without control, format (zero-width, bidirectional), surrogate and private characters; tabs become spaces."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n").replace("\t", " ")
    return "".join(c for c in text if c == "\n" or not unicodedata.category(c).startswith("C"))


def _strip_tokens(text: str) -> str:
    text = _SPECIAL.sub("", text)
    closed = {match.group(2).lower() for match in _TAG.finditer(text) if match.group(1)}

    def bare(match: re.Match[str]) -> str:
        name = match.group(2)
        return "" if match.group(1) or name.lower() in closed | _STRUCTURAL else name

    text = _TAG.sub(bare, text)  # "<Submit>" keeps its word, markup goes
    return re.sub(r"~{3,}|`{3,}", "", text).replace("`", "'")


def _clean_line(line: str) -> str:
    line = " ".join(_HEADING.sub("", line).split())
    if _RULER.match(line) or _SUBVERSION.search(line) is None:
        return "" if _RULER.match(line) else line
    return " ".join(sentence for sentence in _SENTENCE.split(line) if not _SUBVERSION.search(sentence))
