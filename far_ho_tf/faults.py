"""Operations that an inner objective must not hold unnoticed.

Each row of the table has a test that shows the fault in TensorFlow itself.
"""

import fnmatch
from typing import NamedTuple

# Verdicts: refused always; refused when compiled by XLA; right in both, but not
# the same in both, so that XLA is used only when asked for.
REFUSED, REFUSED_BY_XLA, AVOIDS_XLA = "refused", "refused by XLA", "avoids XLA"


class Fault(NamedTuple):
    """A kind of operation, and what goes wrong with it.

    Attributes:
        operations: Tuple of types in the graph, or patterns such as `Random*`.
        verdict: `REFUSED`, `REFUSED_BY_XLA` or `AVOIDS_XLA`.
        problem: What goes wrong.
        remedy: What to use instead.
        input_index: The input to which the fault is confined: it counts only
            where that input depends on variables or hyperparameters. `None`:
            it counts wherever the operation stands.
    """

    operations: tuple
    verdict: str
    problem: str
    remedy: str
    input_index: int | None = None

    def matches(self, operation):
        """Whether a `graph_search.Operation` has this fault."""
        named = any(fnmatch.fnmatchcase(operation.type, p) for p in self.operations)
        if not named or self.input_index is None:
            return named
        return operation.depends[self.input_index]


FAULTS = (
    Fault(
        ("MaxPoolGrad",),
        REFUSED_BY_XLA,
        "XLA misplaces entries of the second derivative of max pooling",
        "leave `jit_compile` at 'auto', or pool by tf.reduce_max over a reshape",
    ),
    Fault(
        ("SoftmaxCrossEntropyWithLogits",),
        REFUSED,
        "TensorFlow leaves out the derivative of its gradient with respect to the "
        "labels, in silence",
        "write -tf.reduce_sum(labels * tf.nn.log_softmax(logits), axis=-1)",
        input_index=1,
    ),
    Fault(
        (
            "Multinomial",
            "ParameterizedTruncatedNormal",
            "Random[!I]*",
            "TruncatedNormal",
        ),
        REFUSED,
        "it draws other numbers when the backward pass computes the step again",
        "use a Keras layer, a keras.random.SeedGenerator, or tf.random.stateless_*",
    ),
    Fault(
        ("IteratorGetNext*",),
        REFUSED,
        "the backward pass would take other elements than the forward pass",
        "give the tf.data.Dataset as `inner_data`",
    ),
    Fault(
        (
            "StatelessMultinomial*",
            "StatelessParameterized*",
            "StatelessRandom*",
            "StatelessTruncatedNormal*",
        ),
        AVOIDS_XLA,
        "XLA draws other random numbers (Dropout masks) than TensorFlow from one seed",
        "give jit_compile=True if that does not matter",
    ),
)
