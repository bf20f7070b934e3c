"""The command `slimport`: thin, over the Python functions of the same names.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done; 1 a verified difference; 2 bad usage or bad
input. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from converters.errors import InputError
from slimport import __version__

if TYPE_CHECKING:
    from converters.batch import Outcome
    from converters.parity import Report, Row
    from converters.prediction import Predictions
    from converters.views import View

SCOPE = click.option("--scope", metavar="SCOPE", help="Which network, where the file holds several.")
STEP = click.option("--step", metavar="N", type=int, help="Which checkpoint of a run's directory. [the newest]")
SHA256 = click.option("--sha256", metavar="HEX", help="What SRC's digest must be, where SRC is one file or a URL.")
CACHE = click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Where to keep what is fetched. [SLIMPORT_CACHE, or your caches]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


def _sources(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What can follow in the shell: a name of the zoo that begins so, else a file."""
    from converters.zoo import RELEASES

    names = [name for release in RELEASES for name in (release.name, f"zoo:{release.network}")]
    begun = [CompletionItem(name) for name in names if incomplete and name.startswith(incomplete)]
    return begun or [CompletionItem(incomplete, type="file")]


def source(command: Callable[..., None]) -> Callable[..., None]:
    """Adds SRC and what says how to get it: a command is called with a path that is here."""

    @click.argument("src", shell_complete=_sources)
    @SCOPE
    @STEP
    @click.option("--ema", is_flag=True, help="Take the moving averages in the variables' places.")
    @click.option("--exclude-scope", metavar="A,B", multiple=True, help="Leave out variables whose names begin so.")
    @click.option("--drop-background", is_flag=True, help="Leave out the first class: 1001 become 1000.")
    @click.option("--no-head", is_flag=True, help="Leave out the logits: the network gives features.")
    @SHA256
    @CACHE
    @functools.wraps(command)
    def fetched(
        src: str,
        sha256: str | None,
        cache: str | None,
        ema: bool,
        exclude_scope: tuple[str, ...],
        drop_background: bool,
        no_head: bool,
        **arguments: Any,
    ) -> None:
        from converters.views import View

        excluded = tuple(scope for scopes in exclude_scope for scope in map(str.strip, scopes.split(",")) if scope)
        view = View(ema, excluded, drop_background, head=not no_head)
        command(src=_local(src, sha256, cache), view=view, **arguments)

    return fetched


def inputs(command: Callable[..., None]) -> Callable[..., None]:
    """Adds what says on what input and with which arguments networks run: a command is called with all of it in one."""

    @click.option("--size", metavar="H[xW]", help="Height and width of the input. [224]")
    @click.option("--batch", metavar="N", type=click.IntRange(min=1), help="Images in the input. [1]")
    @click.option("--seed", metavar="N", type=click.IntRange(min=0), help="Of the input's random numbers. [0]")
    @click.option(
        "--output-stride", metavar="N", type=click.IntRange(min=1), help="Ratio of input to output resolution."
    )
    @click.option("--no-global-pool", is_flag=True, help="Keep the map of features, as dense prediction does.")
    @click.option("--no-spatial-squeeze", is_flag=True, help="Keep logits of rank 4.")
    @click.option("--argument", "more", metavar="NAME=VALUE", multiple=True, help="Any other argument of the network.")
    @functools.wraps(command)
    def gathered(
        size: str | None,
        batch: int | None,
        seed: int | None,
        output_stride: int | None,
        no_global_pool: bool,
        no_spatial_squeeze: bool,
        more: tuple[str, ...],
        **others: Any,
    ) -> None:
        arguments = dict(map(_argument, more))
        if output_stride is not None:
            arguments["output_stride"] = output_stride
        if no_global_pool:
            arguments["global_pool"] = False
        # A map of more than 1x1 cannot be squeezed.
        if no_spatial_squeeze or no_global_pool:
            arguments["spatial_squeeze"] = False
        command(run={"size": _size(size), "batch": batch, "seed": seed, **arguments}, **others)

    return gathered


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="slimport")
def cli() -> None:
    """TF-Slim checkpoints in PyTorch and Keras, proven equal.

    \b
    slimport inspect resnet_v2_50.ckpt
    slimport convert resnet_v2_50.ckpt resnet_v2_50.safetensors
    slimport verify  resnet_v2_50.ckpt resnet_v2_50.safetensors
    """


