"""Custom gradients: rules for the training run, no rules for its derivative.

A training run that goes by the rule of a `tf.custom_gradient` (reversed, scaled,
clipped, straight through) depends on its hyperparameters as any other does: through the
values of the function, and through those that the rule makes of them. TensorFlow goes
by the rule wherever it differentiates the function: where the training takes its
gradient, as it should, and where the run is differentiated, which gives the derivative
of no run.

So within `true_derivatives` a tape goes through the operations that the function is
made of, in the place of its rule. What the rule computes is differentiated as all else
is. Not in loops and branches: under nested tapes TensorFlow makes one derivative of
these, for all tapes. The inspection refuses rules there that are no derivatives.
"""

import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import (  # Which looks its helpers up in itself.
    custom_gradient,
)

from far_ho_tf._types import Structure
from far_ho_tf.contexts import having
from far_ho_tf.patches.registry import Overlay, assuming_tapes

# Its rules are the derivatives of the functions, found by another way; Keras' own are
# of quantized layers, and are not.
_LIBRARY = "tensorflow"
# What tf.recompute_grad and keras.remat make of a function `f`: the rule is f's own
# derivative, which cannot be differentiated again, and f can be.
_RECOMPUTED = "recompute_grad.<locals>.inner"

_is_true = contextvars.ContextVar(
    "whether derivatives are the true ones", default=False
)
# Within an objective only.
_kept: contextvars.ContextVar[Collection[Any] | None] = contextvars.ContextVar(
    "functions whose rules are kept", default=None
)
_met: contextvars.ContextVar[Callable[..., Any] | None] = contextvars.ContextVar(
    "what notes custom gradients", default=None
)
_asked: contextvars.ContextVar[Callable[[str], None] | None] = contextvars.ContextVar(
    "what notes who asks for true ones", default=None
)
_keeps_rule = contextvars.ContextVar("whether a rule is kept", default=True)
_decorate = custom_gradient._graph_mode_decorator
# The code of functions of this package whose rules are derivatives.
_TRUE: set[Any] = set()


def true_derivatives() -> contextlib.AbstractContextManager[None]:
    """Within, gradients go through what functions do, not by their custom rules."""
    return having(_is_true, True)


def are_true(name: str) -> bool:
    """Whether derivatives are those of `true_derivatives`.

    Args:
        name: That of the function whose derivatives are others then, for messages where
            it stands in a loop or branch.
    """
    note = _asked.get()
    if note is not None:
        note(name)
    return _is_true.get()


def keeping(codes: Collection[Any] | None) -> contextlib.AbstractContextManager[None]:
    """Within, the rules of some functions, told by their code, are never left out."""
    return having(_kept, codes)


class Met(NamedTuple):
    """A call of a function with a custom gradient.

    Attributes:
        code: Its code.
        arguments, results: Structures of tensors.
    """

    code: Any
    arguments: Structure
    results: Structure


class Meeting(NamedTuple):
    """What was met within `meeting`.

    Attributes:
        calls: List of `Met`.
        inside: List of the names of functions that loops or branches call, whose
            derivatives in training are not, or may not be, their true ones.
        tape: A persistent tape that watched the arguments of the calls, where sources
            were given.
    """

    calls: list[Met]
    inside: list[str]
    tape: tf.GradientTape | None


@contextlib.contextmanager
def meeting(sources: Sequence[tf.Tensor] | None = None) -> Iterator[Meeting]:
    """Within, the user's custom gradients are noted; yields a `Meeting`.

    Args:
        sources: List of tensors that are differentiated in. Without, what is made is
            what would be made under a tape, and can be differentiated by none.
    """
    calls, inside, graph = [], [], tf.compat.v1.get_default_graph()

    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        if tf.compat.v1.get_default_graph() is not graph:
            inside.append(function.__qualname__)
            return function

        @functools.wraps(function)
        def noted(*arguments: Structure) -> tuple[Structure, Callable[..., Any]]:
            if tape is not None:
                flat = tf.nest.flatten(arguments)
                tape.watch([one for one in flat if one.dtype.is_floating])
            results, rule = function(*arguments)
            calls.append(Met(_code(function), arguments, results))
            return results, rule

        return noted

    def note_inside(name: str) -> None:
        if tf.compat.v1.get_default_graph() is not graph:
            inside.append(name)

    tape = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(having(_asked, note_inside))
        if sources is None:
            stack.enter_context(assuming_tapes())
        else:
            tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)
            stack.enter_context(tape)
            tape.watch(sources)
        stack.enter_context(having(_met, note))
        yield Meeting(calls, inside, tape)


def apply() -> None:
    """Lets `true_derivatives` leave custom rules out, in graphs made from now on."""
    custom_gradient._graph_mode_decorator = _decorated
    record = custom_gradient.record
    custom_gradient.record = Overlay(record, record_operation=_recorded(record))
    custom_gradient.ops = Overlay(ops, RegisterGradient=_registered)


def _decorated(
    function: Callable[..., Any],
    arguments: Sequence[Structure],
    options: dict[str, Any],
) -> Structure:
    kept = _kept.get()
    if kept is not None and _qualname(function) == _RECOMPUTED:
        recomputed = inspect.getclosurevars(function).nonlocals["f"]
        return recomputed(*arguments, **options)
    keeps = _is_derivative(function) or _code(function) in (kept or ())
    note = _met.get()
    if note is not None and not keeps:
        function = note(function)
    with having(_keeps_rule, keeps):
        return _decorate(function, arguments, options)


def true_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """`tf.custom_gradient` of a rule that is the derivative, and is never left out."""
    _TRUE.add(_code(function))
    return tf.custom_gradient(function)


def _is_derivative(function: Callable[..., Any]) -> bool:
    if _code(function) in _TRUE:
        return True
    module = getattr(function, "__module__", None) or ""
    # `tf.grad_pass_through` is one of TensorFlow's, but its rule is no derivative.
    passes = _qualname(function).startswith("grad_pass_through.")
    return module.split(".")[0] == _LIBRARY and not passes


def _qualname(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", "")


def _code(function: Callable[..., Any]) -> Any:
    """What functions have in common that one line of Python makes again and again."""
    return getattr(function, "__code__", function)


# TensorFlow makes the results and arguments of the function again, as they are, and
# says that what makes them has the rule for its gradient: to a tape, and by the name
# of a type of gradient, for tapes outside of a loop or branch.


def _recorded(record: ModuleType) -> Callable[..., None]:
    def record_operation(
        kind: str, results: Structure, sources: Structure, rule: Callable[..., Any]
    ) -> None:
        record.record_operation(kind, results, sources, _left(rule))

    return record_operation


def _registered(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return lambda rule: ops.RegisterGradient(name)(_left(rule, before=1))


def _left(rule: Callable[..., Any], before: int = 0) -> Callable[..., Any]:
    """A rule, or the identity where it is left and derivatives are the true ones.

    Args:
        rule: Callable(*arguments, *cotangents).
        before: How many arguments are before the cotangents.
    """
    keeps = _keeps_rule.get()

    def gradient(*arguments: tf.Tensor) -> Any:
        if _is_true.get() and not keeps:
            return list(arguments[before:])
        return rule(*arguments)

    return gradient
