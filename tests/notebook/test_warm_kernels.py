"""Kernels that are forks of one process: they are kernels like any other, and none outlives the command that asked for it."""

import os
import signal
import sys
import time

import pytest
from jupyter_client.manager import KernelManager
from scripts import tool

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kernels are forked where there is a fork")


@pytest.fixture(scope="module")
def words():
    with tool("warm_kernels").kernels(("ipykernel.kernelapp", "colorsys")) as found:
        yield found


@pytest.fixture
def kernel(words, tmp_path, monkeypatch):
    monkeypatch.setenv("SAID_BY_THE_TEST", "yes")
    manager = KernelManager()
    manager.kernel_spec.argv = [*words, "{connection_file}"]
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=600)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def answer(client, code):
    """What a cell prints, and how it ends."""
    text = []
    reply = client.execute_interactive(code, timeout=600, output_hook=lambda message: text.append(message["content"].get("text", "")))
    return "".join(text).strip(), reply["content"]["status"]


def is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat") as found:
        return found.read().rpartition(")")[2].split()[0] != "Z"


def test_it_has_the_folder_and_the_environment_of_the_one_that_asked_and_a_fault_is_a_fault(kernel, tmp_path):
    _, client = kernel
    assert answer(client, "import os; print(os.getcwd(), os.environ['SAID_BY_THE_TEST'], os.environ['MPLBACKEND'])") == (
        f"{tmp_path} yes module://matplotlib_inline.backend_inline", "ok")  # fmt: skip
    assert answer(client, "import sys; print('colorsys' in sys.modules, 'bisam' in sys.modules)") == ("True False", "ok")
    assert answer(client, "import subprocess; print(subprocess.run(['false']).returncode)") == ("1", "ok")  # children can be waited for
    assert answer(client, "1 / 0")[1] == "error" and answer(client, "assert 1 == 2")[1] == "error"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_ends_with_the_command_that_asked_for_it(kernel):
    manager, client = kernel
    process = int(answer(client, "import os; print(os.getpid())")[0])
    assert is_there(process) and process != manager.provisioner.process.pid
    os.kill(manager.provisioner.process.pid, signal.SIGKILL)
    for _ in range(600):
        if not is_there(process):
            break
        time.sleep(0.1)
    assert not is_there(process)
