"""What each check of the self-check makes of what it sees: made-up machines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nestbox.ctl.checks import (
    card,
    certificate,
    clock,
    descriptors,
    disk,
    haproxy,
    host,
    memory,
    services,
    updates,
)
from nestbox.ctl.checks.finding import Finding

NOW = datetime(2026, 6, 1, tzinfo=UTC)
GIB = 1024**3


def states(found: list[Finding]) -> list[str]:
    """Their states; each that is not ok names a cure."""
    assert all(bool(one.cure) == (one.state != "ok") and one.what for one in found), found
    return [one.state for one in found]


@pytest.mark.parametrize(
    ("life", "left", "state"),
    [
        (90, 60, "ok"),
        (90, 15, "ok"),
        (90, 13, "warning"),
        (90, 2, "fault"),
        (90, 0, "fault"),
        (90, -3, "fault"),
        (6, 2, "ok"),  # short certificates are not old at two days
        (6, 1, "warning"),
        (6, 0.2, "fault"),
    ],
)
def test_certificate(life: float, left: float, state: str) -> None:
    end = NOW + timedelta(days=left)
    assert states([certificate.judge(end - timedelta(days=life), end, NOW)]) == [state]


def test_certificate_of_the_future() -> None:
    assert states([certificate.judge(NOW + timedelta(days=1), NOW + timedelta(days=9), NOW)]) == ["fault"]


@pytest.mark.parametrize(
    ("free", "size", "inodes", "state"),
    [
        (20 * GIB, 64 * GIB, 10**6, "ok"),
        (20 * GIB, 1000 * GIB, 10**6, "ok"),  # two in a hundred, and still much
        (3 * GIB, 64 * GIB, 10**6, "warning"),
        (GIB // 2, 4 * GIB, 10**6, "warning"),  # less than uploads leave alone
        (GIB // 8, 64 * GIB, 10**6, "fault"),
        (20 * GIB, 64 * GIB, 12, "fault"),
    ],
)
def test_disk(free: int, size: int, inodes: int, state: str) -> None:
    assert states([disk.judge(free, size, inodes, 10**7, GIB)]) == [state]


def test_a_file_system_that_counts_no_inodes_is_fine() -> None:
    assert states([disk.judge(20 * GIB, 64 * GIB, 0, 0, GIB)]) == ["ok"]


SIZE = {"size": str(32 * GIB // 512)}


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({"type": "SD", **SIZE, "lifetime_write_kbytes": str(40 * GIB // 1024), "errors_count": "0"}, "ok"),
        ({"type": "SD", **SIZE, "lifetime_write_kbytes": str(400 * 32 * GIB // 1024)}, "warning"),
        ({**SIZE, "lifetime_write_kbytes": str(400 * 32 * GIB // 1024)}, "ok"),  # an SSD
        ({"type": "SD", **SIZE, "lifetime_write_kbytes": "1", "errors_count": "2"}, "fault"),
        ({"type": "MMC", "life_time": "0x01 0x02", "pre_eol_info": "0x01"}, "ok"),
        ({"type": "MMC", "life_time": "0x02 0x09", "pre_eol_info": "0x01"}, "warning"),
        ({"type": "MMC", "life_time": "0x01 0x01", "pre_eol_info": "0x02"}, "warning"),
        ({"type": "MMC", "life_time": "0x0b 0x01", "pre_eol_info": "0x01"}, "fault"),
        ({"type": "MMC", "life_time": "0x01 0x01", "pre_eol_info": "0x03"}, "fault"),
        ({}, "warning"),
    ],
)
def test_card(said: dict[str, str], state: str) -> None:
    assert states([card.judge("mmcblk0", said)]) == [state]


def unit(name: str, limit: int, reload: str = "no") -> dict[str, str]:
    return {"Id": name, "MemoryMax": str(limit), "NeedDaemonReload": reload}


def test_memory() -> None:
    units = [unit("nestbox@1.service", 512 * 1024**2), unit("haproxy.service", 100_000_001)]
    good = {"nestbox@1.service": str(512 * 1024**2), "haproxy.service": "99999744"}
    assert states(memory.judge(units, True, good, "")) == ["ok"]
    assert states(memory.judge(units, True, {**good, "nestbox@1.service": "max"}, "")) == ["fault"]
    assert states(memory.judge(units, True, {"nestbox@1.service": "", "haproxy.service": "5"}, "")) == ["fault"] * 2
    assert states(memory.judge([unit("haproxy.service", 100_000_001, "yes")], True, good, "")) == ["warning"]
    for container, cure in (("", "cmdline.txt"), ("docker", "container (docker)")):
        found = memory.judge(units, False, {}, container)
        assert states(found) == ["warning"] and cure in found[0].cure


def test_clock() -> None:
    assert states([clock.judge("yes", "docker")]) == ["ok"]
    assert states([clock.judge("no", "")]) == ["warning"]
    assert states([clock.judge("", "")]) == ["warning"]
    assert "host" in clock.judge("no", "docker").cure


APT = """Reading package lists...
Inst libc6 [2.39-0ubuntu8] (2.39-0ubuntu8.6 Ubuntu:24.04/noble-updates, Ubuntu:24.04/noble-security [arm64])
Inst tzdata [2024a] (2025b Ubuntu:24.04/noble-updates [all])
Conf libc6 (2.39-0ubuntu8.6 Ubuntu:24.04/noble-updates, Ubuntu:24.04/noble-security [arm64])
"""


def test_updates() -> None:
    assert states(updates.judge("", 0.5, False)) == ["ok"]
    assert states(updates.judge(APT.replace("noble-security", "x"), 0.5, False)) == ["ok"]
    found = updates.judge(APT, 0.5, True)
    assert states(found) == ["warning", "warning"]
    assert found[1].what == "2 updates wait, 1 of them for security (libc6)."
    assert states(updates.judge("", 30, False)) == states(updates.judge("", None, False)) == ["warning"]
    assert states(updates.judge(None, 1, False)) == ["warning"]


def test_services() -> None:
    running = {"haproxy.service": "active", "chrony.service": "active"}
    assert states(services.judge(running, [])) == ["ok"]
    found = services.judge({**running, "mariadb.service": "failed"}, ["mariadb.service", "snapd.service"])
    assert states(found) == ["fault", "warning"] and "journalctl -u mariadb.service" in found[0].cure
    assert states(services.judge(running, ["nestbox-backup.service"])) == ["fault"]


HEAD = "# pxname,svname,status,\n"


def test_haproxy() -> None:
    both = HEAD + "be_http,w1,UP,\nbe_http,w2,UP,\nbe_http,BACKEND,UP,\nbe_c2s,w1,DOWN,\n"
    assert states(haproxy.judge(both, 2)) == ["ok"]
    assert states(haproxy.judge(both, 3)) == ["fault"]
    one = HEAD + "be_http,w1,UP 1/2,\nbe_http,w2,DOWN (agent),\n"
    found = haproxy.judge(one, 2)
    assert states(found) == ["fault"] and "nestbox@2" in found[0].cure
    assert states(haproxy.judge(HEAD + "be_http,w1,DRAIN,\nbe_http,w2,MAINT,\n", 2)) == ["warning"] * 2
    assert states(haproxy.judge("<html>", 1)) == ["fault"]


def test_descriptors() -> None:
    wanted = {"haproxy.service": 4100, "nestbox@1.service": 2100}
    assert states(descriptors.judge(wanted, {"haproxy.service": 4500, "nestbox@1.service": 65536})) == ["ok"]
    assert states(descriptors.judge(wanted, {"haproxy.service": 1024, "nestbox@1.service": None})) == [
        "fault",
        "warning",
    ]
    assert descriptors.judge({}, {}) == []


def test_open_files_of_a_process() -> None:
    line = "Max open files            1024                 524288               files     \n"
    assert host.soft_limit("Limit   Soft Limit   Hard Limit   Units\n" + line) == 1024
    assert host.soft_limit(line.replace("1024 ", "unlimited ")) is None
    assert host.soft_limit("") is None
