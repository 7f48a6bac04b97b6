"""Runs `logpi ARGS…` with a search that never answers: python tests/runs/hanging_tool.py ARGS….

It writes "asked" to stderr at the first call.
"""

from __future__ import annotations

import sys
import threading

from logpi.cli import main
from logpi.envs.tools import search_r1

_reply = search_r1._SearchConversation.reply


def hang(talk, text):
    thread = threading.current_thread()
    if thread is threading.main_thread() or thread.name.startswith(
        "demonstrations"
    ):  # nobody waits for a tool there
        return _reply(talk, text)
    print("asked", file=sys.stderr, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    search_r1._SearchConversation.reply = hang
    sys.exit(main(sys.argv[1:]))
