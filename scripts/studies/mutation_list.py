"""Small mistakes in the code, each with the tests that should see it: the list of `scripts.studies.mutations`."""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One mistake.

    file: where it is made.
    what: the mistake in words.
    old, new: what is replaced, which is there once, and by what.
    tests: of pytest, as in a shell.
    """

    file: str
    what: str
    old: str
    new: str
    tests: str


_PARITY = "converters/parity"
_CHECKPOINT = "converters/checkpoint"
_NETS = "slimport/nets"
_LIMITS = "tests/test_verify.py -k 'rel_l2 or s_limit_is or nan or without_rows or match or another_shape or ratio'"
_GRAPHS = "tests/test_nets_graphs.py"
_FORGED = "tests/checkpoint/test_forged.py"
_WIRE = "tests/checkpoint/test_wire.py"
_EXACT = "tests/checkpoint/test_exact.py -k 'not third and not other_people'"
_IMAGES = "tests/test_parity_images.py -k 'not command and not both_dtypes and not one_size'"
_PREPROCESSING = "tests/test_preprocessing.py"
_MAPPING = "tests/test_mapping.py"
_ADVERSARY = "tests/test_adversary.py"

_COMPARISON = (
    Mutation(f"{_PARITY}/compare.py", "float64's limit 1e-9", "FLOAT64_LIMIT = 1e-12", "FLOAT64_LIMIT = 1e-9", _LIMITS),
    Mutation(f"{_PARITY}/compare.py", "5 times TF-Slim's rounding", "FLOAT32_CAP = 4,", "FLOAT32_CAP = 5,", _LIMITS),
    Mutation(f"{_PARITY}/compare.py", "float32's floor 1e-5", "= 4, 1e-6, 1e-3", "= 4, 1e-5, 1e-3", _LIMITS),
    Mutation(f"{_PARITY}/compare.py", "float32's cap 1e-2", "= 4, 1e-6, 1e-3", "= 4, 1e-6, 1e-2", _LIMITS),
    Mutation(
        f"{_PARITY}/compare.py", "no cap", "min(FLOAT32_CAP, FLOAT32_RATIO * slim", "(FLOAT32_RATIO * slim", _LIMITS
    ),
    Mutation(
        f"{_PARITY}/compare.py",
        "an end point of another shape is equal",
        'if array.shape != reference.shape:\n        return float("inf")\n    difference =',
        "if array.shape != reference.shape:\n        return 0.0\n    difference =",
        _LIMITS,
    ),
    Mutation(
        f"{_PARITY}/compare.py",
        "NaN is no difference",
        "return self.rel_l2 <= self.limit",
        "return not self.rel_l2 > self.limit",
        _LIMITS,
    ),
    Mutation(
        f"{_PARITY}/compare.py",
        "no end points are equal",
        "return bool(self.rows) and all(",
        "return all(",
        _LIMITS,
    ),
    Mutation(
        f"{_PARITY}/compare.py",
        "what the model returns does not count",
        "for row in (*self.rows, *self.returned))",
        "for row in self.rows)",
        f"{_ADVERSARY} -k module",
    ),
    Mutation(
        f"{_PARITY}/compare.py",
        "the error is not relative",
        "return float(difference / np.linalg.norm(reference.astype(np.float64).ravel()))",
        "return float(difference)",
        _LIMITS,
    ),
    Mutation(
        f"{_PARITY}/report.py",
        "one dtype's equality is enough",
        "return all(map(self.equal, self.by_dtype))",
        "return any(map(self.equal, self.by_dtype))",
        "tests/test_report.py -k both_dtypes",
    ),
    Mutation(
        f"{_PARITY}/report.py",
        "other settings do not count",
        "return self.weights_different, self.weights_unexpected, self.settings_different",
        "return self.weights_different, self.weights_unexpected, ()",
        "tests/test_catch_rate.py -k 'm.keras'",
    ),
    Mutation(
        f"{_PARITY}/report.py",
        "unexpected variables do not count",
        "return self.weights_different, self.weights_unexpected, self.settings_different",
        "return self.weights_different, (), self.settings_different",
        "tests/test_catch_rate.py -k 'extra and safetensors'",
    ),
    Mutation(
        f"{_PARITY}/verification.py",
        "weights are compared nearly",
        "if array.tobytes() != weights[name].astype(array.dtype).tobytes():",
        "if not np.allclose(array, weights[name]):",
        "tests/test_rounding.py -k one_bit",
    ),
    Mutation(
        f"{_PARITY}/verification.py",
        "a judge without numbers is measured",
        "if not np.isfinite(value).all():",
        "if np.isnan(value).all():",
        f"{_ADVERSARY} -k 'judge_has_no'",
    ),
    Mutation(
        f"{_PARITY}/verification.py",
        "float32's overflow is measured",
        "if not np.isfinite(error):",
        "if False:",
        f"{_ADVERSARY} -k overflows",
    ),
    Mutation(
        f"{_PARITY}/verification.py",
        "float64 alone by default",
        "dtype is None if both_dtypes is None else both_dtypes",
        "bool(both_dtypes)",
        "tests/test_parity_images.py -k both_dtypes",
    ),
    Mutation(
        f"{_PARITY}/verification.py",
        "a file built with other arguments is run with them",
        "if arguments[name] != built[name] and (program or name not in given)]",
        "if False]",
        "tests/test_verify.py -k built_with_other",
    ),
    Mutation(
        f"{_PARITY}/verification.py",
        "another network is compared",
        "if converted.network != source.network:",
        "if converted.network.family != source.network.family:",
        "tests/test_verify.py -k state_dict",
    ),
    Mutation(
        f"{_PARITY}/verification.py",
        "another source is not said",
        "if digests[name] != recorded[name]:",
        "if digests[name] == recorded[name] == 0:",
        f"{_ADVERSARY} -k another_source",
    ),
    Mutation(
        f"{_PARITY}/tf_slim.py",
        "slimport's reader for TensorFlow's",
        "else assignment.array(reader.get_tensor(assignment.stored))",
        "else source.arrays()[name]",
        f"{_ADVERSARY} -k tensorflows_own",
    ),
    Mutation(
        f"{_PARITY}/tf_slim.py",
        "V1 shards are not TensorFlow's to read",
        "tf.train.load_checkpoint(path + shards if sharded else path)",
        "tf.train.load_checkpoint(path)",
        f"{_ADVERSARY} -k tensorflows_own",
    ),
    Mutation(
        f"{_PARITY}/ports/slim.py",
        "a target that TensorFlow does not read passes",
        'if reader != "tensorflow":',
        'if reader == "":',
        f"{_ADVERSARY} -k refused_as_target",
    ),
    Mutation(
        f"{_PARITY}/ports/keras.py",
        "half precision is no difference",
        'if policy.startswith("mixed"):',
        'if policy.startswith("half"):',
        f"{_ADVERSARY} -k half_precision",
    ),
    Mutation(f"{_PARITY}/images.py", "one image", "BATCH = 2", "BATCH = 1", _IMAGES),
    Mutation(f"{_PARITY}/images.py", "two even sides", "SIZE = (97, 128)", "SIZE = (96, 128)", _IMAGES),
    Mutation(
        f"{_PARITY}/images.py",
        "values in [-1, 1] whatever the preprocessing",
        "low, high = value_range(network)",
        "low, high = -1.0, 1.0",
        _IMAGES,
    ),
    Mutation(
        f"{_PARITY}/images.py",
        "the seed is not used",
        "np.random.default_rng(seed)",
        "np.random.default_rng(0)",
        _IMAGES,
    ),
    Mutation(
        f"{_PARITY}/images.py",
        "layers that take one size get another",
        "return sides is not None and sides[0] * sides[1] * channels == node.channels",
        "return True",
        _IMAGES,
    ),
)
_TRACES = (
    Mutation(
        f"{_PARITY}/tracing.py",
        "the digest leaves the images out",
        '("images", images, "<f4"),',
        '("images", images[:0], "<f4"),',
        f"{_ADVERSARY} -k another_number",
    ),
    Mutation(
        f"{_PARITY}/tracing.py",
        "the digest leaves the end points out",
        '*((name, value, "<f8") for name, value in truth.items()),',
        "",
        f"{_ADVERSARY} -k another_number",
    ),
    Mutation(
        f"{_PARITY}/tracing.py",
        "the digest leaves the rounding out",
        '("rounding", rounding, "<f8"),',
        "",
        f"{_ADVERSARY} -k another_number",
    ),
    Mutation(
        f"{_PARITY}/tracing.py",
        "a trace of other weights is taken",
        "if recorded.weights != weights_digest(source.network, self.weights):",
        "if False:",
        "tests/test_trace.py -k something_else",
    ),
    Mutation(
        f"{_PARITY}/tracing.py",
        "the weights' digest leaves their bytes out",
        'digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)\n'
        "    return digest.hexdigest()\n\n\ndef content",
        "pass\n    return digest.hexdigest()\n\n\ndef content",
        "tests/test_trace.py -k something_else",
    ),
    Mutation(
        f"{_PARITY}/tracing.py",
        "a trace of other arguments is taken",
        "if was.get(name) != value}",
        "if name in asked._asdict() and was.get(name) != value}",
        "tests/test_trace.py -k another_run",
    ),
    Mutation(
        f"{_PARITY}/tracing.py",
        "a trace of another scope is taken",
        "if recorded.scope != source.scope:",
        "if False:",
        "tests/test_trace.py -k another_scope",
    ),
    Mutation(
        f"{_PARITY}/tracing.py",
        "arrays that do not fit are taken",
        "if [array.ndim for array in inputs] != ranks or rounding.shape != (len(truth),):",
        "if [array.ndim for array in inputs] != ranks:",
        "tests/test_trace.py -k whole_trace",
    ),
)
_READERS = (
    Mutation(
        f"{_CHECKPOINT}/bundle.py",
        "a tensor's checksum is not checked",
        "if mask(crc32c.crc32c(data)) != entry.crc:",
        "if False:",
        "tests/checkpoint/test_damage.py -k every_byte",
    ),
    Mutation(
        f"{_CHECKPOINT}/bundle.py",
        "tensors may overlap",
        "if shard == next_shard and offset < end:",
        "if shard == next_shard and offset < end - 4:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/bundle.py",
        "one shard too many",
        "if shard >= shards:",
        "if shard > shards:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/bundle.py",
        "no shards",
        "if not 0 < shards <= _MAX_SHARDS:",
        "if not 0 <= shards <= _MAX_SHARDS:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/bundle.py",
        "big-endian files are read",
        "if endianness != 0:",
        "if endianness > 1:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/bundle.py",
        "a size that is not the shape's",
        "count * dtype.itemsize != entry.size:",
        "count * dtype.itemsize > entry.size:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/bundle.py",
        "strings need not fill their bytes",
        "if sum(lengths) != len(data) - offset:",
        "if sum(lengths) > len(data) - offset:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/bundle.py",
        "a slice's shape is not checked",
        "if piece.shape != shape or piece.dtype != entry.dtype or piece.slices:",
        "if piece.dtype != entry.dtype or piece.slices:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/table.py",
        "a block's checksum is not checked",
        "if mask(crc32c.crc32c(stored[:-4])) != crc:",
        "if False:",
        "tests/checkpoint/test_damage.py -k refused_or_harmless",
    ),
    Mutation(
        f"{_CHECKPOINT}/table.py",
        "a block reaches beyond the file",
        "if handle.end > self._size:",
        "if handle.end > self._size + 8:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/table.py",
        "keys may go down",
        "if entries and key <= previous:",
        "if False:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/table.py",
        "an entry reaches beyond its block",
        "or size > end - offset - unshared:",
        "or size > end - offset:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/table.py",
        "compressed bytes may be any number",
        "if size > SNAPPY_RATIO * len(contents):",
        "if False:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/v1.py",
        "an entry of another variable",
        "if wire.text(name) != variable.name or protos.extents(stored) != tuple(extents):",
        "if protos.extents(stored) != tuple(extents):",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/v1.py",
        "bytes that are not the values'",
        "if len(packed) != count * dtype.itemsize:",
        "if len(packed) < count * dtype.itemsize:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/v1.py",
        "a variable in two shapes",
        "if variables.setdefault(variable.name, variable) != variable:",
        "if variables.setdefault(variable.name, variable) is None:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/v1.py",
        "half precision's bits as integers",
        'return wire.packed_varints(packed, count, "uint16").view(dtype)',
        'return wire.packed_varints(packed, count, "uint16").astype(dtype)',
        _EXACT,
    ),
    Mutation(
        f"{_CHECKPOINT}/slices.py",
        "a slice that is listed twice",
        "if len(set(map(tuple, slices))) != len(slices):",
        "if False:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/slices.py",
        "slices that leave a part out",
        "if not filled.all():",
        "if not filled.any():",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/slices.py",
        "a slice beyond the shape",
        "start + length > side:",
        "start + length > side + 1:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/ordered_code.py",
        "a zero byte in a name is not escaped",
        r'rb"[\x00\xff]"',
        r'rb"[\xff]"',
        "tests/checkpoint/test_exact.py -k whatever",
    ),
    Mutation(
        f"{_CHECKPOINT}/ordered_code.py",
        "numbers of 7 bits take a byte less",
        ".bit_length() // 7 + 1",
        ".bit_length() // 8 + 1",
        "tests/checkpoint/test_exact.py -k another_byte",
    ),
    Mutation(
        f"{_CHECKPOINT}/wire.py",
        "varints of more than 64 bits",
        "if value >> 64:",
        "if value >> 70:",
        _FORGED,
    ),
    Mutation(
        f"{_CHECKPOINT}/wire.py",
        "a field reaches beyond the message",
        "if size > len(buffer) - offset:",
        "if size > len(buffer):",
        _WIRE,
    ),
    Mutation(
        f"{_CHECKPOINT}/wire.py",
        "a field that occurs twice",
        "elif field in single:",
        "elif field < 0:",
        _FORGED,
    ),
    Mutation(f"{_CHECKPOINT}/dtypes.py", "uint16 for int16", '\n    5: "int16"', '\n    5: "uint16"', _EXACT),
    Mutation(f"{_CHECKPOINT}/dtypes.py", "quantized int8 as uint8", '11: "int8"', '11: "uint8"', _EXACT),
)
_FILES = (
    Mutation(
        "converters/formats/safetensors.py",
        "tensors may leave gaps",
        "if tensor.offset != offset:",
        "if tensor.offset < offset:",
        "tests/test_attacks.py -k its_own_library",
    ),
    Mutation(
        "converters/formats/safetensors.py",
        "bytes behind the tensors",
        "if offset != end:",
        "if offset > end:",
        "tests/test_attacks.py -k its_own_library",
    ),
    Mutation(
        "converters/formats/safetensors.py",
        "a tensor's bytes are not its shape's",
        "if tensor.size != stop - start:",
        "if tensor.size > stop - start:",
        "tests/test_attacks.py -k its_own_library",
    ),
    Mutation(
        "converters/formats/huggingface.py",
        "another architecture in config.json",
        '"architecture": network.name,\n        "num_classes": network.num_classes or 0,\n'
        '        "num_channels": network.in_channels,\n        "slimport"',
        '"num_classes": network.num_classes or 0,\n        "num_channels": network.in_channels,\n        "slimport"',
        "tests/test_catch_rate.py -k 'folder and network'",
    ),
    Mutation(
        "converters/formats/huggingface.py",
        "other classes in config.json",
        '"architecture": network.name,\n        "num_classes": network.num_classes or 0,\n'
        '        "num_channels": network.in_channels,\n        "slimport"',
        '"architecture": network.name,\n        "num_channels": network.in_channels,\n        "slimport"',
        "tests/test_catch_rate.py -k 'folder and classes'",
    ),
    Mutation(
        "converters/files.py",
        "a digest of a part of the file",
        "digest.update(buffer[:size])",
        "digest.update(buffer[: size // 2])",
        "tests/test_convert.py -k digests",
    ),
    Mutation(
        "converters/files.py",
        "a source that changes meanwhile is not seen",
        "if before != now:",
        "if before is None:",
        "tests/test_attacks.py -k changes_meanwhile",
    ),
    Mutation(
        "converters/mapping.py",
        "kernels are OIWH",
        "4: (3, 2, 0, 1), 2: (1, 0)",
        "4: (3, 2, 1, 0), 2: (1, 0)",
        _MAPPING,
    ),
    Mutation(
        "converters/mapping.py",
        "fully connected weights are not transposed",
        "4: (3, 2, 0, 1), 2: (1, 0)}",
        "4: (3, 2, 0, 1), 2: (0, 1)}",
        _MAPPING,
    ),
    Mutation(
        "converters/mapping.py",
        "depthwise kernels are not grouped",
        "return (*shape[:2], 1, shape[2] * shape[3])",
        "return shape",
        _MAPPING,
    ),
    Mutation(
        "converters/weights/rounding.py",
        "overflows are not counted",
        "overflows += int(np.count_nonzero(finite & ~np.isfinite(rounded)))",
        "overflows += 0",
        "tests/test_rounding.py -k too_large",
    ),
    Mutation(
        "converters/weights/rounding.py",
        "the loss is that of the last piece",
        "errors += float(np.sum(difference**2))",
        "errors = float(np.sum(difference**2)) / 2",
        "tests/test_rounding.py -k loss_is_measured",
    ),
    Mutation(
        "converters/cli.py",
        "bad input exits with 1",
        "err=True)\n    return 2",
        "err=True)\n    return 1",
        "tests/test_cli.py -k bad_input",
    ),
    Mutation(
        "converters/cli.py",
        "a difference exits with 0",
        "raise click.exceptions.Exit(1)",
        "raise click.exceptions.Exit(0)",
        "tests/test_report.py -k exits_with_1",
    ),
    Mutation(
        "converters/cli.py",
        "a size of 0",
        "and int(side) > 0 for side in sides)",
        "and int(side) >= 0 for side in sides)",
        "tests/test_cli.py -k bad",
    ),
)
_JUDGES = (
    Mutation(
        f"{_NETS}/resnet_utils.py",
        "weight decay is doubled",
        "slim.l2_regularizer(weight_decay)",
        "slim.l2_regularizer(2 * weight_decay)",
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/resnet_utils.py",
        "updates go to the usual collection",
        '"updates_collections": batch_norm_updates_collections,',
        '"updates_collections": tf.GraphKeys.UPDATE_OPS,',
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/resnet.py",
        "is_training is not taken",
        'training = {} if is_training is None else {"is_training": is_training}',
        "training = {}",
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/resnet.py",
        "is_training None is given on",
        'training = {} if is_training is None else {"is_training": is_training}',
        'training = {"is_training": bool(is_training)}',
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/resnet_v1.py",
        "the residual is not clipped",
        "tf.clip_by_value(residual, -6.0, 6.0)",
        "residual",
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/resnet_v1.py",
        "the shortcut is not bounded",
        "tf.nn.relu6 if use_bounded_activations else None",
        "tf.nn.relu if use_bounded_activations else None",
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/resnet_v1.py",
        "the output is not bounded",
        "output = tf.nn.relu6(shortcut",
        "output = tf.nn.relu(shortcut",
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/resnet_utils.py",
        "a stride that is left out dilates nothing",
        'rate *= unit.get("stride", 1)',
        "pass",
        f"{_GRAPHS} tests/test_nets.py -k 'dilate or atrous or Dense or resnet_utils or tf_slims_own_test'",
    ),
    Mutation(
        f"{_NETS}/resnet_utils.py",
        "a stride at a block's end dilates nothing",
        "rate *= block_stride",
        "pass",
        f"{_GRAPHS} -k dilate",
    ),
    Mutation(
        f"{_NETS}/vgg.py",
        "dropout7 always drops",
        'dropout_keep_prob, is_training=is_training, scope="dropout7")',
        'dropout_keep_prob, scope="dropout7")',
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/vgg.py",
        "dropout6 keeps half, whatever is said",
        'slim.dropout(net, dropout_keep_prob, is_training=is_training, scope="dropout6")',
        'slim.dropout(net, 0.5, is_training=is_training, scope="dropout6")',
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/vgg.py",
        "another weight decay",
        "weights_regularizer=slim.l2_regularizer(weight_decay),",
        "weights_regularizer=slim.l2_regularizer(0.0005),",
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/resnet_utils.py",
        "another decay of the moving averages",
        "batch_norm_decay: float = 0.997,",
        "batch_norm_decay: float = 0.999,",
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/resnet_utils.py",
        "SAME's padding where it is alike",
        "pad_begin = pad_total // 2",
        "pad_begin = (pad_total - 1) // 2",
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/resnet_v2.py",
        "the projection takes the input",
        'preact, depth, [1, 1], stride=stride, normalizer_fn=None, activation_fn=None, scope="shortcut"',
        'inputs, depth, [1, 1], stride=stride, normalizer_fn=None, activation_fn=None, scope="shortcut"',
        _GRAPHS,
    ),
    Mutation(
        f"{_NETS}/vgg.py",
        "reuse and scope are swapped",
        "last = reuse, scope, fc_conv_padding, global_pool\n    return vgg(\n"
        "        inputs, blocks, num_classes, is_training, dropout_keep_prob, spatial_squeeze, *last, "
        'default_scope="vgg_19"',
        "last = None, scope, fc_conv_padding, global_pool\n    return vgg(\n"
        "        inputs, blocks, num_classes, is_training, dropout_keep_prob, spatial_squeeze, *last, "
        'default_scope="vgg_19"',
        _GRAPHS,
    ),
)
_PORTS = (
    Mutation(
        "slimport/pytorch/layers.py",
        "SAME's odd padding comes before",
        "return total // 2, total - total // 2",
        "return total - total // 2, total // 2",
        "tests/test_catch_rate.py -k right_port",
    ),
    Mutation(
        "slimport/pytorch/layers.py",
        "a dilated kernel reaches one less",
        "extent = rate * (kernel_size - 1) + 1",
        "extent = rate * (kernel_size - 1)",
        "tests/test_catch_rate.py -k right_port",
    ),
    Mutation(
        "slimport/pytorch/layers.py",
        "a max pool pads with zeros",
        "value=-math.inf",
        "value=0",
        "tests/test_export.py -k pool1_is",
    ),
    Mutation(
        "slimport/pytorch/layers.py",
        "an average pool counts what SAME pads",
        "count_include_pad=False",
        "count_include_pad=True",
        "tests/test_inceptions.py -k both_ports",
    ),
    Mutation(
        "slimport/pytorch/layers.py",
        "the moving average's decay for its momentum",
        "momentum=1 - decay",
        "momentum=decay",
        "tests/test_training.py -k three_steps_are_slims",
    ),
    Mutation(
        "slimport/pytorch/layers.py",
        "dropout drops what it should keep",
        'F.dropout(inputs, 1 - self.node.attributes["keep_prob"], True)',
        'F.dropout(inputs, self.node.attributes["keep_prob"], True)',
        "tests/test_dropout.py",
    ),
    Mutation(
        "slimport/pytorch/training.py",
        "biases decay too",
        "if kernel.ndim > 1]",
        "if kernel.ndim > 0]",
        "tests/test_training.py -k parameter_groups",
    ),
    Mutation(
        "slimport/pytorch/training.py",
        "the regularization is not halved",
        "return weight_decay / 2 *",
        "return weight_decay *",
        "tests/test_training.py -k regularization_loss",
    ),
    Mutation(
        "slimport/pytorch/training.py",
        "another default weight decay",
        "WEIGHT_DECAY = 1e-4",
        "WEIGHT_DECAY = 1e-5",
        "tests/test_training.py -k regularization_loss",
    ),
    Mutation(
        "slimport/pytorch/training.py",
        "normal numbers without 1.3",
        "math.sqrt(1.3 * 2 / fan)",
        "math.sqrt(2 / fan)",
        "tests/test_training.py -k initial_values",
    ),
    Mutation(
        "slimport/networks/resnet.py",
        "another decay of the moving averages",
        "arg_scope([batch_norm], decay=0.997, epsilon=1e-5, scale=True),",
        "arg_scope([batch_norm], decay=0.999, epsilon=1e-5, scale=True),",
        "tests/test_training.py -k three_steps_are_slims",
    ),
    Mutation(
        "slimport/networks/resnet.py",
        "another epsilon",
        "arg_scope([batch_norm], decay=0.997, epsilon=1e-5, scale=True),",
        "arg_scope([batch_norm], decay=0.997, epsilon=1.001e-5, scale=True),",
        "tests/test_catch_rate.py -k right_port",
    ),
    Mutation(
        "slimport/keras/network.py",
        "Keras drops what it should keep",
        '{"rate": 1 - a.get("keep_prob", 1)}',
        '{"rate": a.get("keep_prob", 1)}',
        "tests/test_dropout.py",
    ),
    Mutation(
        "slimport/keras/network.py",
        "VALID for SAME in Keras",
        'settings["padding"] = "same" if a["padding"] == "SAME" else "valid"',
        'settings["padding"] = "valid"',
        "tests/test_keras.py -k 'float64_and_within'",
    ),
    Mutation(
        "slimport/keras/network.py",
        "another momentum in Keras",
        'name, momentum=norm["decay"]',
        'name, momentum=1 - norm["decay"]',
        "tests/test_training.py -k keras",
    ),
)
_PREPROCESSINGS = (
    Mutation(
        "slimport/preprocessing.py",
        "another mean of blue",
        "MEANS = (123.68, 116.78, 103.94)",
        "MEANS = (123.68, 116.78, 103.93)",
        _PREPROCESSING,
    ),
    Mutation(
        "slimport/preprocessing.py",
        "a central fraction of 0.87",
        "CENTRAL_FRACTION = 0.875",
        "CENTRAL_FRACTION = 0.87",
        _PREPROCESSING,
    ),
    Mutation(
        "slimport/preprocessing.py", "a short side of 257", "RESIZE_SIDE = 256", "RESIZE_SIDE = 257", _PREPROCESSING
    ),
    Mutation(
        "slimport/preprocessing.py",
        "centres of pixels, as TensorFlow 2 has them",
        "position = np.arange(side_out, dtype=np.float32) * scale",
        "position = np.maximum((np.arange(side_out, dtype=np.float32) + 0.5) * scale - 0.5, 0)",
        _PREPROCESSING,
    ),
    Mutation(
        "slimport/preprocessing.py",
        "positions in float64",
        "position = np.arange(side_out, dtype=np.float32) * scale",
        "position = (np.arange(side_out) * (side_in / side_out)).astype(np.float32)",
        _PREPROCESSING,
    ),
    Mutation(
        "slimport/preprocessing.py",
        "the resized side is cut off, not rounded",
        "return int(np.rint(np.float32(height) * scale)), int(np.rint(np.float32(width) * scale))",
        "return int(np.float32(height) * scale), int(np.float32(width) * scale)",
        _PREPROCESSING,
    ),
    Mutation(
        "slimport/preprocessing.py",
        "the crop begins one later",
        "return (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2",
        "return (size[0] - crop[0] + 1) // 2, (size[1] - crop[1] + 1) // 2",
        _PREPROCESSING,
    ),
    Mutation(
        "slimport/preprocessing.py",
        "lenet divides by 127",
        "- np.float32(128)) / np.float32(128)",
        "- np.float32(128)) / np.float32(127)",
        _PREPROCESSING,
    ),
    Mutation(
        "slimport/preprocessing.py",
        "no least deviation",
        "max(image.std(dtype=np.float64), image.size**-0.5)",
        "image.std(dtype=np.float64)",
        _PREPROCESSING,
    ),
    Mutation(
        "slimport/preprocessing.py",
        "zeros after the image first",
        "margins[axis] = missing // 2, missing - missing // 2",
        "margins[axis] = missing - missing // 2, missing // 2",
        _PREPROCESSING,
    ),
)
MUTATIONS = (*_COMPARISON, *_TRACES, *_READERS, *_FILES, *_JUDGES, *_PORTS, *_PREPROCESSINGS)
