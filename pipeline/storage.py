"""What machines share through object storage: folders that never change, each as one object, and small files that do.

The name of an artifact holds the fingerprint of everything that it was made from, and an object appears whole or not at
all. So whoever reads one can take it for its own work, and nothing has to be locked.
"""

from __future__ import annotations

import os
import re
import shlex
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import publish

SUFFIX = ".tar"
S3, GOOGLE, LOCAL = ("s3", "s3a"), ("gs", "gcs"), ("file", "local")
BLOCK_BYTES = 16 << 20
"""What is read or sent in one request; larger objects are sent in parts, and appear with the last."""
FORGOTTEN = b"forgotten\n"
"""What an object is replaced by, so that no machine stores it again."""
REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412")
"""What S3 servers answer to a write whose condition does not hold."""
KEYS = "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…"


class Changed(BadInput):
    """Another command has changed something since it was read."""


@dataclass(frozen=True)
class Version:
    """A file as it was read: its bytes, and the server's tag of them, where it has one."""

    content: bytes
    tag: str | None


class Storage:
    """A place such as `s3://bucket/path` or `file:///mnt/shared`, read and written by fsspec.

    Credentials, endpoint and region are those of the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on), or of
    the client's own files.

    Raises:
        BadInput: if the address holds a password.
    """

    def __init__(self, url: str) -> None:
        if re.match(r"[a-z0-9+]+://[^/@]*:.*@", url):  # the address itself is not repeated
            raise BadInput(
                "The address of a storage holds a password, which configs and messages would repeat.",
                f"Leave it out, and set it in the environment: {KEYS}",
            )
        self.url = url.rstrip("/")

    def has(self, name: str) -> bool:
        """Whether there is something under a name, or was until it was forgotten."""
        with self._reached("read"):
            return self._fs.exists(self._path(name + SUFFIX))

    def fetch(self, name: str, folder: Path, is_intact: Callable[[Path], bool]) -> bool:
        """Unpack what is stored under a name; the folder appears whole. Where it exists by then, it stays as it is.

        Args:
            is_intact: whether a folder has what was stored.

        Returns:
            Whether there is such a thing.

        Raises:
            BadInput: if the storage cannot be read, or what is stored is damaged.
        """
        if not self.has(name):
            return False
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.", suffix=".partial") as temporary:
            content = Path(temporary) / "content"
            if not self._download(name, content):
                return False
            if not is_intact(content):
                raise self._damaged(name)
            if not folder.exists():
                publish(content, folder)
        return True

    def store(self, name: str, folder: Path, leave_out: Collection[str] = ()) -> None:
        """Store a folder under a name.

        Args:
            leave_out: names of files that are not stored.

        Raises:
            BadInput: if the storage cannot be written.
        """
        with self._reached("written"), self._whole(self._path(name + SUFFIX)) as out:
            pack(folder, out, leave_out)

    def forget(self, name: str) -> None:
        """Delete what is stored under a name, and let no machine store it again."""
        with self._reached("written"), self._whole(self._path(name + SUFFIX)) as out:
            out.write(FORGOTTEN)

    def names(self) -> list[str]:
        """All names of two parts under which something is stored, or was."""
        with self._reached("read"):
            paths = self._fs.glob(f"{self._root}/*/*{SUFFIX}")
        names = [path.removeprefix(f"{self._root}/").removesuffix(SUFFIX) for path in sorted(paths)]
        return [name for name in names if all(map(is_plain, name.split("/")))]

    def read(self, name: str) -> Version | None:
        """A small file, or None where there is none."""
        path = self._path(name)
        with self._reached("read"):
            try:
                tag = self._fs.info(path).get("ETag")  # before the content: if it changes in between, `replace` fails
                return Version(self._fs.cat_file(path), tag)
            except FileNotFoundError:
                return None

    def replace(self, name: str, content: bytes, before: Version | None) -> None:
        """Write a small file in place of the version that was read. An S3 server compares and writes in one step;
        elsewhere, and with servers that do not, two writers at the same moment can miss each other.

        Raises:
            Changed: if there is another version by now.
        """
        path, current = self._path(name), self.read(name)
        if (current and current.content) != (before and before.content):
            raise self._changed()
        with self._reached("written"):
            if self._protocol not in S3:
                with self._whole(path) as out:
                    out.write(content)
                return
            condition = {"IfMatch": before.tag} if before and before.tag else {"IfNoneMatch": "*"}
            try:
                self._fs.pipe_file(path, content, **condition)
            except OSError as error:
                if _code(error) in REFUSED:
                    raise self._changed() from None
                raise

    def _download(self, name: str, folder: Path) -> bool:
        """Unpack an object. Returns whether there is one that is not forgotten."""
        with self._reached("read"):
            try:
                with self._fs.open(self._path(name + SUFFIX), "rb", block_size=BLOCK_BYTES) as source:
                    if source.read(len(FORGOTTEN)) == FORGOTTEN:
                        return False
                    source.seek(0)
                    unpack(source, folder)
            except FileNotFoundError:
                return False
            except (tarfile.TarError, EOFError):
                raise self._damaged(name) from None
        return True

    @contextmanager
    def _whole(self, path: str) -> Iterator[IO[bytes]]:
        """A file that appears when the block ends, or not at all."""
        if self._protocol not in LOCAL:
            with self._fs.transaction, self._fs.open(path, "wb", block_size=BLOCK_BYTES) as out:
                yield out
            return
        partial = Path(f"{path}.{uuid.uuid4().hex}.partial")  # fsspec's lies in /tmp, and is copied to another disk
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as out:
                yield out
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @property
    def _fs(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    @property
    def _protocol(self) -> str:
        protocol = self._fs.protocol
        return protocol if isinstance(protocol, str) else protocol[0]

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system, without a memory of its own of what is stored, and the path within it."""
        import fsspec

        try:
            files, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            raise BadInput(f"{self.url} cannot be opened: {error}.", _installing(self.url)) from None
        except ValueError as error:
            raise BadInput(
                f"{self.url} is no address of a storage: {error}.", "For example: s3://BUCKET/PATH"
            ) from None
        protocol = self.url.partition(":")[0]
        if protocol in S3 + GOOGLE:
            _check_bucket(files, protocol, root.partition("/")[0])
        return files, root

    @contextmanager
    def _reached(self, verb: str) -> Iterator[None]:
        """Whatever a client raises becomes an error that a user can mend."""
        try:
            yield
        except MoltError:
            raise
        except Exception as error:  # every backend has its own
            why = (str(error) or type(error).__name__).rstrip(".")
            raise BadInput(f"{self.url} cannot be {verb}: {why}.", self._fix(error)) from error

    def _fix(self, error: Exception) -> str:
        if not self.url.startswith(S3):
            return "See that it is there and yours to write; nothing is lost, and the same command goes on."
        if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
            return f"Set the keys of an account that may use the bucket: {KEYS}"
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
        server = f"See that the server answers: curl -I {endpoint}" if endpoint else f"See the environment: {KEYS}"
        return f"{server}   Nothing is lost, and the same command goes on."

    def _damaged(self, name: str) -> BadInput:
        return BadInput(
            f"{self.url}/{name}{SUFFIX} is truncated or damaged, and is not used.",
            f"Delete it, then run the same command again: {self.deleting(name + SUFFIX)}",
        )

    def deleting(self, name: str) -> str:
        """A command that deletes an object."""
        return _python(f"files, path = fsspec.url_to_fs({f'{self.url}/{name}'!r}); files.rm_file(path)")

    def _changed(self) -> Changed:
        return Changed(f"Another machine has changed {self.url} in the meantime.", "Run the same command again.")


def is_plain(name: str) -> bool:
    """Whether a name that another machine wrote can be a file's in a folder, and leads nowhere else."""
    return Path(name).parts == (name,) and name != ".."


def pack(folder: Path, out: IO[bytes], leave_out: Collection[str] = ()) -> None:
    """Write a folder as a tar archive, but for files of some names."""

    def selected(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if Path(info.name).name in leave_out else info

    with tarfile.open(fileobj=out, mode="w|") as archive:
        archive.add(folder, arcname=".", filter=selected)


def unpack(source: IO[bytes], folder: Path) -> None:
    """The inverse of `pack`. Nothing is written outside of the folder."""
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=source, mode="r|") as archive:
        archive.extractall(folder, filter="data")


def _installing(url: str) -> str:
    """A command that installs the package by which fsspec opens an address."""
    from fsspec.registry import known_implementations

    package = known_implementations[url.partition(":")[0]]["class"].partition(".")[0]
    return "Install what it names." if package == "fsspec" else f"Install it: pip install {package}"


def _check_bucket(files: Any, protocol: str, bucket: str) -> None:
    """Raises BadInput if there is no such bucket; whether it can be used is seen when it is."""
    try:
        files.info(bucket)
    except FileNotFoundError:
        creating = _python(f"fsspec.filesystem({protocol!r}).mkdir({bucket!r})")
        raise BadInput(f"There is no bucket {bucket}.", f"Create it: {creating}") from None
    except Exception:  # an account may be allowed no more than its objects
        return


def _code(error: BaseException) -> str:
    """The code of an S3 server's answer."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _python(statement: str) -> str:
    return shlex.join(["python", "-c", f"import fsspec; {statement}"])
