"""Initial weights with learned scales."""

import tensorflow as tf

from far_ho_tf.checks import check_count, require
from far_ho_tf.variables import current, dtype_of, is_variable, path_of


def scaled_noise(scales, seed=0, fresh=False):
    """Initial values w_0 = scale × normal noise, for `BilevelProblem`.

    Args:
        scales: List of pairs (variable or layer, scale): the scale is a number, a
            `Hyperparameter`, or a callable() -> tensor that may read some, such as
            `lambda: tf.exp(log_scale)`. A layer stands for all of its trainable
            variables.
        seed: Integer. The noise of each variable depends on it and on the
            variable's place in the list only.
        fresh: Whether each hyper-iteration draws noise of its own, so that scales
            do not fit themselves to one draw. Otherwise it stays the same.

    Returns:
        List of pairs (variable, callable), the `initial_values` of a
        `BilevelProblem`.

    Raises:
        ValueError: If a pair is malformed.

    Example:

    >>> import far_ho_tf as far, keras
    >>> layer = keras.layers.Dense(2)
    >>> layer.build((None, 3))
    >>> scale = far.Hyperparameter(0.1, name="scale", constraint="non_neg")
    >>> values = far.scaled_noise([(layer.kernel, scale)], seed=1)
    >>> values[0][0] is layer.kernel, values[0][1]().shape
    (True, TensorShape([3, 2]))

    Source: Maclaurin et al. 2015, section 3.1 (initialization scales).
    """
    seed = check_count("seed", seed, low=0)
    pairs = [
        (variable, scale) for pair in scales for variable, scale in _variables(pair)
    ]
    make = _fresh if fresh else _fixed
    return [
        (variable, make(variable, scale, (seed, index)))
        for index, (variable, scale) in enumerate(pairs)
    ]


def _variables(pair):
    require(
        isinstance(pair, (list, tuple)) and len(pair) == 2,
        "`scales` must be a list of pairs (variable or layer, scale).",
        element=pair,
    )
    owner, scale = pair
    owned = [owner] if is_variable(owner) else getattr(owner, "trainable_variables", [])
    require(owned, "A pair of `scales` names nothing that is trained.", owner=owner)
    return [(variable, scale) for variable in owned]


def _fixed(variable, scale, seed):
    noise = _noise(variable, seed)  # Drawn here, as XLA draws other numbers.
    return lambda: _scaled(variable, scale, noise)


def _fresh(variable, scale, seed):
    fold_in = tf.random.experimental.stateless_fold_in
    return lambda hyper_iteration: _scaled(
        variable, scale, _noise(variable, fold_in(seed, hyper_iteration))
    )


def _noise(variable, seed):
    return tf.random.stateless_normal(variable.shape, seed, dtype=dtype_of(variable))


def _scaled(variable, scale, noise):
    dtype = dtype_of(variable)
    factor = current(scale)
    factor = tf.convert_to_tensor(factor, None if tf.is_tensor(factor) else dtype)
    require(
        factor.shape.rank == 0 or factor.shape == variable.shape,
        f"The scale of `{path_of(variable)}` must be a scalar, or of its shape.",
        shape=tuple(factor.shape),
    )
    return factor * noise
