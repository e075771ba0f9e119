"""Operations that a problem must not hold unnoticed.

Each row of the table has a test that shows the fault in TensorFlow itself, as
of release 2.21.
"""

import fnmatch
from typing import NamedTuple

from far_ho_tf.graphs.cuts import not_differentiable
from far_ho_tf.graphs.search import Operation

# Verdicts: refused always; refused when compiled by XLA; right in both, but not
# the same in both, so that XLA is used only when asked for; perhaps meant so.
REFUSED, REFUSED_BY_XLA, AVOIDS_XLA = "refused", "refused by XLA", "avoids XLA"
WARNED = "warned"

ANY = "any"


class Fault(NamedTuple):
    """A kind of operation, and what goes wrong with it.

    Attributes:
        operations: Tuple of types in the graph, or patterns such as `Random*`.
        verdict: `REFUSED`, `REFUSED_BY_XLA`, `AVOIDS_XLA` or `WARNED`.
        problem: What goes wrong.
        remedy: What to use instead.
        inputs: The inputs to which the fault is confined: it counts only where
            one of them depends on variables or hyperparameters; `ANY` stands
            for all. `None`: it counts wherever the operation stands.
        dtype: "complex" where it is confined to complex numbers.
        name: Pattern that the operation's name must match, in which its
            innermost scope counts only.
        unless: Tuple of patterns that it must not match.
        keeps_shape: Whether it is confined to operations whose first two inputs
            have one shape.
        is_cut: Whether it is confined to operations that TensorFlow's registry says
            not to be differentiable, though a derivative would go through them.
        order: What goes wrong: 0 the value, when a step is computed again; 1
            the first derivatives already; 2 the second ones.
    """

    operations: tuple[str, ...]
    verdict: str
    problem: str
    remedy: str
    inputs: tuple[int, ...] | str | None = None
    dtype: str = ""
    name: str = "*"
    unless: tuple[str, ...] = ()
    keeps_shape: bool = False
    is_cut: bool = False
    order: int = 2

    def matches(self, operation: Operation) -> bool:
        """Whether a `search.Operation` has this fault."""
        # First what is told at once.
        if operation.keeps_shape < self.keeps_shape or operation.is_cut < self.is_cut:
            return False
        if not any(fnmatch.fnmatchcase(operation.type, p) for p in self.operations):
            return False
        tail = "/".join(operation.name.split("/")[-2:])
        name, *unless = (
            fnmatch.fnmatchcase(tail, pattern) for pattern in (self.name, *self.unless)
        )
        if not name or any(unless):
            return False
        if not operation.dtype.startswith(self.dtype):
            return False
        if self.inputs is ANY:
            return any(operation.depends)
        return self.inputs is None or any(
            operation.depends[index]  # pyright: ignore[reportArgumentType, reportCallIssue]
            for index in self.inputs
        )


_SILENT = "TensorFlow leaves its derivative out, in silence"
_MISSING = "TensorFlow has no second derivative of it"

