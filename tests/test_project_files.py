"""What a newcomer finds in the repository: valid, of one version, and true of the package."""

import re
import tomllib

import pytest
import yaml

from tests.launching import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
YAMLS = [*sorted((REPOSITORY / ".github").rglob("*.yml")), REPOSITORY / ".pre-commit-config.yaml"]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_every_yaml_is_one(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_workflows_cover_the_versions_that_the_package_claims():
    jobs = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"]
    tested = jobs["test"]["strategy"]["matrix"]["python-version"]
    said = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in PROJECT["classifiers"]]
    assert tested == [found[1] for found in said if found]
    assert PROJECT["requires-python"] == f">={tested[0]}"
    assert jobs.keys() >= {"lint", "types", "test", "lowest", "notebook", "docs", "wheel"}
    # YAML reads the key "on" as true.
    assert "workflow_dispatch" in yaml.safe_load((REPOSITORY / ".github/workflows/gpu.yml").read_text())[True]


def test_the_workflow_builds_the_site_with_what_the_extra_asks_for():
    steps = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"]["docs"]["steps"]
    commands = " ".join(step.get("run", "") for step in steps)
    assert all(f'"{package}"' in commands for package in PROJECT["optional-dependencies"]["docs"])
    assert "mkdocs build --strict" in commands
    assert (REPOSITORY / "mkdocs.yml").is_file()


def test_the_version_stands_in_one_place_and_the_citation_follows():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["repository-code"] == PROJECT["urls"]["Homepage"] and citation["license"] == PROJECT["license"]
    paper = citation["preferred-citation"]
    readme = (REPOSITORY / "README.md").read_text()
    assert paper["title"] in readme and all(author["family-names"] in readme for author in paper["authors"])


def test_the_changelog_has_the_headings_of_keep_a_changelog():
    headings = re.findall(r"^#+ .*", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    assert headings[:2] == ["# Changelog", "## [Unreleased]"]
    kinds = {"### Added", "### Changed", "### Deprecated", "### Removed", "### Fixed", "### Security"}
    assert all(
        heading in kinds or re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading)
        for heading in headings[2:]
    )


def test_everything_a_newcomer_looks_for_is_there():
    for name in (
        "CONTRIBUTING.md",
        "CODE_OF_CONDUCT.md",
        "SECURITY.md",
        "LICENSE",
        ".github/PULL_REQUEST_TEMPLATE.md",
    ):
        text = (REPOSITORY / name).read_text()
        linked = re.findall(r"https://github\.com/[^/]+/[^/\s)]+", text)
        assert text and all(link == PROJECT["urls"]["Homepage"] for link in linked)
