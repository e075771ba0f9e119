"""The examples in docstrings and in the documents run as they stand."""

import doctest
import importlib
import pkgutil
import re

import pytest

import far_ho_tf
from far_ho_tf.graphs import compilation
from tests.helpers import ROOT

MODULES = [
    "far_ho_tf",
    *(
        module.name
        for module in pkgutil.walk_packages(far_ho_tf.__path__, "far_ho_tf.")
    ),
]
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(
    r"^(?P<skip><!-- not run -->\s*)?^```python *\n(?P<code>.*?)^```", re.M | re.S
)


def code_blocks(text):
    """The blocks that are run, each on the lines that it has in the document."""
    return [
        "\n" * text.count("\n", 0, match.start("code")) + match["code"]
        for match in BLOCK.finditer(text)
        if not match["skip"]
    ]


@pytest.fixture
def _own_cache(monkeypatch):
    """That of the tests is left alone by the example of `compile_cache`."""
    monkeypatch.setattr(compilation, "_used", [])
    monkeypatch.setattr(compilation, "_to_check", [])
    monkeypatch.setenv("TF_XLA_FLAGS", "")


@pytest.mark.usefixtures("_own_cache")
@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(module, optionflags=flags).failed == 0


def test_doctests_are_found():
    finder = doctest.DocTestFinder()
    module = importlib.import_module("far_ho_tf.hyperparameters.constraints")
    assert sum(bool(test.examples) for test in finder.find(module)) >= 4


@pytest.mark.parametrize(
    "document",
    [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in DOCUMENTS],
)
def test_documents(document, tmp_path, monkeypatch):
    """The blocks of a document are one program, run in an empty folder."""
    text = document.read_text()
    blocks = code_blocks(text)
    if document.name == "README.md" and text.strip():
        assert blocks, "README.md must have a Python block that is run"
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, str(document), "exec"), namespace)


def test_code_blocks():
    text = "\n".join(
        [
            "Text",
            "```python",
            "a = 1",
            "```",
            "<!-- not run -->",
            "",
            "```python",
            "b = 1",
            "```",
            "```",
            "c = 1",
            "```",
            "```python",
            "d = 1",
            "",
            "e = 1",
            "```",
        ]
    )
    first, second = code_blocks(text)
    assert first == "\n\na = 1\n"
    assert second == "\n" * 13 + "d = 1\n\ne = 1\n"
