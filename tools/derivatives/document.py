"""Writes docs/derivatives.md from the results of the sweep."""

import collections
import json
import re

from derivatives import verdicts
from derivatives.table import coverage, rows
from derivatives.verdicts import VERDICTS, Verdict

_COMMAND = ".venv/bin/python tools/derivative_sweep.py"
# What TensorFlow adds to its errors: nodes, and operations that ran eagerly.
_MARKS = re.compile(r"\{\{.*?\}\}( = )?|\[Op:.*?\]( name:)?")
_HEAD = """# Derivatives of TensorFlow and Keras

Which first and second derivatives of TensorFlow's and Keras' functions are right, and
what far_ho_tf does about the others. Of TensorFlow {tensorflow} and Keras {keras}, on
a CPU, {date}, by

    {command}

Each function is looked at where it is smooth, and many at zeros, ties, the identity
matrix and complex numbers, in float64 where TensorFlow has it. First derivatives are
compared with central differences of values; second ones, as reverse over reverse and
forward over reverse, with those of first ones, straight, in a `tf.while_loop` and under
XLA; and the hypergradient of a `far.BilevelProblem` under default settings with
differences of an eager training run. A difference of more than 1e-4 (in float32, of
5e-3) is wrong.

{looked} of {all} cases (a function at a point) of the table have been looked at by
themselves, {problems} in a problem.

* **wrong**: neither refused nor warned of. Each is named below. Where it is a *first*
  derivative, a training run goes by it, with far_ho_tf as without.
* **not finite**: NaN or infinity, where the right number is finite. It is an error.
* **error**: an error by TensorFlow, Keras or far_ho_tf that does not name a remedy.
* **refused**: an error that names the operation and what to write in its place.
* **refused, though right by itself**: the same, where no check of the function found a
  fault: random numbers that cannot be replayed, or a fault at other points.
* **warned of**: you are told, whether the number is right or not.
* **patched**: wrong in TensorFlow, right once far_ho_tf is imported.
* **kink**: there is no derivative to compare with; values are compared.
* **no value**: the function gives none here, on this machine.
"""


def write(results, path):
    """Writes the document.

    Args:
        results: Path of the file of results.
        path: Where to.
    """
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    releases = collections.defaultdict(lambda: collections.defaultdict(dict))
    dates = {}
    for line in lines:
        release = tuple(line["versions"].values())
        releases[release][line["case"]][line["part"]] = line["checks"]
        dates[release] = line["date"]
    newest = tuple(lines[-1]["versions"].values())
    table = rows()
    known = {
        case: parts
        for case, parts in releases[newest].items()
        if case.split(" @ ")[0] in table
    }
    parts = [
        _HEAD.format(
            command=_COMMAND,
            date=dates[newest],
            tensorflow=newest[0],
            keras=newest[1],
            looked=sum("operations" in parts for parts in known.values()),
            problems=sum("problems" in parts for parts in known.values()),
            all=sum(len(row.points) for row in table.values()),
        ),
        _summary(releases, dates),
        *_sections(known),
        _xla(known),
        _uncovered(table),
    ]
    path.write_text("\n".join(part.rstrip() + "\n" for part in parts if part))


def _summary(releases, dates):
    """A table with a row for each release that was looked at."""
    head = ["TensorFlow", "Keras", "date", "functions", "cases", *VERDICTS]
    found = [head, ["---"] * len(head)]
    for release, cases in releases.items():
        counts = collections.Counter(
            verdicts.verdict(parts).verdict for parts in cases.values()
        )
        functions = {case.split(" @ ")[0] for case in cases}
        numbers = [len(functions), len(cases), *(counts[one] for one in VERDICTS)]
        found.append([*release, dates[release], *map(str, numbers)])
    lines = ("| " + " | ".join(cells) + " |" for cells in found)
    return "## By release\n\n" + "\n".join(lines)


def _sections(cases):
    """One for each verdict."""
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for case, parts in cases.items():
        found = verdicts.verdict(parts)
        name, point = case.split(" @ ")
        groups[found.verdict][name].append((point, found))
    for kind in VERDICTS:
        group = groups[kind]
        title = f"## {kind.capitalize()}\n\n"
        if not group:
            yield f"{title}Nothing."
        elif kind in (verdicts.RIGHT, verdicts.KINK, verdicts.PATCHED):
            yield title + _listed(group)
        else:
            lines = [
                f"| `{name}` | {', '.join(point for point, _ in found)} | "
                f"{_cell(found[0][1])} |"
                for name, found in group.items()
            ]
            yield f"{title}| function | at | |\n|---|---|---|\n" + "\n".join(lines)


def _cell(found: Verdict):
    text = _MARKS.sub("", found.text)
    text = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return text if len(text) <= 260 else text[:260] + " …"


def _listed(group):
    """Names by their modules, with their points."""
    modules = collections.defaultdict(list)
    for name, found in group.items():
        public, *case = name.split(" (")
        module, _, short = public.rpartition(".")
        points = ", ".join(point for point, _ in found)
        label = short + (f" ({case[0]}" if case else "")
        modules[module].append(
            f"`{label}`" + ("" if points == "smooth" else f" [{points}]")
        )
    return "\n\n".join(
        f"**{module}**: {'; '.join(names)}" for module, names in modules.items()
    )


def _xla(cases):
    lines = []
    for case, parts in cases.items():
        text = verdicts.under_xla(parts)
        if text:
            problem = parts.get("problems", {}).get("problem", {})
            chosen = problem.get("compiler", problem.get("status", ""))
            lines.append(f"| `{case}` | {text} | {chosen} |")
    return (
        "## Other numbers under XLA\n\nWhat XLA gives, and what TensorFlow gives; "
        "and what far_ho_tf does by default: the compiler that it takes.\n\n"
        "| function | XLA's for TensorFlow's | default |\n|---|---|---|\n"
    ) + "\n".join(lines)


def _uncovered(table):
    names = coverage.without_row(table.values())
    text = ", ".join(f"`{name}`" for name in names) if names else "None."
    return (
        f"## No row\n\nPublic functions of {', '.join(coverage.NAMESPACES)} that the "
        f"table of the sweep does not have, but those without a derivative: {text}"
    )
