"""Processes that end when they are told to, and that take those which they started with them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import active_children, parent_process

from .. import _checks

__all__ = ["Stopped", "follow_parent", "kill_started", "signals_held_back", "stoppable"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
HELD_BACK = (*SIGNALS, *(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)))
PR_SET_PDEATHSIG = 1  # of Linux, in <linux/prctl.h>


class Stopped(KeyboardInterrupt):
    """The process has been told to stop by the signal of this number.

    Example:
        >>> 128 + Stopped(signal.SIGTERM).number
        143
    """

    def __init__(self, number: int):
        self.number = _checks.whole("number", number)
        super().__init__(f"signal {self.number}")


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Inside, INT, TERM and HUP raise :class:`Stopped`, so that all three clean up alike; a second one ends the process at once.

    An ignored signal stays ignored, as HUP is under ``nohup``. Outside the main thread, where Python allows no handlers, nothing is changed.

    Example:
        >>> with stoppable():
        ...     try:
        ...         signal.raise_signal(signal.SIGTERM)
        ...     except Stopped as stop:
        ...         print(stop.number)
        15
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)}

    def stop(number: int, frame: object) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        raise Stopped(number)

    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Inside, INT, TERM, HUP, USR1 and USR2 wait; a process that is started inside never sees them, and is for its parent to end.

    Ctrl-C, a closed terminal and a cluster that takes its node back reach every process of a command at once: without this each worker would
    answer too, with a traceback or its end.

    Example:
        >>> with contextlib.suppress(Stopped), stoppable(), signals_held_back():
        ...     signal.raise_signal(signal.SIGTERM)
        ...     print("later")
        later
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow_parent() -> None:
    """Ends this process when the one that started it is gone, also if that was killed; called by a child of ``multiprocessing``.

    Linux does it at once, whatever the child is busy with; elsewhere, and if the parent had gone before, a thread that watches the parent does.

    Example:
        >>> follow_parent()  # here, in no such child, there is nobody to follow
    """
    if parent_process() is None:
        return
    _ask_linux()
    threading.Thread(target=_watch, args=(parent_process(),), daemon=True).start()


@contextlib.contextmanager
def kill_started() -> Iterator[None]:
    """Ends the processes that were started inside when an error leaves the block: a pool would wait for what they are at.

    Example:
        >>> with kill_started():
        ...     pass
    """
    before = set(active_children())
    try:
        yield
    except BaseException:
        for process in set(active_children()) - before:
            process.kill()
        raise


def _ask_linux() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(parent) -> None:
    while parent.is_alive() and os.getppid() == parent.pid:
        parent.join(1.0)
    os._exit(1)