@cli.command()
@source
@click.option("--depth", metavar="N", type=click.IntRange(min=1), help="Levels of the tree. [what fits]")
@click.option("--all", "everything", is_flag=True, help="List every variable by its full name.")
@JSON
def inspect(
    src: str, scope: str | None, step: int | None, view: View, depth: int | None, everything: bool, as_json: bool
) -> None:
    """Say what SRC holds, a checkpoint or a converted file, and what can be done with it. No tensor is read.

    \b
    slimport inspect resnet_v2_50.ckpt
    slimport inspect run/ --depth 2
    slimport inspect run/ --all | grep Momentum
    slimport inspect model.safetensors --json
    slimport inspect zoo:resnet_v2_50
    """
    from converters.inspection import inspect
    from converters.summary import inspection_text

    with _progress() as progress:
        progress(f"reading {src}")
        found = inspect(src, scope, step, view)
    click.echo(json.dumps(found.to_json()) if as_json else inspection_text(found, depth=depth, everything=everything))


@cli.command()
@source
@click.argument("dst", type=click.Path())
@click.option(
    "--to", metavar="TARGET", help="pytorch, onnx, keras, slim or huggingface, a folder; follows from DST's suffix."
)
@click.option(
    "--dtype", metavar="DTYPE", help="float16, bfloat16, float32 or float64, of the weights. [as SRC has them]"
)
@click.option(
    "--extras",
    metavar="FILE",
    type=click.Path(),
    help="Keep the layers beside the network raw, in a .safetensors or .npz file.",
)
@click.option("--suffix", metavar="SUFFIX", help="Of the outputs in a folder. [that of --to, or .safetensors]")
@click.option("--force", is_flag=True, help="In a folder: convert again what is done.")
@click.option("--workers", metavar="N", type=click.IntRange(min=1), help="In a folder: processes at once. [the cores]")
@click.option("--dask", metavar="ADDRESS", help="In a folder: the Dask scheduler whose workers convert.")
def convert(
    src: str,
    dst: str,
    to: str | None,
    dtype: str | None,
    scope: str | None,
    step: int | None,
    view: View,
    extras: str | None,
    suffix: str | None,
    force: bool,
    workers: int | None,
    dask: str | None,
) -> None:
    """Convert the network in SRC to DST: .safetensors, .pth, .pt2, .onnx, .keras, .weights.h5, or .ckpt for slim.

    DST appears whole or not at all. Where it is a folder, or ends in /, every checkpoint of SRC, a folder or a quoted
    pattern, is converted into it, side by side; what is there and still holds is skipped. For --to huggingface, DST is
    one folder.

    \b
    slimport convert resnet_v2_50.ckpt resnet_v2_50.safetensors
    slimport convert resnet_v2_50.ckpt resnet_v2_50.keras
    slimport convert resnet_v2_50.ckpt half.safetensors --dtype float16
    slimport convert resnet_v2_50.ckpt resnet_v2_50/ --to huggingface
    slimport convert resnet_v2_50.ckpt classes_1000.safetensors --drop-background
    slimport convert resnet_v2_50.ckpt features.safetensors --no-head --extras head.npz
    slimport convert run/ converted/
    slimport convert 'runs/*/' converted/ --suffix .pth
    """
    from converters import leftovers
    from converters.conversion import convert
    from converters.targets import is_folder

    options: dict[str, Any] = {"to": to, "scope": scope, "view": view, "dtype": dtype}
    if is_folder(dst, to):
        if step is not None:
            raise InputError("--step chooses one checkpoint of a run: name a file as DST, or leave --step out")
        if extras is not None:
            raise InputError("--extras keeps what one checkpoint holds: name a file as DST, or leave --extras out")
        from converters import terminal
        from converters.batch import convert_all

        with terminal.units("checkpoints") as progress:
            done = convert_all(
                src, dst, suffix=suffix, force=force, workers=workers, dask=dask, progress=progress, **options
            )
        click.echo(_outcomes_text(done, dst))
        if failed := sum(outcome.status == "failed" for outcome in done):
            raise InputError(f"{src}: {failed} of {len(done)} could not be converted; the list above says why")
        return
    if suffix or force or workers or dask:
        raise InputError(f"{dst}: one file; --suffix, --force, --workers and --dask are for a folder, which ends in /")
    with _progress() as progress:
        progress(f"converting {src}")
        one = convert(src, dst, step=step, extras=extras, **options)
    click.echo(f"{dst}: {one.recognition}, from {src}")
    if one.rounding:
        click.echo(f"rounded: {one.rounding}")
    for note in one.recognition.notes():
        click.echo(note)
    if one.extras:
        click.echo(f"{extras}: {len(one.extras)} variables, raw")
    for line in leftovers.described(one.recognition.extras):
        click.echo(f"{'beside it' if one.extras else 'left out'}: {line}")


