"""Processes end when they are told to, say so in a sentence, keep what was finished, and leave nobody behind."""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bisam.cli import main
from bisam.training import processes

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
PATIENCE = 1800  # seconds; it ends what hangs, and a busy machine is no fault
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the processes are looked up in /proc, which is not there")

TOML = """
[experiment.long]
title = "Runs that do not end by themselves"
scale = "laptop"
methods = ["sgd", "sam"]
seeds = 1
epochs = 1000000
settings = { model = "mlp" }
"""
RECORD = """
import sys
from pathlib import Path
from bisam import cli
from bisam.evidence import places, plans, prices
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    here = {places.RESULTS: folder, plans.CHECKPOINTS: folder / "checkpoints"}
    for function in (plans.plan, plans.Settings.__init__):
        function.__defaults__ = tuple(here.get(value, value) if isinstance(value, Path) else value for value in function.__defaults__)
    prices.prices = lambda planned, settings: {}
    sys.exit(cli.main(["reproduce", "long", "--workers", sys.argv[2]]))
"""


@pytest.fixture(autouse=True)
def heard():
    """Signals are heard here and in every process that is started: a shell that runs the tests behind it, or nohup, has them ignored."""
    before = {number: signal.getsignal(number) for number in processes.SIGNALS}
    ignored = [number for number, handler in before.items() if handler is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def until(condition, what):
    """Waits for something, looking often."""
    for _ in range(50 * PATIENCE):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"{what} has not come in {PATIENCE} s")


def fields(pid):
    """State and parent of a process, or nothing if there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]


def is_gone(pid):
    return (fields(pid) or "Z")[0] in "ZX"


def family(pid):
    """All processes that a process has started, and those that they have started."""
    parents = {int(entry): int(found[1]) for entry in os.listdir("/proc") if entry.isdigit() and (found := fields(entry))}
    found, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return found - {pid}


@contextlib.contextmanager
def recording(folder, workers):
    """A command in the middle of its runs, with its workers, alone in a group of processes."""
    (folder / "claims.toml").write_text(TOML)
    (folder / "record.py").write_text(RECORD)
    words = [sys.executable, str(folder / "record.py"), str(folder), str(workers)]
    parent = subprocess.Popen(words, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: parent.poll() is not None or len(list(folder.glob("checkpoints/long/*.pt"))) == workers, "the first epoch of every run")
        assert parent.poll() is None, parent.communicate()
        yield parent, family(parent.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("workers, number, send", [
    (1, "SIGTERM", os.kill), (2, "SIGKILL", os.kill), (2, "SIGINT", os.killpg),
])  # fmt: skip
def test_a_command_that_is_stopped_leaves_no_worker_and_keeps_its_checkpoints(workers, number, send, tmp_path):
    """A process manager tells the parent, a terminal tells all of them."""
    number = getattr(signal, number)
    with recording(tmp_path, workers) as (parent, children):
        assert len(children) >= (2 if workers == 2 else 0)
        send(parent.pid, number)
        said = parent.communicate(timeout=PATIENCE)
        assert parent.returncode == (-number if number == signal.SIGKILL else 128 + number), said
        until(lambda: all(map(is_gone, children)), "the end of the workers")
        if number != signal.SIGKILL:
            assert said[1].splitlines()[-1].startswith("bisam: stopped; what was finished is kept") and "Traceback" not in said[1]
    kept = tmp_path / "checkpoints" / "long"
    assert len(list(kept.glob("*.pt"))) == workers and not (tmp_path / "runs").exists()


CHILDREN = """
import multiprocessing, sys, time
from bisam.training import processes
def child(way, queue):
    if way == "linux":
        processes._watch = lambda parent: None
    if way == "watch":
        processes._ask_linux = lambda: None
    processes.follow_parent()
    queue.put(True)
    time.sleep(1000)
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    with processes.signals_held_back():
        started = [context.Process(target=child, args=(way, queue)) for way in sys.argv[1:]]
        for one in started:
            one.start()
    for one in started:
        queue.get()
    print(*(one.pid for one in started), flush=True)
    time.sleep(1000)
