"""The server runs, sandboxed for real; it was installed without a network; it comes back, goes back, and refuses nonsense."""

import json
import re

import pytest
import yaml
from conftest import assert_confined, assert_limited, converge, exposure, unit_properties, wait_for

WORKER = "nestbox@1.service"
CURRENT = "/opt/nestbox/current"


def pid(host) -> int:
    return int(unit_properties(host, WORKER)["MainPID"])


def healthy(host) -> bool:
    command = "curl -s -o /dev/null -w %{http_code} --unix-socket /run/nestbox/1/http.sock http://localhost/healthz"
    return host.run(command).stdout == "200"


def inside(host, command: str):
    """Run a command as the worker's account among the worker's files and processes."""
    return host.run(f"nsenter -t {pid(host)} -m -- setpriv --reuid=nestbox --regid=nestbox --clear-groups -- {command}")


@pytest.fixture(autouse=True)
def answering(host):
    wait_for(lambda: healthy(host), 60, "worker 1 answers /healthz")


def test_worker_runs_as_its_own_account_and_tells_when_it_is_ready(host):
    shown = unit_properties(host, WORKER)
    assert shown["Type"] == "notify" and shown["SubState"] == "running"
    assert host.check_output("stat -c %%U /proc/%s", str(pid(host))) == "nestbox"


@pytest.mark.parametrize("socket", ["http", "c2s", "c2s-tls"])
def test_sockets_are_for_the_group_only(host, socket):
    assert host.check_output("stat -c '%%F %%a %%U:%%G' /run/nestbox/1/%s.sock", socket) == "socket 660 nestbox:nestbox"
    assert host.check_output("stat -c %a /run/nestbox/1") == "750"


def test_no_port_is_open_beyond_loopback(host):
    assert host.check_output(f"ss -Hltnp | grep 'pid={pid(host)},' | awk '{{print $4}}'") == "127.0.0.1:9151"


@pytest.mark.parametrize("path", ["/etc/nestbox", "/usr/local", "/opt/nestbox/current/lib", "/home", "/root", "/boot"])
def test_worker_cannot_write(host, path):
    # As root, so that only the sandbox stands in the way.
    done = host.run(f"nsenter -t {pid(host)} -m -- touch {path}/intruder")
    assert done.rc != 0 and not host.file(f"{path}/intruder").exists


def test_worker_can_write_its_state(host):
    assert inside(host, "touch /var/lib/nestbox/probe").rc == 0
    host.run("rm /var/lib/nestbox/probe")


def test_worker_sees_no_other_process(host):
    seen = {int(name) for name in inside(host, "ls /proc").stdout.split() if name.isdigit()}
    assert seen and 1 not in seen  # no process but the one that looks


def test_worker_has_no_capability_and_a_system_call_filter(host):
    status = dict(re.findall(r"^(\w+):\s+(\S+)", host.file(f"/proc/{pid(host)}/status").content_string, re.MULTILINE))
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert_confined(host, WORKER, ["UNIX", "INET", "INET6"])


@pytest.mark.parametrize("unit", [WORKER, "nestbox-maintenance.service"])
def test_exposure_is_low(host, unit):
    assert exposure(host, unit) <= 1.0


def test_limits_are_the_variables(host):
    shown = unit_properties(host, WORKER)
    assert shown["MemoryMax"] == str(512 * 1024 * 1024)
    assert float(shown["CPUQuotaPerSecUSec"].removesuffix("s")) == 1.5
    assert shown["LimitNOFILE"] == "65536"
    assert_limited(host, WORKER)


def test_a_killed_worker_comes_back(host):
    before = pid(host)
    host.check_output(f"kill -9 {before}")
    wait_for(lambda: pid(host) not in (0, before) and healthy(host), 30, "a new worker")


def test_everything_starts_at_boot(host):
    assert host.service("nestbox.target").is_enabled and host.service("nestbox-maintenance.timer").is_enabled
    assert WORKER in unit_properties(host, "nestbox.target")["Wants"]


def test_maintenance_runs_in_its_sandbox(host):
    host.check_output("systemctl start nestbox-maintenance.service")
    assert unit_properties(host, "nestbox-maintenance.service")["Result"] == "success"


def test_an_account_can_be_made_and_is_told_to_the_worker(host):
    host.run("nestboxctl user delete ada --yes")
    host.check_output("echo correct-horse-7 | nestboxctl user add ada --password-stdin")
    assert "ada" in [account["username"] for account in json.loads(host.check_output("nestboxctl user list --json"))]
    assert host.check_output("stat -c %U /var/lib/nestbox/nestbox.db") == "nestbox"


def test_status_says_all_is_well(host):
    assert json.loads(host.check_output("nestboxctl status --json"))


def test_configuration_is_readable_by_the_server_only(host):
    file = host.file("/etc/nestbox/nestbox.yml")
    assert (file.user, file.group, file.mode) == ("root", "nestbox", 0o640)


