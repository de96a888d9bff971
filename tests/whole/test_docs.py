"""The pages keep their word: links lead somewhere, snippets run, lists of names are complete."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "experiments").rglob("*.md")])
# Pages whose snippets compile no solver; those of all others take more than three seconds.
QUICK = {"theory/closed-forms.md", "theory/corrections.md"}


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def prose(page):
    """A page without its code, in which brackets are no links."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "code", text)


def anchors(page):
    """What GitHub makes of the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def link_faults(page):
    """Relative links of a page that lead to no file, or to no heading of it."""
    faults = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            faults.append(link)
    return faults


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page):
    assert link_faults(page) == []


@pytest.mark.parametrize(
    ("line", "faults"),
    [
        ("[a](there.md)", []),
        ("[a](there.md#a-title-of-its-own)", []),
        ("[a](https://example.org/nowhere)", []),
        ("`x[0](there)` is code", []),
        ("[a](nowhere.md)", ["nowhere.md"]),
        ("![a](figures/nowhere.png)", ["figures/nowhere.png"]),
        ("[a](there.md#another)", ["there.md#another"]),
        ("[a](#another)", ["#another"]),
    ],
)
def test_the_checker_of_links_sees_a_planted_fault(tmp_path, line, faults):
    (tmp_path / "there.md").write_text("# There\n\n## A title, of its own\n")
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{line}\n")
    assert link_faults(page) == faults


def test_pages_that_files_name_are_there():
    code = [file for folder in ("jaxrelu", "experiments") for file in (ROOT / folder).rglob("*.py")]
    texts = [file.read_text("utf-8") for file in [*PAGES, *code]]
    named = {name for text in texts for name in re.findall(r"\bdocs/[\w/-]+\.\w+", text)}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_page_can_be_reached_from_the_index():
    reached, new = set(), {DOCS / "index.md"}
    while new:
        reached |= new
        links = [
            (page, link) for page in new for link in re.findall(r"\]\(([^)#\s]+)", prose(page))
        ]
        targets = {(page.parent / link).resolve() for page, link in links if "://" not in link}
        new = {target for target in targets if target.suffix == ".md"} - reached
    assert sorted(map(name_of, set(DOCS.rglob("*.md")) - reached)) == []


def snippets(page):
    """The code of a page, each snippet below as many empty lines as it has lines above."""
    text = page.read_text("utf-8")
    found = re.finditer(r"(?<=^```python\n).*?(?=^```)", text, re.MULTILINE | re.DOTALL)
    return ["\n" * text.count("\n", 0, match.start()) + match[0] for match in found]


def with_marks(page):
    name = page.relative_to(DOCS).as_posix()
    return pytest.param(page, id=name, marks=() if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize(
    "page", [with_marks(page) for page in sorted(DOCS.rglob("*.md")) if snippets(page)]
)
def test_snippets_run_in_the_order_of_the_page(page):
    scope = {}
    for snippet in snippets(page):
        exec(compile(snippet, str(page), "exec"), scope)


@pytest.mark.parametrize("folder", ["theory", "extending"])
def test_every_page_of_the_theory_has_a_snippet_that_checks_something(folder):
    pages = sorted((DOCS / folder).glob("*.md"))
    assert pages
    assert [page.name for page in pages if "assert " not in "".join(snippets(page))] == []


def test_pages_of_the_api_are_what_the_docstrings_say():
    spec = importlib.util.spec_from_file_location("write_api", DOCS / "api" / "write.py")
    write = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(write)
    written = {path.name: path.read_text("utf-8") for path in (DOCS / "api").glob("*.md")}
    assert written == write.pages(), "run python docs/api/write.py"


def reference_faults(text, bibliography):
    """Years of a docstring's references that no entry has whose first author is named before."""
    first_authors = set()
    for entry in bibliography.split("\n@"):
        author = re.search(r"author = \{([^,]*),", entry)
        year = re.search(r"year = \{(\d{4})\}", entry)
        if author and year:
            plain = re.sub(r"\{\\.(\w)\}", r"\1", author[1])  # docstrings go without accents
            first_authors.add((plain, year[1]))
    faults = []
    for found in re.finditer(
        r"^ *Reference:\s(.*?)(?:\n\s*\n|\"\"\")", text, re.DOTALL | re.MULTILINE
    ):
        clauses = re.split(r"\b((?:19|20)\d\d)\b", found[1])
        for clause, year in zip(clauses[::2], clauses[1::2], strict=False):
            if not any(name in clause for name, of in first_authors if of == year):
                faults.append(f"{' '.join(clause.split())} {year}")
    return faults


def test_what_docstrings_cite_is_in_the_bibliography():
    bibliography = (DOCS / "references.bib").read_text("utf-8")
    texts = [file.read_text("utf-8") for file in sorted((ROOT / "jaxrelu").rglob("*.py"))]
    assert sum("Reference:" in text for text in texts) > 40
    assert [fault for text in texts for fault in reference_faults(text, bibliography)] == []


def test_the_checker_of_references_sees_a_planted_fault():
    bibliography = "@book{a,\n  author = {Higham, N. J.},\n  year = {2002}\n}\n"
    for cited, faults in (
        ("Higham (2002), Chapter 3.", []),
        ("Higham (2003).", ["Higham ( 2003"]),
        ("Boyd (2002).", ["Boyd ( 2002"]),
        ("Higham (2002); Boyd (2002).", ["); Boyd ( 2002"]),
    ):
        text = f'"""A.\n\nReference: {cited}\n"""'
        assert reference_faults(text, bibliography) == faults
