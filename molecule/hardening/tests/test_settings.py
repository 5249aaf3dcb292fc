"""Role hardening writes only the settings files that differ: in text, mode or owner, or as they are not there."""

from __future__ import annotations

from conftest import converge

CHANGES = {
    "/etc/fail2ban/jail.local": "echo '# by hand' >>%s",
    "/etc/usbguard/rules.conf": "chmod 0644 %s",
    "/etc/profile.d/nestbox.sh": "chown nobody %s",
    "/etc/modprobe.d/nestbox.conf": "rm %s",
}


def test_what_was_changed_by_hand_is_set_right_and_the_rest_left_alone(host):
    def state() -> str:
        return host.check_output("find %s %s %s %s -printf '%%p %%m %%u:%%g ' -exec sha1sum {} ';'", *CHANGES)

    before = state()
    for path, change in CHANGES.items():
        host.check_output(change, path)
    done = converge(host)
    assert done.returncode == 0, done.stdout[-3000:]
    assert state() == before
    written = [line for line in done.stdout.splitlines() if line.startswith("changed:") and "item=/" in line]
    assert len(written) == len(CHANGES), written
