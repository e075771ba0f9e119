"""One compiled hyper-iteration, and the choice of its compiler."""

import tensorflow as tf
from absl import logging

from far_ho_tf.checks import essence

# Largest products (multiplications) up to which XLA is the faster on a CPU, by
# benchmarks/compilers.py: beyond, TensorFlow's own kernels are.
_LARGEST_MATRIX_PRODUCT = 10_000_000
_LARGEST_CONVOLUTION = 300_000


class Program:
    """A `tf.function` over `Inputs`, compiled by XLA or not.

    Args:
        jit_compile: `True`, `False` or `"auto"`.
        report: The `preflight.Report` on the problem.
        fixed_shapes: Whether all batches have one, known shape.
        build: Callable(inputs, search, compiled) -> outputs that builds the graph;
            `compiled`: whether XLA is to compile it.
        whole: Whether XLA compiles all of it, or `build` its parts.

    Attributes:
        compiler: "xla" or "graph".
        reason: Why not XLA, or an empty string.
        function: The `tf.function`, to be called within another.

    Raises:
        ValueError: If `jit_compile=True` and XLA would make the result wrong.
    """

    def __init__(self, jit_compile, report, fixed_shapes, build, whole=True):
        self._may_fall_back = jit_compile == "auto"
        self._build = build
        self._whole = whole
        self.reason = obstacle(jit_compile, report, fixed_shapes)
        self._use("graph" if self.reason else "xla")

    def __call__(self, inputs):
        if self.compiler == "graph" or not self._may_fall_back:
            return self.function(inputs)
        failure = None
        try:
            outputs = self.function(inputs)
        # XLA's errors have no class of their own: some are TensorFlow's, its gradient
        # of tf.slice ends in a LookupError, and AutoGraph may wrap any of them.
        except Exception as error:
            failure = essence(error)[:200]
        if failure is not None:
            self._use("graph")
            outputs = self.function(inputs)  # Raises where XLA is not to blame.
            self.reason = f"XLA cannot compile it: {failure}"
            logging.warning("far_ho_tf runs without XLA. %s", self.reason)
        self._may_fall_back = False
        return outputs

    def search(self, inputs):
        """Runs again, up to the first value that is not finite."""
        return self._compiled(search=True)(inputs)

    def _use(self, compiler):
        self.compiler = compiler
        self.function = self._compiled(search=False)

    def _compiled(self, search):
        function = tf.function(
            lambda inputs: self._build(inputs, search, self.compiler == "xla"),
            jit_compile=self._whole and self.compiler == "xla",
            autograph=False,
        )
        # Each program traces once; together they would set off TensorFlow's alarm.
        function._omit_frequent_tracing_warning = True
        return function


def obstacle(jit_compile, report, fixed_shapes):
    """Why XLA is not to be used; an empty string where it is."""
    if jit_compile is False:
        return "jit_compile=False"
    faults = list(report.xla_faults)
    if not fixed_shapes:
        faults.append(
            "Batches differ in size, or their size is not known beforehand: XLA "
            "computes some operations on them wrong. Remedy: `far.Batches`, "
            "`drop_remainder=True`, or tf.gather with a fixed number of indices."
        )
    if jit_compile is True:
        if faults:
            raise ValueError(
                "`jit_compile=True` would make the hypergradient wrong. "
                + " ".join(faults)
            )
        return ""
    return " ".join(faults + report.xla_differences) or _slowness(report)


def _slowness(report):
    """Why XLA would be the slower; an empty string where it is not."""
    if tf.config.list_logical_devices("GPU"):
        return ""
    for kind, size, limit in (
        ("matrix product", report.largest_product, _LARGEST_MATRIX_PRODUCT),
        ("convolution", report.largest_convolution, _LARGEST_CONVOLUTION),
    ):
        if size > limit:
            return (
                f"On a CPU, TensorFlow is faster than XLA at a {kind} of {size:,} "
                f"multiplications (more than {limit:,})."
            )
    return ""
