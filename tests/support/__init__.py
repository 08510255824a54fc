"""What tests share: stand-ins, processes that are watched, a disk that fails. Not fixtures (conftest.py), nor tests."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
GOLDEN = REPOSITORY / "tests" / "golden"
SOURCES = sorted(p for package in ("cache", "stages", "pipeline") for p in (REPOSITORY / package).rglob("*.py"))
"""Every module of the three packages (test_structure.py compares them with what Python finds)."""
