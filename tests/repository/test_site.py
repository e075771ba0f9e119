"""The pages of the site: each in the navigation, each public name in the reference."""

import ast
import re
from collections import Counter

from tests.helpers import ROOT

DOCS = ROOT / "docs"


def public_names():
    """Those in `far_ho_tf.__all__`; in the place of a module its classes."""
    body = ast.parse((ROOT / "far_ho_tf" / "__init__.py").read_text(encoding="utf-8"))
    imported, listed = {}, []
    for node in body.body:
        if isinstance(node, ast.ImportFrom):
            imported |= {alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            listed = ast.literal_eval(node.value)
    for name in listed:
        file = ROOT.joinpath(*imported[name].split("."), f"{name}.py")
        if file.exists():
            yield from (f"{name}.{child}" for child in classes(file))
        else:
            yield name


def classes(file):
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def test_each_public_name_has_one_entry():
    pages = [page.read_text(encoding="utf-8") for page in DOCS.glob("api/*.md")]
    entries = re.findall(r"^::: far_ho_tf\.(\S+)$", "\n".join(pages), re.M)
    assert Counter(entries) == Counter(public_names())


def test_each_public_name_is_in_the_index():
    index = (DOCS / "api" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"`far\.([\w.]+)`", index)
    assert Counter(listed) == Counter(public_names())


def test_public_names_are_found():
    names = set(public_names())
    assert {"ReverseHG", "plan", "constraints.Interval", "regularizers.L2"} <= names
    assert "constraints" not in names


def test_each_page_is_in_the_navigation():
    """But for the decisions: their page lists them."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.glob("**/*.md")}
    listed = re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", settings, re.M)
    decisions = {page for page in pages if page.startswith("decisions/0")}
    assert Counter(listed) == Counter(pages - decisions)


def test_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 6 * 1024


def test_pictures_are_small():
    pictures = list(DOCS.glob("**/*.png"))
    assert pictures
    assert max(picture.stat().st_size for picture in pictures) <= 150_000
