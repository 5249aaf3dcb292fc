"""playbooks/upgrade.yml while people chat: nothing acknowledged is lost, nobody's log-in is refused, a bad release goes back.

On one release, as it takes long and both read the same lines.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from clients import DOMAIN, Tcp
from conftest import converge, wait_for

pytest_plugins = ["appliance"]
testinfra_hosts = ["ansible://*-2404-*"]

ROOT = Path(__file__).parents[3]
UPGRADE = ROOT / "playbooks" / "upgrade.yml"
PEOPLE = [f"chatter{number}" for number in range(16)]
PASSWORD = "a-password-of-the-test"
UNWANTED = ("lost", "not acknowledged", "given twice", "logged in anew", "refused")
PAUSE = 0.5  # seconds between two messages of one person


class Chatter(Tcp):
    """A person who writes to another, and comes back by itself after a lost connection, as an app does."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.register_plugin("xep_0198")
        self.sent: set[str] = set()
        self.acked: set[str] = set()
        self.got: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.leaving = False
        self.add_filter("out_sync", self.going_out)
        self.add_event_handler("message", lambda message: self.got.update([message["body"]] if message["body"] else []))
        self.add_event_handler("stanza_acked", lambda stanza: self.acked.add(stanza["id"]))
        self.add_event_handler("disconnected", self.come_back)
        for event in ("session_start", "session_resumed", "failed_auth", "failed_all_auth"):
            self.add_event_handler(event, lambda _, event=event: self.events.update([event]))

    def going_out(self, stanza):
        """Behind the plugin's own filter: in the turn in which a connection breaks it takes none, and slixmpp drops them."""
        if stanza.name == "message" and self.plugin["xep_0198"].enabled_out:
            self.sent.add(stanza["id"])
        return stanza

    async def come_back(self, _) -> None:
        if not self.leaving:
            await asyncio.sleep(0.2)
            self.connect(self.address, self.port)

    async def __aexit__(self, *_) -> None:
        self.leaving = True
        await super().__aexit__()

    async def chat(self, peer: str) -> None:
        for number in itertools.count():
            if self.plugin["xep_0198"].enabled_out:
                text = f"{self.boundjid.user}-{number}"
                message = self.make_message(f"{peer}@{DOMAIN}", text, mtype="chat")
                message["id"] = text
                message.send()
            await asyncio.sleep(PAUSE)


@pytest.fixture(scope="module")
def chatters(host) -> None:
    """Their accounts."""
    for name in PEOPLE:
        host.run(f"nestboxctl user delete {name} --yes")
    host.check_output("printf %%s %s >/tmp/chatters.csv", "".join(f"{name},{PASSWORD}\n" for name in PEOPLE))
    host.check_output("nestboxctl user import /tmp/chatters.csv")


@asynccontextmanager
async def chatting(appliance) -> AsyncIterator[list[Chatter]]:
    """Everybody chats; at the end all that was sent has been acknowledged."""
    async with AsyncExitStack() as stack:
        people = [
            await stack.enter_async_context(Chatter(name, PASSWORD, appliance.address, appliance.ca, port))
            for name, port in zip(PEOPLE, [5222, 5223] * len(PEOPLE), strict=False)
        ]
        for person in people:
            person.send_presence()
        pairs = list(zip(people, people[1:] + people[:1], strict=True))
        talks = [asyncio.create_task(person.chat(peer.boundjid.user)) for person, peer in pairs]
        yield people
        for talk in talks:
            talk.cancel()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not all(
            person.sent <= person.acked and person.sent <= set(peer.got) for person, peer in pairs
        ):
            for person in people:
                if person.transport is not None:
                    person.plugin["xep_0198"].request_ack()
            await asyncio.sleep(0.2)


