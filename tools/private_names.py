"""Which names of TensorFlow and Keras the package uses that are not public.

    .venv/bin/python -m tools.private_names

A release of either may change them without a word: setup.py bounds both from above. The
list says where to look when a bound is raised, and which functions are replaced.
"""

import ast
import pathlib
from collections.abc import Iterator

from absl import app

import far_ho_tf
from far_ho_tf.patches.replacing import replacements

ROOT = pathlib.Path(far_ho_tf.__file__).parent
PRIVATE = ("tensorflow.python", "tensorflow.core", "keras.src")
OWN = ("self", "cls", "super")


def main(argv: list[str]) -> None:
    del argv
    names: dict[str, set[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for name in private_names(path.read_text(encoding="utf-8")):
            names.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    for name, files in sorted(names.items()):
        print(f"{name}: {', '.join(sorted(files))}")
    print(f"{len(names)} names that are not public.")
    for name in replacements():
        print(f"{name}: replaced")


def private_names(source: str) -> Iterator[str]:
    """What is imported from private modules, and attributes of others' objects."""
    tree = ast.parse(source)
    own = {node.attr for node in ast.walk(tree) if _is_own(node)}
    own |= {node.name for node in ast.walk(tree) if _is_definition(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PRIVATE):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            public = node.attr in ("_replace", "_asdict", "_fields", "_make")
            if not (public or _is_own(node) or node.attr in own):
                yield f"{ast.unparse(node.value)}.{node.attr}"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _is_own(node: ast.AST) -> bool:
    value = getattr(node, "value", None)
    return (
        isinstance(node, ast.Attribute)
        and isinstance(value, ast.Name)
        and value.id in OWN
    )


def _is_definition(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.ClassDef))


if __name__ == "__main__":
    app.run(main)
