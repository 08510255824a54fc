"""The documents: links and anchors lead somewhere, and the reference is what the code says today."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from pathlib import Path

import pytest

from pipeline.config.schema import field_places
from pipeline.python import api
from tests.support import REPOSITORY, SOURCES, generate_reference

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
SITE = REPOSITORY / "docs"


def prose(text: str) -> str:
    """Without code, in which brackets are no links."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Of its headings, as GitHub and the site both make them."""
    found: Counter[str] = Counter()
    for line in re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL).splitlines():
        if heading := re.fullmatch(r"#+ (.*)", line):
            plain = re.sub(r"[^\w\s-]", "", heading[1].replace("`", "")).strip().lower()
            github, site = plain.replace(" ", "-"), re.sub(r"[-\s]+", "-", plain)
            found[github if github == site else f"{github}, or {site} on the site"] += 1
    return {anchor for anchor, count in found.items() if count == 1}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_and_anchors_lead_somewhere(document: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document.read_text())):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        inside = SITE not in document.parents or SITE in file.parents  # what is outside of docs/ is not on the site
        if not file.exists() or not inside or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_documents_that_code_hints_and_tests_name_are_there() -> None:
    """Also those that `--help` names, as its texts are in the source."""
    places = [*SOURCES, *(REPOSITORY / "tests").rglob("*.py"), *(REPOSITORY / "benchmarks").glob("*.py"), *DOCUMENTS]
    named = [
        (place, found) for place in places for found in re.findall(r"\bdocs/[\w/]+\.md(?:#[\w-]+)?", place.read_text())
    ]
    assert len(named) > 10
    broken = []
    for place, found in named:
        file, _, anchor = found.partition("#")
        if not (REPOSITORY / file).is_file() or (anchor and anchor not in anchors(REPOSITORY / file)):
            broken.append((str(place.relative_to(REPOSITORY)), found))
    assert broken == []


def test_the_reference_is_what_the_code_says() -> None:
    """`make docs` writes it."""
    written = {path.name: path.read_text() for path in generate_reference.FOLDER.iterdir()}
    made = generate_reference.make_pages()
    assert written.keys() == made.keys()
    for name, text in made.items():
        assert written[name] == text, f"docs/reference/{name} is of other code: make docs"


def test_the_reference_has_every_field_once() -> None:
    text = (generate_reference.FOLDER / "fields.md").read_text()
    found = Counter(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE))
    expected = {re.sub(r"\*", "NAME", name) for name in field_places(deep=True)}
    assert found == Counter(expected)
    assert re.findall(r"\| (?:any|fields) \|", text) == []


def test_the_reference_has_what_python_gives() -> None:
    """Each class that a method of an opened pipeline.yaml returns."""
    methods = [
        member for name, member in vars(api.OpenPipeline).items() if inspect.isfunction(member) and name[0] != "_"
    ]
    given = {str(inspect.signature(method).return_annotation) for method in methods} - {"dict[str, Any]"}
    known = {one.__name__ for one in generate_reference.RESULTS}
    assert given <= known
    assert known - given == {"Row"}  # of the manifest


def test_a_broken_anchor_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One: two\n\n## Same\n\n## Same\n\n```sh\n# a comment\n```\n")
    assert anchors(tmp_path / "a.md") == {"one-two"}
