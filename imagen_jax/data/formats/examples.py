"""tf.train.Example, the message that TFRecord, ArrayRecord and TFDS files hold.

Read and written with protobuf alone, without TensorFlow.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from imagen_jax.data import records


@functools.cache
def message() -> Any:
    """Return the class of tf.train.Example, its fields numbered as TensorFlow's."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="imagen_jax/example.proto", package="imagen_jax", syntax="proto3"
    )

    def define(name: str, *fields: tuple[str, Any, Any, str]) -> Any:
        defined = file.message_type.add(name=name)
        for number, (field, label, kind, of) in enumerate(fields, 1):
            where = defined.field.add(name=field, number=number, label=label, type=kind)
            if of:
                where.type_name = f".imagen_jax.{of}"
        return defined

    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    define("BytesList", ("value", many, kinds.TYPE_BYTES, ""))
    define("FloatList", ("value", many, kinds.TYPE_FLOAT, ""))
    define("Int64List", ("value", many, kinds.TYPE_INT64, ""))
    feature = define(
        "Feature",
        ("bytes_list", one, kinds.TYPE_MESSAGE, "BytesList"),
        ("float_list", one, kinds.TYPE_MESSAGE, "FloatList"),
        ("int64_list", one, kinds.TYPE_MESSAGE, "Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = define(
        "Features", ("feature", many, kinds.TYPE_MESSAGE, "Features.Entry")
    )
    entry = features.nested_type.add(name="Entry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=one, type=kinds.TYPE_STRING)
    entry.field.add(
        name="value",
        number=2,
        label=one,
        type=kinds.TYPE_MESSAGE,
        type_name=".imagen_jax.Feature",
    )
    define("Example", ("features", one, kinds.TYPE_MESSAGE, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("imagen_jax.Example")
    return message_factory.GetMessageClass(found)


def parse(data: bytes) -> dict[str, Any]:
    """Return the features by name; a list of one is its value.

    Raises:
      ValueError: for bytes that are no such message.
    """
    from google.protobuf.message import DecodeError

    try:
        example = message().FromString(data)
    except DecodeError as error:
        raise ValueError("no tf.train.Example") from error
    values = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        found = list(getattr(feature, kind).value) if kind else []
        values[name] = found[0] if len(found) == 1 else found or None
    return values


def serialise(values: Mapping[str, bytes | float | int | Sequence[bytes]]) -> bytes:
    """Return the message of features by name."""
    example = message()()
    for name, value in values.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        elif isinstance(value, float):
            feature.float_list.value.append(value)
        else:
            feature.bytes_list.value.extend(value)
    return example.SerializeToString(deterministic=True)


def record(key: str, data: bytes, fields: records.Fields) -> records.Record:
    """Make a record of a message; one that cannot be parsed has nothing."""
    try:
        return records.from_fields(key, parse(data), fields)
    except ValueError:
        return records.Record(key, b"", ())
