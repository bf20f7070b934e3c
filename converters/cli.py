"""The command `slimport`, which calls the Python functions of the same names.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done; 1 a verified difference; 2 bad usage or bad
input. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import functools
import inspect as inspect_module
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.shell_completion import CompletionItem

from converters.errors import InputError
from slimport import __version__

if TYPE_CHECKING:
    from converters.inspection import Inspection
    from converters.weights.selection import Selection
    from converters.weights.user_graph import GraphOptions

_LARGEST_SIDE = 16_384

SCOPE = click.option("--scope", metavar="SCOPE", help="The network's scope, if the file contains several networks.")
STEP = click.option("--step", metavar="N", type=int, help="The checkpoint of a training run. [the newest]")
SHA256 = click.option("--sha256", metavar="HEX", help="The digest that SRC, one file or a URL, must have.")
CACHE = click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="The folder for fetched files. [SLIMPORT_CACHE, or your caches]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


def _sources(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completions in the shell: the matching names in the zoo, else files."""
    from converters.remote.zoo import PREFIX, RELEASES

    names = [name for release in RELEASES for name in (release.name, f"{PREFIX}{release.network}")]
    matching = [CompletionItem(name) for name in names if incomplete and name.startswith(incomplete)]
    return matching or [CompletionItem(incomplete, type="file")]


def source(command: Callable[..., None]) -> Callable[..., None]:
    """Adds SRC with its options: the command is called with a local path and a selection."""

    @click.argument("src", shell_complete=_sources)
    @SCOPE
    @STEP
    @click.option("--ema", is_flag=True, help="Select moving averages instead of the variables.")
    @click.option("--exclude-scope", metavar="A,B", multiple=True, help="Leave out the variables in these scopes.")
    @click.option("--drop-background", is_flag=True, help="Leave out the first class: 1000 of 1001 remain.")
    @click.option("--no-head", is_flag=True, help="Leave out the logits: the network returns features.")
    @click.option("--graph", metavar="FILE", help="The .meta, .pb or SavedModel of SRC, or none. [the one beside SRC]")
    @click.option("--input", "begins", metavar="NAME", multiple=True, help="Where the network of a graph begins.")
    @click.option("--output", "ends", metavar="A,B", multiple=True, help="Where the network of a graph ends.")
    @click.option("--mode", type=click.Choice(["eval", "graph"]), help="Read a graph as after training, or as it is.")
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
        graph: str | None,
        begins: tuple[str, ...],
        ends: tuple[str, ...],
        mode: Literal["eval", "graph"] | None,
        **arguments: Any,
    ) -> None:
        from converters.weights.selection import Selection
        from converters.weights.user_graph import GraphOptions

        selection = Selection(ema, _listed(exclude_scope), drop_background, head=not no_head)
        options = GraphOptions(graph, _listed(begins), _listed(ends), mode)
        command(src=_local(src, sha256, cache), selection=selection, graph=options, **arguments)

    return fetched


