"""Files: opens paths that users name, and replaces files atomically.

A path on a command line, in a manifest or in a ledger can be anything: a named pipe that blocks the process
that opens it, a device without end, a loop of links. All code that reads such a path opens it here.
"""

import errno
import io
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from typing import IO, TextIO

from batch_snapshot.errors import InputError, file_error
from batch_snapshot.text import escaped, shortened

#: The most parts of a path: deeper folders cannot be created one by one.
MOST_PARTS = 400

#: Files of a folder whose names are compared with a name that does not exist.
_COMPARED = 1_000

#: Without O_NONBLOCK, opening a pipe waits for its other end.
_AT_ONCE = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class NotAFileError(OSError): ...


class Disk:
    """The system calls by which ledgers and state files change; a simulated disk overrides them."""

    def write(self, fd: int, data: bytes) -> int:
        return os.write(fd, data)

    def append(self, fd: int, line: bytes, size: int) -> None:
        """Write a whole line to the end of a file of `size` bytes; what fails leaves nothing of it there."""
        written = 0
        try:
            while written < len(line):
                written += self.write(fd, line[written:])
        except OSError:
            with suppress(OSError):
                self.truncate(fd, size)
                self.sync(fd)  # else a power cut may bring the rest back, under later lines
            raise

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Make a file, or the names in a folder, durable."""
        os.fsync(fd)

    def write_again(self, path: Path, start: int) -> None:
        """Write the bytes of a file from `start` on once more.

        After a failed fsync Linux takes pages for written that are not: a later fsync would succeed without
        writing them (https://wiki.postgresql.org/wiki/Fsync_Errors).
        """
        with path.open("r+b", 0) as file:
            while data := os.pread(file.fileno(), 1024 * 1024, start):
                start += os.pwrite(file.fileno(), data, start)

    def replace(self, source: Path, target: Path) -> None:
        source.replace(target)


#: The disk of this context.
DISK: ContextVar[Disk] = ContextVar("DISK", default=Disk())  # noqa: B039 - it has no state


def open_regular(path: Path, buffering: int = -1) -> IO[bytes]:
    """Open a regular file for reading, without blocking; anything else is a `NotAFileError`.

    Every other failure is an OSError, an impossible name too.
    """
    return os.fdopen(open_descriptor(path, os.O_RDONLY), "rb", buffering)


def open_descriptor(path: Path, flags: int, mode: int = 0o666) -> int:
    """The descriptor of a regular file, opened with `flags`; see `open_regular`."""
    try:
        number = os.open(path, flags | _AT_ONCE, mode)
    except OSError as error:
        if kind := special_kind(path):
            raise NotAFileError(error.errno, f"it is {kind}, not a file", str(path)) from None
        raise
    except ValueError as error:  # a zero byte, or half a surrogate pair
        raise OSError(errno.EINVAL, f"no file can have that name: {error}", str(path)) from None
    if kind := _kind(os.fstat(number)):
        os.close(number)
        raise NotAFileError(errno.ENXIO, f"it is {kind}, not a file", str(path))
    return number


def _kind(found: os.stat_result) -> str | None:
    return None if stat.S_ISREG(found.st_mode) else _KINDS.get(stat.S_IFMT(found.st_mode), "something else")


def read_regular(path: Path, longest: int) -> bytes:
    """The content of a regular file; raises OSError also if it holds more than `longest` bytes."""
    with open_regular(path) as file:
        data = file.read(longest + 1)
    if len(data) > longest:
        raise OSError(errno.EFBIG, f"it is larger than {longest:,} bytes", str(path))
    return data


#: Whether a regular file exists at a path; unlike `Path.is_file` it raises nothing.
is_file = os.path.isfile


def exists(path: Path) -> bool:
    """Whether anything exists at `path`; `InputError` if that cannot be determined."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise unreachable(path, error) from None
    return True


def nearest(path: Path, pattern: str) -> Path | None:
    """The file of the same folder that fits `pattern`, and whose name is most like that of `path`."""
    from difflib import get_close_matches  # nearly always the file exists

    with suppress(OSError):
        known = {one.stem: one for one in islice(path.parent.glob(pattern), _COMPARED)}
        if near := get_close_matches(path.stem, known, n=1):
            return known[near[0]]
    return None


def is_on_block_device(path: Path) -> bool:
    """Whether the file is surely on this machine: network file systems, among others, have no device."""
    return os.major(path.stat().st_dev) != 0


def unreachable(path: Path, error: OSError | ValueError) -> InputError:
    why = getattr(error, "strerror", None) or error
    return InputError(
        f"{shortened(str(path))}: cannot be reached ({why}); name a path in a folder that you may enter"
    )


def special_kind(path: Path) -> str | None:
    """What is at the path, such as "a device"; None: a regular file, or nothing."""
    try:
        return _kind(path.stat())
    except (OSError, ValueError):
        return None


def refuse_special(path: Path) -> None:
    """Raise `NotAFileError` for a pipe, a device or a folder before a library opens it as a file."""
    if kind := special_kind(path):
        raise NotAFileError(errno.ENXIO, f"it is {kind}, not a file", str(path))


def resolved(path: Path) -> Path:
    """The absolute path without symbolic links; circular links are followed as far as possible.

    Unlike `Path.resolve` it raises only OSError.
    """
    try:
        return Path(os.path.realpath(path))
    except (ValueError, RecursionError) as error:
        raise OSError(errno.EINVAL, f"no file can have that name: {error}", str(path)) from None


def make_folder(path: Path) -> None:
    """Create a folder and all its parents; whatever fails is an OSError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except RecursionError:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path)) from None
    except ValueError as error:
        raise OSError(errno.EINVAL, f"no folder can have that name: {error}", str(path)) from None


def write_new(path: Path, text: str, elsewhere: str) -> None:
    """Write a file that must not exist yet; `elsewhere` says how to name another."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path}: already exists: {elsewhere}, or remove it first") from None
    except OSError as error:
        raise InputError(file_error(path, error, elsewhere)) from None


