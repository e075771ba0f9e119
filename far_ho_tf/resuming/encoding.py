"""What a checkpoint holds, as bytes: nested structures of numbers, text and arrays."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from far_ho_tf.checks import require
from far_ho_tf.variables.state import State

# Of the layout. Another number is refused.
_FORMAT = 3


def to_bytes(content: Any) -> bytes:
    """Writes dicts, lists, tuples, `State`s, tensors and plain values as bytes.

    Returns:
        The bytes of an `.npz` file: the structure as JSON, and the bytes of each
        tensor, whatever its dtype. Nothing in it is code, as in a pickle.
    """
    arrays: list[np.ndarray] = []
    structure = _encode({"format": _FORMAT, "content": content}, arrays)
    buffer = io.BytesIO()
    # As bytes, since NumPy's files know no bfloat16.
    np.savez(
        buffer,
        structure=_as_bytes(json.dumps(structure).encode()),
        **{str(i): _as_bytes(array.tobytes()) for i, array in enumerate(arrays)},  # pyright: ignore[reportArgumentType]
    )
    return buffer.getvalue()


def from_bytes(data: bytes) -> Any:
    """What `to_bytes` was given, its tensors as arrays.

    Raises:
        ValueError: If the bytes were not made by it.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            structure = json.loads(arrays["structure"].tobytes())
            decoded = _decode(structure, arrays)
        found = decoded["format"]
    except Exception as error:  # Bytes of any other kind fail in any way.
        raise ValueError(f"They are no saved structure: {error}") from error
    require(
        found == _FORMAT,
        f"Its format must be {_FORMAT}: it was saved by another release of far_ho_tf.",
        format=found,
    )
    return decoded["content"]


def _as_bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def _encode(value: Any, arrays: list[np.ndarray]) -> Any:
    """As JSON: what JSON lacks is a dict of one element, named by its kind."""
    if isinstance(value, dict):
        return {"dict": {key: _encode(item, arrays) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        items = [_encode(item, arrays) for item in value]
        kind = "State" if isinstance(value, State) else "tuple"
        return items if isinstance(value, list) else {kind: items}
    if tf.is_tensor(value) or isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value.numpy() if tf.is_tensor(value) else value)  # pyright: ignore[reportAttributeAccessIssue]
        arrays.append(array)
        dtype = tf.as_dtype(array.dtype).name
        return {"array": [len(arrays) - 1, dtype, list(array.shape)]}
    return value


def _decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "dict":
        return {key: _decode(item, arrays) for key, item in inner.items()}
    if kind == "array":
        index, dtype, shape = inner
        dtype = tf.as_dtype(dtype).as_numpy_dtype
        return np.frombuffer(arrays[str(index)].tobytes(), dtype).reshape(shape)
    items = [_decode(item, arrays) for item in inner]
    return State(*items) if kind == "State" else tuple(items)
