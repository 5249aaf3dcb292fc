#!/usr/bin/env python3
"""compliance.py: writes the README's tables of specifications and app/doap.xml from what the modules declare.

Run it with the app's environment: .venv/bin/python scripts/compliance.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "app"))

from nestbox.compliance import MARKERS, declared, doap, markdown

found = declared()
(ROOT / "app" / "doap.xml").write_text(doap(found))
readme = ROOT / "README.md"
before, _, rest = readme.read_text().partition(MARKERS[0])
readme.write_text(before + MARKERS[0] + "\n" + markdown(found) + MARKERS[1] + rest.partition(MARKERS[1])[2])
