"""Ctrl-C while the command is imported: torch takes seconds, and a traceback of it would say nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading

COMMANDS = ("-m", "bisam")  # what Python and the shell call it while its package is imported


def quiet() -> bool:
    """Has Ctrl-C end the process without a word, if this is the command and nobody has set a handler; whether that was done."""
    name = os.path.basename((getattr(sys, "argv", None) or [""])[0])
    alone = threading.current_thread() is threading.main_thread()
    if name not in COMMANDS or not alone or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return True


def done() -> None:
    """Ctrl-C raises KeyboardInterrupt again, where it did before."""
    if _was_quiet:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_was_quiet = quiet()
