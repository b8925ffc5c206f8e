"""Hook of mkdocs.yml: links from pages to files of the repository lead to the hosted repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

_LINK = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Replace links to files outside docs/; one to a missing file fails the build."""
    root = Path(config["config_file_path"]).parent
    docs = Path(config["docs_dir"])

    def hosted(match: re.Match[str]) -> str:
        target = (Path(page.file.abs_src_path).parent / match[1]).resolve()
        if target.is_relative_to(docs):
            return match[0]
        if not target.exists():
            raise PluginError(f"{page.file.src_uri}: no file {match[1]}")
        return f"]({config['repo_url']}/blob/main/{target.relative_to(root).as_posix()}"

    return _LINK.sub(hosted, markdown)