def verdict(people: list[Chatter]) -> dict[str, int]:
    """What became of what they sent; ``lost`` was acknowledged and has not come."""
    pairs = list(zip(people, people[1:] + people[:1], strict=True))
    events = sum((person.events for person in people), Counter())
    return {
        "acknowledged": sum(len(person.acked & person.sent) for person in people),
        "lost": sum(len(person.acked & person.sent - set(peer.got)) for person, peer in pairs),
        "not acknowledged": sum(len(person.sent - person.acked) for person in people),
        "given twice": sum(count - 1 for person in people for count in person.got.values()),
        "resumed": events["session_resumed"],
        "logged in anew": events["session_start"] - len(people),
        "refused": events["failed_auth"] + events["failed_all_auth"],
    }


async def under_load(appliance, **variables) -> tuple[object, dict[str, int]]:
    """Run upgrade.yml meanwhile; what it said, and the verdict."""
    async with chatting(appliance) as people:
        begin = time.monotonic()
        done = await asyncio.to_thread(converge, appliance.host, UPGRADE, **variables)
        seconds = time.monotonic() - begin
    found = verdict(people)
    print(f"upgrade.yml took {seconds:.0f} s: {json.dumps(found)}")
    return done, found


def another_release(path: Path, more: str = "") -> Path:
    """A copy of the server's sources that is another release; ``more`` is put at the end of its worker.py."""
    shutil.copytree(ROOT / "app", path, ignore=shutil.ignore_patterns("tests", "web", "__pycache__", "*.egg-info"))
    with (path / "nestbox" / "worker.py").open("a") as file:
        file.write(f"\n# {path}\n{more}")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """The controller's wheels without its archives, which other runs go on to use."""
    path = tmp_path_factory.mktemp("cache")
    shutil.copytree(
        ROOT / ".cache" / "nestbox" / "wheels", path / "wheels", ignore=shutil.ignore_patterns("*.tar", "*.lock")
    )
    return path


def test_everybody_chats_on_while_all_workers_are_upgraded(host, appliance, chatters, cache, tmp_path):
    changes = {"im_server_sources": str(another_release(tmp_path / "app")), "im_server_cache": str(cache)}
    before = host.check_output("readlink /opt/nestbox/current")
    done, found = asyncio.run(under_load(appliance, **changes))
    assert done.returncode == 0, done.stdout[-3000:]
    assert host.check_output("readlink /opt/nestbox/current") != before
    assert found["acknowledged"] > 100
    # Every session was on the first or the second worker, and so moved at least once.
    assert found["resumed"] >= len(PEOPLE)
    assert not any(found[name] for name in UNWANTED), found
    again = converge(host, UPGRADE, **changes)
    assert again.returncode == 0 and " changed=0 " in again.stdout, again.stdout[-3000:]


def test_a_release_that_does_not_start_goes_back_by_itself(host, appliance, chatters, cache, tmp_path):
    broken = "async def run(config, worker):\n    raise StartError('This release is broken on purpose.')\n"
    before = host.check_output("readlink /opt/nestbox/current")
    changes = {"im_server_sources": str(another_release(tmp_path / "app", broken)), "im_server_cache": str(cache)}
    done, found = asyncio.run(under_load(appliance, **changes))
    said = " ".join(done.stdout.split())
    assert done.returncode != 0 and "Worker 1 did not come up on release" in said, said[-3000:]
    assert "is back and serves everybody" in said and "This release is broken on purpose." in said
    assert host.check_output("readlink /opt/nestbox/current") == before
    assert not any(found[name] for name in UNWANTED), found
    wait_for(appliance.healthy, 30, "a good self-check")


def test_a_dry_run_says_what_would_be_done_and_does_nothing(host, cache, tmp_path):
    before = host.check_output("readlink /opt/nestbox/current; ls /opt/nestbox/releases")
    changes = {"im_server_sources": str(another_release(tmp_path / "app")), "im_server_cache": str(cache)}
    done = converge(host, UPGRADE, dry=True, **changes)
    assert done.returncode == 0 and "would be installed, and the workers restarted" in done.stdout, done.stdout[-3000:]
    assert host.check_output("readlink /opt/nestbox/current; ls /opt/nestbox/releases") == before