@cli.command()
@source
@click.argument("converted", required=False, type=click.Path())
@click.option("--target", metavar="TARGET", help="pytorch, keras, onnx or slim; follows from CONVERTED, else pytorch.")
@click.option(
    "--dtype", metavar="DTYPE", help="float32 or float64. [float64, where the target computes in it throughout]"
)
@inputs
@click.option("--device", metavar="DEVICE", default="cpu", help="cpu or cuda, for the port. [cpu]")
@click.option("--reference", metavar="TRACE", help="What 'slimport trace' recorded of SRC, in TensorFlow's place.")
@click.option("--plot", metavar="PNG", help="Draw the errors in both dtypes: .png, .svg or .pdf.")
@click.option("--report", "page", metavar="HTML", help="Write one page with everything, both dtypes and the plot.")
@JSON
def verify(
    src: str,
    converted: str | None,
    target: str | None,
    dtype: str | None,
    run: dict[str, Any],
    device: str,
    reference: str | None,
    plot: str | None,
    page: str | None,
    scope: str | None,
    step: int | None,
    view: View,
    as_json: bool,
) -> None:
    """Compare every end point of CONVERTED with the TF-Slim graph running SRC; exit with 1 if one differs.

    Without CONVERTED, the port is verified with SRC's own weights. Needs TensorFlow, or a trace of
    SRC as --reference.

    \b
    slimport verify resnet_v2_50.ckpt resnet_v2_50.safetensors
    slimport verify resnet_v2_50.ckpt resnet_v2_50.keras --dtype float32 --size 299
    slimport verify resnet_v2_50.ckpt resnet_v2_50.safetensors --report report.html --plot errors.png
    slimport verify resnet_v2_50.ckpt --reference resnet_v2_50.npz --device cuda
    """
    from converters.parity import verify

    with _progress() as progress:
        report = verify(
            src,
            converted,
            target=target,
            dtype=dtype,
            device=device,
            scope=scope,
            step=step,
            view=view,
            reference=reference,
            plot=plot,
            page=page,
            command=shlex.join(["slimport", *sys.argv[1:]]),
            progress=progress,
            **run,
        )
    click.echo(json.dumps(report.to_json()) if as_json else _report_text(report))
    if not report.ok:
        raise click.exceptions.Exit(1)


@cli.command()
@source
@click.argument("path", metavar="TRACE")
@inputs
def trace(src: str, path: str, run: dict[str, Any], scope: str | None, step: int | None, view: View) -> None:
    """Record the TF-Slim graph running SRC to TRACE, a .npz, for `verify --reference` where TensorFlow is not.

    A smaller --size makes a smaller file.

    \b
    slimport trace resnet_v2_50.ckpt resnet_v2_50.npz --size 97
    """
    from converters.parity import trace

    with _progress() as progress:
        done = trace(src, path, scope=scope, step=step, view=view, progress=progress, **run)
    size = f"{Path(path).stat().st_size / 1e6:.1f} MB"
    click.echo(f"{path}: {done.network['name']}, scope {done.scope!r}, {size}, weights {done.weights[:16]}")


@cli.command()
@source
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--labels",
    metavar="FILE",
    type=click.Path(),
    help="The classes' names, one a line. [ImageNet's, for 1000 or 1001 classes]",
)
@click.option("--top", metavar="N", type=click.IntRange(min=1), default=5, help="How many classes of each image. [5]")
@click.option("--preprocessing", metavar="NAME", help="inception or vgg. [as the network's release was evaluated]")
@click.option("--size", metavar="H[xW]", help="What images are resized to. [299 for inception, 224 for vgg]")
@JSON
def predict(
    src: str,
    images: tuple[str, ...],
    labels: str | None,
    top: int,
    preprocessing: str | None,
    size: str | None,
    scope: str | None,
    step: int | None,
    view: View,
    as_json: bool,
) -> None:
    """Say what the network in SRC, a checkpoint or a converted file, sees in each IMAGE.

    \b
    slimport predict resnet_v2_50.safetensors cat.jpg dog.png
    slimport predict run/ flower.jpg --labels labels.txt --top 3
    """
    from converters import terminal
    from converters.prediction import predict

    with terminal.units("images") as progress:
        found = predict(
            src,
            images,
            top=top,
            labels=labels,
            preprocessing=preprocessing,
            size=_size(size),
            scope=scope,
            step=step,
            view=view,
            progress=progress,
        )
    click.echo(json.dumps(found.to_json()) if as_json else _predictions_text(found))


