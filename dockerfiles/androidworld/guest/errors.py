"""What the server answers when it cannot do what it was asked: one class, a code for the client and a sentence for people."""

from __future__ import annotations

from typing import Any

STATUS = {
    # the caller's mistake: nothing was executed
    "bad_request": 400,
    "bad_action": 400,
    "unknown_app": 400,
    "unknown_route": 404,
    "unknown_family": 404,
    "unknown_task": 404,
    "unknown_snapshot": 404,
    # the attempt that the caller means is not the one that is active
    "no_task": 409,
    "stale_attempt": 409,
    # upstream's task code failed, or ours did, while the device is alive
    "task_setup_failed": 500,
    "task_score_failed": 500,
    "task_teardown_failed": 500,
    "action_failed": 500,
    "internal": 500,
    # the machinery cannot now
    "starting": 503,
    "boot_failed": 503,
    "device_dead": 503,
    "device_stalled": 503,
    "busy": 503,
    "screen_blank": 503,
    "screen_frozen": 503,
    "tree_failed": 503,
    "closed": 503,
}
"""HTTP status of every error code."""


class GuestError(Exception):
    """An answer other than 200.

    Args:
        code: A key of STATUS.
        message: What happened, for people.
        detail: JSON-serialisable facts for the client.
    """

    def __init__(self, code: str, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.detail = code, message, detail
        self.status = STATUS[code]

    def body(self) -> dict[str, Any]:
        """The JSON body of the reply."""
        return {"error": {"code": self.code, "message": self.message, "detail": self.detail}}
