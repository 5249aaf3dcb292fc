"""How many users does this machine hold? Sessions and traffic grow step by step until the first limit is reached.

Half of the sessions come over TLS on 5223, half over WebSocket on 443, all from this one process. In each step more log
in, then pairs chat for some seconds; when all sessions that are allowed are there, the messages grow instead. The test
accounts (capacity-test-...) are made over SSH and erased at the end, whatever happens. To let an appliance of your own
take so many connections from one address, put that address into nestbox_trusted_addresses first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import resource
import signal
import sys
import time
from pathlib import Path

import uvloop
from appliance import Accounts, Appliance, Unreachable, find, samples
from capacity_report import write
from chat import steady
from load import Client
from ramp import MAX_MINUTES, MAX_SESSIONS, Bounds, Step, machine_figures, plan, reached
from rich.progress import BarColumn, Progress, TextColumn

DEFAULT = Bounds()
LOGIN_SECONDS = 20
SPARE = 50  # connections that are left for others


async def log_in(appliance: Appliance, name: str, password: str, websocket: bool) -> Client:
    """One session, online. Raises OSError, of which TimeoutError is one."""
    make = lambda: Client(name, appliance.domain, websocket=websocket, proxy=False)
    port = appliance.https_port if websocket else appliance.tls_port
    async with asyncio.timeout(LOGIN_SECONDS):
        loop = asyncio.get_running_loop()
        _, session = await loop.create_connection(
            make, appliance.host, port, ssl=appliance.tls, server_hostname=appliance.domain
        )
        try:
            if websocket:
                await session.upgrade()
            await session.authenticate(password)
            await session.start()
        except BaseException:
            session.close()
            raise
    return session


class Run:
    """One ramp against one appliance; ``steps`` is what it found, ``end`` why it ended."""

    def __init__(self, appliance: Appliance, bounds: Bounds, arguments: argparse.Namespace) -> None:
        self.appliance, self.bounds, self.arguments = appliance, bounds, arguments
        self.accounts = Accounts(appliance)
        self.sessions: list[Client] = []
        self.steps: list[Step] = []
        self.end = "it was stopped by hand"
        self.began = time.monotonic()

    async def ramp(self, progress: Progress) -> None:
        """Step after step until a limit is reached."""
        bar = progress.add_task("making accounts", total=self.bounds.sessions)
        async with samples(self.appliance) as taken:
            for number, (count, rate) in enumerate(
                plan(self.arguments.step, self.arguments.per_minute, self.bounds.sessions), 1
            ):
                if time.monotonic() - self.began > self.bounds.minutes * 60:
                    self.end = f"its {self.bounds.minutes:g} minutes were over"
                    return
                step = Step(count, rate)
                progress.update(bar, description=f"step {number}: {count} sessions log in")
                await self._more_sessions(step)
                progress.update(
                    bar, completed=len(self.sessions), description=f"step {number}: {rate:.0f} messages a second"
                )
                await self._chat(step, taken)
                self.steps.append(step)
                progress.console.print(
                    f"{step.sessions:6} sessions {step.rate:6.0f} messages/s   p50 {step.p50_ms:.1f} ms, p99 "
                    f"{step.p99_ms:.1f} ms   CPU {step.cpu_percent:.0f} %, memory left {step.available_percent:.0f} %, "
                    f"generator {step.generator_percent:.0f} % of a core",
                    highlight=False,
                    soft_wrap=True,
                )
                if end := reached(step, self.bounds):
                    self.end = end
                    return

    async def _more_sessions(self, step: Step) -> None:
        """Log in those that are missing, at a steady pace."""
        step.new = step.sessions - len(self.sessions)
        if step.new <= 0:
            return
        names = await asyncio.to_thread(self.accounts.add, step.new)
        times: list[float] = []

        async def one(number: int, name: str) -> None:
            await asyncio.sleep(number / self.arguments.logins)
            begin = time.monotonic()
            try:
                session = await log_in(self.appliance, name, self.accounts.password, websocket=number % 2 == 1)
            except OSError as error:
                step.failed += 1
                step.why = step.why or str(error)[:120] or f"nothing came for {LOGIN_SECONDS} s"
                return
            times.append(time.monotonic() - begin)
            self.sessions.append(session)

        await asyncio.gather(*(one(number, name) for number, name in enumerate(names)))
        step.login_p99_ms = sorted(times)[len(times) * 99 // 100] * 1e3 if times else 0.0

    async def _chat(self, step: Step, taken: list[dict]) -> None:
        """Let pairs chat, after a moment of quiet, and look at latency and machine."""
        await asyncio.sleep(2)
        step.dropped = sum(session.gone for session in self.sessions)
        online = [session for session in self.sessions if not session.gone]
        if len(self.steps) % 2:
            online.reverse()  # so that everybody says something
        if len(online) < 2:
            return
        gc.collect()
        begin, cpu, first = time.monotonic(), time.process_time(), len(taken) - 1
        found = await steady(online, step.rate, self.arguments.seconds)
        step.generator_percent = 100 * (time.process_time() - cpu) / (time.monotonic() - begin)
        step.sent, step.lost = found["sent"], found["lost"]
        step.p50_ms, step.p99_ms = found["p50"], found["p99"]
        during = taken[first:]
        if len(during) < 2:
            raise Unreachable(f"{self.appliance.name} gave no figures of itself during a step: is SSH still open?")
        machine_figures(step, during, self.appliance.shares_this_machine)

    def leave(self) -> None:
        """Close the sessions and erase the accounts; a second Ctrl-C does not stop that."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for session in self.sessions:
            session.close()
        print(f"Erasing the {len(self.accounts.names)} test accounts", flush=True)
        for wait in (10, 30, 60, 0):
            try:
                self.accounts.delete_all()
                return
            except Unreachable as error:
                print(f"capacity: {error}", file=sys.stderr)
                time.sleep(wait)
        raise SystemExit("capacity: the test accounts are still there: the next run erases them first")


