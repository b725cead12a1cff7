"""Links from pages to files outside docs/: relative ones, as GitHub wants them, work on the site too.

MkDocs loads this file (`hooks` in mkdocs.yml). A file that a page links to, such as ../../configs/msddf.py, becomes a
page of the site below repository/: Markdown as it is, notebooks as their cells, other text as code, images as images.
"""

import json
import pathlib
import posixpath
import re

from mkdocs.structure.files import File, InclusionLevel

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = "repository"
IMAGES = (".png", ".jpg", ".svg")
_LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".json": "json", ".bib": "bibtex"}
# Fenced code; a link or image, whose text may hold code; code in a line. Only a link has the groups.
_CODE_OR_LINK = re.compile(
    r"^ *(?P<fence>`{3,}).*?^ *(?P=fence)|(\[(?:[^\[\]`]|`[^`\n]*`)*\]\()([^)\s#]*)((?:#[^)\s]*)?\))|`[^`\n]+`",
    re.MULTILINE | re.DOTALL,
)


def on_files(files, config):
    """Add every file outside docs/ that a page links to, and what these link to."""
    waiting = [(f"docs/{page.src_uri}", page.content_string) for page in files.documentation_pages()]
    known = set()
    while waiting:
        place, text = waiting.pop()
        for target in sorted(_outside(place, text) - known):
            known.add(target)
            source = ROOT / target
            if source.suffix in IMAGES:
                files.append(File.generated(config, f"{FOLDER}/{target}", abs_src_path=str(source)))
                continue
            text = _as_markdown(source)
            if source.suffix == ".md":
                waiting.append((target, text))
            head = f"---\ntitle: {target}\n---\n" if source.suffix == ".md" else f"# {target}\n\n"
            inclusion = InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, _page(target), content=head + text, inclusion=inclusion))
    return files


def on_page_markdown(markdown, *, page, config, files):
    """The page with its links to files outside docs/ turned to their pages."""
    uri = page.file.src_uri
    place = uri.removeprefix(f"{FOLDER}/") if uri.startswith(f"{FOLDER}/") else f"docs/{uri}"

    def turn(match):
        if not match[3] or not (target := _resolve(place, match[3])):
            return match[0]
        inside = target.removeprefix("docs/") if target.startswith("docs/") else _page(target)
        return match[2] + posixpath.relpath(inside, posixpath.dirname(uri) or ".") + match[4]

    return _CODE_OR_LINK.sub(turn, markdown)


def _as_markdown(source):
    """The text of a page that shows a file."""
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".md":
        return text
    if source.suffix == ".ipynb":
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
        return "\n\n".join(text if kind == "markdown" else f"````python\n{text}\n````" for kind, text in cells)
    return f"````{_LANGUAGES.get(source.suffix, 'text')}\n{text}\n````\n"


def _outside(place, text):
    """Files outside docs/ that a page links to, as paths from the repository's root."""
    found = {_resolve(place, match[3]) for match in _CODE_OR_LINK.finditer(text) if match[3]}
    return {target for target in found if target and not target.startswith("docs/")}


def _resolve(place, link):
    """The path from the repository's root of what a page links to, or None where it is no file of the repository."""
    if ":" in link or link.startswith("/"):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
    return target if not target.startswith("..") and (ROOT / target).is_file() else None


def _page(target):
    """Where a file outside docs/ stands on the site."""
    return f"{FOLDER}/{target}" if target.endswith((".md", *IMAGES)) else f"{FOLDER}/{target}.md"
