"""Files in one piece: a reader, or a kill at any moment, sees the old file or the new one, and never a half."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from . import _checks

try:
    import fcntl
except ImportError:  # Windows, where files are whole all the same, but nothing is locked and no draft is swept
    fcntl = None

__all__ = ["check_writable", "held", "safe_name", "write_new", "write_whole"]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")
LONGEST = 200  # characters of a name: with what is put behind it, it stays below the 255 that file systems allow
LONGEST_PATH = 4095  # bytes of a path that systems take
DRAFT = re.compile(r".+\.\d+-[0-9a-f]{16}\.part")
NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)


def safe_name(what: str, name: object) -> str:
    """A name that can stand in a path: one part of it, which leads nowhere else and prints as it is.

    Args:
        what: the argument that is checked, for the error.
        name: letters, digits, and ``_ . - + =``; at most 200 of them, the first a letter, a digit or ``_``.

    Raises:
        TypeError: no text.
        ValueError: another character, such as a separator, a line break or an escape; an empty or overlong name; a dot or a dash
            at its beginning.

    Example:
        >>> safe_name("file", "sam-rho0.05-seed3")
        'sam-rho0.05-seed3'
        >>> safe_name("file", "../evil")
        Traceback (most recent call last):
        ValueError: file must be letters, digits and _ . - + =, beginning with a letter, a digit or _; got '../evil'
    """
    if len(_checks.text(_checks.text("what", what), name)) > LONGEST:
        raise ValueError(f"{what} must have at most {LONGEST} characters, got {len(name)}: {name[:40]!r}...")
    if not NAME.fullmatch(name):
        raise ValueError(f"{what} must be letters, digits and _ . - + =, beginning with a letter, a digit or _; got {_checks.shown(name)}")
    return name


def write_whole(path: Path, data: bytes | str | Callable[[IO[bytes]], object]) -> None:
    """Replaces a file in one piece, by the atomic rename of POSIX, and returns when the disk has it.

    The draft stands beside the file until it is complete. A link is followed: what it points to is replaced. Drafts that killed
    processes have left in the folder are removed.

    Args:
        path: of the file; its folder must be there.
        data: the whole content; text becomes UTF-8. What is too large to hold twice is a function that writes to an open file.

    Raises:
        OSError: the disk does not take it, with the path in the message; an old file stays as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "history.json"
        ...     write_whole(path, "{}")
        ...     path.read_text()
        '{}'
    """
    content = _content(data)
    with _named(path):
        path = Path(os.path.realpath(path))
        mode = _mode(path)
        with _draft(path, content) as draft:
            if mode is not None:
                os.chmod(draft, mode)
            os.replace(draft, path)
        _settle(path.parent)


def check_writable(path: Path) -> None:
    """Makes the folder of a file and proves that the file can be written there; it is not touched.

    Args:
        path: of the file.

    Raises:
        OSError: why it cannot be written, with the path in the message.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_writable(Path(folder) / "new" / "history.json")
        ...     list((Path(folder) / "new").iterdir())
        []
    """
    with _named(path):
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        _mode(path)
        probe, file = _begun(path)
        probe.unlink()
        file.close()


def write_new(path: Path, data: bytes | str) -> None:
    """Writes a file that is not there yet, in one piece; of several writers one succeeds, by the hard links of POSIX.

    Args:
        path: of the file; its folder must be there.
        data: the whole content; text becomes UTF-8.

    Raises:
        FileExistsError: the file is there already; it stays as it is.
        OSError: the disk does not take it, with the path in the message; nothing is left.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "record.json"
        ...     write_new(path, "{}")
        ...     try:
        ...         write_new(path, "other")
        ...     except FileExistsError:
        ...         print("kept", path.read_text())
        kept {}
    """
    content = _content(data)
    with _named(path):
        if os.path.lexists(path):  # also looked at below; here it saves the work
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with _draft(Path(path), content) as draft:
            os.link(draft, path)
        _settle(Path(path).parent)


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Whether this process alone holds the lock of that name (a flock) for the time of the block; another holder is not waited for.

    The lock goes with the process, also when that is killed, and its file is removed at the end. Where the file system has no locks
    there is a warning, and the block is entered.

    Args:
        path: of the lock file; its folder must be there.

    Raises:
        OSError: the lock file cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with held(Path(folder) / "lock") as first, held(Path(folder) / "lock") as second:
        ...         first, second
        (True, False)
    """
    handle = _taken(path)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)  # while it is still locked: nobody else may have made a new one
            with contextlib.suppress(OSError):
                _flock(handle, unlock=True)  # closing is not enough where a fork has inherited it
            os.close(handle)


