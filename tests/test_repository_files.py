"""CITATION.cff, requirements.txt and the issue templates: what others' programs read of them."""

import importlib.util
import itertools
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_the_citation_has_what_its_schema_requires():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    cff = yaml.safe_load(text)
    assert {"cff-version", "message", "title", "authors"} <= set(cff) and cff["cff-version"] == "1.2.0"
    assert cff["authors"] == [{"name": "The msddf_jax authors"}]
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f'version="{cff["version"]}"' in setup and f'license="{cff["license"]}"' in setup
    for reference in cff["references"]:
        assert {"type", "title", "authors", "year"} <= set(reference), reference
        assert reference["authors"] and all(set(a) == {"family-names", "given-names"} for a in reference["authors"])
        for path in re.findall(r"configs/[\w/]+\.py", reference["notes"]):
            assert (ROOT / path).is_file(), path


def test_requirements_point_at_the_lock():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["-r requirements.lock"]
    assert (ROOT / "requirements.lock").is_file()


def test_the_changelog_names_the_version():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert headings and headings[0].startswith(f"{cff['version']} - ")


def test_issue_templates_are_forms():
    """The rules of GitHub's forms: named, described, one input at least, ids once, options once."""
    templates = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [path.stem for path in templates] == ["bug", "data_set", "numbers"]
    for path in templates:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert form["name"] and form["description"] and form["body"]
        inputs = [part for part in form["body"] if part["type"] != "markdown"]
        assert inputs and all(part["type"] in ("input", "textarea", "dropdown", "checkboxes") for part in inputs)
        ids = [part["id"] for part in inputs]
        assert len(set(ids)) == len(ids)
        for part in inputs:
            assert part["attributes"]["label"]
            options = part["attributes"].get("options", [])
            assert (part["type"] in ("dropdown", "checkboxes")) == bool(options)
            names = [option["label"] if isinstance(option, dict) else option for option in options]
            assert len(set(names)) == len(names) and all(isinstance(name, str) for name in names)


def test_commands_of_the_page_for_contributors_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    modules = re.findall(r"python -m\s+([\w.]+)", text)
    assert "benchmarks.diagrams" in modules
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module
    paths = re.findall(
        r"bash (launch/\w+\.sh)|`((?:benchmarks|msddf_jax|docs)/[\w/.]+)`|(tests/\w+\.py)|`(test_\w+\.py)`", text
    )
    for path in filter(None, itertools.chain(*paths)):
        assert (ROOT / path).exists() or (ROOT / "tests" / path).exists(), path


def test_links_of_the_front_pages_lead_somewhere():
    for page in (ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