"""


@needs_proc
@pytest.mark.slow
def test_each_of_the_two_ways_to_follow_the_parent_is_enough(tmp_path):
    """A child for each way; prctl is of Linux."""
    ways = ["watch", "linux"] if sys.platform == "linux" else ["watch"]
    (tmp_path / "children.py").write_text(CHILDREN)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "children.py"), *ways], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    children = [int(word) for word in parent.stdout.readline().split()]
    assert len(children) == len(ways) and not any(map(is_gone, children))
    for child, number in itertools.product(children, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):  # held back: these are for the parent
        os.kill(child, number)
    parent.kill()
    parent.communicate()
    until(lambda: all(map(is_gone, children)), "the end of the children")


# -- handlers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", processes.SIGNALS)
def test_every_signal_to_stop_cleans_up_and_the_handlers_are_put_back(number):
    before, cleaned = [signal.getsignal(one) for one in processes.SIGNALS], []
    with pytest.raises(processes.Stopped) as caught, processes.stoppable():
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append([signal.getsignal(one) for one in processes.SIGNALS])
    assert caught.value.number == number and isinstance(caught.value, KeyboardInterrupt)
    assert cleaned == [[signal.SIG_DFL] * len(processes.SIGNALS)]  # a second signal ends it at once
    assert [signal.getsignal(one) for one in processes.SIGNALS] == before


def test_what_is_ignored_stays_ignored_as_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with processes.stoppable():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        with pytest.raises(processes.Stopped), processes.stoppable():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_in_another_thread_runs_without_handlers(capsys):
    found = []
    thread = threading.Thread(target=lambda: found.append(main(["methods"])))
    thread.start()
    thread.join()
    assert found == [0] and "bisam-log" in capsys.readouterr().out


# -- Ctrl-C while torch is imported -------------------------------------------------------------------------------------

SLOW_TORCH = "import time\nprint('importing', flush=True)\ntime.sleep(1000)\n"
CONSOLE_SCRIPT = "import sys\nfrom bisam.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


def interrupted(folder, words):
    """What is left of a process that gets Ctrl-C while it imports a torch that never comes."""
    (folder / "torch").mkdir(exist_ok=True)
    (folder / "torch" / "__init__.py").write_text(SLOW_TORCH)
    path = f"{folder}{os.pathsep}{ROOT}"
    child = subprocess.Popen(
        [sys.executable, *words], env={**ENVIRONMENT, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "importing\n"
    child.send_signal(signal.SIGINT)
    return child.communicate(timeout=PATIENCE)[1], child.returncode


@pytest.mark.parametrize("words", [["-m", "bisam.cli", "methods"], ["bisam", "methods"]], ids=["python -m", "console script"])
def test_ctrl_c_while_the_command_is_imported_prints_no_traceback(words, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bisam").write_text(CONSOLE_SCRIPT)
    words = [str(tmp_path / "bin" / "bisam"), "methods"] if words[0] == "bisam" else words
    assert interrupted(tmp_path, words) == ("", -signal.SIGINT)


def test_ctrl_c_while_the_library_is_imported_is_the_callers(tmp_path):
    (tmp_path / "script.py").write_text("try:\n    import bisam\nexcept KeyboardInterrupt:\n    raise SystemExit('mine')\n")
    assert interrupted(tmp_path, [str(tmp_path / "script.py")]) == ("mine\n", 1)


@pytest.mark.slow
def test_after_the_import_ctrl_c_is_as_it_was():
    code = "import sys, signal; sys.argv = ['{}']; import bisam; assert signal.getsignal(signal.SIGINT) is {}"
    subprocess.run([sys.executable, "-c", code.format("bisam", "signal.default_int_handler")], env=ENVIRONMENT, check=True)
    ignoring = code.replace("import bisam", "signal.signal(signal.SIGINT, signal.SIG_IGN); import bisam").format("bisam", "signal.SIG_IGN")
    subprocess.run([sys.executable, "-c", ignoring], env=ENVIRONMENT, check=True)


# -- the output -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("words", [["-m"], ["-u", "-m"]], ids=["at its end", "at its first line"])
def test_a_reader_that_goes_away_ends_the_command_quietly(words):
    read, write = os.pipe()
    os.close(read)
    child = subprocess.run([sys.executable, *words, "bisam.cli", "methods"], env=ENVIRONMENT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (child.returncode, child.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
def test_an_output_that_takes_no_more_is_said():
    with open("/dev/full", "w") as full:
        child = subprocess.run([sys.executable, "-m", "bisam.cli", "methods"], env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (child.returncode, child.stderr) == (1, "bisam: standard output or a temporary file: No space left on device\n")


# -- several processes of torchrun --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words, command", [
    (["reproduce", "T9", "--plan"], "reproduce"), (["reproduce", "T9"], "reproduce"), (["rerun", "x.json"], "rerun"),
    (["report"], "report"), (["verify"], "verify"), (["evidence", "--plan"], "evidence"), (["notebook"], "notebook"),
])  # fmt: skip
def test_what_torchrun_cannot_share_is_refused_before_it_begins(words, command, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"bisam: {command} must be started once, not as 2 processes by torchrun") and not said.out
    assert "--workers 2" in said.err and "`bisam train`" in said.err


@pytest.mark.slow
def test_torchrun_itself_ends_at_once_with_the_refusal():
    """Each process says it and ends with status 2, unless torchrun, which ends the others with the first, was quicker."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "bisam.cli", "report", "first_run"]
    ended = subprocess.run(launch, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1 and not ended.stdout
    assert "bisam: report must be started once, not as 2 processes by torchrun" in ended.stderr
    assert re.search(r"Root Cause.*exitcode *: 2 ", ended.stderr, re.DOTALL), ended.stderr