def inputs(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of the input and the network's arguments: the command is called with all of them in `run`."""

    @click.option("--size", metavar="H[xW]", help="Height and width. [97x128, or what the network was made for]")
    @click.option("--batch", metavar="N", type=click.IntRange(min=1), help="Images in the input. [2]")
    @click.option("--image", "images", metavar="FILE", multiple=True, help="An image as input, as `predict` takes it.")
    @click.option("--seed", metavar="N", type=click.IntRange(min=0), help="Seed of the input's random numbers. [0]")
    @click.option(
        "--output-stride", metavar="N", type=click.IntRange(min=1), help="Ratio of input to output resolution."
    )
    @click.option("--no-global-pool", is_flag=True, help="Keep the feature map, for dense prediction.")
    @click.option("--no-spatial-squeeze", is_flag=True, help="Keep logits of rank 4.")
    @click.option("--argument", "more", metavar="NAME=VALUE", multiple=True, help="Any other argument of the network.")
    @functools.wraps(command)
    def gathered(
        size: str | None,
        batch: int | None,
        images: tuple[str, ...],
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
        # A feature map larger than 1x1 cannot be squeezed.
        if no_spatial_squeeze or no_global_pool:
            arguments["spatial_squeeze"] = False
        command(run={"size": _size(size), "batch": batch, "seed": seed, "images": images, **arguments}, **others)

    return gathered


class _Commands(click.Group):
    """A group whose help has the whole first sentence of each command's."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in self.commands.items()])


@click.group(cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="slimport")
@click.pass_context
def cli(context: click.Context) -> None:
    """TF-Slim checkpoints in PyTorch and Keras, proven equal.

    \b
    slimport inspect resnet_v2_50.ckpt
    slimport convert resnet_v2_50.ckpt resnet_v2_50.safetensors
    slimport verify  resnet_v2_50.ckpt resnet_v2_50.safetensors
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@source
@click.option("--depth", metavar="N", type=click.IntRange(min=1), help="Levels of the tree. [as many as fit]")
@click.option("--all", "everything", is_flag=True, help="List every variable by its full name.")
@click.option("--layers", "as_layers", is_flag=True, help="List the network's layers. [for a .meta or a .pb]")
@click.option("--report", metavar="HTML", type=click.Path(path_type=Path), help="Draw the network on a page.")
@JSON
def inspect(
    src: str,
    scope: str | None,
    step: int | None,
    selection: Selection,
    graph: GraphOptions,
    depth: int | None,
    everything: bool,
    as_layers: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """List the network and the variables in SRC: a checkpoint, a graph or a converted file. No tensor is read.

    \b
    slimport inspect resnet_v2_50.ckpt
    slimport inspect run/ --depth 2
    slimport inspect run/ --all | grep Momentum
    slimport inspect model.safetensors --json
    slimport inspect model.safetensors --layers
    slimport inspect zoo:resnet_v2_50
    """
    from converters.display.inspection import inspection_text
    from converters.inspection import inspect

    with _progress() as progress:
        progress(f"reading {src}")
        found = inspect(src, scope, step, selection, graph)
    if report is not None:
        _draw(found, report)
    text = json.dumps(found.to_json()) if as_json else inspection_text(found, depth, everything, as_layers)
    _say(text, fit=not as_json)


def _draw(found: Inspection, path: Path) -> None:
    """Writes the page with the network's layers."""
    from converters.display import layers, page
    from converters.files import check_destination

    if path.suffix not in page.SUFFIXES:
        raise InputError(f"{path}: the name of the page for --report must end in {' or '.join(page.SUFFIXES)}")
    check_destination(path)
    graph = layers.network_graph(found)
    if graph is None:
        raise InputError(f"{found.path}: no network to draw: {found.doubt}")
    layers.write(found, graph, path)


class _FormatsCommand(click.Command):
    """A command whose help lists the formats, which are imported for it only."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from converters.display.text import formats_text

        self.help = inspect_module.cleandoc(self.help or "").replace("{formats}", formats_text())
        super().format_help_text(ctx, formatter)


@cli.command(cls=_FormatsCommand)
@source
@click.argument("dst", type=click.Path())
@click.option("--to", metavar="FRAMEWORK", help="One of the list above. [DST's suffix says which]")
@click.option("--dtype", metavar="DTYPE", help="float16, bfloat16, float32 or float64, for the weights. [as in SRC]")
@click.option(
    "--extras",
    metavar="FILE",
    type=click.Path(),
    help="A .safetensors or .npz file for the raw variables of layers that are not the network's.",
)
@click.option("--suffix", metavar="SUFFIX", help="For a folder: suffix of the outputs. [that of --to, or .safetensors]")
@click.option("--force", is_flag=True, help="For a folder: convert again what is done.")
@click.option("--workers", metavar="N", type=click.IntRange(min=1), help="For a folder: processes. [one for each core]")
@click.option("--dask", metavar="ADDRESS", help="For a folder: the Dask scheduler whose workers convert.")
def convert(
    src: str,
    dst: str,
    to: str | None,
    step: int | None,
    extras: str | None,
    suffix: str | None,
    force: bool,
    workers: int | None,
    dask: str | None,
    **options: Any,
) -> None:
    """Convert the network in SRC to DST, whose suffix names the format.

    \b
    {formats}

    DST appears whole or not at all. If it is a folder, or ends in /, every checkpoint of SRC, a folder or a quoted
    pattern, is converted into it; outputs that are up to date are skipped. With --to huggingface, DST is one output.

    \b
    slimport convert resnet_v2_50.ckpt resnet_v2_50.safetensors
    slimport convert resnet_v2_50.ckpt resnet_v2_50.keras
    slimport convert resnet_v2_50.ckpt half.safetensors --dtype float16
    slimport convert resnet_v2_50.ckpt resnet_v2_50/ --to huggingface
    slimport convert resnet_v2_50.ckpt classes_1000.safetensors --drop-background
    slimport convert resnet_v2_50.ckpt body.pth --no-head --extras head.npz
    slimport convert run/ converted/
    slimport convert 'runs/*/' converted/ --suffix .pth
    """
    from converters.conversion import convert
    from converters.display.text import conversion_text
    from converters.formats import is_folder

    options["to"] = to
    many = {"suffix": suffix, "force": force, "workers": workers, "dask": dask}
    if is_folder(dst, to):
        if step is not None:
            raise InputError("--step chooses one checkpoint of a run: name a file as DST, or leave --step out")
        if extras is not None:
            raise InputError("--extras is for one checkpoint: name a file as DST, or leave --extras out")
        _convert_all(src, dst, **many, **options)
        return
    if any(many.values()):
        raise InputError(f"{dst}: one file; --suffix, --force, --workers and --dask are for a folder, which ends in /")
    with _progress() as progress:
        progress(f"converting {src}")
        done = convert(src, dst, step=step, extras=extras, **options)
    _say(conversion_text(done, src, extras))


def _convert_all(src: str, folder: str, **options: Any) -> None:
    from converters.batch import FAILED, convert_all
    from converters.display import terminal
    from converters.display.text import outcomes_text

    with terminal.jobs("checkpoints") as progress:
        outcomes = convert_all(src, folder, progress=progress, **options)
    _say(outcomes_text(outcomes, folder))
    if failed := sum(outcome.status == FAILED for outcome in outcomes):
        raise InputError(f"{src}: {failed} of {len(outcomes)} could not be converted; the list above says why")


@cli.command()
@source
@click.argument("converted", required=False, type=click.Path())
@click.option("--target", metavar="TARGET", help="pytorch, keras, onnx or slim; follows from CONVERTED, else pytorch.")
@click.option(
    "--dtype", metavar="DTYPE", help="float32 or float64. [both, where the target computes in both throughout]"
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
    selection: Selection,
    graph: GraphOptions,
    as_json: bool,
) -> None:
    """Compare every end point of CONVERTED with the TF-Slim graph running SRC; exit with 1 if one differs.

    Without CONVERTED, the port is verified with SRC's own weights. Needs TensorFlow, or a trace of
    SRC as --reference.

    \b
    slimport verify resnet_v2_50.ckpt resnet_v2_50.safetensors
    slimport verify resnet_v2_50.ckpt resnet_v2_50.keras --size 299
    slimport verify resnet_v2_50.ckpt resnet_v2_50.pth --report report.html
    slimport verify resnet_v2_50.ckpt --reference resnet_v2_50.npz --device cuda
    """
    from converters.display import page as pages
    from converters.display import plot as plots
    from converters.display.report import check_outputs, report_text
    from converters.display.terminal import width_of
    from converters.parity import verify
    from converters.remote.urls import public_command

    check_outputs(plot, page, (src, converted, reference))
    with _progress() as progress:
        report = verify(
            src,
            converted,
            target=target,
            dtype=dtype,
            both_dtypes=True if plot is not None or page is not None else None,
            device=device,
            scope=scope,
            step=step,
            selection=selection,
            graph=graph,
            reference=reference,
            progress=progress,
            **run,
        )
        if plot is not None:
            progress(f"writing {plot}")
            plots.write(report, Path(plot))
        if page is not None:
            progress(f"writing {page}")
            pages.write(report, Path(page), public_command(["slimport", *sys.argv[1:]]))
    _say(json.dumps(report.to_json()) if as_json else report_text(report, width_of(sys.stdout)), fit=not as_json)
    if not report.ok:
        raise click.exceptions.Exit(1)


@cli.command()
@source
@click.argument("path", metavar="TRACE")
@inputs
def trace(
    src: str,
    path: str,
    run: dict[str, Any],
    scope: str | None,
    step: int | None,
    selection: Selection,
    graph: GraphOptions,
) -> None:
    """Record the TF-Slim graph running SRC to TRACE, a .npz, for `verify --reference` where TensorFlow is not.

    A smaller --size makes a smaller file.

    \b
    slimport trace resnet_v2_50.ckpt resnet_v2_50.npz --size 97
    """
    from converters.parity import trace

    with _progress() as progress:
        done = trace(src, path, scope=scope, step=step, selection=selection, graph=graph, progress=progress, **run)
    size = f"{Path(path).stat().st_size / 1e6:.1f} MB"
    _say(f"{path}: {done.network['name']}, scope {done.scope!r}, {size}, weights {done.weights[:16]}")


@cli.command()
@source
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--labels",
    metavar="FILE",
    type=click.Path(),
    help="A file with the classes' names, one per line. [ImageNet's, for 1000 or 1001 classes]",
)
@click.option("--top", metavar="N", type=click.IntRange(min=1), default=5, help="Classes to print for each image. [5]")
@click.option(
    "--preprocessing",
    metavar="NAME",
    help="inception, inception_no_crop, vgg, deeplab, cifarnet, lenet, facenet or none. [as for the network's release]",
)
@click.option("--size", metavar="H[xW]", help="The size of the network's input. [as for the network's release]")
@click.option(
    "--resize-side",
    metavar="N",
    type=click.IntRange(1, _LARGEST_SIDE),
    help="For vgg and deeplab: the image's short side, before the crop of --size. [256]",
)
@JSON
def predict(
    src: str,
    images: tuple[str, ...],
    labels: str | None,
    top: int,
    preprocessing: str | None,
    size: str | None,
    resize_side: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Print the most probable classes of each IMAGE, by the network in SRC, a checkpoint or a converted file.

    \b
    slimport predict resnet_v2_50.safetensors cat.jpg dog.png
    slimport predict run/ flower.jpg --labels labels.txt --top 3
    """
    from converters.display import terminal
    from converters.display.text import predictions_text
    from converters.prediction import predict

    options.update(top=top, labels=labels, preprocessing=preprocessing, size=_size(size), resize_side=resize_side)
    with terminal.jobs("images") as progress:
        found = predict(src, images, progress=progress, **options)
    _say(json.dumps(found.to_json()) if as_json else predictions_text(found), fit=not as_json)


@cli.command()
@click.argument("src", metavar="SRC...", nargs=-1, required=True, shell_complete=_sources)
@SHA256
@CACHE
@JSON
def fetch(src: tuple[str, ...], sha256: str | None, cache: str | None, as_json: bool) -> None:
    """Fetch SRC, a URL or a name in the zoo, and print its path and its SHA-256.

    Every command that takes SRC fetches it so; this one does nothing else.

    \b
    slimport fetch resnet_v2_50_2017_04_14
    slimport fetch https://example.com/run/model.ckpt-1000 --cache checkpoints
    """
    from converters.display import terminal
    from converters.display.text import fetched_text
    from converters.remote import fetch

    with terminal.transfers() as progress:
        files = [file for one in src for file in fetch(one, sha256=sha256, cache=cache, progress=progress)]
    found = [{"path": str(file.path), "url": file.url, "sha256": file.sha256} for file in files]
    _say(json.dumps(found) if as_json else fetched_text(files), fit=not as_json)


@cli.command()
@CACHE
@JSON
def zoo(cache: str | None, as_json: bool) -> None:
    """List the released ImageNet checkpoints, which every command takes by name.

    \b
    slimport zoo
    slimport convert resnet_v2_50_2017_04_14 resnet_v2_50.safetensors
    """
    from converters.display.text import zoo_text
    from converters.remote import cached
    from converters.remote.zoo import RELEASES

    releases = {release: cached(release, cache) for release in RELEASES}
    found = [{**release.to_json(), "sha256": file and file.sha256} for release, file in releases.items()]
    _say(json.dumps(found) if as_json else zoo_text(releases), fit=not as_json)


def main() -> None:
    """Runs the console script; every error is one line on stderr."""
    _open_closed_streams()
    try:
        code = cli.main(prog_name="slimport", standalone_mode=False, terminal_width=_help_width())
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
        # The reader of stdout is gone (`| head`): no error, and nothing more to print.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except MemoryError:
        code = _fail("not enough memory: a smaller --size or --batch needs less")
    except Exception as error:
        if "SLIMPORT_TRACEBACK" in os.environ:
            raise
        code = _fail(
            f"unexpected {type(error).__name__}: {error} (a bug: SLIMPORT_TRACEBACK=1 shows where, please report it)"
        )
    sys.exit(code)


def _help_width() -> int | None:
    """The columns of help on a narrow terminal, of which click takes no notice."""
    columns = shutil.get_terminal_size().columns
    return columns - 2 if columns < 52 else None


def _fail(message: str) -> int:
    from converters.display.terminal import fitted, one_line, width_of

    click.echo(fitted(f"slimport: {one_line(message)}", width_of(sys.stderr)), err=True)
    return 2


def _say(text: str, fit: bool = True) -> None:
    from converters.display.terminal import say

    say(text, fit=fit)


def _open_closed_streams() -> None:
    """Opens the streams that a caller closed: a file that is opened next would be in their place, and be printed to."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
            setattr(sys, name, os.fdopen(number, mode))


def _local(src: str, sha256: str | None, cache: str | None) -> str:
    from converters.display import terminal
    from converters.remote import local_path

    with terminal.transfers() as progress:
        return str(local_path(src, sha256=sha256, cache=cache, progress=progress))


def _listed(given: tuple[str, ...]) -> tuple[str, ...]:
    """The names in options that take several, with commas between them."""
    return tuple(name for names in given for name in map(str.strip, names.split(",")) if name)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and int(side) > 0 for side in sides):
        raise InputError(f"--size {text}: must be H or HxW, in pixels, like 224 or 224x320")
    if max(map(len, sides)) > 5 or max(map(int, sides)) > _LARGEST_SIDE:
        raise InputError(
            f"--size {text}: at most {_LARGEST_SIDE} pixels, since a network's feature maps are larger still"
        )
    return int(sides[0]), int(sides[-1])


def _argument(text: str) -> tuple[str, Any]:
    """A name and a value, which is JSON or a string."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InputError(f"--argument {text}: must be NAME=VALUE, like global_pool=false")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _progress() -> AbstractContextManager[Callable[[str], None]]:
    from converters.display import terminal

    return terminal.activity()
