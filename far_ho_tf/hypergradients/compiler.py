"""One compiled hyper-iteration: what it takes and returns, and its compiler."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from far_ho_tf._types import Structure
from far_ho_tf.checks import essence, warn_user
from far_ho_tf.distribution.strategies import WorkerLostError, lost_workers
from far_ho_tf.graphs.compilation import check_in_use, discard_unreadable
from far_ho_tf.graphs.executables import Executable
from far_ho_tf.graphs.functions import TRACING, called_with
from far_ho_tf.graphs.grappler import light_grappler, no_grappler
from far_ho_tf.graphs.vectorize import noted
from far_ho_tf.notices import tell
from far_ho_tf.patches.indices import compiled
from far_ho_tf.patches.kernels import beside_gpu, kernel_rewrites
from far_ho_tf.problem.inspection import Report

# Multiplications up to which XLA is the faster on a CPU, by benchmarks/compilers.py.
# TensorFlow's own kernels are at larger convolutions; at larger matrix products only
# where these, not the element-wise work on the weights, which XLA fuses, cost the time.
_LARGEST_MATRIX_PRODUCT = 10_000_000
_PRODUCT_FOR_EACH_WEIGHT = 1_000
_LARGEST_CONVOLUTION = 300_000
# Inner steps that take as much longer in a graph as XLA takes to compile them, whatever
# the step: both grow with its operations. By benchmarks/compilers.py, too.
_WORTH_COMPILING = 1_000
# Seconds in which XLA compiles a program, and for each operation, as a rule of thumb.
_SECONDS_TO_COMPILE = 0.8, 1e-3


class Program:
    """A function of `Inputs`, compiled by XLA or not.

    Args:
        jit_compile: `True`, `False` or `"auto"`.
        report: The `Report` on the problem.
        fixed_shapes: Whether all batches have one, known shape.
        build: Callable(inputs, compiled) -> outputs that builds the graph; `compiled`:
            whether XLA is to compile it.
        whole: Whether XLA compiles all of it, or `build` its parts.
        calls_parts: Whether, without XLA, all that costs time is called as functions
            that TensorFlow rewrites one by one.
        strategy: The `tf.distribute.Strategy` that it runs over, or `None`.
        steps_to_come: The inner steps of all runs that are to come; `None`: many.

    It is traced once for all devices, and runs on that of the caller.

    Attributes:
        compiler: "xla" or "graph".
        reason: Why not XLA, or an empty string.
        one_by_one: As in `Status`; known when it is traced.

    Raises:
        ValueError: If `jit_compile=True` and XLA would make the result wrong.
    """

    def __init__(
        self,
        jit_compile: bool | str,
        report: Report,
        fixed_shapes: bool,
        build: Callable[[Any, bool], Structure],
        whole: bool = True,
        calls_parts: bool = False,
        strategy: tf.distribute.Strategy | None = None,
        steps_to_come: int | None = None,
    ) -> None:
        self._may_fall_back = jit_compile == "auto"
        self._is_tried = False
        self._salt = ""
        self._build = build
        self._whole = whole
        self._calls_parts = calls_parts
        self._strategy = strategy
        self.reason = obstacle(jit_compile, report, fixed_shapes, steps_to_come)
        self.one_by_one: tuple[str, ...] = ()
        self._told: set[str] = set()
        self._use("graph" if self.reason else "xla")

    def __call__(self, inputs: Structure) -> Structure:
        outputs = self._run(inputs) if self._is_tried else self._try(inputs)
        self._is_tried = True
        return outputs

    def _try(self, inputs: Structure) -> Structure:
        """The first run, by TensorFlow where XLA fails and may be left."""
        if self.compiler == "graph":
            return self._run(inputs)
        check_in_use()
        failure, spoilt = None, False
        try:
            return self._run(inputs)
        except WorkerLostError:
            raise
        # XLA's errors have no class of their own: some are TensorFlow's, its gradient
        # of tf.slice ends in a LookupError, and AutoGraph may wrap any of them.
        except Exception as error:
            spoilt = not self._salt and discard_unreadable(error)
            if not (spoilt or self._may_fall_back):
                raise
            failure = _reason(error)
        if spoilt:
            self._salt = "again"  # XLA remembers by the name that it failed.
            self._use("xla")
            return self._try(inputs)
        self._use("graph")
        outputs = self._run(inputs)  # Raises where XLA is not to blame.
        self.reason = f"XLA cannot compile it: {failure}"
        logging.warning("far_ho_tf runs without XLA. %s", self.reason)
        return outputs

    def _use(self, compiler: str) -> None:
        self.compiler = compiler
        self._executables: dict[Any, Executable] = {}

    def _run(self, inputs: Structure) -> Structure:
        flat = tf.nest.flatten(inputs)
        kind = tuple([t if t is None else (t.shape, t.dtype) for t in flat])
        run = self._executables.get(kind)
        if run is None:
            with TRACING:  # Of threads that ask at once, one traces.
                if kind not in self._executables:
                    self._executables[kind] = self._trace(inputs)
                run = self._executables[kind]
                self._tell(run.one_by_one)
        with lost_workers(self._strategy):
            try:
                return run(flat)
            except tf.errors.InvalidArgumentError:
                # Other workers would not take part.
                if self.compiler == "graph" and self._strategy is None:
                    run.fail(flat)
                raise

    def _trace(self, inputs: Structure) -> Executable:
        xla = self.compiler == "xla"

        def build(inputs: Structure) -> Structure:
            with kernel_rewrites(xla), compiled(xla), noted() as names:
                outputs = self._build(inputs, xla)
            found.update(names)
            return outputs

        found = {}
        tell("tracing …")
        within = light_grappler()
        only_calls = self._calls_parts and not xla
        around = no_grappler() if only_calls else within
        with TRACING, tf.device(None), called_with(within):
            made = Executable(
                build, inputs, around, self._salt, jit_compile=self._whole and xla
            )
        made.one_by_one = found
        if xla and made.is_new:
            fixed, each = _SECONDS_TO_COMPILE
            tell(f"compiling … (about {fixed + each * made.size:.0f} s)")
        return made

    def _tell(self, names: Mapping[str, bool]) -> None:
        """Notes what is done one by one, and warns once where the whole step is.

        Not of single operations: convolutions over episodes would always warn.
        """
        self.one_by_one = tuple(sorted(names))
        whole = {name for name, is_whole in names.items() if is_whole}
        if whole <= self._told:
            return
        listed = ", ".join(sorted(whole))
        warn_user(
            f"TensorFlow cannot vectorize {listed}: the tangents of hyperparameters, "
            "or the episodes, pass the whole step one by one (loops, as of recurrent "
            "layers, are While, branches If). The values are the same; a step takes "
            "longer, the more of them there are. Remedy for many hyperparameters: "
            "far.ReverseHG(), whose time does not grow with them; for a branch: "
            "tf.where in the place of tf.cond."
        )
        self._told |= whole


def _reason(error: BaseException) -> str:
    """Why XLA could not compile a program, in short."""
    missing = re.findall(r"(\w+) \(No registered '\w+' OpKernel", str(error))
    if missing:
        # It is given what is no number.
        kinds = {"strings" if one == "_Arg" else one for one in missing}
        return f"it has no kernel for {', '.join(sorted(kinds))}"
    return essence(error)[:200]


def obstacle(
    jit_compile: bool | str,
    report: Report,
    fixed_shapes: bool,
    steps_to_come: int | None = None,
) -> str:
    """Why XLA is not to be used; an empty string where it is.

    Args:
        jit_compile, report, fixed_shapes, steps_to_come: See `Program`.
    """
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
    return " ".join(faults + report.xla_differences) or _slowness(report, steps_to_come)


def _slowness(report: Report, steps_to_come: int | None) -> str:
    """Why XLA would be the slower; an empty string where it is not.

    Told by counts alone: a measured time would choose now this and now that.
    """
    if beside_gpu():
        return ""
    if steps_to_come is not None and steps_to_come < _WORTH_COMPILING:
        return (
            f"Compiling by XLA takes longer than it saves in {steps_to_come:,} inner "
            f"steps (fewer than {_WORTH_COMPILING:,}: hyper-iterations times "
            "`num_steps`)."
        )
    product = max(_LARGEST_MATRIX_PRODUCT, _PRODUCT_FOR_EACH_WEIGHT * report.weights)
    for kind, size, limit in (
        ("matrix product", report.largest_product, product),
        ("convolution", report.largest_convolution, _LARGEST_CONVOLUTION),
    ):
        if size > limit:
            return (
                f"On a CPU, TensorFlow is faster than XLA at a {kind} of {size:,} "
                f"multiplications (more than {limit:,})."
            )
    return ""
