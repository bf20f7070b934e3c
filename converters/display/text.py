"""The results of commands as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from converters.checkpoint.messages import shown
from converters.weights import training_state

if TYPE_CHECKING:
    from converters.batch import Outcome
    from converters.conversion import Conversion
    from converters.prediction import Predictions
    from converters.remote import Fetched
    from converters.remote.zoo import Release


def formats_text() -> str:
    """A line for each framework: the suffixes of its files."""
    from converters.formats import FORMATS

    suffixes: dict[str, list[str]] = {}
    for format_ in FORMATS:
        suffixes.setdefault(format_.framework, []).extend(format_.suffixes)
    return "\n".join(f"{name:<12} {' '.join(found)}".replace(" /", " a folder") for name, found in suffixes.items())


def conversion_text(done: Conversion, source: str, extras: str | None) -> str:
    """The converted network, and a line for everything that a user should know of it.

    Args:
      done: the conversion.
      source: its source, as the user named it.
      extras: the file of the raw variables.
    """
    lines = [f"{shown(str(done.destination))}: {done.recognition}, from {shown(source)}"]
    if done.rounding:
        lines.append(f"rounded: {done.rounding}")
    lines += done.notes()
    if done.extras:
        lines.append(f"{shown(str(extras))}: {len(done.extras)} variables, raw")
    label = "other variables" if done.extras else "left out"
    lines += [f"{label}: {line}" for line in training_state.described(done.recognition.extras)]
    return "\n".join(lines)


def outcomes_text(outcomes: Sequence[Outcome], folder: str) -> str:
    """The number of conversions with each status, then a line for each."""
    counts = ", ".join(
        f"{count} {status}"
        for status in ("converted", "skipped", "failed")
        if (count := sum(outcome.status == status for outcome in outcomes))
    )
    lines = [f"{shown(folder)}: {counts}"]
    names = [shown(outcome.job.destination.name) for outcome in outcomes]
    width = max(map(len, names))
    for name, outcome in zip(names, outcomes, strict=True):
        status = click.style(f"{outcome.status:<9}", fg="red" if outcome.status == "failed" else None)
        seconds = f"{outcome.seconds:5.1f} s" if outcome.seconds else " " * 7
        lines.append(f"  {status}  {name:<{width}}  {seconds}  {outcome.message}".rstrip())
    return "\n".join(lines)


def predictions_text(found: Predictions) -> str:
    """Each image with its classes, a line each."""
    lines = []
    for prediction in found.images:
        lines.append(shown(str(prediction.image)))
        for guess in prediction.top:
            lines.append(f"  {guess.probability:7.2%}  {guess.index:>4}  {shown(guess.name or '')}".rstrip())
    return "\n".join(lines)


def fetched_text(files: Sequence[Fetched]) -> str:
    """The files as `sha256sum` prints them."""
    return "\n".join(f"{file.sha256}  {shown(str(file.path))}" for file in files)


def zoo_text(releases: Mapping[Release, Fetched | None]) -> str:
    """A table of the releases, 80 columns wide, and the files of those in the cache; the JSON has the URLs."""
    return "\n".join(_zoo_lines(releases))


def _zoo_lines(releases: Mapping[Release, Fetched | None]) -> Iterator[str]:
    yield f"{'name':<35} {'classes':>7} {'image':>7} {'preprocessing':<13} {'top 1':>6} {'MB':>4}"
    for release, file in releases.items():
        yield (
            f"{release.name:<35} {release.classes:>7} {release.image_size:>3}x{release.image_size} "
            f"{release.preprocessing:<13} {release.top_1:>5.1f}% {release.parameters * 4 / 1e6:>4.0f}"
        )
        if file is not None:
            yield f"  fetched: {file.path}, SHA-256 {file.sha256}"
