"""The order of modules, the public names, and their docstrings."""

import ast
import graphlib
import inspect
from pathlib import Path

import far_ho_tf as far

# A folder imports only from folders above it, and from the modules of the top.
FOLDERS = (
    "patches",
    "graphs",
    "variables",
    "hyperparameters",
    "data",
    "dynamics",
    "distribution",
    "problem",
    "hypergradients",
    "planning",
    "resuming",
    "tuning",
    "real_time",
)
# The public names: a contract. Who changes them changes CHANGELOG.md, too.
PUBLIC = [
    "Adam",
    "AdamW",
    "BacktrackingGradientDescent",
    "Batches",
    "BilevelProblem",
    "Checkpoint",
    "CheckpointError",
    "DivergenceError",
    "Dynamics",
    "ForwardHG",
    "GradientDescent",
    "HyperGradient",
    "HyperGradientResult",
    "HyperOptimizer",
    "Hyperparameter",
    "KerasDynamics",
    "MeanResult",
    "Momentum",
    "NonFiniteError",
    "Plan",
    "Position",
    "RMSprop",
    "RealTimeModel",
    "ReversalError",
    "ReverseHG",
    "ReversibleHG",
    "Schedule",
    "State",
    "Status",
    "WorkerLostError",
    "callbacks",
    "compile_cache",
    "constraints",
    "get_hyperparameter",
    "plan",
    "regularizers",
    "scaled_noise",
]
# Of a module, and of a function without a docstring.
MOST_LINES, MOST_UNEXPLAINED = 350, 60
ROOT = Path(far.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    .removesuffix("__init__")
    .removesuffix("."): path
    for path in ROOT.rglob("*.py")
}


def imported_modules(path):
    """The modules of the package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            # `from package import name` imports a module or takes a name of it.
            found.update(
                full if _module_name(full) in FILES else node.module
                for full in (f"{node.module}.{alias.name}" for alias in node.names)
            )
    return {_module_name(name) for name in found} - {None}


def _module_name(full):
    root, _, rest = full.partition(".")
    return rest if root == "far_ho_tf" else None


def imports():
    """The modules that each module imports."""
    return {module: imported_modules(path) for module, path in FILES.items()}


def folder_of(module):
    """The folder that a module is in; "" for modules of the top."""
    folder = module.partition(".")[0]
    return folder if folder in FOLDERS else ""


def test_modules_are_in_folders():
    at_top = {module for module in FILES if not folder_of(module)}
    assert at_top == {"", "_types", "checks", "contexts", "notices"}
    assert {folder_of(module) for module in FILES} == {"", *FOLDERS}


def test_folders_import_from_those_above():
    upwards = {
        (module, name)
        for module, names in imports().items()
        for name in names
        if module and level(name) > level(module)
    }
    assert upwards == set()


def level(module):
    """The place of a module's folder, from the top down."""
    return ("", *FOLDERS).index(folder_of(module))


def test_no_circles():
    order = [*graphlib.TopologicalSorter(imports()).static_order()]
    assert order[-1] == ""  # far_ho_tf itself, which imports what it exports.


def test_imports_are_seen():
    """The two tests around would pass if no import were found."""
    found = imports()
    assert {"dynamics.arguments", "dynamics.base"} <= found["dynamics.momentum"]
    assert found["data.permutation"] == set()


def test_public_names():
    assert far.__all__ == PUBLIC
    assert all(hasattr(far, name) for name in PUBLIC)


def test_nothing_else_is_shown():
    assert [name for name in dir(far) if not name.startswith("__")] == far.__all__
    assert far.__version__
    namespace = {}
    exec("from far_ho_tf import *", namespace)
    assert set(far.__all__) <= set(namespace)


def public_objects():
    """Exported classes and functions, and those of exported modules."""
    for value in (getattr(far, name) for name in far.__all__):
        if not inspect.ismodule(value):
            yield value
            continue
        for inner, member in vars(value).items():
            own = getattr(member, "__module__", None) == value.__name__
            if own and not inner.startswith("_"):
                yield member


def test_public_objects_have_their_own_docstring():
    objects = list(public_objects())
    assert far.Hyperparameter in objects
    assert far.constraints.Interval in objects
    for value in objects:
        assert inspect.isclass(value) or inspect.isfunction(value), value
        docstring = vars(value).get("__doc__") or value.__doc__ or ""
        # A dataclass or named tuple without one gets its signature instead.
        assert docstring.strip(), value
        assert not docstring.startswith(f"{value.__name__}("), value


def test_modules_have_a_docstring():
    trees = {module: ast.parse(path.read_text()) for module, path in FILES.items()}
    missing = [name for name, tree in trees.items() if not ast.get_docstring(tree)]
    assert missing == []


def test_public_classes_of_all_modules_have_a_docstring():
    missing = [
        f"{module}.{node.name}"
        for module, path in FILES.items()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        if ast.get_docstring(node) is None
    ]
    assert missing == []


def test_modules_are_short():
    lines = {
        module: len(path.read_text().splitlines()) for module, path in FILES.items()
    }
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_long_functions_are_explained():
    unexplained = [
        f"{module}.{node.name}"
        for module, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is None
        if node.end_lineno - node.lineno >= MOST_UNEXPLAINED
    ]
    assert unexplained == []
