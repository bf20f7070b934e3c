"""Checkpoints from URLs and from the zoo of released ones, fetched once into a cache."""

from converters.remote.cache import Fetched, cache_folder
from converters.remote.sources import cached, fetch, is_remote, local_path
from converters.remote.transfer import Progress

__all__ = ["Fetched", "Progress", "cache_folder", "cached", "fetch", "is_remote", "local_path"]
