#!/usr/bin/env python3
"""Fail when a test was skipped without one of the reasons below: skips.py TESTS.XML (written by pytest --junitxml)."""

import re
import sys
from xml.etree import ElementTree

ALLOWED = [  # pattern of the skip's message: what neither the test extra nor this repository brings
    r"the independent forward pass is PyTorch's",
    r"this CPU has no (bfloat16|matrix units)",
    r"SqueezeNet's weights are not in",
    r"no file system can be mounted here",
]

skipped = [
    (f"{case.get('classname')}.{case.get('name')}", skip.get("message", ""))
    for case in ElementTree.parse(sys.argv[1]).iter("testcase")
    for skip in case.iter("skipped")
]
unexpected = [
    (test, message) for test, message in skipped if not any(re.search(pattern, message) for pattern in ALLOWED)
]
print(f"{len(skipped)} skipped, {len(unexpected)} of them without an accepted reason")
for test, message in unexpected:
    print(f"  {test}: {message}")
sys.exit(bool(unexpected))
