"""What mkdocs.yml needs beside its plugins: hooks of MkDocs, and one of Griffe.

* Files of the repository that are not pages are named, as links cannot lead there.
* Formulas in docstrings become MathML, which browsers draw by themselves.
* Examples in docstrings become blocks of code.
* The page of the decisions lists them as BUILD_NOTES.md does.
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


def on_page_markdown(markdown, page, config, files):
    """Names files of the repository in the place of links; lists the decisions."""
    folder = Path(page.file.abs_src_path).parent
    docs = Path(config.docs_dir).resolve()
    if page.file.src_uri == "decisions/index.md":
        markdown += _decisions(docs.parent / "BUILD_NOTES.md")

    def named(link):
        target = (folder / link["target"]).resolve()
        if target.is_relative_to(docs) or not target.exists():
            return link[0]  # MkDocs follows it, or tells that nothing is there.
        path = f"`{Path(os.path.relpath(target, docs.parent)).as_posix()}`"
        text = link["text"]
        return path if text.strip("`") == target.name else f"{text} ({path})"

    return _LINK.sub(named, markdown)


def _decisions(notes):
    """The list of BUILD_NOTES.md, by theme, with links from the decisions' folder."""
    _, themes = notes.read_text(encoding="utf-8").split("\n## ", 1)
    listed = f"### {themes}".replace("\n## ", "\n### ")
    return "\n## All decisions\n\n" + listed.replace("](docs/decisions/", "](")


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