def _taken(path: Path) -> int | None:
    """The open and locked lock file, or ``None`` if another holds it."""
    with _named(path):
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            if not _locked(handle, path):
                os.close(handle)
                return None
            if _is(handle, path):
                return handle
            os.close(handle)  # the last holder has removed the file just before it was locked here


def _content(data: bytes | str | Callable[[IO[bytes]], object]) -> bytes | Callable[[IO[bytes]], object]:
    if isinstance(data, bytes):
        return data
    if not isinstance(data, str):
        return _checks.function("data", data, "the whole content, as bytes or text, or a function that writes it to an open file")
    try:
        return data.encode()
    except UnicodeEncodeError:  # half a pair of surrogates
        raise ValueError(f"data must be text that UTF-8 can hold, got {_checks.shown(data)}") from None


@contextlib.contextmanager
def _draft(path: Path, data: bytes | Callable[[IO[bytes]], object]) -> Iterator[Path]:
    """A complete draft beside a file, locked as long as its process lives, and gone after the block."""
    _sweep(path.parent)
    draft, file = _begun(path)
    try:
        with file:
            _put(file, data)
            file.flush()
            os.fsync(file.fileno())
            yield draft
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _put(file: IO[bytes], data: bytes | Callable[[IO[bytes]], object]) -> None:
    if not callable(data):
        file.write(data)
        return
    try:
        data(file)
    except Exception as error:
        error.add_note("data was called with the open file")
        raise


def _begun(path: Path) -> tuple[Path, IO[bytes]]:
    """A new file with a name that nobody else uses, locked."""
    while True:
        draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(8)}.part")
        file = open(draft, "xb")  # noqa: SIM115  the caller closes it
        with contextlib.suppress(OSError):
            _flock(file.fileno(), wait=True)
        if _is(file.fileno(), draft):
            return draft, file
        file.close()  # a sweeper has taken it for an old one, between its making and its locking


def _sweep(folder: Path) -> None:
    """Removes the drafts in a folder whose processes are gone: nobody holds their lock."""
    drafts: list[str] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        drafts = [entry.path for entry in entries if DRAFT.fullmatch(entry.name)]
    for draft in drafts:
        with contextlib.suppress(OSError), open(draft, "r+b") as file:
            _flock(file.fileno())
            os.unlink(draft)


def _flock(handle: int, *, wait: bool = False, unlock: bool = False) -> None:
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this system has no flock")
    fcntl.flock(handle, fcntl.LOCK_UN if unlock else fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _locked(handle: int, path: Path) -> bool:
    try:
        _flock(handle)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        text = f"{path} cannot be locked ({error.strerror}): see to it that no other process works on the same file"
        warnings.warn(text, RuntimeWarning, stacklevel=5)
    return True


def _is(handle: int, path: Path) -> bool:
    """Whether a path still leads to the file that is open."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _mode(path: Path) -> int | None:
    """The permissions of the file that will be replaced; an ``OSError`` if it is a folder, a device or closed to writing."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return stat.S_IMODE(status.st_mode)


def _settle(folder: Path) -> None:
    """Has the disk take the new name, where a folder can be flushed; the file is complete either way."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the file system name the file that was asked for, not the draft, the folder or nothing."""
    _checks.path("path", path, longest=LONGEST_PATH)  # a single part that is too long is for the file system to refuse
    try:
        yield
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f"cannot be written: {error.strerror or error}", str(path)) from None
