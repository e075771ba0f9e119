"""The order of modules, the public names, and their docstrings."""

import ast
import inspect
from pathlib import Path

import far_ho_tf as far

# A module imports only from modules above it.
LAYERS = (
    "contexts",
    "patches.registry",
    "patches.complex_numbers",
    "patches.ctc",
    "patches.custom_gradients",
    "patches.cross_entropy",
    "patches.fused_batch_norm",
    "patches.indices",
    "patches.isotonic_regression",
    "patches.layer_numbers",
    "patches.linear_algebra",
    "patches.logsumexp",
    "patches.moments",
    "patches.not_differentiable",
    "patches.padding",
    "patches.products",
    "patches.projection",
    "patches.second_derivatives",
    "patches.selections",
    "patches.surrogates",
    "patches.zeros_and_ties",
    "patches",
    "notices",
    "checks",
    "buffers",
    "failures",
    "variables",
    "substitution",
    "hyperparameters",
    "constraints",
    "autodiff",
    "compilation",
    "tracing",
    "executables",
    "batching",
    "schedules",
    "regularizers",
    "initial_values",
    "dynamics.arguments",
    "dynamics.base",
    "dynamics.gradient_descent",
    "dynamics.backtracking",
    "dynamics.momentum",
    "dynamics.adam",
    "dynamics.rmsprop",
    "dynamics.functional",
    "dynamics.keras_checks",
    "dynamics.keras_optimizer",
    "dynamics",
    "data.permutation",
    "data.batches",
    "data.readings",
    "data.shares",
    "data.source",
    "data.datasets",
    "data.sources",
    "data",
    "draws",
    "packing",
    "distribution",
    "replicas",
    "state",
    "saving",
    "preflight.shapes",
    "preflight.registry",
    "preflight.graph_search",
    "preflight.faults",
    "preflight.lines",
    "preflight.jumps",
    "preflight.kinks",
    "preflight.rules",
    "preflight.report",
    "preflight",
    "objective",
    "problem",
    "hypergradients.forms",
    "hypergradients.rewrites",
    "hypergradients.program",
    "hypergradients.result",
    "hypergradients.agreement",
    "hypergradients.comparison",
    "hypergradients.division",
    "hypergradients.episodes",
    "hypergradients.nonfinite",
    "hypergradients.dependence",
    "hypergradients.outer",
    "hypergradients.tangents",
    "hypergradients.base",
    "hypergradients.run",
    "hypergradients.forward",
    "hypergradients.checkpoints",
    "hypergradients.window",
    "hypergradients.trajectory",
    "hypergradients.peaks",
    "hypergradients.residuals",
    "hypergradients.split",
    "hypergradients.reverse_run",
    "hypergradients.exact",
    "hypergradients.integers",
    "hypergradients.digits",
    "hypergradients.memory",
    "hypergradients.reverse",
    "hypergradients.reversal",
    "hypergradients.reversible",
    "hypergradients",
    "prediction",
    "planner",
    "tuner_state",
    "callbacks",
    "checkpoint",
    "tasks",
    "outer_update",
    "inner_runs",
    "hyper_optimizer",
    "real_time.objectives",
    "real_time.training",
    "real_time.model",
    "real_time",
    "",  # far_ho_tf itself.
)
CONTRACT = (
    "Adam",
    "AdamW",
    "BacktrackingGradientDescent",
    "Batches",
    "BilevelProblem",
    "Checkpoint",
    "Dynamics",
    "ForwardHG",
    "GradientDescent",
    "HyperOptimizer",
    "Hyperparameter",
    "KerasDynamics",
    "Momentum",
    "NonFiniteError",
    "RMSprop",
    "RealTimeModel",
    "ReverseHG",
    "Schedule",
    "callbacks",
    "compile_cache",
    "constraints",
    "get_hyperparameter",
    "regularizers",
    "scaled_noise",
)
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


def test_every_module_has_a_layer():
    assert sorted(FILES) == sorted(LAYERS)


def test_imports_go_downwards():
    upwards = {
        module: imported_modules(FILES[module]) - set(LAYERS[:layer])
        for layer, module in enumerate(LAYERS)
    }
    assert {module: names for module, names in upwards.items() if names} == {}


def test_imports_are_seen():
    """The two tests around would pass if no import were found."""
    assert "preflight.graph_search" in imported_modules(FILES["preflight.report"])
    assert "hypergradients.base" in imported_modules(FILES["hypergradients.reverse"])
    assert imported_modules(FILES["data.permutation"]) == set()


def test_contract_is_exported():
    assert set(CONTRACT) - exported_names() == set()
    assert all(hasattr(far, name) for name in CONTRACT)


def public_objects():
    """Exported classes and functions, and those of exported modules."""
    for name in set(vars(far)) & exported_names():
        value = getattr(far, name)
        if not inspect.ismodule(value):
            yield value
            continue
        for inner, member in vars(value).items():
            own = getattr(member, "__module__", None) == value.__name__
            if own and not inner.startswith("_"):
                yield member


def exported_names():
    """The names that `far_ho_tf/__init__.py` imports as themselves."""
    body = ast.parse(FILES[""].read_text()).body
    imports = [node for node in body if isinstance(node, ast.ImportFrom)]
    return {alias.asname for node in imports for alias in node.names}


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
