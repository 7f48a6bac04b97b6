"""Checks the built site: every link inside it leads to a page and an anchor that are there, every
picture is there, and no page loads anything from elsewhere.

    python scripts/docs_links.py build/site

Left out: links to other sites, whose pages nobody here keeps.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Elements that load what they name, with the attribute.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """What one page links to, loads, and can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "alternate"):
            self.loads.append(values.get("href", ""))
        elif tag in LOADED and LOADED[tag] in values:
            self.loads.append(values[LOADED[tag]])


def problems(site: Path) -> list[str]:
    """A line for each link that leads nowhere and each thing loaded from elsewhere."""
    # its links start at the site's root, which is not known when it is built
    paths = [p for p in sorted(site.rglob("*.html")) if p.name != "404.html"]
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in paths}
    found = []
    for path, page in pages.items():
        place = path.relative_to(site.resolve())
        for target in page.loads:
            if urlsplit(target).scheme in ("http", "https") or target.startswith("//"):
                found.append(f"{place}: loads {target}")
        for target in dict.fromkeys(page.links + page.loads):
            if reason := _broken(target, path, pages):
                found.append(f"{place}: {target}: {reason}")
    return found


def _broken(target: str, path: Path, pages: dict[Path, Page]) -> str | None:
    """Why a link of the page at `path` leads nowhere, or None."""
    parts = urlsplit(target)
    if parts.scheme or target.startswith("//"):
        return None
    there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if there.is_dir():
        there /= "index.html"
    if not there.exists():
        return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and there in pages and anchor not in pages[there].anchors:
        return "no such anchor"
    return None


def main(words: list[str]) -> int:
    found = problems(Path(words[0]))
    print("\n".join(found) or "every link leads somewhere", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
