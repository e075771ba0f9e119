"""Keras' layers, as functions of their input and their weights, in training."""

import keras
import numpy as np
import tensorflow as tf

from derivatives.rows import PROBABILITY, REAL, Row, in_single, row

L = keras.layers
_SEQUENCE, _IMAGE, _VOLUME = (1, 4, 2), (1, 4, 4, 2), (1, 2, 3, 2, 1)
_PHOTO = (1, 4, 4, 3)
_BLANK = ("smooth", "blank")
_WEIGHTS = ("smooth", "blank", "no weights")
_SEEDED = {"seed": 1}


def table():
    return [
        *_dense(),
        *_convolutions(),
        *_recurrent(),
        *_attention(),
        *_pooling(),
        *_normalizations(),
        *_shapes(),
        *_merging(),
        *_drawn(),
        *_images(),
    ]


def _row(
    name, shape, *args, points=_BLANK, domain=REAL, make=None, single=False, **keywords
):
    """A row for a layer.

    Args:
        name: That of the class, perhaps with a case in parentheses.
        shape: The input's shape, or a list of several.
        *args, **keywords: Those of the layer.
        make: Callable() -> layer, instead.
        points: Also "blank", where the input is zero, and "no weights", where all
            weights are.
        single: Whether it is one of float32.
    """
    full = f"keras.layers.{name}"
    if single:
        keywords["dtype"] = "float32"

    def build():
        layer = make() if make else getattr(L, name.split(" (")[0])(*args, **keywords)
        return _function(layer, shape, domain, single)

    return Row(full, points, build, single)


def _function(layer, shape, domain, single):
    several = isinstance(shape, list)
    shapes = shape if several else [shape]
    inputs = [domain.numbers(one, salt) for salt, one in enumerate(shapes)]
    dtype = tf.float32 if single else tf.float64
    given = [tf.constant(one, dtype) for one in inputs]
    layer(given if several else given[0])
    fixed = [tf.convert_to_tensor(v) for v in layer.non_trainable_variables]
    trained = layer.trainable_variables
    weights = [
        0.5 * REAL.numbers(v.shape, 20 + salt) + (0.5 if "gamma" in v.name else 0)
        for salt, v in enumerate(trained)
    ]

    def call(*tensors):
        given = list(tensors[: len(shapes)])
        outputs, _ = layer.stateless_call(
            list(tensors[len(shapes) :]),
            fixed,
            given if several else given[0],
            **({"training": True} if layer._call_has_training_arg else {}),
        )
        return outputs

    return (in_single(call) if single else call), {
        "smooth": [*inputs, *weights],
        "ties": [*(np.full_like(one, 0.4) for one in inputs), *weights],
        "blank": [*(np.zeros_like(one) for one in inputs), *weights],
        "no weights": [*inputs, *(np.zeros_like(one) for one in weights)],
    }


def _dense():
    return [
        _row("Dense", (2, 3), 2, "tanh", points=_WEIGHTS),
        _row("Dense (relu)", (2, 3), 2, "relu"),
        _row(
            "Dense (low rank)",
            (2, 3),
            make=lambda: _lora(L.Dense(2, dtype="float32")),
            single=True,
        ),
        _row("EinsumDense", (2, 3), "ab,bc->ac", 2),
        _embedding("Embedding", L.Embedding),
        _row("ReversibleEmbedding", (2, 3), make=lambda: _Reversed(3, 3)),
        _row("Activation", (3,), "tanh"),
        _row("ActivityRegularization", (2, 3), 0.1, 0.1),
        _row("Identity", (2, 3)),
        _row("Lambda", (2, 3), lambda x: x * tf.sin(x)),
        _row("Masking", (1, 3, 2)),
        *(_row(name, (2, 3)) for name in ("ELU", "LeakyReLU", "ReLU", "Softmax")),
        _row("PReLU", (2, 3), points=_WEIGHTS),
        _row("ReLU (all arguments)", (2, 3), 1.0, 0.1, 0.2),
    ]


def _lora(layer):
    layer.build((None, 3))
    layer.enable_lora(1)
    return layer


