"""Kernels for tests that start at once: forks of one process that has imported torch and the like, the half of the time of a small page.

`kernels()` starts that process and says which command starts a kernel, with the connection file as its last word. What is imported
beforehand is of others; `bisam` is imported by the notebook, as in any kernel. A kernel ends with the command that asked for it, and the
process ends with the one that started it. Pages are executed in kernels of the usual kind, `tools/execute_notebooks.py`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

BEFOREHAND = ("torch", "matplotlib.pyplot", "scipy.stats", "sklearn.datasets", "sympy", "torchvision", "ipykernel.kernelapp")


@contextlib.contextmanager
def kernels(beforehand=BEFOREHAND):
    """The words of the command that starts a kernel; the connection file is to be put after them."""
    with tempfile.TemporaryDirectory(prefix="kernels") as folder:
        place = str(Path(folder) / "ask")
        words = [sys.executable, __file__, "serve", place, *beforehand]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            if server.stdout.readline() != b"ready\n":
                raise RuntimeError("the process that kernels are forked from did not start")
            yield [sys.executable, "-I", "-S", __file__, "ask", place]
            server.stdin.close()  # which ends it


def serve(place: str, *beforehand: str) -> None:
    """Imports what takes long, and forks a kernel for everyone who asks, until nobody listens any more."""
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as a kernel sets it; matplotlib reads it once
    for name in beforehand:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no kernel stays as a zombie
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        print("ready", flush=True)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        while True:
            asking, _ = server.accept()
            message, streams, _, _ = socket.recv_fds(asking, 1 << 20, 2)
            if os.fork() == 0:
                server.close()
                _kernel(asking, json.loads(message), streams)
            asking.close()
            for stream in streams:
                os.close(stream)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _kernel(asking: socket.socket, wanted: dict, streams: list[int]) -> None:
    """What a kernel of the usual kind does, in a fork; never returns."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for stream, number in zip(streams, (1, 2), strict=True):
            os.dup2(stream, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(wanted["folder"])
        os.environ.clear()
        os.environ.update(wanted["environment"])
        sys.path[0:1] = ["", *wanted["environment"].get("PYTHONPATH", "").split(os.pathsep)]
        asking.sendall(str(os.getpid()).encode())
        threading.Thread(target=_end_with, args=(asking,), daemon=True).start()
        from ipykernel.kernelapp import IPKernelApp

        app = IPKernelApp.instance()
        app.parent_handle = 0  # the thread above sees to that
        app.initialize(["-f", wanted["file"]])
        app.start()
        status = 0
    finally:
        os._exit(status)


def _end_with(asking: socket.socket) -> None:
    asking.recv(1)  # nothing ever comes but the end
    os._exit(1)


def ask(place: str, file: str) -> int:
    """Asks for a kernel and stays until it ends; to end this is to end the kernel."""
    wanted = {"file": file, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(place)
        socket.send_fds(server, [json.dumps(wanted).encode()], [1, 2])
        kernel = int(server.recv(64) or 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(kernel, number))
        while server.recv(1):
            pass
    return 0


if __name__ == "__main__":
    sys.exit({"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:]))
