"""The command: exit codes, streams, JSON, and one clear line for bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, SMALL, SMALL_NETWORKS, Run, random_weights, save_small

from converters import frameworks, inspect, open_checkpoint
from converters.checkpoint import write_checkpoint

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf

Slimport = Callable[..., Run]


def bad_missing(tmp_path: Path, small: Path) -> Path:
    del small
    return tmp_path / "nowhere.ckpt"


def bad_directory(tmp_path: Path, small: Path) -> Path:
    del small
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def bad_text(tmp_path: Path, small: Path) -> Path:
    del small
    (tmp_path / "notes.ckpt").write_text("not a checkpoint\n" * 50)
    return tmp_path / "notes.ckpt"


def bad_empty(tmp_path: Path, small: Path) -> Path:
    del small
    (tmp_path / "empty.ckpt").touch()
    return tmp_path / "empty.ckpt"


def bad_truncated_v1(tmp_path: Path, small: Path) -> Path:
    del small
    path = save_small(tmp_path / "whole.ckpt", "v1")
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(path.read_bytes()[:-1000])
    return cut


def bad_truncated_v2(tmp_path: Path, small: Path) -> Path:
    data = Path(f"{small}.data-00000-of-00001").read_bytes()
    (tmp_path / "cut.index").write_bytes(Path(f"{small}.index").read_bytes())
    (tmp_path / "cut.data-00000-of-00001").write_bytes(data[:-1000])
    return tmp_path / "cut"


def bad_other_network(tmp_path: Path, small: Path) -> Path:
    del small
    weights = random_weights(SMALL_NETWORKS["vgg"])
    write_checkpoint(tmp_path / "c", {f"net/{name.replace('conv1/', 'stem/')}": a for name, a in weights.items()})
    return tmp_path / "c"


BAD = {
    bad_missing: "no such file",
    bad_directory: "no checkpoint in it",
    bad_text: "not a TensorFlow checkpoint",
    bad_empty: "not a TensorFlow checkpoint",
    bad_truncated_v1: "not a TensorFlow checkpoint, or cut off",
    bad_truncated_v2: "it is cut off; get it again",
    bad_other_network: "no network that slimport knows",
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_bad_input_gives_one_line_exit_code_2_and_no_output(
    make: Callable[[Path, Path], Path], slimport: Slimport, small_v2: Path, tmp_path: Path
) -> None:
    source = make(tmp_path, small_v2)
    before = sorted(tmp_path.iterdir())
    run = slimport("convert", source, tmp_path / "out.safetensors")
    assert run.code == 2
    assert run.out == ""
    assert run.err.count("\n") == 1
    assert run.err.startswith("slimport: ")
    assert str(source) in run.err
    assert BAD[make] in run.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "SRC", "OUT/out.pth", "--to", "foo"), "--to foo: must be one of pytorch, onnx, keras, slim"),
        (("inspect", "SRC", "--scope", "nope"), "under scope 'nope'; there are networks under 'resnet_v2'"),
        (("transmogrify",), "No such command"),
        (("convert", "SRC"), "Missing argument 'DST'"),
        (("convert", "SRC", "OUT/out.txt"), "must end in one of: .safetensors, .pth, .pt, .pt2, .onnx, .keras"),
        (("convert", "SRC", "OUT/out.keras", "--to", "pytorch"), "must end in one of --to pytorch: .safetensors, .pth"),
        (("convert", "SRC", "OUT/no/such/out.pth"), "does not exist; make it first"),
        (("convert", "SRC", "OUT/folder.pth"), "is a folder"),
        (("convert", "SRC", "OUT/out.pth", "--scope", "other"), "under scope 'other'"),
        (("verify", "SRC", "OUT/missing.safetensors"), "no such file"),
        (("verify", "SRC", "OUT/out.txt"), "cannot tell what this is"),
        (("verify", "SRC", "--size", "0"), "--size 0: must be H or HxW"),
        (("verify", "SRC", "--size", "12x-3"), "must be H or HxW"),
        (("verify", "SRC", "--batch", "0"), "--batch"),
        (("verify", "SRC", "--dtype", "float16"), "must be float32 or float64"),
        (("verify", "SRC", "--target", "caffe"), "must be one of pytorch, keras, onnx"),
        (("verify", "SRC", "--argument", "multi_grid"), "--argument multi_grid: must be NAME=VALUE"),
        (("verify", "SRC", "--argument", "multi_grid=[1, 2]"), "it has no multi_grid"),
        (("verify", "SRC", "--output-stride", "3"), "output_stride 3 is not a multiple of 4"),
        (("verify", "SRC", "--device", "tpu"), "must be cpu or cuda"),
        (("verify", "SRC", "OUT/text.safetensors"), "not a safetensors file"),
        (("verify", "SRC", "OUT/text.pth"), "not a PyTorch file of plain tensors"),
        (("verify", "SRC", "OUT/text.keras"), "not a Keras 3 file"),
        (("verify", "SRC", "OUT/text.weights.h5"), "not a Keras 3 file"),
        (("verify", "SRC", "OUT/text.keras", "--target", "pytorch"), "is for keras, not for --target pytorch"),
    ],
)
def test_bad_usage_gives_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, slimport: Slimport, small_v2: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder.pth").mkdir()
    for suffix in (".safetensors", ".pth", ".keras", ".weights.h5"):
        (tmp_path / f"text{suffix}").write_text("text")
    before = sorted(tmp_path.iterdir())
    run = slimport(*(a.replace("SRC", str(small_v2)).replace("OUT", str(tmp_path)) for a in arguments))
    assert run.code == 2, run
    assert run.out == ""
    assert run.err.count("\n") == 1, run.err
    assert message in run.err
    assert sorted(tmp_path.iterdir()) == before


def test_inspect_json_is_what_the_design_promises(slimport: Slimport, digits_checkpoint: Path) -> None:
    run = slimport("inspect", digits_checkpoint, "--json")
    assert (run.code, run.err) == (0, "")
    found = json.loads(run.out)
    assert found["format"] == "v2"
    shapes = tf.train.load_checkpoint(str(digits_checkpoint)).get_variable_to_shape_map()
    assert {v["name"]: v["shape"] for v in found["variables"]} == shapes
    assert {"name": "global_step", "shape": [], "dtype": "int64"} in found["variables"]
    model = found["model"]
    assert (model["name"], model["scope"], model["num_classes"]) == ("resnet_v2", "digits/resnet_v2", 10)
    assert found["models"] == [model]
    assert found["extras"]["training_state"] == ["global_step"]
    assert len(found["extras"]["Momentum"]) > 0


def test_inspect_of_another_network_says_so_and_succeeds(slimport: Slimport, tmp_path: Path) -> None:
    path = bad_other_network(tmp_path, tmp_path)
    found = json.loads(slimport("inspect", path, "--json").out)
    assert found["model"] is None
    assert sum(map(len, found["extras"].values())) == len(found["variables"])
    run = slimport("inspect", path)
    assert run.code == 0
    assert "\nmodel: none that slimport knows\nlooked for: " in run.out
    assert f"\nnearest: {found['nearest']['name']} under scope {found['nearest']['scope']!r}: " in run.out
    assert f"\nfirst difference: {found['nearest']['difference']}\n" in run.out
    assert "stem" in run.out


def test_inspect_tells_a_person_what_to_do_next(slimport: Slimport, digits_checkpoint: Path) -> None:
    lines = slimport("inspect", digits_checkpoint).out.partition("\n\n")[2].splitlines()
    assert lines[1] == "model: resnet_v2, 10 classes, scope 'digits/resnet_v2'"
    assert f"next: slimport convert {digits_checkpoint} resnet_v2.safetensors" in lines


def test_inspect_reads_no_tensor(small_v2: Path, tmp_path: Path) -> None:
    (tmp_path / "c.index").write_bytes(Path(f"{small_v2}.index").read_bytes())
    assert inspect(tmp_path / "c").variables == tuple(open_checkpoint(small_v2).variables.values())


def test_convert_says_what_it_left_out(slimport: Slimport, digits_checkpoint: Path, tmp_path: Path) -> None:
    run = slimport("convert", digits_checkpoint, tmp_path / "m.safetensors")
    assert (run.code, run.err) == (0, "")
    lines = run.out.splitlines()
    assert lines[0].startswith(f"{tmp_path}/m.safetensors: resnet_v2, 10 classes")
    left_out = [line for line in lines if line.startswith("left out: ")]
    assert "Momentum" in left_out[0]
    assert left_out[1] == "left out: 1 training state (steps, rates and the like): global_step"


def test_a_checkpoint_that_lacks_a_variable_is_refused(slimport: Slimport, small_v2: Path, tmp_path: Path) -> None:
    from converters.checkpoint import write_checkpoint

    variables = dict(open_checkpoint(small_v2))
    del variables["resnet_v2/block2/unit_1/bottleneck_v2/conv3/weights"], variables["resnet_v2/postnorm/moving_mean"]
    write_checkpoint(tmp_path / "c", variables)
    run = slimport("convert", tmp_path / "c", tmp_path / "m.safetensors")
    assert run.code == 2
    assert "block2/unit_1/bottleneck_v2/conv3/weights is missing (and 1 more)" in run.err
    assert slimport("inspect", tmp_path / "c").out.count("missing: ") == 2


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from converters.cli import main
sys.argv[1:] = ["--help"]
try:
    main()
except SystemExit:
    pass
heavy = {"numpy", "rich", "torch", "tensorflow", "keras", "safetensors", "crc32c"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    out = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    assert out.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_error(small_v2: Path) -> None:
    command = f'{sys.executable} -c "from converters.cli import main; main()" inspect {small_v2} | head -1'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_step_of_a_run_can_be_chosen(slimport: Slimport, tmp_path: Path) -> None:
    from converters.checkpoint import write_checkpoint

    for step, classes in ((100, 3), (200, 5)):
        path = save_small(tmp_path / f"model.ckpt-{step}", "v2", replace(SMALL, num_classes=classes))
        write_checkpoint(path, dict(open_checkpoint(path)))
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt-200"\n'
        'all_model_checkpoint_paths: "model.ckpt-100"\nall_model_checkpoint_paths: "model.ckpt-200"\n'
    )
    newest = slimport("convert", tmp_path, tmp_path / "m.safetensors")
    assert "5 classes" in newest.out
    assert "3 classes" in slimport("convert", tmp_path, tmp_path / "m.safetensors", "--step", "100").out
    assert json.loads(slimport("inspect", tmp_path, "--json", "--step", "100").out)["model"]["num_classes"] == 3
    assert slimport("verify", tmp_path, tmp_path / "m.safetensors", "--step", "100", "--size", "33").code == 0


def test_a_released_archive_is_converted_and_verified_as_it_is(slimport: Slimport, tmp_path: Path) -> None:
    path = save_small(tmp_path / "release" / "small.ckpt", "v1")
    archive = tmp_path / "small_2017.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", path.parent, path.name], check=True)
    run = slimport("convert", archive, tmp_path / "m.safetensors")
    assert (run.code, run.err) == (0, "")
    run = slimport("verify", archive, tmp_path / "m.safetensors", "--size", "40")
    assert run.code == 0, run
    assert "read by tensorflow" in run.out
