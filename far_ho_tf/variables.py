"""Variables of Keras and of TensorFlow, and who owns them; other sources of values."""

import contextlib
import functools
import numbers

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import (
    ResourceVariable,  # What tf.Variable makes outside of strategies.
)

from far_ho_tf.checks import require
from far_ho_tf.graphs.failures import told

_VARIABLES = (keras.Variable, tf.Variable)
_COMPOSITE = (
    *(tf.RaggedTensor, tf.RaggedTensorSpec, tf.SparseTensor, tf.SparseTensorSpec),
    tf.IndexedSlicesSpec,  # Of a tensor there is a dense one, which TensorFlow takes.
)


def is_variable(value):
    """Whether it is a Keras variable or a bare tf.Variable."""
    return isinstance(value, _VARIABLES)


def is_composite(value):
    """Whether it is a ragged or sparse tensor, or what a dataset says of such."""
    return isinstance(value, _COMPOSITE)


def path_of(variable):
    """The name by which messages and path patterns know a variable."""
    if isinstance(variable, keras.Variable):
        return variable.path
    return variable.name.removesuffix(":0")


def dtype_of(variable):
    """The dtype of a variable or tensor as a `tf.DType`."""
    return tf.as_dtype(variable.dtype)


def find(variable, variables):
    """The index of `variable` in a list, by identity; `None` if absent."""
    for index, other in enumerate(variables):
        if other is variable:
            return index
    return None


def assign(variables, values):
    """Assigns each variable its value."""
    for variable, value in zip(variables, values, strict=True):
        plain = _plain(variable)
        if plain is not None and _fits(value, plain):
            tf.raw_ops.AssignVariableOp(resource=plain.handle, value=value)
        else:
            variable.assign(value)


@contextlib.contextmanager
def preserved(variables):
    """Puts the values of variables back in the end."""
    values = read(variables)
    try:
        yield
    finally:
        assign(variables, values)


def _fits(value, variable):
    if not isinstance(value, tf.Tensor):
        return False
    return value.dtype == variable.dtype and value.shape == variable.shape


def read(variables):
    """The variables' values as tensors: snapshots that later writes spare."""
    return [_read(variable) for variable in variables]


def _read(variable):
    plain = _plain(variable)
    if plain is None:
        return tf.identity(tf.convert_to_tensor(variable))
    return tf.raw_ops.ReadVariableOp(resource=plain.handle, dtype=plain.dtype)


def _plain(variable):
    """The `ResourceVariable` of one on one device, outside graphs; else `None`.

    Short runs spend much of their time on reading and assigning in TensorFlow's ways.
    """
    if not tf.executing_eagerly():
        return None
    if isinstance(variable, keras.Variable):
        variable = variable.value  # A tensor, where a scope replaces or casts it.
    return variable if type(variable) is ResourceVariable else None


@functools.lru_cache(maxsize=1024)
def scalar(number):
    """A Python integer as an int32 scalar tensor."""
    with tf.init_scope():
        return tf.constant(number, tf.int32)


def is_number(source):
    """Whether a source is a plain number, or an array or tensor of such."""
    if isinstance(source, (np.ndarray, tf.Tensor)):
        dtype = tf.as_dtype(source.dtype) if source.dtype != object else tf.string
        return dtype.is_floating or dtype.is_integer
    return isinstance(source, numbers.Real) and not isinstance(source, bool)


def is_function(source):
    """Whether a source has to be called for its value."""
    return callable(source) and not is_variable(source)


def check_numbers(label, value):
    """Returns plain numbers as an array, and other sources as they are.

    Raises:
        ValueError: If they are no finite numbers, or lists that are ragged.
    """
    if is_variable(value) or is_function(value) or tf.is_symbolic_tensor(value):
        return value
    try:
        array = np.asarray(value)
        plain = array.dtype.kind in "fiu" and bool(np.all(np.isfinite(array)))
    except ValueError:  # It is ragged.
        plain = False
    require(
        plain,
        f"{label} must be finite numbers, a Hyperparameter or a callable.",
        value=value,
    )
    return array


def to_tensor(value, dtype):
    """A variable's, tensor's or number's value; plain numbers in `dtype`.

    By NumPy, since tf.cast(0.1, "float64") rounds to float32 on the way.
    """
    if is_variable(value) or tf.is_tensor(value):
        return tf.convert_to_tensor(value)
    return tf.constant(np.asarray(value, tf.as_dtype(dtype).as_numpy_dtype))


def evaluate(label, source, dtype):
    """The value of a source, now, as a tensor.

    Args:
        label: What messages call it.
        source: A number, an array, a variable, or a callable() -> one of these.
        dtype: That of plain numbers.

    Raises:
        ValueError: If it is none of these, or the callable fails.
    """
    try:
        value = source() if is_function(source) else source
        if value is None:
            raise TypeError("None for a number")
        return to_tensor(value, dtype)
    except Exception as error:
        raise ValueError(
            f"{label} must be a number, an array, a Hyperparameter, or a callable() "
            f"that gives one. Received: {source!r}, which fails with {told(error)}"
        ) from error


