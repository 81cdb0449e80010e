"""Puts together what is published: `site`, the book of this checkout and of the last tag side by side, or `release`, the files of a version.

`site` writes `_build/site`: `latest` is built from here, `stable` from the last tag in a checkout of its own, each by `make html`, and the first page leads to
`stable`. Without a tag there is `latest` alone. The notebooks that Colab opens go into `_build/site-editions`, a branch of the repository.
`release` gathers into `_build/release` what the other commands have made, and writes a digest of each file beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import zip_site

ROOT = Path(__file__).resolve().parents[1]
FIRST = '<!doctype html>\n<meta charset="utf-8"><title>bisam</title>\n<meta http-equiv="refresh" content="0; url={to}/index.html">\n<a href="{to}/index.html">bisam</a>\n'


class PublishError(RuntimeError):
    """Something that is to be published is not there."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("what", choices=("site", "release"))
    given = arguments.parse_args()
    try:
        made = site(ROOT) if given.what == "site" else release(ROOT)
    except PublishError as error:
        print(f"==> failed: {error}", file=sys.stderr)
        return 1
    print(f"==> {given.what}: {made}")
    return 0


# -- the site ------------------------------------------------------------------------------------------------------------


def site(root: Path) -> Path:
    """Both versions of the book beside each other."""
    out, branch, tag = root / "_build" / "site", root / "_build" / "site-editions", last_tag(root)
    for folder in (out, branch):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    built(root, "latest" if tag else "", out, branch)
    if tag:
        other = root / "_build" / "stable"
        git(root, "worktree", "remove", "--force", str(other), may_fail=True)
        git(root, "worktree", "add", "--quiet", "--force", "--detach", str(other), tag)
        for name in (".venv", ".venv-html"):  # what is installed here serves there, where the versions agree
            if (root / name).exists():
                (other / name).symlink_to((root / name).resolve())
        built(other, "stable", out, branch)
        git(root, "worktree", "remove", "--force", str(other))
    (out / "index.html").write_text(FIRST.format(to="stable" if tag else "latest"), encoding="utf-8")
    (out / ".nojekyll").touch()  # folders that begin with an underscore are part of the book
    return out


def last_tag(root: Path) -> str:
    return git(root, "describe", "--tags", "--abbrev=0", "--match", "v*", may_fail=True)


def built(root: Path, version: str, out: Path, branch: Path) -> None:
    """Builds the book of a checkout, and copies it under the name of its version; a book that stands alone names none."""
    ended = subprocess.run(["make", "html"], cwd=root, env={**os.environ, "BISAM_PUBLISHED": version})
    if ended.returncode:
        raise PublishError(f"make html fails in {root}")
    shutil.copytree(root / "_build" / "html", out / (version or "latest"))
    editions = root / "_build" / "html" / "editions"
    if editions.is_dir():  # an old tag may have none
        shutil.copytree(editions, branch / (version or "latest"))


def git(root: Path, *words: str, may_fail: bool = False) -> str:
    ended = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    if ended.returncode and not may_fail:
        raise PublishError(f"git {words[0]} fails: {ended.stderr.strip()}")
    return "" if ended.returncode else ended.stdout.strip()


# -- a release -----------------------------------------------------------------------------------------------------------


def release(root: Path) -> Path:
    """The files of a release, each with its version in its name, and their digests."""
    version, made, out = zip_site.version(), root / "_build", root / "_build" / "release"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    names = {
        made / f"bisam-{version}-site.zip": f"bisam-{version}-site.zip",
        made / "pdf" / "bisam.pdf": f"bisam-{version}.pdf",
        made / "pdf" / "bisam-handout.pdf": f"bisam-{version}-handout.pdf",
        made / "dist" / f"bisam-{version}.tar.gz": f"bisam-{version}.tar.gz",
        made / "dist" / f"bisam-{version}-py3-none-any.whl": f"bisam-{version}-py3-none-any.whl",
    }
    for path, name in names.items():
        if not path.is_file():
            raise PublishError(f"{path} is not there: `make release` makes it")
        shutil.copy(path, out / name)
    for edition in ("student", "solutions"):
        folder = made / "html" / "editions" / edition
        if not any(folder.glob("*.ipynb")):
            raise PublishError(f"there are no notebooks in {folder}: `make html` writes them")
        zip_site.pack(folder, out / f"bisam-{version}-notebooks-{edition}.zip", f"bisam-{version}-notebooks-{edition}")
    digests = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(out.iterdir())]
    (out / "SHA256SUMS").write_text("".join(digests), encoding="utf-8")
    return out


if __name__ == "__main__":
    sys.exit(main())
