"""What owns variables: layers, models and modules, and which of theirs are trained."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from far_ho_tf._types import Variable
from far_ho_tf.checks import shown, warn_user
from far_ho_tf.variables.identity import (
    VARIABLES,
    dtype_of,
    find,
    is_variable,
    path_of,
)


def trained_variables(
    owner: Any, hyperparameters: Sequence[Variable]
) -> tuple[list[Variable], list[Variable]]:
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
                f"variables={shown(owner)}"
            )
        return check_variables("variables", trained), owned
    trained = check_variables(
        "variables", owner, "a keras.Model or Layer, a tf.Module or a list of variables"
    )
    fixed = [path_of(variable) for variable in trained if not variable.trainable]
    if fixed:
        warn_user(
            f"`variables` holds {shown(fixed)}, of which `trainable` is False (as of "
            "the moving statistics of BatchNormalization): gradient descent trains "
            "them all the same. Remedy: the model itself, or its `trainable_variables`."
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
    name: str,
    variables: Any,
    expected: str = "a list of keras.Variables or tf.Variables",
) -> list[Variable]:
    """Returns floating variables as a list, or says what is wrong with them."""
    if not isinstance(variables, (list, tuple)):
        remedy = f" Remedy: {name}=[it]." if is_variable(variables) else ""
        raise ValueError(
            f"`{name}` must be {expected}.{remedy} Received: {name}={shown(variables)}"
        )
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
                f"them. Received: {name}[{index}]={shown(variable)}"
            )
        if not is_variable(variable):
            remedy = ""
            if name == "hyperparameters" and not callable(variable):
                remedy = "Remedy: far.Hyperparameter(value). "
            raise ValueError(
                f"`{name}` must hold keras.Variables or tf.Variables. {remedy}"
                f"Received: {name}[{index}]={shown(variable)}"
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


def _owned(owner: keras.layers.Layer | tf.Module) -> list[Variable]:
    """All variables of a layer or module, each once."""
    if isinstance(owner, keras.layers.Layer):
        # The trainable ones first, in Keras' own order.
        return [*owner.trainable_variables, *owner.non_trainable_variables]
    owned = []
    for leaf in _leaves(owner, (*VARIABLES, keras.layers.Layer)):
        owned += [leaf] if is_variable(leaf) else _owned(leaf)
    return _once(owned)


def _trained(
    owner: keras.layers.Layer | tf.Module, seen: dict[int, list[Variable]]
) -> list[Variable]:
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
    kinds = (*VARIABLES, keras.layers.Layer, tf.Module)
    for leaf in _leaves(owner, kinds, recursive=False):
        if not is_variable(leaf):
            found += _trained(leaf, seen)
        elif leaf.trainable:
            found.append(leaf)
    found[:] = _listed(owner, _once(found))
    return found


def _listed(module: tf.Module, variables: list[Variable]) -> list[Variable]:
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


def _leaves(
    module: tf.Module, kinds: type | tuple[type, ...], recursive: bool = True
) -> Iterable[Any]:
    # What tf.Module's own `variables` and `submodules` are made of.
    return module._flatten(  # pyright: ignore[reportAttributeAccessIssue]
        recursive=recursive,
        predicate=lambda leaf: isinstance(leaf, kinds),
        expand_composites=True,
    )


def _once(variables: Iterable[Variable]) -> list[Variable]:
    return list({id(variable): variable for variable in variables}.values())


def _without(
    variables: Iterable[Variable], others: Sequence[Variable]
) -> list[Variable]:
    return [v for v in variables if find(v, others) is None]


def common_dtype(
    variables: list[Variable], hyperparameters: list[Variable]
) -> tf.DType:
    """The one dtype that all of them have."""
    dtype = dtype_of(variables[0])
    for variable in variables + hyperparameters:
        if dtype_of(variable) != dtype:
            remedy = ""
            if find(variable, hyperparameters) is not None:
                remedy = f'Remedy: Hyperparameter(..., dtype="{dtype.name}"). '
            raise ValueError(
                "All variables and hyperparameters must have one dtype: "
                f"`{path_of(variables[0])}` is {dtype.name}. {remedy}Received: "
                f"`{path_of(variable)}` of dtype {dtype_of(variable).name}"
            )
    return dtype
