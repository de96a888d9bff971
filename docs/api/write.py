"""Writes the pages of this folder, one a folder of the package, from its docstrings.

python docs/api/write.py
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxrelu

HERE = Path(__file__).resolve().parent
PACKAGE = Path(jaxrelu.__file__).resolve().parent
# In the order of what may import what; the last three are where data come in and answers go out.
FOLDERS = (
    "core",
    "geometry",
    "losses",
    "networks",
    "programs",
    "solvers",
    "paths",
    "optimal_sets",
    "global_optimality",
    "margins",
    "closed_form",
    "datasets",
    "plotting",
    "cli",
)
HEADER = "<!-- Written by docs/api/write.py from the docstrings; do not edit. -->\n\n"


def pages() -> dict[str, str]:
    """Every page, by the name of its file."""
    found = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    if found != set(FOLDERS):
        raise ValueError(f"FOLDERS and jaxrelu/ differ by {sorted(found ^ set(FOLDERS))}.")
    rows = [(f"[{f}]({f}.md)", first_line(folder(f).__doc__)) for f in FOLDERS]
    index = (
        HEADER + "# Names, folder by folder\n\n"
        "In the order of what may import what. `help(jr.solve)` has what a line here leaves out:\n"
        "arguments with their shapes, what comes back, what is raised, an example.\n\n"
        + table(("folder", "what it is"), rows)
    )
    return {"index.md": index} | {f"{name}.md": page(name) for name in FOLDERS}


def page(name: str) -> str:
    """The page of one folder: what users call, and its modules."""
    text = f"{HEADER}# jaxrelu.{name}\n\n{inspect.getdoc(folder(name))}\n"
    names = [(f"`{called}`", first_line(value.__doc__)) for called, value in public_names(name)]
    if names:
        text += "\n" + table(("name", "what it is"), names)
    modules = [
        (f"[{path.relative_to(PACKAGE / name)}](../../jaxrelu/{path.relative_to(PACKAGE)})",
         first_line(ast.get_docstring(ast.parse(path.read_text("utf-8")))))
        for path in sorted((PACKAGE / name).rglob("*.py"))
        if path != PACKAGE / name / "__init__.py"
    ]  # fmt: skip
    return text + "\n" + table(("module", "what it is"), modules)


def folder(name: str) -> ModuleType:
    """The package that a folder is."""
    return importlib.import_module(f"jaxrelu.{name}")


def public_names(name: str) -> list[tuple[str, Any]]:
    """What users call of a folder: names of jaxrelu that stand in it, then those of its front."""
    inside = f"jaxrelu.{name}."
    root = {
        id(value): (f"jr.{called}", value)
        for called, value in vars(jaxrelu).items()
        if getattr(value, "__module__", "").startswith(inside)
    }
    front = {
        id(value): (inside + called, value)
        for called, value in vars(folder(name)).items()
        if not called.startswith("_") and getattr(value, "__module__", "").startswith(inside)
    }
    return sorted((front | root).values(), key=lambda item: item[0].lower())


def first_line(text: str | None) -> str:
    """The first line of a docstring, as a cell of a table."""
    return (text or "").strip().splitlines()[0].replace("|", "\\|")


def table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    """A table of Markdown."""
    lines = [head, ("---", "---"), *rows]
    return "".join(f"| {left} | {right} |\n" for left, right in lines)


if __name__ == "__main__":
    for old in HERE.glob("*.md"):
        old.unlink()
    for file, text in pages().items():
        (HERE / file).write_text(text, encoding="utf-8")
