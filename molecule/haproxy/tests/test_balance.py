"""Role haproxy: each way of choosing a worker does what it says. The configuration does not differ by release."""

import pytest
from clients import Client
from conftest import converge

testinfra_hosts = ["ansible://newest"]


@pytest.mark.parametrize("balance", ["roundrobin", "source", "hash", "leastconn"])
def test_balance(host, address, balance):
    ran = converge(host, haproxy_balance=balance)
    assert ran.returncode == 0, ran.stdout
    clients = [Client(address, 5222) for _ in range(12)]
    met = [client.greeting()["worker"] for client in clients]
    for client in clients:
        client.__exit__()
    if balance in ("source", "hash"):
        assert len(set(met)) == 1, "one address, one worker"
    else:
        assert met.count(1) == met.count(2) == 6
