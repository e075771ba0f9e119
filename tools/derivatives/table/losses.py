"""Keras' losses, activations, and functions of networks."""

import re

import keras
import numpy as np

from derivatives.rows import POSITIVE, PROBABILITY, REAL, TIES, ZEROS, row, rows

_SHAPE = (2, 3)
_CLASSES = np.array([[0.0, 1, 0], [1, 0, 0]])
_BINARY = np.array([[0.0, 1, 1], [1, 0, 0]])
_SIGNS = 2 * _BINARY - 1
# Name: what is to be told, the numbers that predictions are, other arguments.
_LOSSES = {
    "BinaryCrossentropy": (_BINARY, PROBABILITY, {}),
    "BinaryFocalCrossentropy": (_BINARY, PROBABILITY, {}),
    "CategoricalCrossentropy": (_CLASSES, PROBABILITY, {}),
    "CategoricalFocalCrossentropy": (_CLASSES, PROBABILITY, {}),
    "CategoricalGeneralizedCrossEntropy": (np.array([1, 0]), PROBABILITY, {}),
    "CategoricalHinge": (_CLASSES, REAL, {}),
    "Circle": (np.array([1, 0]), REAL, {}),
    "CosineSimilarity": (_CLASSES, REAL, {}),
    "Dice": (_BINARY, PROBABILITY, {}),
    "Hinge": (_SIGNS, REAL, {}),
    "Huber": (_BINARY, REAL, {}),
    "KLDivergence": (_CLASSES, PROBABILITY, {}),
    "LogCosh": (_BINARY, REAL, {}),
    "MeanAbsoluteError": (_BINARY, REAL, {}),
    "MeanAbsolutePercentageError": (_BINARY + 1, REAL, {}),
    "MeanSquaredError": (_BINARY, REAL, {}),
    "MeanSquaredLogarithmicError": (_BINARY, POSITIVE, {}),
    "Poisson": (_BINARY, POSITIVE, {}),
    "SparseCategoricalCrossentropy": (np.array([1, 0]), PROBABILITY, {}),
    "SquaredHinge": (_SIGNS, REAL, {}),
    "Tversky": (_BINARY, PROBABILITY, {}),
}
_LOGITS = (
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "SparseCategoricalCrossentropy",
)
# Those whose targets are floating, too: soft labels that are learned.
_LEARNED = tuple(
    name for name, (targets, _, _) in _LOSSES.items() if targets.dtype == float
)


def table():
    return [*_losses(), *_activations(), *_functions()]


def _losses():
    found = []
    for name, (targets, domain, keywords) in _LOSSES.items():
        full = f"keras.losses.{name}"
        found.append(
            row(
                full,
                _SHAPE,
                domain=domain,
                points=TIES,
                call=_loss(name, targets, **keywords),
            )
        )
        if name in _LOGITS:
            found.append(
                row(
                    f"{full} (logits)",
                    _SHAPE,
                    points=TIES,
                    call=_loss(name, targets, from_logits=True),
                )
            )
        if name in _LEARNED:
            found.append(
                row(
                    f"{full} (learned targets)",
                    _SHAPE,
                    _SHAPE,
                    domain=[PROBABILITY, domain],
                    call=_of_both(name),
                )
            )
    smoothed = _LOGITS[:4]
    return [
        *found,
        *(
            row(
                f"keras.losses.{_function_of(name)}",
                _SHAPE,
                domain=domain,
                call=_of_function(name, targets),
            )
            for name, (targets, domain, _) in _LOSSES.items()
        ),
        *(
            row(
                f"keras.losses.{name} (label smoothing)",
                _SHAPE,
                domain=PROBABILITY,
                call=_loss(name, _LOSSES[name][0], label_smoothing=0.1),
            )
            for name in smoothed
        ),
        row(
            "keras.losses.CategoricalCrossentropy (learned smoothing)",
            _SHAPE,
            (),
            domain=PROBABILITY,
            call=lambda x, s: keras.losses.categorical_crossentropy(
                _CLASSES * (1 - s) + s / 3, x
            ),
        ),
        row(
            "keras.losses.CTC",
            (1, 4, 3),
            single=True,
            points=TIES,
            call=lambda x: keras.losses.CTC()(np.array([[1, 2]]), x),
        ),
        row(
            "keras.losses.ctc",
            (1, 4, 3),
            single=True,
            call=lambda x: keras.losses.ctc(np.array([[1, 2]]), x),
        ),
        row(
            "keras.losses.Circle (one of a class)",
            (3, 2),
            points=TIES,
            call=_loss("Circle", np.array([0, 0, 1])),
        ),
        row(
            "keras.losses.MeanSquaredError (weights)",
            _SHAPE,
            (2,),
            call=lambda x, w: keras.losses.MeanSquaredError()(
                _BINARY, x, sample_weight=w
            ),
        ),
        row(
            "keras.losses.CosineSimilarity (targets and predictions)",
            _SHAPE,
            _SHAPE,
            points=ZEROS,
            call=keras.losses.cosine_similarity,
        ),
    ]


def _loss(name, targets, **keywords):
    def call(x):
        return getattr(keras.losses, name)(reduction=None, **keywords)(targets, x)

    return call


def _function_of(name):
    """The name of the function of a loss: "KLDivergence" is kl_divergence."""
    name = re.sub("KL|[A-Z]", lambda found: "_" + found[0].lower(), name)
    return name.removeprefix("_")


def _of_function(name, targets):
    def call(x):
        keywords = {"q": 0.5} if "Generalized" in name else {}
        return getattr(keras.losses, _function_of(name))(targets, x, **keywords)

    return call


