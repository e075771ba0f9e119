"""The tests lie in the folders of what they test."""

from tests.helpers import ROOT

TESTS, PACKAGE = ROOT / "tests", ROOT / "far_ho_tf"
# What is no folder of the package.
OTHERS = {"whole", "examples", "repository"}


def folders(root):
    """Those that hold a module, from the root on."""
    inits = root.rglob("__init__.py")
    return {path.parent.relative_to(root).as_posix() for path in inits} - {"."}


def test_folders_are_those_of_the_package():
    assert "hypergradients/reverse" in folders(PACKAGE)
    assert folders(TESTS) == folders(PACKAGE) | OTHERS


def test_each_folder_has_tests():
    empty = {name for name in folders(TESTS) if not any((TESTS / name).glob("test_*"))}
    assert empty == set()


def test_files_of_tests_are_in_packages():
    """Else two of one name are one module to pytest."""
    loose = [path for path in TESTS.rglob("test_*.py") if not _packed(path.parent)]
    assert loose == []


def test_at_the_top_are_tests_of_the_top():
    """The tests of modules that are in no folder; the others are helpers."""
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    tested = {path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py")}
    assert tested <= modules


def test_files_are_short():
    lengths = {path: len(path.read_text().splitlines()) for path in TESTS.rglob("*.py")}
    assert [path for path, length in lengths.items() if length > 500] == []


def _packed(folder):
    return (folder / "__init__.py").exists()
