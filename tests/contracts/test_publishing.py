"""What is published: the workflows call what the Makefile has, both versions of the book stand side by side, a release is whole, and its metadata agree."""

import hashlib
import json
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import jsonschema
import pytest
import scripts
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_parses_and_calls_what_is_there(path):
    flow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert flow["name"] and flow[True]  # YAML reads the key `on` as a truth value
    steps = [step for job in flow["jobs"].values() for step in job["steps"]]
    assert all(job["runs-on"] and job["timeout-minutes"] for job in flow["jobs"].values()) and all(("uses" in step) != ("run" in step) for step in steps)
    lines = "\n".join(step.get("run", "") for step in steps)
    words = re.findall(r"(?:^|\n)make ([^\n#]+)", re.sub(r'"[^"]*"', "", lines))
    assert {word for line in words for word in line.split() if "=" not in word} <= TARGETS
    for script in re.findall(r"bash (\S+)", lines):
        assert (ROOT / script).is_file()
    for folder in re.findall(r"_build/([\w-]+)", path.read_text(encoding="utf-8")):
        assert f'"{folder}"' in (ROOT / "tools" / "publish.py").read_text(encoding="utf-8"), folder


def test_the_workflows_that_a_book_needs_are_there():
    runs = {path.stem: path.read_text(encoding="utf-8") for path in WORKFLOWS}
    assert {"check", "pages", "release", "weekly"} <= set(runs)
    assert "make site" in runs["pages"] and "make release" in runs["release"] and "cron" in runs["weekly"] and "CONSTRAINTS=" in runs["weekly"]


# -- latest and stable ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tool():
    return scripts.tool("publish")


@pytest.fixture
def project(tmp_path):
    """A repository whose book is one page: the text of a file, and the version that is asked for."""
    if shutil.which("make") is None:
        pytest.skip("there is no make on this machine, and the site is built by it")
    root = tmp_path / "project"
    root.mkdir()
    (root / ".gitignore").write_text("_build\n")
    (root / "text").write_text("old")
    recipe = 'mkdir -p _build/html/editions/student; echo "$$(cat text) $$BISAM_PUBLISHED" > _build/html/index.html; cp text _build/html/editions/student/x.ipynb'
    (root / "Makefile").write_text(f"html:\n\t@{recipe}\n")
    commit(root, "init", "-q")
    commit(root, "add", ".")
    commit(root, "commit", "-qm", "one")
    return root


def commit(root, *words):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(root), *words], check=True, capture_output=True)


def test_without_a_tag_there_is_one_version_that_names_no_other(tool, project):
    out = tool.site(project)
    assert (out / "latest" / "index.html").read_text() == "old \n" and not (out / "stable").exists()
    assert 'url=latest/index.html"' in (out / "index.html").read_text()


def test_the_last_tag_is_built_beside_the_newest(tool, project):
    commit(project, "tag", "v0.1")
    (project / "text").write_text("new")
    commit(project, "commit", "-qam", "two")
    for _ in range(2):  # a second time, over what is there
        out = tool.site(project)
        found = {name: (out / name / "index.html").read_text() for name in ("latest", "stable")}
        assert found == {"latest": "new latest\n", "stable": "old stable\n"} and 'url=stable/index.html"' in (out / "index.html").read_text()
        assert (project / "_build" / "site-editions" / "stable" / "student" / "x.ipynb").read_text() == "old"
    assert not (project / "_build" / "stable").exists()


def test_a_book_that_cannot_be_built_is_not_published(tool, project):
    (project / "Makefile").write_text("html:\n\t@exit 3\n")
    with pytest.raises(tool.PublishError, match="make html fails"):
        tool.site(project)


# -- a release -----------------------------------------------------------------------------------------------------------


def test_a_release_holds_every_file_with_its_digest(tool, tmp_path):
    made, version = tmp_path / "_build", PROJECT["version"]
    names = [f"bisam-{version}-site.zip", "pdf/bisam.pdf", "pdf/bisam-handout.pdf", f"dist/bisam-{version}.tar.gz", f"dist/bisam-{version}-py3-none-any.whl",
             "html/editions/student/x.ipynb", "html/editions/solutions/x.ipynb"]  # fmt: skip
    for name in names:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(name)
    out = tool.release(tmp_path)
    assert sorted(path.name.replace(version, "V") for path in out.iterdir()) == [
        "SHA256SUMS", "bisam-V-handout.pdf", "bisam-V-notebooks-solutions.zip", "bisam-V-notebooks-student.zip", "bisam-V-py3-none-any.whl",
        "bisam-V-site.zip", "bisam-V.pdf", "bisam-V.tar.gz",
    ]  # fmt: skip
    for line in (out / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert zipfile.ZipFile(out / f"bisam-{version}-notebooks-student.zip").namelist() == [f"bisam-{version}-notebooks-student/x.ipynb"]
    (made / "pdf" / "bisam-handout.pdf").unlink()
    with pytest.raises(tool.PublishError, match=r"bisam-handout\.pdf is not there"):
        tool.release(tmp_path)


# -- metadata ------------------------------------------------------------------------------------------------------------

# The fields of Zenodo's deposit that are used here, with the words that it allows for them.
ZENODO = {
    "type": "object", "additionalProperties": False,
    "required": ["title", "upload_type", "description", "creators", "access_right", "license", "version"],
    "properties": {
        "title": {"type": "string", "minLength": 3}, "description": {"type": "string", "minLength": 3}, "version": {"type": "string"},
        "upload_type": {"enum": ["publication", "poster", "presentation", "dataset", "image", "video", "software", "lesson", "physicalobject", "other"]},
        "access_right": {"enum": ["open", "embargoed", "restricted", "closed"]},
        "license": {"type": "string"}, "language": {"type": "string", "pattern": "^[a-z]{3}$"},
        "keywords": {"type": "array", "items": {"type": "string"}},
        "creators": {"type": "array", "minItems": 1, "items": {
            "type": "object", "required": ["name"], "additionalProperties": False,
            "properties": {"name": {"type": "string"}, "affiliation": {"type": "string"}, "orcid": {"type": "string", "pattern": r"^\d{4}-\d{4}-\d{4}-\d{3}[\dX]$"}},
        }},
        "related_identifiers": {"type": "array", "items": {
            "type": "object", "required": ["identifier", "relation"], "additionalProperties": False,
            "properties": {
                "identifier": {"type": "string"}, "scheme": {"enum": ["arxiv", "doi", "url"]}, "resource_type": {"type": "string"},
                "relation": {"enum": ["cites", "isCitedBy", "isDerivedFrom", "isSupplementTo", "references", "isPartOf", "isDocumentedBy", "documents"]},
            },
        }},
    },
}  # fmt: skip


def test_the_metadata_for_zenodo_are_valid_and_in_line_with_the_citation_and_the_package():
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    jsonschema.validate(zenodo, ZENODO)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert zenodo["title"] == citation["title"] and zenodo["upload_type"] == citation["type"] == "software"
    assert zenodo["version"] == str(citation["version"]) == PROJECT["version"]
    assert [one["name"] for one in zenodo["creators"]] == [one["name"] for one in citation["authors"]] == [one["name"] for one in PROJECT["authors"]]
    cited = [one["value"] for work in citation["references"] for one in work["identifiers"]]
    assert [one["identifier"] for one in zenodo["related_identifiers"]] == cited
    assert zenodo["license"] == citation["license"] == (ROOT / "LICENSE").read_text(encoding="utf-8").split()[0]
    assert zenodo["keywords"] == PROJECT["keywords"]
