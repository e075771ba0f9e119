"""What mkdocs.yml needs beside its plugins: hooks of MkDocs, and one of Griffe.

* Files of the repository that are not pages are named, as links cannot lead there.
* Formulas in docstrings become MathML, which browsers draw by themselves.
* Examples in docstrings become blocks of code.
* The pages of docs/decisions are in the navigation, however many there are.
"""

import html
import os
import re
from pathlib import Path

import griffe
from latex2mathml import converter

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>(?:\.\./)+[^)#\s]+)[^)]*\)")
_FORMULA = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.S)
_DOCTEST = re.compile(r"(?:^>>> .*\n(?:(?!\s*$|>>> ).*\n?)*)+", re.M)


def on_config(config):
    """Lists the decisions."""
    docs = Path(config.docs_dir)
    pages = sorted(page.name for page in docs.glob("decisions/*.md"))
    pages.sort(key=lambda name: name not in {"index.md", "README.md"})
    if pages:
        decisions = [f"decisions/{name}" for name in pages]
        config.nav.append({"Development": [{"Decisions": decisions}]})
    return config


def on_page_markdown(markdown, page, config, files):
    """Names files of the repository in the place of links to them."""
    folder = Path(page.file.abs_src_path).parent
    docs = Path(config.docs_dir).resolve()

    def named(link):
        target = (folder / link["target"]).resolve()
        if target.is_relative_to(docs) or not target.exists():
            return link[0]  # MkDocs follows it, or tells that nothing is there.
        path = f"`{Path(os.path.relpath(target, docs.parent)).as_posix()}`"
        text = link["text"]
        return path if text.strip("`") == target.name else f"{text} ({path})"

    return _LINK.sub(named, markdown)


def on_page_content(content, page, config, files):
    """Draws formulas."""
    return _FORMULA.sub(
        lambda formula: converter.convert(html.unescape(formula[1])), content
    )


class Doctests(griffe.Extension):
    """Puts the examples of docstrings into blocks of code."""

    def on_instance(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = _DOCTEST.sub(
                lambda example: f"```pycon\n{example[0].rstrip()}\n```\n",
                obj.docstring.value,
            )