class _Reversed(keras.layers.Layer):
    """The logits of a reversible embedding."""

    def __init__(self, words, width):
        super().__init__()
        self.embedding = keras.layers.ReversibleEmbedding(words, width)

    def call(self, x):
        return self.embedding(x, reverse=True)


class _Looked(keras.layers.Layer):
    """Rows of a table, one of them twice, times the input."""

    def __init__(self, layer):
        super().__init__()
        self.embedding = layer

    def call(self, x):
        return self.embedding(tf.constant([[2, 0, 2]])) * x


def _embedding(name, layer):
    return _row(name, (1, 3, 2), make=lambda: _Looked(layer(3, 2)), points=_WEIGHTS)


def _convolutions():
    return [
        _row("Conv1D", _SEQUENCE, 1, 2, points=_WEIGHTS),
        _row(
            "Conv1D (causal, dilated)",
            _SEQUENCE,
            1,
            2,
            padding="causal",
            dilation_rate=2,
        ),
        _row("Conv2D", _IMAGE, 1, 2, activation="tanh", points=_WEIGHTS),
        _row("Conv2D (same, strides)", _IMAGE, 1, 3, strides=2, padding="same"),
        _row("Conv2D (groups)", _IMAGE, 2, 2, groups=2),
        _row("Conv2D (dilated)", _IMAGE, 1, 2, dilation_rate=2),
        _row("Conv3D", _VOLUME, 1, 2),
        _row("Conv1DTranspose", _SEQUENCE, 1, 2, strides=2),
        _row("Conv2DTranspose", (1, 2, 2, 1), 1, 2, strides=2),
        _row("Conv3DTranspose", (1, 1, 2, 1, 1), 1, 2),
        _row("DepthwiseConv1D", _SEQUENCE, 2),
        _row("DepthwiseConv2D", _IMAGE, 2),
        _row("SeparableConv1D", _SEQUENCE, 1, 2),
        _row("SeparableConv2D", _IMAGE, 1, 2),
    ]


def _recurrent():
    cells = ("GRU", "LSTM", "SimpleRNN")
    found = [_row(name, (1, 2, 2), 1, points=_WEIGHTS) for name in cells]
    found += [_row(f"{name} (unrolled)", (1, 2, 2), 1, unroll=True) for name in cells]
    found += [_row(f"{name}Cell", (1, 2), make=_cell(name)) for name in cells]
    return [
        *found,
        _row(
            "GRU (reset after, sequences)",
            (1, 2, 2),
            1,
            reset_after=False,
            return_sequences=True,
        ),
        _row(
            "LSTM (dropout)", (1, 2, 2), 1, dropout=0.3, recurrent_dropout=0.3, seed=1
        ),
        _row("RNN", (1, 2, 2), make=lambda: L.RNN(L.SimpleRNNCell(1))),
        _row(
            "StackedRNNCells",
            (1, 2, 2),
            make=lambda: L.RNN(
                L.StackedRNNCells([L.SimpleRNNCell(1), L.SimpleRNNCell(1)])
            ),
        ),
        _row("Bidirectional", (1, 2, 2), make=lambda: L.Bidirectional(L.SimpleRNN(1))),
        _row("TimeDistributed", (1, 2, 2), make=lambda: L.TimeDistributed(L.Dense(1))),
        _row("ConvLSTM1D", (1, 2, 3, 1), 1, 2),
        _row("ConvLSTM2D", (1, 2, 2, 2, 1), 1, 2),
        _row("ConvLSTM3D", (1, 2, 2, 1, 2, 1), 1, (1, 1, 2)),
    ]


