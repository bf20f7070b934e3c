"""Sources by URL and by name in the zoo, as paths in the cache.

The server's description of a file (its size, ETag, date) is its stamp. A cached file is used while its stamp is the
server's, or while the server cannot be reached.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from converters import frameworks
from converters.errors import InputError
from converters.files import sha256_of
from converters.remote import cache as store
from converters.remote import zoo
from converters.remote.cache import Fetched
from converters.remote.server import NotFoundError, Server, UnreachableError
from converters.remote.transfer import Progress, transfer
from converters.remote.urls import file_name, protocol, public, sibling

if TYPE_CHECKING:
    from converters.variables import PathLike


def is_remote(source: PathLike) -> bool:
    """Whether a source is a URL, or a name in the zoo that is not also a local file."""
    name = os.fspath(source)
    named = name.startswith(zoo.PREFIX) or zoo.find(name) is not None
    return protocol(name) is not None or (named and not os.path.lexists(name))


def local_path(
    source: PathLike, *, sha256: str | None = None, cache: PathLike | None = None, progress: Progress = lambda *_: None
) -> Path:
    """The path of a source, which is fetched first if it is remote.

    Args:
      source: a path, or a source that `fetch` takes.
      sha256, cache, progress: as `fetch` takes them.

    Raises:
      InputError: as `fetch`; or a local file has another digest.
    """
    if is_remote(source):
        return fetch(source, sha256=sha256, cache=cache, progress=progress)[0].path
    path = Path(source)
    if sha256:
        if not path.is_file():
            raise InputError(f"{path}: no such file, so it has no digest: --sha256 is for one file, or a URL")
        _check_digest(str(path), sha256_of(path), sha256, "")
    return path


def fetch(
    source: PathLike, *, sha256: str | None = None, cache: PathLike | None = None, progress: Progress = lambda *_: None
) -> list[Fetched]:
    """Fetches the file or checkpoint that a URL names, unless it is in the cache.

    Args:
      source: a URL of a file, or of a V2 checkpoint: its prefix, or any of its files. Or a name that `slimport zoo`
        lists, as `zoo:resnet_v2_50`.
      sha256: the digest that the file must have, in hex.
      cache: the folder to keep files in; None is `SLIMPORT_CACHE`, or a folder in the user's caches.
      progress: is called during a transfer.

    Returns:
      The file; of a V2 checkpoint the index, then its shards.

    Raises:
      InputError: there is no such file, no connection, no package for its protocol or no space; or it has another
        digest, and then nothing is kept.
    """
    name = os.fspath(source)
    release = zoo.find(name)
    if release is None and name.startswith(zoo.PREFIX):
        raise InputError(f"{name}: not in the zoo; 'slimport zoo' lists what is")
    if release is None and protocol(name) is None:
        raise InputError(f"{public(name)}: no URL, and no name that 'slimport zoo' lists: nothing to fetch")
    remote = _RemoteFolder(name if release is None else release.url, cache, progress, pinned=release is not None)
    first = remote.fetch(sha256)
    if not first.path.name.endswith(".index"):
        return [first]
    if sha256:
        raise InputError(f"{public(name)}: a checkpoint of several files, which have no one digest; leave --sha256 out")
    from converters.checkpoint.bundle import data_sizes

    sizes = data_sizes(first.path.with_suffix(""))
    return [first, *(remote.get(path.name, largest=size) for path, size in sizes.items())]


def cached(release: zoo.Release, cache: PathLike | None = None) -> Fetched | None:
    """The release in the cache, or None. No connection is made."""
    return store.find(store.folder_of(release.url, cache) / file_name(release.url))


class _RemoteFolder:
    """The folder of a remote file, and its copy in the cache.

    pinned: its files never change, so that each must have the digest of its first copy.
    """

    def __init__(self, url: str, cache: PathLike | None, progress: Progress, *, pinned: bool) -> None:
        self._url = url
        self._folder = store.folder_of(url, cache)
        self._progress = progress
        self._pinned = pinned
        self._server = Server(url)

    def fetch(self, sha256: str | None) -> Fetched:
        """The file that the URL names, or the index of the V2 checkpoint that it names by another file or its prefix.

        A V1 checkpoint's prefix is its file, so a file of the very name goes first.
        """
        from converters.checkpoint.locate import prefix_name

        name = file_name(self._url)
        if prefix_name(name) != name:
            return self.get(f"{prefix_name(name)}.index")
        try:
            return self.get(name, sha256)
        except NotFoundError as error:
            try:
                return self.get(f"{name}.index")
            except NotFoundError:
                raise error from None

    def get(self, name: str, sha256: str | None = None, largest: int | None = None) -> Fetched:
        """The file of this name, from the cache if its copy is still the server's file.

        It has at most `largest` bytes, where that is known and the server does not say its size.
        """
        target = self._folder / name
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Of two processes that want the same file, one fetches it.
            with frameworks.require("filelock").FileLock(store.beside(target, "lock")):
                return self._get(sibling(self._url, name), target, sha256, largest)
        except OSError as error:
            raise InputError(
                f"{target}: cannot be kept: {error.strerror or error}; --cache names another folder"
            ) from error

    def _get(self, url: str, target: Path, sha256: str | None, largest: int | None) -> Fetched:
        kept = store.find(target)
        if kept is not None and kept.url != public(url):
            # Another URL, whose file has the same name once its escapes are decoded.
            kept = None
        try:
            stamp = self._server.stamp(url)
        except UnreachableError:
            if kept is None:
                raise
            stamp = dict(kept.stamp)
        if kept is not None and kept.stamp == stamp:
            if kept.altered():
                raise InputError(f"{public(url)}: its copy was changed since; remove {target} to fetch it again")
            if sha256:
                _check_digest(url, sha256_of(target), sha256, f"; remove {target} to fetch it again")
            return kept
        part = store.beside(target, "part")
        stamp = transfer(self._server, url, part, stamp, self._progress, largest)
        fetched = Fetched(target, public(url), stamp, sha256_of(part))
        try:
            _check_digest(url, fetched.sha256, sha256, "; nothing is kept")
            if self._pinned and kept is not None:
                advice = f", as it was before; remove {target} to take the new one"
                _check_digest(url, fetched.sha256, kept.sha256, advice)
        except InputError:
            store.discard(part)
            raise
        store.keep(part, fetched)
        return fetched


def _check_digest(name: str, found: str, wanted: str | None, advice: str) -> None:
    if wanted is not None and found != wanted.strip().lower():
        raise InputError(f"{public(name)}: its SHA-256 is {found}, not {wanted.strip().lower()}{advice}")
