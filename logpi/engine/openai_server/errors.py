"""What a client is told when a request cannot be answered: one line, in OpenAI's form.

{"error": {"message": …, "type": "invalid_request_error", "param": null, "code": 400}}
"""

from __future__ import annotations

from typing import Any

from logpi.errors import one_line

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class RequestError(Exception):
    """A request that is refused, or that failed. status: of HTTP."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(one_line(message))
        self.status = status

    def body(self) -> dict[str, Any]:
        other = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = KINDS.get(self.status, other)
        error = {"message": str(self), "type": kind, "param": None, "code": self.status}
        return {"error": error}