async def ramp_up(run: Run) -> None:
    """The ramp under a progress bar, until a limit is reached or somebody ends it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asyncio.current_task().cancel)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns) as progress, contextlib.suppress(asyncio.CancelledError):
        await run.ramp(progress)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("host", nargs="?", default="", help="a host of the inventory, or an address; the demo when there is none")
    add("--inventory", default="inventory/mine", help="where HOST is looked up")
    add("--ssh-option", action="append", default=[], metavar="OPTION", help="for ssh, such as -luser or -p2222")
    add("--ca-file", default="", help="who signed the certificate, if it is neither the appliance's own CA nor public")
    add("--max-sessions", type=int, default=MAX_SESSIONS)
    add("--max-minutes", type=float, default=MAX_MINUTES)
    add("--step", type=int, default=250, help="sessions more in each step")
    add("--per-minute", type=float, default=6, help="messages that each session sends per minute")
    add("--seconds", type=float, default=10, help="length of the chat in each step")
    add("--logins", type=float, default=40, help="log-ins per second; HAProxy takes 50 of one address")
    add("--p99", type=float, default=DEFAULT.p99_ms, help="stop above this latency, in milliseconds")
    add(
        "--memory", type=float, default=DEFAULT.memory_percent, help="stop when less of the memory is left, in per cent"
    )
    add("--cpu", type=float, default=DEFAULT.cpu_percent, help="stop when its cores are busier, in per cent")
    add("--errors", type=float, default=DEFAULT.error_percent, help="stop when more fails, in per cent")
    add("--out", default="build/capacity", help="the report, without .png and .html")
    arguments = parser.parse_args()
    if not (0 < arguments.max_sessions <= MAX_SESSIONS and 0 < arguments.max_minutes <= MAX_MINUTES):
        parser.error(f"at most {MAX_SESSIONS} sessions and {MAX_MINUTES} minutes")
    if arguments.step < 2 or min(arguments.per_minute, arguments.seconds, arguments.logins) <= 0:
        parser.error("a step has two sessions at least, and the rest is more than 0")
    return arguments


def limits(appliance: Appliance, arguments: argparse.Namespace) -> tuple[Bounds, str]:
    """The bounds of this run, and what bounds the number of sessions."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = [
        (arguments.max_sessions, "--max-sessions"),
        (appliance.max_connections - SPARE, f"nestbox_max_connections is {appliance.max_connections} there"),
        (hard - 200, f"ulimit -n is {hard} here"),
    ]
    sessions, why = min(most)
    bounds = Bounds(arguments.p99, arguments.memory, arguments.cpu, arguments.errors, sessions, arguments.max_minutes)
    return bounds, why


def main() -> None:
    """Find the appliance, ramp up, write the report; the accounts go in any case."""
    arguments = read_arguments()
    appliance = find(arguments.host, arguments.inventory, arguments.ssh_option)
    appliance.look(arguments.ca_file)
    bounds, why = limits(appliance, arguments)
    run = Run(appliance, bounds, arguments)
    print(
        f"Up to {bounds.sessions} sessions ({why}) and {bounds.minutes:g} minutes on {appliance.name}, {appliance.domain}"
    )
    run.accounts.delete_all()  # of a run that was killed
    try:
        uvloop.run(ramp_up(run))
    finally:
        run.leave()
    if not run.steps:
        raise SystemExit("capacity: nothing was measured")
    held = [step for step in run.steps if not reached(step, bounds)]
    files = write(Path(arguments.out), run.steps, held, run.end, why, bounds, appliance)
    print(f"It ended since {run.end}.\nThe report: {', '.join(map(str, files))}")


if __name__ == "__main__":
    try:
        main()
    except Unreachable as error:
        sys.exit(f"capacity: {error}")
