"""How `pytest -n 2` shares the tests out between its processes."""

import pytest
from xdist.scheduler import LoadScopeScheduling


class _Scheduling(LoadScopeScheduling):
    """A file's tests stay together, for its fixtures; those with whole servers do, as one fills half a machine."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "servers" if "/clients/" in file or "/live/" in file else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """See pytest-xdist."""
    return _Scheduling(config, log)