def trained_variables(owner, hyperparameters):
    """The variables that an inner problem trains.

    Args:
        owner: A `keras.Model` or `Layer`, a `tf.Module` (Keras layers and
            variables in it count too), or a list of variables. What a layer or module
            leaves out of its own `trainable_variables` is not trained.
        hyperparameters: List of variables that are tuned instead.

    Returns:
        List of the variables to train, and list of all variables that the
        owner has besides the hyperparameters.

    Raises:
        ValueError: If the owner has nothing to train, or holds wrong kinds.
    """
    if isinstance(owner, (keras.layers.Layer, tf.Module)):
        taken = _trained(owner, {})
        owned = _without(_once([*_owned(owner), *taken]), hyperparameters)
        trained = [variable for variable in owned if find(variable, taken) is not None]
        if not trained:
            raise ValueError(
                "`variables` must have trainable variables; a Keras model has them "
                "once it is built (give it an `Input` or call it on data first), "
                "unless trainable=False or all are hyperparameters. Received: "
                f"variables={owner!r}"
            )
        return check_variables("variables", trained), owned
    trained = check_variables(
        "variables", owner, "a keras.Model or Layer, a tf.Module or a list of variables"
    )
    for variable in trained:
        if find(variable, hyperparameters) is not None:
            raise ValueError(
                f"`{path_of(variable)}` is listed both in `variables` and in "
                "`hyperparameters`, and can be trained or tuned only. Remedy: where it "
                "comes with a model's trainable_variables, as a layer holds it, give "
                "the model: its hyperparameters are left out. To learn its initial "
                "value, make a Hyperparameter and pair them in `initial_values`."
            )
    return trained, trained


def check_variables(
    name, variables, expected="a list of keras.Variables or tf.Variables"
):
    """Returns floating variables as a list, or says what is wrong with them."""
    if not isinstance(variables, (list, tuple)):
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={variables!r}")
    if not variables:
        raise ValueError(f"`{name}` must not be empty. Received: {name}=[]")
    for index, variable in enumerate(variables):
        if isinstance(variable, (keras.layers.Layer, tf.Module)) and not is_variable(
            variable
        ):
            raise ValueError(
                f"`{name}` must hold keras.Variables or tf.Variables, not layers or "
                "models. Remedy: their variables, such as [*one.trainable_variables, "
                "*other.trainable_variables], or one model or tf.Module that holds "
                f"them. Received: {name}[{index}]={variable!r}"
            )
        if not is_variable(variable):
            raise ValueError(
                f"`{name}` must hold keras.Variables or tf.Variables. "
                f"Received: {name}[{index}]={variable!r}"
            )
        if not dtype_of(variable).is_floating:
            raise ValueError(
                f"`{name}` must hold floating variables. Received: "
                f"`{path_of(variable)}` of dtype {dtype_of(variable).name}"
            )
        if find(variable, variables) != index:
            raise ValueError(
                f"`{name}` must hold each variable once. Received: "
                f"`{path_of(variable)}` twice"
            )
    return list(variables)


def _owned(owner):
    """All variables of a layer or module, each once."""
    if isinstance(owner, keras.layers.Layer):
        # The trainable ones first, in Keras' own order.
        return [*owner.trainable_variables, *owner.non_trainable_variables]
    owned = []
    for leaf in _leaves(owner, (*_VARIABLES, keras.layers.Layer)):
        owned += [leaf] if is_variable(leaf) else _owned(leaf)
    return _once(owned)


def _trained(owner, seen):
    """The variables that a layer or module trains, by its parts and by itself.

    A legacy Keras layer with `trainable=False` trains none, though its variables' own
    flags say that they are trainable.

    Args:
        owner: The layer or module.
        seen: Mapping from the ids of modules to what they train.
    """
    if isinstance(owner, keras.layers.Layer):
        return list(owner.trainable_weights)  # As `fit` takes them.
    if id(owner) in seen:
        return seen[id(owner)]
    found = seen[id(owner)] = []
    kinds = (*_VARIABLES, keras.layers.Layer, tf.Module)
    for leaf in _leaves(owner, kinds, recursive=False):
        if not is_variable(leaf):
            found += _trained(leaf, seen)
        elif leaf.trainable:
            found.append(leaf)
    found[:] = _listed(owner, _once(found))
    return found


def _listed(module, variables):
    """Those of the variables, and others, that a module's own list tells to train."""
    is_plain = type(module).trainable_variables is tf.Module.trainable_variables
    # Sonnet's modules without any raise.
    if is_plain or not any(v.trainable for v in _leaves(module, tf.Variable)):
        return variables
    listed = module.trainable_variables
    # Where it calls tf.Module's, that knows nothing of Keras.
    knows_keras = any(isinstance(variable, keras.Variable) for variable in listed)
    kept = [
        variable
        for variable in variables
        if find(variable, listed) is not None
        or (isinstance(variable, keras.Variable) and not knows_keras)
    ]
    return kept + _without(listed, _owned(module))


def _leaves(module, kinds, recursive=True):
    # What tf.Module's own `variables` and `submodules` are made of.
    return module._flatten(
        recursive=recursive,
        predicate=lambda leaf: isinstance(leaf, kinds),
        expand_composites=True,
    )


def _once(variables):
    return list({id(variable): variable for variable in variables}.values())


def _without(variables, others):
    return [v for v in variables if find(v, others) is None]


def common_dtype(variables, hyperparameters):
    """The one dtype that all of them have."""
    dtype = dtype_of(variables[0])
    for variable in variables + hyperparameters:
        if dtype_of(variable) != dtype:
            raise ValueError(
                "All variables and hyperparameters must have one dtype: "
                f"`{path_of(variables[0])}` is {dtype.name}. Received: "
                f"`{path_of(variable)}` of dtype {dtype_of(variable).name}"
            )
    return dtype
