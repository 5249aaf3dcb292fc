"""Role database: only the right user gets in, without a password and without a port, and what was committed stays."""

import pytest
from conftest import assert_confined, assert_limited, converge, exposure, unit_properties, wait_for


@pytest.fixture
def sql(host):
    """Return a function that runs SQL as a system user (nestbox by default) and returns the finished run."""

    def run(statement: str, user: str = "nestbox", database: str = ""):
        return host.run(
            "su %s -c %s",
            user,
            f'mariadb --default-character-set=utf8mb4 --batch --skip-column-names -e "{statement}" {database}',
        )

    return run


def value(sql, statement: str, **options) -> str:
    ran = sql(statement, **options)
    assert ran.rc == 0, ran.stderr
    return ran.stdout.strip()


def test_nestbox_gets_in_without_a_password_and_uses_its_own_database(sql):
    assert (
        value(
            sql,
            "create or replace table t (a int); insert into t values (7); select a from t; drop table t",
            database="nestbox",
        )
        == "7"
    )


@pytest.mark.parametrize(
    "statement", ["select user from mysql.user", "create database other", "set global max_connections = 5"]
)
def test_nestbox_may_do_nothing_else(sql, statement):
    refused = sql(statement)
    assert refused.rc != 0 and "denied" in refused.stderr


@pytest.mark.parametrize("account", ["stranger", "nestbox", "root"])
def test_another_user_does_not_get_in(host, account):
    refused = host.run("su stranger -c %s", f"mariadb --user={account} -e 'select 1'")
    assert refused.rc != 0 and "Access denied" in refused.stderr, refused.stderr


def test_there_are_no_nameless_accounts_and_no_test_database(sql):
    assert value(sql, "select count(*) from mysql.user where user = ''", user="root") == "0"
    assert "test" not in value(sql, "show databases", user="root").split()


def test_nothing_listens_on_the_network(host):
    inside = f"nsenter --net --target {unit_properties(host, 'mariadb')['MainPID']} ss"  # its network is its own
    assert host.check_output(f"{inside} -Hltun") == ""
    assert "mariadbd" in host.check_output(f"{inside} -Hlxp"), "else the line above looked in the wrong place"


def test_the_process_is_confined(host):
    pid = unit_properties(host, "mariadb")["MainPID"]
    status = host.check_output("cat /proc/%s/status", pid)
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    assert host.check_output("ps -o user= -p %s", pid).strip() == "mysql"
    can = assert_confined(host, "mariadb", ["UNIX"])
    assert can["interfaces"] == ["lo"] and can["capabilities"] == 0
    assert exposure(host, "mariadb") <= 2.0
    assert_limited(host, "mariadb")


def test_an_update_leaves_no_program_with_the_rights_of_root(host):
    """The package's script does the same: the bit, then a restart."""
    tool = "/usr/lib/mysql/plugin/auth_pam_tool_dir/auth_pam_tool"
    assert host.file(tool).mode == 0o755
    host.check_output(f"chmod u+s {tool} && systemctl restart mariadb")
    assert host.file(tool).mode == 0o755


def test_every_character_survives(sql):
    text = "Grüße 你好 👩‍👩‍👧 😀"
    assert value(
        sql, f"create or replace table t (a varchar(100)); insert into t values ('{text}'); select a from t; drop table t",
        database="nestbox",
    ) == text  # fmt: skip


def test_addresses_that_differ_are_kept_apart(sql):
    """Case, accents and trailing spaces count, as they do in SQLite."""
    kept = "create or replace table t (a varchar(100) primary key); insert into t values ('jose'), ('josé'), ('Jose'), ('jose '); "
    assert value(sql, kept + "select count(*) from t; drop table t", database="nestbox") == "4"


def test_a_committed_row_survives_a_kill(host, sql):
    value(sql, "create or replace table t (a int) engine=innodb; insert into t values (42)", database="nestbox")
    killed = unit_properties(host, "mariadb")["MainPID"]
    host.check_output("kill -9 %s", killed)
    wait_for(
        lambda: unit_properties(host, "mariadb")["MainPID"] not in ("0", killed) and sql("select 1").rc == 0,
        60,
        "MariaDB after a kill",
    )
    assert value(sql, "select a from t; drop table t", database="nestbox") == "42"


def test_what_the_role_sets_is_what_runs(sql):
    wanted = {
        "innodb_buffer_pool_size": 64 << 20,
        "innodb_log_file_size": 16 << 20,
        "innodb_flush_log_at_trx_commit": 1,
        "log_bin": 0,
    }
    for name, number in wanted.items():
        assert value(sql, f"select @@{name}") == str(number), name


def test_a_bad_configuration_is_refused_and_the_good_one_runs_on(host, sql):
    before = unit_properties(host, "mariadb")["MainPID"]
    refused = converge(host, database_log_mb=-5)
    assert refused.returncode != 0 and "failed to validate" in refused.stdout, refused.stdout
    assert host.run("grep -q -- -5M /etc/mysql/mariadb.conf.d/90-nestbox.cnf").rc == 1
    assert unit_properties(host, "mariadb")["MainPID"] == before and value(sql, "select 1") == "1"
