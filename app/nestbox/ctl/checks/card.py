"""How worn the SD card, eMMC or disk under / is, as far as it tells.

An eMMC says in tenths how much of its life is used (JEDEC 84-B51, EXT_CSD 268 and 269). An SD card says nothing; what
stands for it are the errors that ext4 met and how often the whole card was written.
"""

from __future__ import annotations

import os
from pathlib import Path

from nestbox.config import Config
from nestbox.ctl.checks import host
from nestbox.ctl.checks.finding import Finding, fault, fine, warning

__all__ = ["check", "judge"]

_NAME = "card"
_TIRED = 300  # times its size: the cells of a cheap card take about 500 to 1,000
_CURE = "Make a backup and write it to a new card; one marked 'high endurance', or an SSD, lasts longer."


async def check(config: Config) -> list[Finding]:
    """Nothing on what the roles did not build."""
    return [_look()] if host.appliance(config) else []


def _look() -> Finding:
    device = os.stat("/").st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not block.exists():
        where = f"in a container ({host.container()})" if host.container() else "on this file system"
        return warning(_NAME, f"What is under / cannot be seen {where}.", "Look on the machine itself.")
    part = block.resolve()
    disk = part.parent if (part / "partition").exists() else part
    return judge(disk.name, _read(disk, part))


def _read(disk: Path, part: Path) -> dict[str, str]:
    """What the kernel says of them, by the file's name."""
    ext4 = Path("/sys/fs/ext4") / part.name
    files = [
        *(disk / "device" / name for name in ("type", "life_time", "pre_eol_info")),
        *(ext4 / name for name in ("errors_count", "lifetime_write_kbytes")),
        disk / "size",
    ]
    said = {}
    for file in files:
        try:
            said[file.name] = file.read_text().strip()
        except OSError:
            continue
    return said


def judge(name: str, said: dict[str, str]) -> Finding:
    """``said`` holds sysfs files by name: sizes in sectors of 512 bytes and in KiB."""
    errors = int(said.get("errors_count", "0"))
    if errors:
        return fault(
            _NAME, f"The file system on {name} met {errors} errors.", f"{_CURE} Then check it with 'e2fsck -f'."
        )
    tenths = max((int(value, 16) for value in said.get("life_time", "0x0").split()), default=0)
    ending = int(said.get("pre_eol_info", "0x0"), 16)
    if tenths > 10 or ending >= 3:
        return fault(_NAME, f"{name} has used up its life.", _CURE)
    if tenths >= 9 or ending == 2:
        return warning(_NAME, f"{name} has used {tenths * 10} % of its life.", _CURE)
    if tenths:
        return fine(_NAME, f"{name} has used at most {tenths * 10} % of its life")
    size, written = int(said.get("size", "0")) * 512, int(said.get("lifetime_write_kbytes", "0")) * 1024
    if not size or not written:
        return warning(_NAME, f"{name} does not tell how worn it is.", "An SSD may: 'sudo smartctl -a' shows it.")
    times = written / size
    what = f"{name} was written {times:.1f} times over, without errors"
    if said.get("type") == "SD" and times > _TIRED:
        return warning(_NAME, f"{what}: it may fail soon.", _CURE)
    return fine(_NAME, what)