@cli.command()
@click.argument("src", metavar="SRC...", nargs=-1, required=True, shell_complete=_sources)
@SHA256
@CACHE
@JSON
def fetch(src: tuple[str, ...], sha256: str | None, cache: str | None, as_json: bool) -> None:
    """Fetch SRC, a URL or a name of the zoo, and say where it is and what its SHA-256 is.

    Every command that takes SRC fetches it so; this one does nothing else.

    \b
    slimport fetch resnet_v2_50_2017_04_14
    slimport fetch https://example.com/run/model.ckpt-1000 --cache checkpoints
    """
    from converters import remote, terminal

    with terminal.transfers() as progress:
        files = [file for one in src for file in remote.fetch(one, sha256=sha256, cache=cache, progress=progress)]
    if as_json:
        click.echo(json.dumps([{"path": str(f.path), "url": f.url, "sha256": f.sha256} for f in files]))
    else:
        click.echo("\n".join(f"{file.sha256}  {file.path}" for file in files))


@cli.command()
@CACHE
@JSON
def zoo(cache: str | None, as_json: bool) -> None:
    """List the released ImageNet checkpoints, which every command takes by name.

    \b
    slimport zoo
    slimport convert resnet_v2_50_2017_04_14 resnet_v2_50.safetensors
    """
    from converters import remote
    from converters.zoo import RELEASES

    kept = {release.name: remote.cached(release, cache) for release in RELEASES}
    if as_json:
        digests = {name: file and file.sha256 for name, file in kept.items()}
        click.echo(json.dumps([{**release.to_json(), "sha256": digests[release.name]} for release in RELEASES]))
        return
    click.echo(f"{'name':<25} {'classes':>7} {'image':>7} {'preprocessing':<13} {'top 1':>6} {'weights':>8}  url")
    for release in RELEASES:
        click.echo(
            f"{release.name:<25} {release.classes:>7} {release.image_size:>3}x{release.image_size} "
            f"{release.preprocessing:<13} {release.top_1:>5.1f}% {release.parameters * 4 / 1e6:>5.0f} MB  {release.url}"
        )
        if (file := kept[release.name]) is not None:
            click.echo(f"  fetched: {file.path}, SHA-256 {file.sha256}")


def main() -> None:
    """The console script: every error is one line on stderr."""
    try:
        code = cli.main(prog_name="slimport", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "slimport"
        code = _fail(f"{error.format_message()} ('{command} --help' shows the usage)")
    except InputError as error:
        code = _fail(str(error))
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted")
        code = 130
    except BrokenPipeError:
        # The reader of stdout has gone (`| head`); nothing is wrong, and nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if "SLIMPORT_TRACEBACK" in os.environ:
            raise
        code = _fail(
            f"unexpected {type(error).__name__}: {error} (a bug: SLIMPORT_TRACEBACK=1 shows where, please report it)"
        )
    sys.exit(code)


def _fail(message: str) -> int:
    click.echo(f"slimport: {' '.join(message.split())}", err=True)
    return 2


def _local(src: str, sha256: str | None, cache: str | None) -> str:
    from converters import remote, terminal

    with terminal.transfers() as progress:
        return str(remote.local(src, sha256=sha256, cache=cache, progress=progress))


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and int(side) > 0 for side in sides):
        raise InputError(f"--size {text}: must be H or HxW, in pixels, like 224 or 224x320")
    return int(sides[0]), int(sides[-1])