@contextmanager
def atomic_write(path: Path, mode: int | None = None) -> Iterator[IO[bytes]]:
    """Write a file that replaces `path` at the end of the block, durably; after an error `path` is unchanged.

    It gets the permissions `mode`, whatever the umask. None: those of the file that is replaced, or for a new
    file what the umask leaves of 0o666.
    """
    refuse_special(path)
    if mode is None and path.exists():
        mode = stat.S_IMODE(path.stat().st_mode)
    # Another process may be replacing the same file. A long name must not become too long.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        permissions = 0o666 if mode is None else mode
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, permissions)) as file:
            if mode is not None and stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:
                with suppress(OSError):  # some file systems have no permissions
                    os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            DISK.get().sync(file.fileno())
        DISK.get().replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def atomic_write_text(path: Path, mode: int | None = None, *, errors: str = "strict") -> Iterator[TextIO]:
    """`atomic_write` for UTF-8 text; line ends are written as given."""
    with atomic_write(path, mode) as file:
        text = io.TextIOWrapper(file, "utf-8", errors, newline="")
        yield text
        text.detach()


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: files that were created, renamed or removed in it."""
    number = os.open(path, os.O_RDONLY)
    try:
        DISK.get().sync(number)
    finally:
        os.close(number)


def user_path(text: str, flag: str) -> str:
    """A path or a pattern as a user typed it, with `~` replaced by the home folder.

    What cannot be a file is an `InputError` about `flag`, the flag or variable that names it.
    """
    shown = shortened(escaped(text))
    if not text.strip():
        raise InputError(f"{flag}: is empty; name a path")
    if "\0" in text:
        raise InputError(f"{flag} {shown}: contains a zero byte, which no path can contain")
    if scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise InputError(
            f"{flag} {shown}: {scheme[0]}… is a URL, not a path: name a file on this machine, and copy it "
            f"from or to there (for a folder with this name, write ./{shown})"
        )
    if text == "-":
        raise InputError(
            f"{flag} -: standard input and output are not used here, since files are read more than once: "
            "name a file (for a file with this name, write ./-)"
        )
    text = os.path.expanduser(text)  # noqa: PTH111 - a Path loses the end of a pattern
    if text.startswith("~"):
        user = shortened(escaped(text.partition("/")[0]))
        raise InputError(
            f"{flag} {shown}: the home folder of {user} is not known on this machine: write the whole "
            f"path (for a folder with this name, write ./{shown})"
        )
    if text.count("/") > MOST_PARTS:
        raise InputError(f"{flag} {shown}: has more than {MOST_PARTS} parts; name a shorter path")
    return text
