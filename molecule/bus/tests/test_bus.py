"""Role bus: the engine answers on its socket, only there and only to its group; it forgets nothing and comes back."""

import shlex

import pytest
from conftest import assert_confined, assert_limited, converge, exposure, unit_properties, wait_for

SOCKET = "/run/nestbox-bus/bus.sock"
PASSWORD = "/etc/nestbox/bus.password"


@pytest.fixture
def engine(release) -> str:
    """What speaks the protocol on this release."""
    return "valkey" if release >= "26" else "redis"


@pytest.fixture
def ask(host, engine):
    """Return a function that sends one command as a user (root by default) and returns the finished run."""

    def run(command: str, user: str = "root"):
        line = f"export REDISCLI_AUTH=$(cat {PASSWORD}) && {engine}-cli -e -s {SOCKET} {command}"
        return host.run("su %s -c %s", user, line)

    return run


def test_a_member_of_the_group_is_served_and_a_stranger_is_not(host, engine, ask):
    assert ask("ping", "member").stdout.strip() == "PONG"
    for line in (f"cat {PASSWORD}", f"cat /etc/{engine}/{engine}.conf", f"{engine}-cli -e -s {SOCKET} ping"):
        refused = host.run("su stranger -c %s", line)
        assert refused.rc != 0 and "Permission denied" in refused.stdout + refused.stderr, line


def test_nobody_is_served_without_the_password(host, engine):
    refused = host.run(f"{engine}-cli -e -s {SOCKET} ping")
    assert refused.rc != 0 and "NOAUTH" in refused.stdout + refused.stderr


def test_nobody_changes_its_settings(ask):
    refused = ask("config set maxmemory 0")
    assert refused.rc != 0 and "unknown command" in refused.stdout + refused.stderr


def test_nothing_listens_on_the_network(host, engine):
    inside = (
        f"nsenter --net --target {unit_properties(host, f'{engine}-server')['MainPID']} ss"  # its network is its own
    )
    assert host.check_output(f"{inside} -Hltun") == ""
    assert f"{engine}-server" in host.check_output(f"{inside} -Hlxp"), "else the line above looked in the wrong place"


def test_a_full_bus_refuses_writes_and_keeps_what_it_has(ask):
    assert ask("set kept yes").stdout.strip() == "OK"
    one_mib = shlex.quote("return redis.call('set', KEYS[1], string.rep('x', 1048576))")
    try:
        full = next(ran for n in range(80) if (ran := ask(f"eval {one_mib} 1 fill{n}")).rc)
        assert "OOM" in full.stdout + full.stderr
        assert ask("get kept").stdout.strip() == "yes"
        assert "OOM" in ask("set more x").stderr + ask("set more x").stdout
        memory = dict(line.split(":", 1) for line in ask("info memory").stdout.splitlines() if ":" in line)
        assert int(memory["maxmemory"]) == 64 * 1024 * 1024
        assert int(memory["used_memory"]) < 80 * 1024 * 1024
        assert ask("info stats").stdout.count("evicted_keys:0") == 1
    finally:
        ask("flushall")


def test_publish_reaches_a_subscriber(host, engine):
    script = f"""
    export REDISCLI_AUTH=$(cat {PASSWORD})
    {engine}-cli -s {SOCKET} subscribe worker.1 >/tmp/heard & subscriber=$!
    until [ "$({engine}-cli -s {SOCKET} publish worker.1 wake)" = 1 ]; do :; done
    until grep -q wake /tmp/heard; do kill -0 $subscriber || exit 1; done
    kill $subscriber
    """
    assert host.run("timeout 10 sh -c %s", script).rc == 0


def test_it_comes_back_after_a_kill(host, engine, ask):

    def answering() -> str | None:
        """Return the process id of an engine that answers."""
        return unit_properties(host, f"{engine}-server")["MainPID"] if ask("ping").stdout.strip() == "PONG" else None

    for _ in range(7):  # more often than systemd's own limit of five starts
        before = answering()
        host.check_output("kill -9 %s", before)
        wait_for(lambda killed=before: answering() not in (None, killed), what="the bus after a kill")


def test_nothing_is_written_to_the_card(host, engine, ask):
    ask("set key value")
    host.check_output("touch /tmp/now; systemctl restart %s-server", engine)
    wait_for(lambda: ask("ping").stdout.strip() == "PONG", what="the bus")
    assert ask("get key").stdout.strip() == ""
    assert host.check_output("find /var/lib/%s -type f -newer /tmp/now", engine) == ""


def test_the_process_is_confined(host, engine):
    unit = f"{engine}-server"
    pid = unit_properties(host, unit)["MainPID"]
    status = host.check_output("cat /proc/%s/status", pid)
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    assert host.check_output("ps -o user= -p %s", pid).strip() == engine
    can = assert_confined(host, unit, ["UNIX"])
    assert can["interfaces"] == ["lo"] and can["capabilities"] == 0
    assert exposure(host, unit) <= 2.0
    assert_limited(host, unit)


def test_a_bad_configuration_is_named_in_one_sentence_and_a_good_one_heals_it(host, engine, ask):
    refused = converge(host, bus_max_clients=0)
    assert refused.returncode != 0
    reason = f"-server does not work with /etc/{engine}/{engine}.conf: 'maxclients 0': argument must be"
    assert reason in refused.stdout, refused.stdout
    healed = converge(host)
    assert healed.returncode == 0, healed.stdout
    assert ask("ping").stdout.strip() == "PONG"
