"""What mkdocs does beyond its own: files outside docs/ that a page links to become files of the
site, below files/.

On GitHub the same links lead to the files themselves.
"""

import pathlib
import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

DOCS = pathlib.Path(__file__).parents[1]
LINK = re.compile(r"(\]\(|src=\")(\.\.?/[^)\s#\"]*)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add every file outside docs/ that a page links to."""
    known = set()
    for page in [file for file in files if file.src_path.endswith(".md")]:
        for _, link in LINK.findall((DOCS / page.src_path).read_text(encoding="utf-8")):
            name = _outside(page.src_path, link)
            if name and name not in known and (DOCS.parent / name).is_file():
                known.add(name)
                path = str(DOCS.parent / name)
                files.append(File.generated(config, f"files/{name}", abs_src_path=path))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Let links that leave docs/ lead to those files."""

    def inside(found: re.Match[str]) -> str:
        name = _outside(page.file.src_path, found[2])
        here = posixpath.dirname(page.file.src_path)
        return found[1] + (posixpath.relpath(f"files/{name}", here or ".") if name else found[2])

    return LINK.sub(inside, markdown)


def _outside(page: str, link: str) -> str | None:
    """A link of a page as a path in the repository, if it leaves docs/."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    return path.removeprefix("../") if path.startswith("../") else None
