"""BUILD_NOTES.md lists docs/decisions, and links between documents lead somewhere."""

import re

import pytest

from tests.helpers import ROOT

FILES = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
ENTRY = re.compile(r"^\* \[(\d{4} .*)\]\((docs/decisions/.*)\): \S", re.M)
LINK = re.compile(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
# What is code is no link, and may name a module.
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.M | re.S)
FOLDERS = "far_ho_tf|tests|examples|benchmarks|tools"
MODULE = re.compile(rf"`((?:{FOLDERS})/[\w/]*(?:\.py)?)`")


def by_name(paths):
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def title_of(path):
    return path.read_text().splitlines()[0].removeprefix("# ").replace(".", "", 1)


def targets(text):
    """The relative paths that Markdown links to."""
    links = LINK.findall(CODE.sub("", text))
    return [link.split("#")[0] for link in links if not re.match(r"\w+:|#", link)]


def test_index_lists_all_decisions_in_order():
    entries = ENTRY.findall((ROOT / "BUILD_NOTES.md").read_text())
    assert entries == [(title_of(f), str(f.relative_to(ROOT))) for f in FILES]


def test_index_is_short():
    assert (ROOT / "BUILD_NOTES.md").stat().st_size <= 12_288


def test_numbers_are_consecutive():
    numbers = [int(path.name.split("-")[0]) for path in FILES]
    assert numbers == list(range(1, len(FILES) + 1))


@pytest.mark.parametrize("path", by_name(FILES))
def test_a_decision_has_its_sections(path):
    lines = path.read_text().splitlines()
    assert re.fullmatch(rf"# {path.name[:4]}\. \S.*", lines[0])
    sections = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert sections[:2] == ["Problem", "Decision"]
    assert sections[2:] in ([], ["Figures"], ["Rejected"], ["Figures", "Rejected"])


@pytest.mark.parametrize("path", by_name(FILES))
def test_named_modules_exist(path):
    names = MODULE.findall(path.read_text())
    assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_of_the_package_exist(name):
    """Which are named from the package, or from the repository."""
    names = re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", (ROOT / name).read_text())
    assert len(names) > 5
    roots = ROOT, ROOT / "far_ho_tf"
    missing = [one for one in names if not any((r / one).exists() for r in roots)]
    assert missing == []


@pytest.mark.parametrize("path", by_name(DOCUMENTS))
def test_links_lead_to_files(path):
    links = targets(path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_targets():
    text = "\n".join(
        [
            "[one](a.md), ![two](b.png), [three](c.md#part), [four](#part)",
            "[five](https://keras.io), `x[0](d)`",
            "```",
            "[six](e.md)",
            "```",
            '[seven](f.md "A title")',
        ]
    )
    assert targets(text) == ["a.md", "b.png", "c.md", "f.md"]
