"""What all parts of the sweep say of a case together."""

from typing import NamedTuple

# From the worst to the best; what is left open comes last.
WRONG = "wrong"
NOT_FINITE, ERROR = "not finite", "error"
NEEDLESS = "refused, though right by itself"
REFUSED, WARNED = "refused", "warned of"
PATCHED, RIGHT = "patched", "right"
KINK, NO_VALUE = "kink", "no value"
VERDICTS = (
    WRONG,
    NOT_FINITE,
    ERROR,
    NEEDLESS,
    REFUSED,
    WARNED,
    PATCHED,
    RIGHT,
    KINK,
    NO_VALUE,
)


_SAME = {"not finite": NOT_FINITE, "error": ERROR, "kink": KINK}


class Verdict(NamedTuple):
    """A verdict on a case, and why.

    Attributes:
        verdict: One of `VERDICTS`.
        text: A sentence, or the figures that differ.
    """

    verdict: str
    text: str = ""


def verdict(parts):
    """The verdict on a case.

    The problem decides: what is wrong by itself, but refused there, is refused. Where a
    problem was not looked at, operations decide.

    Args:
        parts: {part: checks}, as the file of results holds them.
    """
    operations = parts.get("operations", {}) | parts.get("loops", {})
    for checks in parts.values():
        if "process" in checks:
            return Verdict(ERROR, checks["process"]["status"])
    if "row" in operations:
        return Verdict(NO_VALUE, operations["row"]["text"])
    if not operations:
        return Verdict(NO_VALUE, "not looked at")
    wrong = _of_status(operations, "WRONG")
    problem = parts.get("problems", {}).get("problem")
    if problem is None:
        return _by_itself(operations, wrong)
    return _in_problem(problem, operations, wrong, parts.get("plain", {}))


def _in_problem(problem, operations, wrong, plain):
    status, text = problem["status"], problem.get("text", "")
    if status == "refused":
        good = not wrong and not _of_status(operations, "error", "not finite")
        return Verdict(NEEDLESS if good else REFUSED, text)
    if status == "WRONG":
        return Verdict(WRONG, "hypergradient: " + figures(problem))
    if problem.get("warning"):
        return Verdict(WARNED, problem["warning"])
    if status in _SAME:
        return Verdict(_SAME[status], text)
    # What the problem's own mode does not go through.
    in_loop = operations.get("loop problem", {}).get("status")
    for name in wrong:
        if name == "loop reverse" and in_loop in ("refused", "right"):
            continue
        if "forward" in name or "loop" in name:
            return Verdict(WRONG, f"{name}: {figures(operations[name])}")
    mended = _of_status(plain, "WRONG", "not finite", "error")
    return Verdict(PATCHED if mended else RIGHT)


def _by_itself(operations, wrong):
    for name in wrong:
        return Verdict(WRONG, f"{name}: {figures(operations[name])}")
    if operations["differences"]["status"] == "kink":
        return Verdict(KINK)
    for name in _of_status(operations, "not finite"):
        return Verdict(NOT_FINITE, name)
    for name in _of_status(operations, "error"):
        return Verdict(ERROR, operations[name].get("text", ""))
    return Verdict(RIGHT)


def _of_status(checks, *statuses):
    """Names of checks; under XLA alone what is wrong is seen in a problem only."""
    return [
        name
        for name, result in checks.items()
        if result["status"] in statuses and not name.startswith("xla")
    ]


def under_xla(parts):
    """How XLA's numbers differ from TensorFlow's, or an empty string."""
    operations = parts.get("operations", {})
    found = []
    names = {"xla outputs": "values", "xla first": "first", "xla reverse": "second"}
    for name, what in names.items():
        result = operations.get(name, {"status": "right"})
        plainly = operations.get(name.replace("xla", "graph"), {"status": "right"})
        if result["status"] == plainly["status"]:
            continue
        if result["status"] in ("other", "WRONG", "not finite"):
            found.append(f"{what} {figures(result)}")
    return "; ".join(found)


def figures(result):
    """ "[1, 2] for [1, 3]"."""
    if "found" not in result:
        return result.get("text", result["status"])
    pair = [
        "[" + ", ".join(f"{number:.4g}" for number in result[name][:4]) + "]"
        for name in ("found", "expected")
    ]
    return f"{pair[0]} for {pair[1]}"
