"""Programs that run with the rights of their owner or group whoever starts them."""

from __future__ import annotations

from security.target import Figure, Target


def figures(target: Target) -> list[Figure]:
    suid, sgid = (
        tuple(target.run(f"find / -xdev -perm {mode} -type f").split()) for mode in ("-4000", "-2000 ! -perm -4000")
    )
    return [Figure("suid binaries", len(suid), suid), Figure("sgid binaries", len(sgid), sgid)]
