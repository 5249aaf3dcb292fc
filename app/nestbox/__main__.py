"""``python -m nestbox --worker N``: run one worker of the IM server."""

from __future__ import annotations

import argparse
import asyncio
import sys

from nestbox import config as configuration
from nestbox import log
from nestbox.worker import StartError, run

try:
    from uvloop import new_event_loop
except ImportError:  # no wheel for this platform: slower, but the same
    new_event_loop = None


def main() -> int:
    """Parse the arguments, run the worker until it is told to stop; the exit status is 1 when it could not start."""
    parser = argparse.ArgumentParser(prog="nestbox", description="Run one worker of the Nestbox IM server.")
    parser.add_argument("--worker", type=int, default=1, help="number of this worker, from 1")
    parser.add_argument("--config", default=configuration.DEFAULT_PATH, help="configuration file (%(default)s)")
    arguments = parser.parse_args()
    try:
        config = configuration.load(arguments.config)
        if not 1 <= arguments.worker <= config.workers:
            raise configuration.ConfigError(
                f"{arguments.config} has {config.workers} workers, so --worker cannot be that."
            )
        log.set_up(config.log.level, arguments.worker)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(run(config, arguments.worker))
    except (configuration.ConfigError, StartError) as error:
        print(f"nestbox: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
