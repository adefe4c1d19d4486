"""The section of results.md that holds one kind of CPU: what it is, what was compared, and the printed table."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from datetime import date
from pathlib import Path

import dtdfast as dtd
from machine import threads

RESULTS = Path(__file__).with_name("results.md")
TOOLS = ("torch", "zennit", "captum", "autolrp")


def cpu() -> str:
    """What names the kind of CPU, for example "AMD EPYC (family 26, model 2), avx512bf16"."""
    facts = dict(re.findall(r"^(.+?)\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="ascii"), re.MULTILINE))
    kind = " ".join(facts.get("model name", platform.machine()).replace("(R)", "").split("@")[0].split())
    isa = dtd.build_config()["instruction set"]
    number = f" (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else ""
    return f"{kind}{number}, {isa}"


def section(command: str, lines: list[str]) -> str:
    """Markdown: a heading, the date, versions and the command, then the table as printed."""
    versions = []
    for tool in TOOLS:
        try:
            versions.append(f"{tool} {importlib.metadata.version(tool)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    compiler = dtd.build_config()["compiler"]
    day = f"{date.today():%d %B %Y}".lstrip("0")
    what = ", ".join([f"{threads()} cores", compiler, f"Python {platform.python_version()}", *versions])
    return "\n".join(
        [
            f"## {cpu()}",
            "",
            f"{day}: {what}.",
            f"`{command}` printed:",
            "",
            "```",
            *(line for line in lines if line),
            "```",
            "",
        ]
    )


def write(command: str, lines: list[str], file: Path = RESULTS) -> None:
    """Put the section into the file: in the place of the one with the same heading, else as the first."""
    new = section(command, lines)
    heading = new.splitlines()[0]
    text = file.read_text(encoding="utf-8")
    before, sep, after = text.partition(f"{heading}\n")
    if sep:
        end = re.search(r"^## ", after, re.MULTILINE)
        text = f"{before}{new}\n{after[end.start() :] if end else ''}"
    else:
        start = re.search(r"^## ", text, re.MULTILINE)
        at = start.start() if start else len(text)
        text = f"{text[:at]}{new}\n{text[at:]}"
    file.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
