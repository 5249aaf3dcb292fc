"""How `pytest -n 2 --dist loadgroup` shares the tests out between processes."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests stay together, for its fixtures; those with whole servers do, as one fills half a machine."""
    for item in items:
        whole = item.path.parent.name in ("clients", "live")
        item.add_marker(pytest.mark.xdist_group("servers" if whole else str(item.path)))