class _Stepped(keras.layers.Layer):
    """One step of a cell, from states that are constant."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def call(self, x):
        states = self.cell.get_initial_state(1)
        return self.cell(x, [state + 0.3 for state in tf.nest.flatten(states)])[0]


def _cell(name):
    return lambda: _Stepped(getattr(L, f"{name}Cell")(1))


def _attention():
    q, v = (1, 2, 2), (1, 3, 2)
    return [
        _row("Attention", [q, v]),
        _row("Attention (concat, scaled)", [q, v], use_scale=True, score_mode="concat"),
        _row("AdditiveAttention", [q, v]),
        _row(
            "MultiHeadAttention",
            (1, 2, 2),
            make=lambda: _Selfish(L.MultiHeadAttention(1, 2)),
        ),
        _row(
            "GroupQueryAttention",
            (1, 2, 2),
            make=lambda: _Selfish(L.GroupQueryAttention(2, 2, 1)),
        ),
    ]


class _Selfish(keras.layers.Layer):
    """Attention of a sequence to itself."""

    def __init__(self, layer):
        super().__init__()
        self.attention = layer

    def call(self, x):
        return self.attention(x, x)


def _pooling():
    shapes = {1: _SEQUENCE, 2: (1, 4, 4, 1), 3: (1, 2, 2, 2, 1)}
    found = []
    for n, shape in shapes.items():
        kept = {"single": n == 3}  # TensorFlow has no such pooling of float64.
        found += [
            _row(f"MaxPooling{n}D", shape, points=("smooth", "ties"), **kept),
            _row(f"AveragePooling{n}D", shape, 2, points=("smooth",), **kept),
            _row(f"GlobalMaxPooling{n}D", shape, points=("smooth",)),
            _row(f"GlobalAveragePooling{n}D", shape, points=("smooth",)),
            _row(f"AdaptiveAveragePooling{n}D", shape, 2, points=("smooth",), **kept),
            _row(f"AdaptiveMaxPooling{n}D", shape, 2, points=("smooth",), **kept),
        ]
    return [
        *found,
        _row("MaxPooling2D (same, stride 1)", (1, 3, 3, 1), 2, 1, "same"),
        _row("AveragePooling2D (same, stride 1)", (1, 3, 3, 1), 2, 1, "same"),
    ]


def _normalizations():
    return [
        _row("BatchNormalization", (3, 2), points=(*_WEIGHTS, "ties")),
        _row("BatchNormalization (images)", (2, 2, 2, 1)),
        _row("BatchNormalization (renorm)", (3, 2), renorm=True),
        _row("LayerNormalization", (2, 3), points=(*_WEIGHTS, "ties")),
        _row("LayerNormalization (two axes)", (2, 2, 2), axis=[1, 2]),
        _row("GroupNormalization", (2, 2, 4), 2),
        _row("RMSNormalization", (2, 3), points=_WEIGHTS),
        _row("UnitNormalization", (2, 3)),
        _row(
            "SpectralNormalization",
            (2, 3),
            make=lambda: L.SpectralNormalization(L.Dense(2)),
        ),
        _row(
            "Normalization",
            (2, 3),
            make=lambda: L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2, 3]),
        ),
        _row("Rescaling", (2, 3), 2.0, 0.1),
    ]


def _shapes():
    one = ("smooth",)
    return [
        _row("Flatten", (1, 2, 2), points=one),
        _row("Reshape", (1, 4), (2, 2), points=one),
        _row("Permute", (1, 2, 3), (2, 1), points=one),
        _row("RepeatVector", (1, 3), 2, points=one),
        _row("Cropping1D", (1, 4, 1), 1, points=one),
        _row("Cropping2D", (1, 4, 4, 1), 1, points=one),
        _row("Cropping3D", (1, 3, 3, 3, 1), 1, points=one),
        _row("UpSampling1D", (1, 2, 1), 2, points=one),
        _row("UpSampling2D", (1, 2, 2, 1), 2, points=one),
        _row(
            "UpSampling2D (bilinear)",
            (1, 2, 2, 1),
            2,
            interpolation="bilinear",
            single=True,
            points=one,
        ),
        _row("UpSampling3D", (1, 1, 2, 2, 1), 2, points=one),
        _row("ZeroPadding1D", (1, 2, 1), 1, points=one),
        _row("ZeroPadding2D", (1, 2, 2, 1), 1, points=one),
        _row("ZeroPadding3D", (1, 1, 2, 2, 1), 1, points=one),
        _row("Wrapper", (2, 3), make=lambda: _Wrapped(L.Dense(2)), points=one),
    ]


class _Wrapped(keras.layers.Wrapper):
    def call(self, x):
        return self.layer(x)


def _merging():
    pair = [(2, 3), (2, 3)]
    names = (
        *("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply"),
        "Subtract",
    )
    return [
        *(
            _row(name, pair, points=("smooth", "ties", "blank"))
            if name in ("Maximum", "Minimum")
            else _row(name, pair)
            for name in names
        ),
        *(
            row(f"keras.layers.{name.lower()}", *pair, call=_merged(name.lower()))
            for name in names
        ),
        row("keras.layers.dot", *pair, call=lambda x, y: L.dot([x, y], 1)),
        _row("Dot", pair, 1),
        _row("Dot (normalized)", pair, 1, normalize=True, points=("smooth", "blank")),
    ]


def _merged(name):
    def call(x, y):
        return getattr(L, name)([x, y])

    return call


def _drawn():
    return [
        _row("Dropout", (2, 3), 0.4, **_SEEDED),
        _row("AlphaDropout", (2, 3), 0.4, **_SEEDED),
        _row("GaussianDropout", (2, 3), 0.4, **_SEEDED),
        _row("GaussianNoise", (2, 3), 0.4, **_SEEDED),
        _row("SpatialDropout1D", _SEQUENCE, 0.4, **_SEEDED),
        _row("SpatialDropout2D", _IMAGE, 0.4, **_SEEDED),
        _row("SpatialDropout3D", (1, 1, 2, 2, 2), 0.4, **_SEEDED),
    ]


def _images():
    photo = {"domain": PROBABILITY, "points": ("smooth",), "single": True}
    ranged = {"value_range": (0, 1)}

    def on(name, *args, **keywords):
        return _row(name, _PHOTO, *args, **(photo | _SEEDED | keywords))

    return [
        _row("CenterCrop", _PHOTO, 2, 2, **photo),
        _row("Resizing", _PHOTO, 3, 3, **photo),
        _row("Resizing (nearest)", _PHOTO, 3, 3, interpolation="nearest", **photo),
        _row("Solarization", _PHOTO, 0.1, **(photo | ranged | _SEEDED)),
        _row("Equalization", _PHOTO, (0, 1), **photo),
        _row("AutoContrast", _PHOTO, **(photo | ranged)),
        _row(
            "ContrastLimitedAdaptiveHistogramEqualization", _PHOTO, **(photo | ranged)
        ),
        on("AugMix", **ranged),
        on("CutMix"),
        on("MixUp"),
        on("RandAugment", **ranged),
        on("RandomBrightness", 0.2, **ranged),
        on("RandomColorDegeneration", 0.5, **ranged),
        on(
            "RandomColorJitter",
            **ranged,
            brightness_factor=0.2,
            contrast_factor=0.2,
            saturation_factor=0.2,
            hue_factor=0.1,
        ),
        on("RandomContrast", 0.3, **ranged),
        on("RandomCrop", 2, 2),
        on("RandomElasticTransform", 1.0, **ranged),
        on("RandomErasing", 1.0, **ranged),
        on("RandomFlip"),
        on("RandomGaussianBlur", 1.0, **ranged),
        on("RandomGrayscale", 1.0),
        on("RandomHue", 0.2, **ranged),
        on("RandomInvert", 1.0, **ranged),
        on("RandomPerspective", 1.0),
        on("RandomPosterization", 4, **ranged),
        on("RandomRotation", 0.1),
        on("RandomSaturation", 0.4, **ranged),
        on("RandomSharpness", 0.4, **ranged),
        on("RandomShear", 0.2, 0.2),
        on("RandomTranslation", 0.2, 0.2),
        on("RandomZoom", 0.2),
        _row(
            "MelSpectrogram",
            (1, 16),
            fft_length=8,
            sequence_stride=4,
            sequence_length=8,
            num_mel_bins=3,
            sampling_rate=8000,
            **_SIGNAL,
        ),
        _row(
            "STFTSpectrogram",
            (1, 16),
            mode="log",
            frame_length=8,
            frame_step=4,
            fft_length=8,
            **_SIGNAL,
        ),
        _row(
            "STFTSpectrogram (magnitude)",
            (1, 16),
            mode="magnitude",
            frame_length=8,
            frame_step=4,
            fft_length=8,
            **_SIGNAL,
        ),
        _row(
            "Pipeline",
            _PHOTO,
            make=lambda: L.Pipeline([L.Rescaling(2.0, dtype="float32")]),
            **photo,
        ),
    ]


_SIGNAL = {"points": ("smooth",), "single": True}
