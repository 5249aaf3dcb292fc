"""Whether the replica that the archive is read from follows."""

from __future__ import annotations

from nestbox.config import Config
from nestbox.ctl.checks.finding import Finding, fine, warning
from nestbox.store import StoreError, open_store

__all__ = ["check"]

_NAME = "replication"
_SECONDS = 3.0


async def check(config: Config) -> list[Finding]:
    """Nothing without a replica. One that lags is a warning: reads then go to the primary."""
    if config.database.replica_url is None:
        return []
    store = await open_store(config.database.url, replica_url=config.database.replica_url)
    try:
        if await store.replica.reaches(_SECONDS):
            return [fine(_NAME, "the replica has all that the primary has")]
        what = f"The replica did not catch up within {_SECONDS:.0f} seconds; the primary serves all reads."
    except StoreError as error:
        what = f"The replica cannot be asked ({error})."
    finally:
        await store.close()
    return [warning(_NAME, what, "Run SHOW REPLICA STATUS on it: Slave_IO_Running, Slave_SQL_Running, Last_Error.")]
