"""The refusals themselves are provoked in refusals.yml; here is what an operator sees, and that nothing was changed."""

from conftest import converge


def test_operator_sees_every_wrong_value_in_one_run(host) -> None:
    done = converge(host, nestbox_domain="localhost", nestbox_admins=["a b"], nestbox_workers=64)
    assert done.returncode != 0
    assert "which is no host name" in done.stdout
    assert "which XMPP does not allow" in done.stdout
    assert "nestbox_workers is 64: choose 2 to 8" in done.stdout
    assert "changed=0" in done.stdout
    assert "Traceback" not in done.stdout


def test_nothing_is_written(host) -> None:
    """Nothing is newer than PID 1 but what the tests themselves and the system's own services wrote."""
    ours = "! -path '/etc/model-*' ! -path /etc/ld.so.cache ! -path '/etc/ssh/*' ! -path /etc/machine-id"
    assert host.check_output(f"find /etc /opt /usr/local -xdev -newer /proc/1/cmdline -type f {ours}") == ""
