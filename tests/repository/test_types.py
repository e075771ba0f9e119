"""Arguments have types, all over the package; that these are right, pyright tells."""

import ast
from pathlib import Path

import far_ho_tf as far

SHARE = 0.95
ROOT = Path(far.__file__).parent
# What Python gives, and what nobody reads.
NOT_COUNTED = ("self", "cls", "_")


def arguments_of(function):
    """All arguments of a `def` that count."""
    given = function.args
    found = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs]
    return [
        argument
        for argument in (*found, given.kwarg)
        if argument is not None and argument.arg not in NOT_COUNTED
    ]


def counted(source):
    """The functions of a module: lines, names, and arguments with and without types."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            flags = [a.annotation is not None for a in arguments_of(node)]
            yield node.lineno, node.name, sum(flags), len(flags) - sum(flags)


def test_arguments_have_types():
    functions = [
        (without, f"{path.relative_to(ROOT)}:{line} {name}", typed)
        for path in ROOT.rglob("*.py")
        for line, name, typed, without in counted(path.read_text())
    ]
    typed = sum(typed for *_, typed in functions)
    missing = sum(without for without, *_ in functions)
    most = [f"{name}: {n} without" for n, name, _ in sorted(functions)[::-1][:20] if n]
    assert typed >= SHARE * (typed + missing), "\n".join(most)
    assert typed > 2000  # The files were found.


def test_arguments_are_seen():
    """The test above would pass if no argument were."""
    source = """
class One:
    def method(self, a, /, b: int, *c, d=1, **e: int):
        def inner(f, _): ...
    async def other(cls): ...
"""
    assert [*counted(source)] == [
        (3, "method", 2, 3),
        (5, "other", 0, 0),
        (4, "inner", 0, 1),
    ]