def _argument(text: str) -> tuple[str, Any]:
    """A name and a value, in JSON or else as it stands."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InputError(f"--argument {text}: must be NAME=VALUE, like global_pool=false")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _progress() -> AbstractContextManager[Callable[[str], None]]:
    from converters import terminal

    return terminal.activity()


def _outcomes_text(outcomes: Sequence[Outcome], folder: str) -> str:
    counts = ", ".join(
        f"{count} {status}"
        for status in ("converted", "skipped", "failed")
        if (count := sum(outcome.status == status for outcome in outcomes))
    )
    lines = [f"{folder}: {counts}"]
    width = max(len(outcome.unit.destination.name) for outcome in outcomes)
    for outcome in outcomes:
        status = click.style(f"{outcome.status:<9}", fg="red" if outcome.status == "failed" else None)
        seconds = f"{outcome.seconds:5.1f} s" if outcome.seconds else " " * 7
        lines.append(f"  {status}  {outcome.unit.destination.name:<{width}}  {seconds}  {outcome.message}".rstrip())
    return "\n".join(lines)


def _predictions_text(found: Predictions) -> str:
    lines = []
    for prediction in found.images:
        lines.append(str(prediction.image))
        for guess in prediction.top:
            lines.append(f"  {guess.probability:7.2%}  {guess.index:>4}  {guess.name or ''}".rstrip())
    return "\n".join(lines)


def _report_text(report: Report) -> str:
    width = max(len(row.name) for row in report.rows)
    float32 = report.dtype == "float32"
    title = f"{'end point':<{width}}  {'shape':<19} {'rel_l2':>9} {'max_abs':>9}"
    lines = [title + (f" {'TF-Slim':>9} {'ratio':>6}" if float32 else "")]
    for row in report.rows:
        lines.append(_row_text(row, width) + ("" if row.ok else click.style("  DIFFERS", fg="red", bold=True)))
        different = report.different_by_end_point.get(row.name, [])
        lines += [f"  {click.style('DIFFERS', fg='red', bold=True)}: {name}" for name in different]
    height, width_ = report.input_shape[1:3]
    lines += [
        "",
        f"{report.network} on {report.backend}, {report.device}, {' and '.join(report.by_dtype)}, "
        f"batch {report.input_shape[0]} of {height}x{width_}",
        f"judge: {report.judge}, with weights read by {report.reader}",
    ]
    if report.reference is not None:
        lines.append(f"reference: {report.reference}, recorded from the TF-Slim graph")
    said = {f"{dtype}: " if report.other else "": one for dtype, one in report.by_dtype.items()}
    for prefix, one in said.items():
        worst = one.worst
        lines.append(f"{prefix}worst: {worst.name}: rel_l2 {worst.rel_l2:.2e}, limit {worst.limit:.2e}")
    if report.weights_compared:
        same = report.weights_compared - len(report.weights_different)
        as_rounded = f" rounded to {' and '.join(report.rounded.dtypes)}" if report.rounded else ""
        lines.append(
            f"weights: {same} of {report.weights_compared} variables are the source's{as_rounded}, bit for bit"
        )
    if report.rounded:
        moved, output = report.rounded.end_points, report.rows[-1].name
        lines.append(
            f"rounding: TF-Slim ran with the rounded weights; against the source's own, that moves its end points by "
            f"rel_l2 {moved[report.rounded.worst]:.2e} at worst ({report.rounded.worst}), {output} by "
            f"{moved[output]:.2e}"
        )
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(lines + [prefix + _verdict_text(one) for prefix, one in said.items()])


def _verdict_text(report: Report) -> str:
    if report.equal:
        from converters.parity.compare import FLOAT32_RULE

        limit = FLOAT32_RULE if report.dtype == "float32" else f"{report.worst.limit:.0e}"
        return f"{click.style('equal', fg='green', bold=True)}: all {len(report.rows)} end points within {limit}"
    count = sum(not row.ok for row in report.rows)
    verdict = click.style("DIFFERENT", fg="red", bold=True)
    return f"{verdict}: {count} of {len(report.rows)} end points; it begins at {report.first_difference}"


def _row_text(row: Row, width: int) -> str:
    shape = "x".join(map(str, row.shape))
    text = f"{row.name:<{width}}  {shape:<19} {row.rel_l2:9.2e} {row.max_abs:9.2e}"
    if row.slim_rel_l2 is not None:
        ratio = "" if row.ratio is None else f"{row.ratio:6.2f}"
        text += f" {row.slim_rel_l2:9.2e} {ratio:>6}"
    return text
