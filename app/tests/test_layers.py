"""Imports point down: wire < protocol < core < modules, with net and http on top (CONTRIBUTING.md)."""

import ast
from pathlib import Path

import nestbox

ROOT = Path(nestbox.__file__).parent
BELOW_ALL = {"nestbox.core.jid", "nestbox.core.errors", "nestbox.core.ids", "nestbox.log"}
MAY_IMPORT = {
    "wire": {"wire"},
    "protocol": {"wire", "protocol"},
    "bus": {"bus"},
    "store": {"store"},
    "core": {"wire", "protocol", "bus", "store", "core", "config"},
    "modules": {"wire", "protocol", "store", "core", "modules", "bus", "config"},
    "net": {"wire", "protocol", "core", "net", "config", "store"},
    "http": {"wire", "protocol", "core", "net", "http", "config", "store", "modules", "bus"},
}


def imports(path):
    """Every nestbox module that a file imports when it runs (what stands under TYPE_CHECKING is for readers)."""
    tree = ast.parse(path.read_text())
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nestbox"):
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                yield dotted if (ROOT.parent / (dotted.replace(".", "/") + ".py")).exists() else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("nestbox"))


def test_imports_point_down():
    wrong = []
    for layer, allowed in MAY_IMPORT.items():
        files = list((ROOT / layer).rglob("*.py"))
        assert files, f"{layer} has no files: is this test up to date?"
        for path in files:
            for name in imports(path):
                parts = name.split(".")
                if name not in BELOW_ALL and len(parts) > 1 and parts[1] not in allowed:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_every_part_has_its_layer():
    assert {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()} == {*MAY_IMPORT, "ctl"}
