"""A notebook in a kernel of its own, executed beside the caller, who can watch it and stop it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .. import _checks

__all__ = ["Execution"]


class Execution:
    """One execution of all cells, from top to bottom, in a thread with an event loop of its own.

    The kernel runs the Python that runs this, whatever the notebook's metadata or the machine call a kernel, and ends with this process.

    Args:
        notebook: what ``nbformat.read`` returns; its cells are filled with outputs as they come.
        folder: in which the kernel runs.
        variables: the environment of the kernel.
        options: more words for the start of the kernel.
        on_cell: is called in that thread after every cell of code.

    Raises:
        ModuleNotFoundError: the packages of the extra ``notebooks`` are not there.

    Example:
        >>> import nbformat, os
        >>> notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("6 * 7")])
        >>> one = Execution(notebook, Path.cwd(), os.environ)
        >>> one.cells, one.done, one.has_ended(within=0)
        (1, 0, False)
    """

    def __init__(
        self, notebook, folder: Path, variables: Mapping[str, str], options: Sequence[str] = (), on_cell: Callable[[], object] = lambda: None,
    ):  # fmt: skip
        for package in ("ipykernel", "jupyter_client", "nbclient"):
            _checks.needs(package, extra="notebooks")
        self.notebook = notebook
        self.cells = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells)
        self.done = 0
        self.trouble: BaseException | None = None
        self._on_cell, self._folder, self._variables = on_cell, folder, dict(variables)
        # The kernel warns of TCP, which here stays on this machine.
        self._options = ["--log-level=ERROR", *options]
        self._thread = threading.Thread(target=self._run, name="notebook", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopped = threading.Event()
        self._ended = threading.Event()

    def start(self) -> None:
        """Starts the kernel and the cells, and returns at once."""
        self._thread.start()

    def has_ended(self, within: float) -> bool:
        """Whether the last cell has run, or one has failed, waited for at most so many seconds."""
        return self._ended.wait(within)

    def stop(self) -> None:
        """Ends the kernel, whatever it is at, and returns when it has gone."""
        self._is_stopped.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just closed
                self._loop.call_soon_threadsafe(self._cancel)
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def was_stopped(self) -> bool:
        """Whether somebody has called ``stop``."""
        return self._is_stopped.is_set()

    def _run(self) -> None:
        try:
            asyncio.run(self._execute())
        except BaseException as error:  # said by the thread that waits
            self.trouble = error
        finally:
            self._ended.set()

    async def _execute(self) -> None:
        from nbclient import NotebookClient

        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self.was_stopped:
            return
        client = NotebookClient(
            self.notebook, timeout=None, startup_timeout=600, iopub_timeout=60, kernel_name="python3", kernel_manager_class=_manager(), record_timing=False,
            # The limits end what hangs; a busy machine is slow to start and to hand over what was printed.
            store_widget_state=False, shutdown_kernel="immediate", on_cell_executed=self._count, extra_arguments=self._options,
            resources={"metadata": {"path": str(self._folder)}},
        )
        try:
            await client.async_execute(env=self._variables)
        finally:
            if client.km is not None and client.km.has_kernel:  # stopped while the kernel was starting
                await client.km.shutdown_kernel(now=True)

    def _cancel(self) -> None:
        self._task.cancel()

    def _count(self, cell, cell_index: int, execute_reply: dict) -> None:
        if execute_reply["content"]["status"] == "ok":
            self.done += 1
            self._on_cell()


def _manager() -> type:
    """Managers of kernels whose ``python3`` is the Python that runs this: another of that name may lack this package."""
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class OwnPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=words, display_name="Python 3", language="python", metadata={"debugger": False})

    class Manager(AsyncKernelManager):
        def __init__(self, **options):
            super().__init__(**{**options, "kernel_spec_manager": OwnPython()})

    return Manager