def _of_both(name):
    def call(targets, x):
        return getattr(keras.losses, name)()(targets, x)

    return call


def _activations():
    plain = (
        "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh "
        "leaky_relu linear log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink "
        "softplus softsign sparse_plus sparse_sigmoid squareplus tanh tanh_shrink"
    )
    return [
        *rows("keras.activations", plain, (4,), points=ZEROS),
        *rows(
            "keras.activations",
            "softmax log_softmax sparsemax glu",
            (2, 4),
            points=TIES,
        ),
        row(
            "keras.activations.relu (all arguments)",
            (4,),
            points=ZEROS,
            negative_slope=0.1,
            max_value=1.0,
            threshold=0.2,
        ),
        row(
            "keras.activations.threshold",
            (4,),
            points=ZEROS,
            threshold=0.2,
            default_value=0.1,
        ),
        row(
            "keras.activations.gelu (approximate)", (4,), points=ZEROS, approximate=True
        ),
        row(
            "keras.activations.elu (learned alpha)",
            (4,),
            (),
            points=ZEROS,
            call=keras.activations.elu,
        ),
        row(
            "keras.activations.celu (learned alpha)",
            (4,),
            (),
            points=("smooth",),
            domain=POSITIVE,
            call=lambda x, a: keras.activations.celu(x - 1.5, a),
        ),
    ]


def _functions():
    k = keras.ops
    v = (2,)
    image = (1, 3, 3, 2)
    return [
        row("keras.ops.conv", image, (2, 2, 2, 1)),
        row("keras.ops.conv (groups)", image, (2, 2, 1, 2)),
        row("keras.ops.conv_transpose", (1, 2, 2, 1), (2, 2, 2, 1), strides=2),
        row("keras.ops.depthwise_conv", image, (2, 2, 2, 1)),
        row("keras.ops.separable_conv", image, (2, 2, 2, 1), (1, 1, 2, 1)),
        row("keras.ops.average_pool", (1, 4, 4, 1), pool_size=2),
        row("keras.ops.max_pool", (1, 4, 4, 1), pool_size=2, points=TIES),
        row("keras.ops.adaptive_average_pool", (1, 3, 3, 1), output_size=2),
        row("keras.ops.adaptive_max_pool", (1, 3, 3, 1), output_size=2),
        row(
            "keras.ops.batch_normalization",
            (3, 2),
            v,
            v,
            v,
            v,
            domain=POSITIVE,
            call=lambda x, m, s, b, g: k.batch_normalization(x, m, s, -1, b, g),
        ),
        row("keras.ops.layer_normalization", (2, 3), points=TIES),
        row("keras.ops.rms_normalization", (2, 3), points=TIES),
        row(
            "keras.ops.dot_product_attention",
            (1, 2, 1, 2),
            (1, 3, 1, 2),
            (1, 3, 1, 2),
            points=TIES,
        ),
        row(
            "keras.ops.binary_crossentropy",
            _SHAPE,
            domain=PROBABILITY,
            call=lambda x: k.binary_crossentropy(_BINARY, x),
        ),
        row(
            "keras.ops.binary_crossentropy (learned targets)",
            _SHAPE,
            _SHAPE,
            domain=PROBABILITY,
        ),
        row(
            "keras.ops.binary_crossentropy (logits)",
            _SHAPE,
            points=TIES,
            call=lambda x: k.binary_crossentropy(_BINARY, x, from_logits=True),
        ),
        row("keras.ops.categorical_crossentropy", _SHAPE, _SHAPE, domain=PROBABILITY),
        row(
            "keras.ops.categorical_crossentropy (logits)",
            _SHAPE,
            _SHAPE,
            domain=PROBABILITY,
            from_logits=True,
        ),
        row(
            "keras.ops.sparse_categorical_crossentropy",
            _SHAPE,
            domain=PROBABILITY,
            call=lambda x: k.sparse_categorical_crossentropy(np.array([1, 0]), x),
        ),
        row(
            "keras.ops.sparse_categorical_crossentropy (logits)",
            _SHAPE,
            points=TIES,
            call=lambda x: k.sparse_categorical_crossentropy(
                np.array([1, 0]), x, from_logits=True
            ),
        ),
        row(
            "keras.ops.ctc_loss",
            (1, 4, 3),
            single=True,
            call=lambda x: k.ctc_loss(
                np.array([[1, 2]]), x, np.array([2]), np.array([4])
            ),
        ),
        row(
            "keras.random.normal",
            (),
            (),
            call=lambda m, s: keras.random.normal((3,), m, s, seed=1),
        ),
        row(
            "keras.random.uniform",
            (),
            (),
            call=lambda a, b: keras.random.uniform((3,), a, b + 2, seed=1),
        ),
        row(
            "keras.random.truncated_normal",
            (),
            (),
            call=lambda m, s: keras.random.truncated_normal((3,), m, s, seed=1),
        ),
        row(
            "keras.random.gamma",
            (),
            domain=POSITIVE,
            call=lambda a: keras.random.gamma((3,), a, seed=1),
        ),
        row(
            "keras.random.beta",
            (),
            (),
            domain=POSITIVE,
            call=lambda a, b: keras.random.beta((3,), a, b, seed=1),
        ),
        row(
            "keras.random.binomial (times)",
            (),
            domain=PROBABILITY,
            call=lambda p: keras.random.binomial((3,), 5.0, p, seed=1) * p,
        ),
        row("keras.random.dropout", (3,), rate=0.4, seed=1),
        row("keras.random.shuffle", (3,), seed=1),
        row(
            "keras.random.categorical (and take)",
            (1, 3),
            call=lambda x: k.take(x[0], keras.random.categorical(x, 3, seed=1)[0]),
        ),
    ]
