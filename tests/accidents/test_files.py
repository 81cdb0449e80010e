"""Files are whole: whatever happens while one is written, the old one or the new one is there, and nothing else."""

import errno
import fcntl
import os
import resource
import signal
import stat
import threading
import time
from pathlib import Path

import pytest

from bisam import _files as files
from bisam.evidence import listing, places

# Python 3.12 warns of forks in a process with threads; the children here write files and leave by os._exit.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
WRITERS = {"whole": files.write_whole, "new": files.write_new}


def raising(error):
    def raises(*_, **__):
        raise error

    return raises


class Death(BaseException):
    """Nobody catches it, as nobody catches a kill."""


# -- names ------------------------------------------------------------------------------------------------------------

EVIL = [
    "", ".", "..", "../../evil", "../x", "a/b", "/abs", "a\\b", "C:evil", "a\n", "\na", "b\n\x1b[31m", "a\0b", "a\tb", "a b", ".hidden",
    "-rf", "a" * 201, "größe", "ａ", "a|b", "a*", "~", "$HOME", "a;b", "a'b", "con:", "\u202ea",
]  # fmt: skip


@pytest.mark.parametrize("name", EVIL, ids=ascii)
def test_a_name_that_is_more_than_a_name_is_refused(name):
    with pytest.raises(ValueError, match=r"^file must ") as caught:
        files.safe_name("file", name)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("name", [None, 5, b"a", Path("a"), ["a"]], ids=repr)
def test_a_name_is_a_text(name):
    with pytest.raises(TypeError, match=r"^file must be text, got"):
        files.safe_name("file", name)


def test_every_name_of_the_project_passes():
    names = [path.stem for path in (places.RESULTS / "runs").rglob("*.json")]
    for experiment in listing.experiments().values():
        names += [experiment.name, *experiment.cells()]
    assert len(names) > 2000 and [files.safe_name("name", name) for name in names] == names
    assert files.safe_name("name", "a" * 200) == "a" * 200 and files.safe_name("name", "lr1e+20=x.y") == "lr1e+20=x.y"


# -- one piece --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data, stored", [(b"\0\xff", b"\0\xff"), ("ä\n", "ä\n".encode()), (b"", b"")])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_is_written_is_there_and_nothing_beside_it(tmp_path, write, data, stored):
    write(tmp_path / "file.json", data)
    assert (tmp_path / "file.json").read_bytes() == stored and os.listdir(tmp_path) == ["file.json"]


def test_a_file_is_replaced_with_its_permissions_and_through_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    files.write_whole(link, "new")
    assert link.is_symlink() and real.read_text() == "new" and stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_new_file_gets_the_permissions_that_any_file_gets(tmp_path):
    (tmp_path / "plain").write_text("")
    files.write_whole(tmp_path / "file", "")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_new_file_never_takes_the_place_of_another(tmp_path):
    (tmp_path / "there").write_text("old")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("there", "dangling"):
        with pytest.raises(FileExistsError, match=str(tmp_path / name)):
            files.write_new(tmp_path / name, "new")
    assert (tmp_path / "there").read_text() == "old" and sorted(os.listdir(tmp_path)) == ["dangling", "there"]


def test_of_many_writers_of_a_new_file_one_succeeds(tmp_path):
    started, outcomes = threading.Barrier(8), []

    def write(k):
        started.wait()
        try:
            files.write_new(tmp_path / "one", str(k))
            outcomes.append(k)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=write, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1 and (tmp_path / "one").read_text() == str(outcomes[0]) and os.listdir(tmp_path) == ["one"]


@pytest.mark.parametrize("write, moment", [
    (files.write_whole, "fsync"), (files.write_whole, "chmod"), (files.write_whole, "replace"), (files.write_new, "fsync"), (files.write_new, "link"),
])  # fmt: skip
@pytest.mark.parametrize("accident", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "Input/output error"), Death()])
def test_an_accident_leaves_what_was_there_and_names_the_file(tmp_path, monkeypatch, write, moment, accident):
    path = tmp_path / "file.json"
    if write is files.write_whole:
        path.write_text("old")
    monkeypatch.setattr(f"bisam._files.os.{moment}", raising(accident))
    with pytest.raises(type(accident)) as caught:
        write(path, "new")
    assert isinstance(accident, Death) or (str(path) in str(caught.value) and caught.value.errno == accident.errno)
    monkeypatch.undo()
    assert {name.name: name.read_text() for name in tmp_path.iterdir()} == ({"file.json": "old"} if write is files.write_whole else {})