def test_whom_no_limit_by_address_holds_for_is_told_to_the_server(host):
    limits = yaml.safe_load(host.file("/etc/nestbox/nestbox.yml").content_string)["limits"]
    assert limits["trusted_addresses"] == ["127.0.0.0/8", "::1", "10.0.0.0/8"]


def test_who_knows_no_scram_may_send_the_password_where_that_is_allowed(host):
    script = """
import socket
worker = socket.socket(socket.AF_UNIX)
worker.settimeout(10)
worker.connect("/run/nestbox/1/c2s-tls.sock")
worker.sendall(b"\\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x20\\0\\0\\0")  # PROXY header (version 2) of one who is no client
worker.sendall(b"<stream:stream to='nestbox.test' version='1.0' xmlns='jabber:client' "
               b"xmlns:stream='http://etherx.jabber.org/streams'>")
said = b""
while b"</stream:features>" not in said:
    said += worker.recv(4096)
print(said.decode())
"""
    assert "<mechanism>PLAIN</mechanism>" in host.check_output("python3 -c %s", script)


def test_a_configuration_that_the_server_refuses_never_lands(host):
    before = host.file("/etc/nestbox/nestbox.yml").content_string
    done = converge(host, im_server_domain="-no-domain-.test")
    assert done.returncode != 0 and "failed to validate" in done.stdout
    assert host.file("/etc/nestbox/nestbox.yml").content_string == before and healthy(host)


def test_a_configuration_with_which_the_server_does_not_start_is_taken_back(host):
    before = host.file("/etc/nestbox/nestbox.yml").content_string
    done = converge(host, im_server_tls_certificate="/etc/nestbox/none.pem", im_server_tls_key="/etc/nestbox/none.pem")
    said = " ".join(done.stdout.split())
    assert done.returncode != 0 and "Worker 1 did not come up on release" in said, said[-3000:]
    assert "with its configuration is back and serves everybody. Its last words:" in said and "none.pem" in said
    assert host.file("/etc/nestbox/nestbox.yml").content_string == before and healthy(host)
    assert converge(host).returncode == 0


def test_a_database_of_a_later_generation_is_named_with_the_cure_and_nothing_changes(host):
    def revision(new: str) -> str:
        script = (
            "import sqlite3, sys; c = sqlite3.connect('/var/lib/nestbox/nestbox.db'); n, = sys.argv[1:]\n"
            "print(c.execute('SELECT version_num FROM alembic_version').fetchone()[0])\n"
            "c.execute('UPDATE alembic_version SET version_num = ?', [n]); c.commit()"
        )
        return host.check_output("runuser -u nestbox -- python3 -c %s %s", script, new).strip()

    before = host.file("/etc/nestbox/nestbox.yml").content_string
    known = revision("9001")
    try:
        done = converge(host, im_server_name="Older")
        said = " ".join(done.stdout.split())
    finally:
        revision(known)
    assert done.returncode != 0 and "The workers run on as they were" in said, said[-3000:]
    assert "restore the backup that was made before it was installed" in said
    assert host.file("/etc/nestbox/nestbox.yml").content_string == before and healthy(host)


def test_a_controller_without_a_network_is_told_so_and_nothing_changes(host, tmp_path):
    done = converge(host, offline=True, im_server_cache=str(tmp_path))
    said = " ".join(done.stdout.split())
    assert done.returncode != 0 and "pip download failed on this machine (" in said, said
    assert "set PIP_INDEX_URL to your mirror" in said and "changed=0" in said and healthy(host)


def test_installed_without_a_network_and_what_is_surplus_goes(host):
    release = host.check_output(f"readlink {CURRENT}")
    old = [f"/opt/nestbox/releases/0.0.{number}-old" for number in range(4)]
    for number, path in enumerate(old):
        host.check_output(f"mkdir -p {path} && touch -d '2026-01-0{number + 1}' {path}")
    host.run("systemctl start nestbox@2.service --no-block")
    host.check_output(f"rm -r {release} && iptables -P OUTPUT DROP")
    try:
        done = converge(host)
    finally:
        host.check_output("iptables -P OUTPUT ACCEPT")
    assert done.returncode == 0, done.stdout[-3000:]
    assert host.check_output("ls /opt/nestbox/releases").split() == [
        "0.0.2-old",
        "0.0.3-old",
        release.rsplit("/", 1)[1],
    ]
    assert unit_properties(host, "nestbox@2.service")["ActiveState"] == "inactive"


def test_going_back_is_one_link_and_a_rolling_restart(host):
    release = host.check_output(f"readlink {CURRENT}")
    earlier = "/opt/nestbox/releases/earlier"
    try:
        host.check_output(f"cp -a {release} {earlier} && ln -sfn {earlier} {CURRENT}")
        assert host.check_output("nestbox-rolling-restart") == "worker 1 restarted"
        assert earlier in host.file(f"/proc/{pid(host)}/maps").content_string
        assert host.check_output("nestbox-rolling-restart") == ""
    finally:
        host.run(f"ln -sfn {release} {CURRENT} && nestbox-rolling-restart; rm -rf {earlier}")
    assert release in host.file(f"/proc/{pid(host)}/maps").content_string