_ROWS = (
    # Second derivatives that are wrong, or left out in silence.
    Fault(
        ("StopGradient",),
        REFUSED,
        "this copy of tf.nn.moments, got before far_ho_tf was imported, drops a term "
        "of the second derivative",
        "call tf.nn.moments or keras.ops.moments by its full name",
        inputs=(0,),
        name="moments*/StopGradient*",
    ),
    Fault(
        ("StopGradient",),
        WARNED,
        "the hypergradient takes what it stops as constant, and is not that of the "
        "training run unless the value does not matter",
        "stop only what has no influence, or differentiate it too",
        inputs=ANY,
        # What tf.reduce_logsumexp stops has no influence; for moments see above.
        unless=(
            *("ReduceLogSumExp*/StopGradient*", "moments*/StopGradient*"),
            "held*/StopGradient*",  # By the patches.
        ),
    ),
    Fault(
        ("EagerPyFunc",),
        REFUSED,
        "TensorFlow does not differentiate it twice",
        "write it with TensorFlow's operations",
        inputs=ANY,
    ),
    Fault(
        ("FakeQuantWithMinMax*Gradient",),
        REFUSED,
        _SILENT,
        "call tf.quantization.fake_quant_with_min_max_vars by its full name",
        inputs=ANY,
        order=1,
    ),
    Fault(("SparseAddGrad",), REFUSED, _SILENT, "add dense tensors"),
    Fault(
        ("ReciprocalGrad", "Reciprocal", "Sqrt", "SqrtGrad", "Rsqrt", "RsqrtGrad"),
        REFUSED_BY_XLA,
        "XLA forgets a complex conjugate in its derivative",
        "leave `jit_compile` at 'auto', or divide, and use tf.pow",
        dtype="complex",
        order=1,
    ),
    Fault(
        ("SelfAdjointEigV2",),
        REFUSED_BY_XLA,
        "XLA gives eigenvalues of complex matrices in another dtype than TensorFlow "
        "reads",
        "leave `jit_compile` at 'auto'",
        dtype="complex",
        order=1,
    ),
    Fault(
        ("MaxPoolGrad", "MaxPool3DGrad"),
        REFUSED,
        "where pooling keeps the size of the image (stride 1, padding 'same'), "
        "TensorFlow writes its second derivative over what it still has to read",
        "use a stride of 2, or padding='valid'",
        keeps_shape=True,
    ),
    Fault(
        ("MaxPoolGrad", "MaxPool3DGrad"),
        REFUSED_BY_XLA,
        "XLA misplaces entries of the second derivative of max pooling",
        "leave `jit_compile` at 'auto', or pool by tf.reduce_max over a reshape",
    ),
    # First derivatives that are left out in silence.
    Fault(("Betainc",), REFUSED, _SILENT, "keep a and b fixed", inputs=(0, 1), order=1),
    Fault(("Zeta",), REFUSED, _SILENT, "keep x fixed", inputs=(0,), order=1),
    Fault(
        ("HSVToRGB",),
        REFUSED,
        _SILENT,
        "call tf.image.hsv_to_rgb by its full name",
        inputs=(0,),
        order=1,
    ),
    Fault(
        ("ImageProjectiveTransformV2", "ImageProjectiveTransformV3"),
        REFUSED,
        "TensorFlow leaves out its derivative with respect to the transform, in "
        "silence, and that with respect to the images is not the true one",
        "call tf.raw_ops.ImageProjectiveTransformV3 by its full name, as "
        "keras.ops.image.affine_transform does, on floating images",
        inputs=(0, 1, 3),
        order=1,
    ),
    Fault(
        ("MatrixSolveLs",),
        REFUSED,
        "TensorFlow leaves out its derivative with respect to `l2_regularizer`, in "
        "silence",
        "solve AᵀA + l2 · I by tf.linalg.solve",
        inputs=(2,),
        order=1,
    ),
    Fault(
        ("QuantizeAndDequantizeV3",),
        REFUSED,
        "its gradient is no derivative",
        "use tf.quantization.quantize_and_dequantize_v2",
        inputs=ANY,
        order=1,
    ),
    Fault(
        ("ScaleAndTranslate",),
        REFUSED,
        _SILENT,
        "keep scale and translation fixed, or interpolate by tf.einsum with weight "
        "matrices",
        inputs=(2, 3),
        order=1,
    ),
    # Second derivatives that TensorFlow does not have.
    Fault(
        ("FractionalMaxPoolGrad", "FractionalAvgPoolGrad"),
        REFUSED,
        _MISSING,
        "use MaxPooling2D or AveragePooling2D",
    ),
    Fault(("Dilation2DBackprop*",), REFUSED, _MISSING, "use MaxPooling2D"),
    Fault(
        ("RandomGammaGrad",),
        REFUSED,
        _MISSING,
        "keep the shape parameter alpha of the gamma distribution fixed",
        inputs=ANY,
    ),
    Fault(
        (
            "RandomGamma",
            "StatelessParameterizedTruncatedNormal",
            "StatelessRandomGamma*",
        ),
        WARNED,
        "TensorFlow's derivative is that of the distribution, on average, not that of "
        "the numbers drawn, some of which are rejected where its parameters move",
        "keep its parameters fixed, or scale and shift what is drawn",
        inputs=ANY,
        order=1,
    ),
    # Values that cannot be replayed.
    Fault(
        (
            "Multinomial",
            "ParameterizedTruncatedNormal",
            *("RandomCrop", "RandomGamma", "RandomPoisson*", "RandomShuffle"),
            *("RandomStandardNormal", "RandomUniform*", "TruncatedNormal"),
        ),
        REFUSED,
        "it draws other numbers when the backward pass computes the step again",
        "use tf.random.stateless_* with a seed made of the step; or, in an objective, "
        "a Keras layer or a keras.random.SeedGenerator",
        order=0,
    ),
    Fault(
        ("IteratorGetNext*",),
        REFUSED,
        "the backward pass would take other elements than the forward pass",
        "give the tf.data.Dataset as `inner_data`",
        order=0,
    ),
    # Values that XLA makes differently.
    Fault(
        ("Assert",),
        AVOIDS_XLA,
        "XLA leaves assertions out",
        "give jit_compile=True if they need not hold",
        order=1,
    ),
    Fault(
        ("SelfAdjointEigV2", "Svd"),
        AVOIDS_XLA,
        "XLA gives its vectors other signs than TensorFlow",
        "give jit_compile=True if that does not matter",
        order=1,
    ),
    Fault(
        (
            "StatelessMultinomial*",
            "StatelessParameterized*",
            "StatelessRandom[BNP]*",
            "StatelessRandomGamma*",
            "StatelessRandomUniform",
            "StatelessRandomUniformInt*",
            "StatelessRandomUniformV2",
            "StatelessTruncatedNormal*",
        ),
        AVOIDS_XLA,
        "XLA draws other random numbers (Dropout masks) than TensorFlow from one seed",
        "give jit_compile=True if that does not matter",
        order=1,
    ),
)

# Whatever release of TensorFlow it is: by its own registry.
_CUT = Fault(
    tuple(
        sorted(
            kind
            for kind in not_differentiable()
            if not any(
                fnmatch.fnmatchcase(kind, pattern)
                for row in _ROWS
                if row.verdict == REFUSED and row.order > 0
                for pattern in row.operations
            )
        )
    ),
    REFUSED,
    "TensorFlow registers it as not differentiable, and leaves its derivative out, in "
    "silence",
    "write it with other operations, or keep what it reads fixed",
    is_cut=True,
    order=1,
)

FAULTS = (*_ROWS, _CUT)
