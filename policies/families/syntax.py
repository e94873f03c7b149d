"""Python that a model wrote, as a syntax tree: it is read and never run."""

from __future__ import annotations

import ast
import warnings
from typing import Any, Literal

from envs.errors import InvalidActionError

_FILE = "<a model's reply>"
# Python warns of odd literals ("1if", "\d") while it parses.  What a model writes is nothing to warn a user of.
warnings.filterwarnings("ignore", category=SyntaxWarning, module=_FILE)
warnings.filterwarnings("ignore", category=DeprecationWarning, module=_FILE)


def syntax_tree(text: str, mode: Literal["exec", "eval"] = "exec") -> Any:
    """The tree of ``text``.

    Raises:
        InvalidActionError: it is not Python; the message is the reason in a few words.
    """
    try:
        return compile(text, _FILE, mode, ast.PyCF_ONLY_AST, dont_inherit=True)
    except SyntaxError as error:
        raise InvalidActionError(error.msg) from None
    except (ValueError, RecursionError, MemoryError):
        raise InvalidActionError("too deeply nested") from None


JSON_NAMES: dict[str, Any] = {"true": True, "false": False, "null": None}


def with_json_names(tree: Any) -> Any:
    """``tree`` with ``true``, ``false`` and ``null`` as the values that they stand for, where they are items of something."""
    for node in ast.walk(tree):
        for items in (getattr(node, "values", None), getattr(node, "elts", None)):
            if isinstance(items, list):
                items[:] = [ast.Constant(JSON_NAMES[i.id]) if isinstance(i, ast.Name) and i.id in JSON_NAMES else i for i in items]
    return tree


def literal(node: Any) -> Any:
    """The value of a tree that is a literal.

    Raises:
        InvalidActionError: it is not a literal.
    """
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise InvalidActionError("not a plain value") from None
