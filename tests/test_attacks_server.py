"""Whatever a server answers: its file, whole, or an error in one line without a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters import InputError, remote
from converters.remote import server as remote_server
from converters.remote import transfer
from converters.remote.urls import public, public_text
from scripts.studies import attack_server


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transfer, "_PAUSE_S", 0)
    monkeypatch.setattr(transfer, "_LARGEST_UNKNOWN", transfer._LARGEST_UNKNOWN)
    monkeypatch.setattr(remote_server, "_PAUSE_S", 0)
    monkeypatch.setattr(remote_server, "_LONGEST_PAUSE_S", 0.01)


@pytest.mark.parametrize("name", attack_server.ANSWERS)
def test_a_file_is_fetched_whole_or_the_error_is_one_line(name: str, tmp_path: Path) -> None:
    found = attack_server.attack(attack_server.ANSWERS[name], tmp_path)
    assert found.ok, found
    assert ("then the file" in name or name == "the file") <= (found.said == "fetched")


def test_what_a_server_asks_to_wait_is_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    class BusyError(Exception):
        def __init__(self, asked: str) -> None:
            self.headers = {"Retry-After": asked}

    monkeypatch.setattr(remote_server, "_LONGEST_PAUSE_S", 60)
    for asked, waited in (("7", 7), ("100000", 60), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", 0), ("", 0)):
        assert remote_server.asked_pause(BusyError(asked)) == waited


def test_two_urls_do_not_share_a_copy(tmp_path: Path) -> None:
    with attack_server.served(attack_server.whole) as url:
        base = url.partition("?")[0].rpartition("/")[0]
        one, other = (remote.fetch(f"{base}/{folder}%2Fm.ckpt", cache=tmp_path)[0] for folder in ("a", "b"))
    assert one.path == other.path
    assert one.url != other.url


def test_an_altered_copy_is_not_used(tmp_path: Path) -> None:
    with attack_server.served(attack_server.whole) as url:
        path = remote.local_path(url, cache=tmp_path)
        content = path.read_bytes()
        path.write_bytes(content)
        assert remote.local_path(url, cache=tmp_path) == path
        path.write_bytes(content[:-1] + b"x")
        with pytest.raises(InputError, match=r"its copy was changed since; remove .* to fetch it again"):
            remote.local_path(url, cache=tmp_path)


def test_only_the_public_part_of_a_url_is_shown() -> None:
    assert public("https://user:pass@host/a/b?token=1#x") == "https://host/a/b"
    assert public_text("404 for 's3://u:p@host/a?k=1' and http://[::1") == "404 for 's3://host/a' and http://..."
