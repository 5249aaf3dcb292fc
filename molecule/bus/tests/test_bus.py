"""Role bus: the engine answers on its socket, only there and only to its group; it forgets nothing and comes back."""

import shlex

import pytest
from conftest import unit_properties, wait_for

SOCKET = "/run/nestbox-bus/bus.sock"


@pytest.fixture
def engine(release) -> str:
    """What speaks the protocol on this release."""
    return "valkey" if release >= "26" else "redis"


@pytest.fixture
def ask(host, engine):
    """Return a function that sends one command as a user (root by default) and returns the finished run."""

    def run(command: str, user: str = "root"):
        line = f"{engine}-cli -e -s {SOCKET} {command}"
        return host.run("su %s -c %s", user, line)

    return run


def test_a_member_of_the_group_is_served_and_a_stranger_is_not(ask):
    assert ask("ping", "member").stdout.strip() == "PONG"
    refused = ask("ping", "stranger")
    assert refused.rc != 0 and "Permission denied" in refused.stdout + refused.stderr


def test_nothing_listens_on_the_network(host, engine):
    listeners = host.check_output("ss -Hltunp")
    assert "-server" not in listeners, listeners
    assert f"{engine}-server" in host.check_output("ss -Hlxp"), "else the line above looked for the wrong name"


def test_a_full_bus_refuses_writes_and_keeps_what_it_has(ask):
    assert ask("set kept yes").stdout.strip() == "OK"
    fill = "eval %s 0" % shlex.quote("for i = 1, 200 do redis.call('set', 'fill' .. i, string.rep('x', 1048576)) end")
    try:
        full = ask(fill)
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
    {engine}-cli -s {SOCKET} subscribe worker.1 >/tmp/heard & subscriber=$!
    until [ "$({engine}-cli -s {SOCKET} publish worker.1 wake)" = 1 ]; do :; done
    until grep -q wake /tmp/heard; do kill -0 $subscriber || exit 1; done
    kill $subscriber
    """
    assert host.run("timeout 10 sh -c %s", script).rc == 0


def test_it_comes_back_after_a_kill(host, engine, ask):
    for _ in range(7):  # more often than systemd's own limit of five starts
        before = unit_properties(host, f"{engine}-server")["MainPID"]
        host.check_output("kill -9 %s", before)
        wait_for(
            lambda: ask("ping").stdout.strip() == "PONG" and unit_properties(host, f"{engine}-server")["MainPID"] != before,
            what="the bus after a kill",
        )


def test_nothing_is_written_to_the_card(host, engine, ask):
    ask("set key value")
    refused = ask("config get save").stdout.split()
    assert refused in (["save"], ["save", ""]), refused
    host.check_output("systemctl restart %s-server", engine)
    wait_for(lambda: ask("ping").stdout.strip() == "PONG", what="the bus")
    assert host.check_output("find /var/lib/%s -type f", engine) == ""


def test_the_process_is_confined(host, engine):
    pid = unit_properties(host, f"{engine}-server")["MainPID"]
    status = host.check_output("cat /proc/%s/status", pid)
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    assert host.run("nsenter --target %s --mount touch /etc/written", pid).rc != 0
    assert host.check_output("ps -o user= -p %s", pid).strip() == engine


def test_a_bad_configuration_is_named_in_one_sentence(host, engine):
    """What tasks/restart.yml filters out of the journal is what the engine says there."""
    host.check_output("cp /etc/nestbox/bus.conf /tmp/bus.conf.good")
    try:
        host.check_output("echo 'maxmemory-policy forgetful' >>/etc/nestbox/bus.conf")
        assert host.run("systemctl restart %s-server", engine).rc != 0
        journal = host.check_output(
            "journalctl --unit=%s-server --identifier=%s-server --lines=20 --output=cat", engine, engine
        )
        assert ">>> 'maxmemory-policy" in journal
    finally:
        host.check_output("cp /tmp/bus.conf.good /etc/nestbox/bus.conf")
        host.check_output("systemctl restart %s-server", engine)