PLACES = {
    "no folder": lambda folder: folder / "nowhere" / "file",
    "a folder": lambda folder: folder,
    "behind a file": lambda folder: folder / "plain" / "file",
    "a pipe": lambda folder: folder / "pipe",
    "a long name": lambda folder: folder / ("a" * 300),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_place_where_no_file_can_be_is_named(tmp_path, write, place):
    (tmp_path / "plain").write_text("old")
    os.mkfifo(tmp_path / "pipe")
    path = place(tmp_path)
    with pytest.raises(OSError, match=str(path)):
        write(path, "new")
    assert sorted(os.listdir(tmp_path)) == ["pipe", "plain"] and (tmp_path / "plain").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
def test_a_device_is_never_replaced():
    with pytest.raises(OSError, match=r"no regular file.*/dev/full"):
        files.write_whole(Path("/dev/full"), "x")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_file_that_is_closed_to_writing_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o444)
    monkeypatch.setattr("bisam._files.os.access", lambda path, mode: False)  # as it is for all but root
    for write in (lambda: files.write_whole(path, "new"), lambda: files.check_writable(path)):
        with pytest.raises(PermissionError, match=str(path)):
            write()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def forked(do):
    """A process that does something with a pipe to write into, and what the pipe is read by. A fresh Python would load torch first."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            do(write)
        except OSError as error:
            os.write(write, f"said: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    return child, os.fdopen(read)


def limited(write, path):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    WRITERS[write](path, "x" * 1000)


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITERS)
def test_a_disk_that_really_takes_no_more(tmp_path, write):
    path = tmp_path / "file.json"
    if write == "whole":
        path.write_text("old")
    child, said = forked(lambda _: limited(write, path))
    with said:
        text = said.read()
    os.waitpid(child, 0)
    assert text.startswith(f"said: [Errno {errno.EFBIG}]") and str(path) in text
    assert {name.name: name.read_text() for name in tmp_path.iterdir()} == ({"file.json": "old"} if write == "whole" else {})


# -- drafts -----------------------------------------------------------------------------------------------------------

def killed(path, moment):
    setattr(os, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    files.write_whole(path, "never")


@pytest.mark.slow
def test_drafts_of_processes_that_were_killed_go_with_the_next_writer_of_any_file_there(tmp_path):
    for moment in ("fsync", "replace"):
        child, said = forked(lambda _, moment=moment: killed(tmp_path / "file", moment))
        said.close()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL and not (tmp_path / "file").exists()
        assert len(os.listdir(tmp_path)) == 1  # each child has removed the draft of the one before it
    files.write_new(tmp_path / "other", "x")
    assert os.listdir(tmp_path) == ["other"]


def test_the_draft_of_a_living_process_and_the_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "mine.part").write_text("")
    (tmp_path / "file.123.part").write_text("")
    with files._draft(tmp_path / "file", b"slow") as draft:
        files.write_whole(tmp_path / "file", "quick")
        assert draft.read_text() == "slow"
    assert sorted(os.listdir(tmp_path)) == ["file", "file.123.part", "mine.part"]


def test_a_sweeper_between_the_making_and_the_locking_of_a_draft_does_no_harm(tmp_path, monkeypatch):
    lock, swept = fcntl.flock, []

    def late(handle, kind):
        if not swept and kind == fcntl.LOCK_EX:
            swept.append(kind)
            files._sweep(tmp_path)
        return lock(handle, kind)

    monkeypatch.setattr("bisam._files.fcntl.flock", late)
    files.write_whole(tmp_path / "file", "x")
    assert swept and (tmp_path / "file").read_text() == "x" and os.listdir(tmp_path) == ["file"]


def test_many_processes_that_write_one_file_leave_it_whole(tmp_path):
    path, children = tmp_path / "file", []
    for k in range(6):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(40):
                    files.check_writable(path)
                    files.write_whole(path, str(k) * 5000)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    while any(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for child in children):
        if path.exists():
            content = path.read_text()
            assert len(content) == 5000 and len(set(content)) == 1
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
    assert os.listdir(tmp_path) == ["file"]


def test_where_nothing_can_be_locked_files_are_whole_and_nothing_is_swept(tmp_path, monkeypatch):
    (tmp_path / f".file.1-{'0' * 16}.part").write_text("")
    monkeypatch.setattr("bisam._files.fcntl.flock", raising(OSError(errno.ENOTSUP, "Operation not supported")))
    files.write_whole(tmp_path / "file", "x")
    with pytest.warns(RuntimeWarning, match="lock cannot be locked"), files.held(tmp_path / "lock") as mine:
        assert mine
    assert sorted(os.listdir(tmp_path)) == [f".file.1-{'0' * 16}.part", "file"]
    monkeypatch.setattr("bisam._files.fcntl", None)
    files.write_whole(tmp_path / "file", "y")
    assert (tmp_path / "file").read_text() == "y"


# -- locks ------------------------------------------------------------------------------------------------------------

def holding(path, said):
    with files.held(path) as mine:
        os.write(said, f"{mine}\n".encode())
        time.sleep(60)


@pytest.mark.slow
def test_a_lock_goes_with_its_process(tmp_path):
    child, said = forked(lambda write: holding(tmp_path / "lock", write))
    with said:
        assert said.readline() == "True\n"
    with files.held(tmp_path / "lock") as mine:
        assert not mine
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with files.held(tmp_path / "lock") as mine:
        assert mine
    assert os.listdir(tmp_path) == []


def test_one_process_at_a_time_holds_a_lock(tmp_path):
    """Each adds to a number by reading and writing it: one meeting would lose a count."""
    (tmp_path / "count").write_text("0")
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            status, done = 1, 0
            try:
                while done < 50:
                    with files.held(tmp_path / "lock") as mine:
                        if mine:
                            (tmp_path / "count").write_text(str(int((tmp_path / "count").read_text()) + 1))
                            done += 1
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert (tmp_path / "count").read_text() == "200"


def test_a_lock_is_free_again_although_a_fork_has_inherited_it(tmp_path):
    with files.held(tmp_path / "lock") as mine:
        assert mine
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    with files.held(tmp_path / "lock") as mine:
        assert mine
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
