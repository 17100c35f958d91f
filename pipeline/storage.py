"""What machines share through object storage: folders that never change, each as one object, and small files that do.

The name of an artifact holds the fingerprint of everything that it was made from, and an object appears whole or not at
all. So whoever finds one can take it for its own work, and nothing has to be locked.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import publish

SUFFIX = ".tar"
S3 = ("s3", "s3a")


class Changed(BadInput):
    """Another machine has changed an object since it was read."""


@dataclass(frozen=True)
class Version:
    """A file as it was read: its bytes, and the server's tag of them, where it has one."""

    content: bytes
    tag: str | None


class Storage:
    """A place such as `s3://bucket/path` or `file:///mnt/shared`, read and written by fsspec.

    Credentials, endpoint and region are those of the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on), or of
    the client's own files.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def fetch(self, name: str, folder: Path) -> bool:
        """Unpack what is stored under a name; the folder appears whole. Where it exists by then, it stays as it is.

        Returns:
            Whether there is such a thing.

        Raises:
            BadInput: if the storage cannot be read, or what is stored is damaged.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.", suffix=".partial") as temporary:
            content = Path(temporary) / "content"
            with self._reached("read"):
                try:
                    with self._fs.open(self._path(name + SUFFIX), "rb") as source:
                        unpack(source, content)
                except FileNotFoundError:
                    return False
                except (tarfile.TarError, EOFError) as error:
                    raise BadInput(
                        f"{self.url}/{name}{SUFFIX} is truncated or damaged: {error}.",
                        "Delete it there, and run the same command again.",
                    ) from None
            if not folder.exists():
                publish(content, folder)
        return True

    def store(self, name: str, folder: Path) -> bool:
        """Store a folder under a name, unless there is something under it already.

        Returns:
            Whether it was stored now.

        Raises:
            BadInput: if the storage cannot be written.
        """
        path = self._path(name + SUFFIX)
        with self._reached("written"):
            if self._fs.exists(path):
                return False
            # a transaction, so that an interrupted upload leaves nothing
            with self._fs.transaction, self._fs.open(path, "wb") as out:
                pack(folder, out)
        return True

    def remove(self, name: str) -> bool:
        """Delete what is stored under a name. Returns whether there was anything."""
        path = self._path(name + SUFFIX)
        with self._reached("written"):
            if found := self._fs.exists(path):
                self._fs.rm_file(path)
        return found

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
            raise _changed(self.url)
        with self._reached("written"):
            if self._protocol not in S3:
                with self._fs.transaction, self._fs.open(path, "wb") as out:
                    out.write(content)
                return
            condition = {"IfMatch": before.tag} if before and before.tag else {"IfNoneMatch": "*"}
            try:
                self._fs.pipe_file(path, content, **condition)
            except OSError as error:
                if "PreconditionFailed" in str(error) or "pre-conditions" in str(error):
                    raise _changed(self.url) from None
                raise

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

        local = {"auto_mkdir": True} if self.url.startswith(("file:", "local:")) else {}
        try:
            return fsspec.core.url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True, **local)
        except ImportError as error:
            extra = "moltlm[s3]" if self.url.startswith("s3") else "the package that it names"
            raise BadInput(f"{self.url} cannot be opened: {error}.", f"Install it: pip install '{extra}'") from None
        except ValueError as error:
            raise BadInput(
                f"{self.url} is no address of a storage: {error}.", "For example: s3://BUCKET/PATH"
            ) from None

    @contextmanager
    def _reached(self, done: str) -> Iterator[None]:
        """Whatever a client raises becomes an error that a user can mend."""
        try:
            yield
        except (MoltError, KeyboardInterrupt):
            raise
        except Exception as error:  # every backend has its own
            why = str(error) or type(error).__name__
            raise BadInput(
                f"{self.url} cannot be {done}: {why}.",
                "See that the bucket exists, and what the environment has: env | grep -o '^AWS_[A-Z_]*'",
            ) from error


def pack(folder: Path, out: IO[bytes]) -> None:
    """Write a folder as a tar archive."""
    with tarfile.open(fileobj=out, mode="w|") as archive:
        archive.add(folder, arcname=".")


def unpack(source: IO[bytes], folder: Path) -> None:
    """The inverse of `pack`. Nothing is written outside of the folder."""
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=source, mode="r|") as archive:
        archive.extractall(folder, filter="data")


def _changed(url: str) -> Changed:
    return Changed(f"Another machine has changed {url} in the meantime.", "Run the same command again.")
