"""Docstrings as the site reads them: numpydoc's references, which are reStructuredText, become a Markdown list."""

from __future__ import annotations

import re
from typing import Any

import griffe


class References(griffe.Extension):
    """`[1]_` becomes [1], and `.. [1]` an item."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = re.sub(r"\[(\d)\]_", r"[\1]", obj.docstring.value)
            obj.docstring.value = re.sub(r"^( *)\.\. \[(\d)\]", r"\1- [\2]", text, flags=re.MULTILINE)
