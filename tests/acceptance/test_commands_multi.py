"""`stem worker multi`, with nodes as users run them and with other commands: files, variables, signals, exit codes."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from stem_actors import Settings, Stem
from tests.fixtures.node import Place, eventually, is_alive
from tests.fixtures.shell import Shell

SAY_WHAT_YOU_GOT = """
import json, os, sys
names = [name for name in os.environ if name.startswith(("STEM", "FROM"))]
print(json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), **{name: os.environ[name] for name in names}}), flush=True)
print("and on stderr", file=sys.stderr, flush=True)
import time
time.sleep(600)
"""
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)\n"


class Host:
    """A host's folders below a test's own, and what was started there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shell = Shell(folder)
        self.files = ["--pidfile", f"{folder}/run/%n.pid", "--logfile", f"{folder}/log/%n.log"]

    def multi(self, action: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.shell.run("stem", "worker", "multi", action, *words, *self.files, **options)

    def report(self, action: str, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.multi(action, *words, "--json").stdout)
        return found

    def pid(self, name: str) -> int:
        return int((self.folder / f"run/{name}.pid").read_text().splitlines()[0])

    def log(self, name: str) -> str:
        return (self.folder / f"log/{name}.log").read_text()

    def said(self, name: str) -> dict[str, Any]:
        """What a process that runs `SAY_WHAT_YOU_GOT` got."""
        eventually(lambda: "on stderr" in self.log(name), hint=f"what {name} says")
        found: dict[str, Any] = json.loads(self.log(name).splitlines()[0])
        return found

    def script(self, text: str) -> list[str]:
        path = self.folder / "script.py"
        path.write_text(text)
        return ["--command", sys.executable, "--command", str(path)]

    def close(self) -> None:
        for path in self.folder.glob("run/*.pid"):
            pid = int(path.read_text().splitlines()[0])
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


SLEEP = ("--command", "sleep", "--command", "600")


# ---------------------------------------------------------------- nodes


def test_nodes_start_work_are_restarted_and_stop(place: Place) -> None:
    host = Host(place.directory)
    try:
        host.shell.environ["STEM_BROKER_URL"] = place.url
        done = host.multi("start", "mail", "reports", "--app", "jobs", "--queue", "default", "--workdir", str(place.directory))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"mail: started, pid {host.pid('mail')}\nreports: started, pid {host.pid('reports')}\n"
        with Stem(settings=Settings(broker_url=place.url)) as app:
            name = Settings().name
            expected = {f"{name}-mail-1", f"{name}-reports-1"}
            eventually(lambda: {beat["workerId"] for beat in app.stores.heartbeats.list_heartbeats()} == expected)
            assert app.enqueue_by_name("jobs.add", [1, 2]).get(timeout=20) == 3
            eventually(lambda: host.shell.run(*_check(host, "mail")).returncode == 0, hint="mail to be ready")
            eventually(lambda: host.shell.run(*_check(host, "reports")).returncode == 0, hint="reports to be ready")
            before = host.pid("mail")
            (report,) = host.report("restart", "mail", "--app", "jobs", "--workdir", str(place.directory))
            assert (report["status"], report["exitCode"], report["pid"]) == ("started", 0, host.pid("mail"))
            assert host.pid("mail") != before
            assert not is_alive(before)
            assert app.enqueue_by_name("jobs.add", [3, 4]).get(timeout=20) == 7
        assert [each["status"] for each in host.report("status", "mail", "reports")] == ["running", "running"]
        processes = [psutil.Process(host.pid(each)) for each in ("mail", "reports")]
        everything = [each.pid for process in processes for each in (process, *process.children(recursive=True))]
        assert host.multi("stop", "mail", "reports").returncode == 0
        assert [pid for pid in everything if is_alive(pid)] == []
        assert os.listdir(place.directory / "run") == []
        assert "leaves (warm)" in host.log("mail")
    finally:
        host.close()


def _check(host: Host, name: str) -> list[str]:
    return ["stem", "worker", "healthcheck", "--pidfile", f"{host.folder}/run/{name}.pid"]


def test_a_node_that_ends_at_once_is_reported_with_what_it_said(host: Host) -> None:
    (host.folder / "log").mkdir()
    (host.folder / "log/b.log").write_text("from long ago\n")
    for name, command, said in (("a", "echo no such module; exit 64", "no such module"), ("b", "exit 64", "it said nothing")):
        done = host.multi("start", name, "--command-line", f"sh -c '{command}'")
        assert done.returncode == 70
        assert done.stderr == f"{name}: ended at once with exit code 64, see {host.folder}/log/{name}.log: {said}\n"
    assert os.listdir(host.folder / "run") == []


def test_an_admin_address_that_is_set_is_kept(host: Host) -> None:
    host.shell.environ["STEM_ADMIN"] = "127.0.0.1:0"
    host.multi("start", "a", *host.script(SAY_WHAT_YOU_GOT))
    assert host.said("a")["STEM_ADMIN"] == "127.0.0.1:0"


# ---------------------------------------------------------------- what a process gets


def test_a_process_gets_its_node_its_queues_and_the_flags_as_variables(host: Host) -> None:
    flags = ("--queue", "mail", "-q", "slow", "--app", "shop.tasks:app", "--broker", "sqlite:////tmp/x.db")
    assert host.multi("start", "a", "b", *flags, *host.script(SAY_WHAT_YOU_GOT)).returncode == 0
    said = host.said("b")
    assert said["argv"] == []
    assert said["cwd"] == str(host.folder)
    node = os.uname().nodename
    expected = {
        "STEM_WORKER_NODE": "b",
        "STEM_WORKER_INDEX": "2",
        "STEM_WORKER_HOST": node,
        "STEM_WORKER_PIDFILE": f"{host.folder}/run/b.pid",
        "STEM_WORKER_LOGFILE": f"{host.folder}/log/b.log",
        "STEM_DEFAULT_QUEUE": "mail",
        "STEM_WORKER_QUEUES": "mail,slow",
        "STEM_APP": "shop.tasks:app",
        "STEM_BROKER_URL": "sqlite:////tmp/x.db",
        "STEM_NAME": f"{Settings().name}-b",
    }
    assert expected.items() <= said.items()
    assert host.log("b").splitlines()[1] == "and on stderr"
    process = psutil.Process(host.pid("b"))
    assert os.getsid(process.pid) == process.pid, "a terminal that closes does not end it"


def test_placeholders_are_filled_in_paths_and_in_the_command(host: Host) -> None:
    words = ["--command", "%n %N", "--command=--%I-%i-%h-100%%-%x", "--command", "%d"]
    files = ["--pidfile", f"{host.folder}/run/%n.pid", "--logfile", f"{host.folder}/log/%n-%i.log"]
    done = host.shell.run("stem", "worker", "multi", "start", "a", "web", *host.script(SAY_WHAT_YOU_GOT), *words, *files)
    assert done.returncode == 0
    eventually(lambda: "on stderr" in host.log("web-2"))
    first, second, third = json.loads(host.log("web-2").splitlines()[0])["argv"]
    assert (first, second) == ("web WEB", f"--2-2-{os.uname().nodename}-100%-%x")
    assert len(third) == len("20250131T080000Z")
    assert third.endswith("Z")


def test_a_command_line_is_taken_apart_as_a_shell_would(host: Host) -> None:
    (host.folder / "script.py").write_text(SAY_WHAT_YOU_GOT)
    line = f"{sys.executable} script.py 'one word' two\\ words \"%n\""
    assert host.multi("start", "a", "--command-line", line).returncode == 0
    assert host.said("a")["argv"] == ["one word", "two words", "a"]
    host.shell.environ["STEM_WORKER_COMMAND"] = f"{sys.executable} script.py from-variable"
    host.shell.environ["STEMD_NODES"] = "b  c"
    assert host.multi("start").returncode == 0
    assert host.said("c")["argv"] == ["from-variable"]
    assert (host.said("c")["STEM_WORKER_INDEX"], host.said("b")["STEM_WORKER_INDEX"]) == ("2", "1")
    host.multi("stop", "c")
    (host.folder / "log/c.log").unlink()
    host.multi("start", "c")
    assert host.said("c")["STEM_WORKER_INDEX"] == "2", "its number is its place among those that are configured"


def test_an_environment_file_goes_before_the_environment(host: Host) -> None:
    (host.folder / "env").write_text(
        "FROM_FILE=one\nnonsense\nexport STEM_APP='file.app'\nSTEMD_NODES=x\nSTEM_WORKER_QUEUES=a,b\n"
    )
    host.shell.environ["STEM_APP"] = "variable.app"
    done = host.multi("start", "--env-file", f"{host.folder}/env", *host.script(SAY_WHAT_YOU_GOT))
    assert (done.returncode, done.stderr) == (0, f"{host.folder}/env:2: not KEY=VALUE: left out\n")
    said = host.said("x")
    assert (said["FROM_FILE"], said["STEM_APP"], said["STEM_WORKER_QUEUES"]) == ("one", "file.app", "a,b")
    assert said["STEM_DEFAULT_QUEUE"] == "a"


# ---------------------------------------------------------------- start, stop, status


def test_a_node_that_runs_is_not_started_again(host: Host) -> None:
    host.multi("start", "a", *SLEEP)
    pid = host.pid("a")
    done = host.multi("start", "a", *SLEEP)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"a: runs already (pid {pid}); nothing was started\n"
    assert host.pid("a") == pid


def test_of_many_that_start_a_node_at_once_one_does(host: Host) -> None:
    words = ["stem", "worker", "multi", "start", "a", *SLEEP, *host.files]
    processes = [host.shell.start(*words) for _ in range(5)]
    outputs = [process.communicate(timeout=30) for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1, 1, 1, 1], outputs
    (started,) = [out for out, _ in outputs if out]
    assert started == f"a: started, pid {host.pid('a')}\n"


@pytest.mark.parametrize("leftover", ["dead", "reused"])
def test_a_pid_file_left_behind_is_no_hindrance(host: Host, leftover: str) -> None:
    host.multi("start", "a", *SLEEP)
    path = host.folder / "run/a.pid"
    old = host.pid("a")
    os.killpg(old, signal.SIGKILL)
    eventually(lambda: not is_alive(old))
    if leftover == "reused":  # by a process that lives: us
        path.write_text(path.read_text().replace(str(old), str(os.getpid()), 1))
    done = host.multi("status", "a")
    assert (done.returncode, done.stdout) == (3, "a: not running: its pid file was stale and is removed\n")
    assert not path.exists()
    path.write_text(f"{os.getpid()}\n1 67c8ae42-9baf-4818-a587-9b033f7560b0\n")
    assert host.multi("stop", "a").stdout == "a: not running: its pid file was stale and is removed\n"
    path.write_text(f"{os.getpid()}\n1 67c8ae42-9baf-4818-a587-9b033f7560b0\n")
    assert host.multi("start", "a", *SLEEP).returncode == 0
    assert is_alive(host.pid("a"))
    assert host.pid("a") != os.getpid()


def test_a_pid_file_of_somebody_else_is_left_alone(host: Host) -> None:
    (host.folder / "run").mkdir()
    (host.folder / "run/a.pid").write_text(f"{os.getpid()}\n")
    for action in ("start", "stop", "restart", "status"):
        done = host.multi(action, "a", *SLEEP)
        assert (done.returncode, "no pid file of Stem's" in done.stderr) == (70, True)
    assert (host.folder / "run/a.pid").read_text() == f"{os.getpid()}\n"
    (host.folder / "run/a.pid").unlink()


def test_status_tells_who_runs_and_the_last_code_that_is_not_0_counts(host: Host) -> None:
    host.multi("start", "a", *SLEEP)
    done = host.multi("status", "a")
    assert done.returncode == 0
    assert done.stdout.startswith(f"a: running, pid {host.pid('a')}, for ")
    done = host.multi("status", "b", "a")
    assert (done.returncode, len(done.stdout.splitlines())) == (3, 2)
    found = host.report("status", "a", "b")
    assert [(each["node"], each["status"], each["exitCode"]) for each in found] == [("a", "running", 0), ("b", "not-running", 3)]
    assert found[0]["pid"] == host.pid("a")
    assert found[1]["pidfile"] == f"{host.folder}/run/b.pid"


def test_a_node_that_is_not_there_is_stopped_already(host: Host) -> None:
    done = host.multi("stop", "a")
    assert done.returncode == 0
    assert "there is no pid file" in done.stdout


def test_a_node_that_does_not_leave_is_killed_with_all_it_has_started(host: Host) -> None:
    text = f"import subprocess\nsubprocess.Popen(['sleep', '600'])\n{DEAF}"
    host.multi("start", "a", *host.script(text))
    eventually(lambda: "up" in host.log("a"))
    process = psutil.Process(host.pid("a"))
    (child,) = process.children()
    (report,) = host.report("stop", "a", "--timeout", "300ms")
    assert (report["status"], report["exitCode"]) == ("killed", 0)
    eventually(lambda: not is_alive(process.pid) and not is_alive(child.pid))
    assert not (host.folder / "run/a.pid").exists()


def test_nodes_leave_side_by_side(host: Host) -> None:
    names = ["a", "b", "c"]
    host.multi("start", *names, *host.script(DEAF))
    for name in names:
        eventually(lambda: "up" in host.log(name))  # noqa: B023
    assert {each["status"] for each in host.report("stop", *names, "--timeout", "1s")} == {"killed"}


def test_what_cannot_be_started_is_70_and_leaves_nothing(host: Host) -> None:
    done = host.multi("start", "a", "b", "--command", "/nowhere/program")
    assert (done.returncode, done.stderr.count("cannot be started")) == (70, 2)
    (host.folder / "file").write_text("")
    done = host.shell.run(
        "stem", "worker", "multi", "start", "a", *SLEEP, "--pidfile", f"{host.folder}/file/%n.pid", "--logfile", "%n.log"
    )
    assert (done.returncode, "cannot be made" in done.stderr) == (70, True)
    done = host.multi("start", "a", *SLEEP, "--workdir", "/nowhere")
    assert (done.returncode, "--workdir" in done.stderr) == (70, True)
    assert os.listdir(host.folder / "run") == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "STEMD_NODES"),
        (["a/b"], "NODE"),
        (["a", "--queue", "no queue"], "--queue"),
        (["a", "--command-line", "sh -c 'x"], "No closing quotation"),
        (["a", "--command", "x", "--command-line", "y"], "not allowed with"),
        (["a", "--env-file", "/nowhere"], "/nowhere"),
        (["a", "b", "--foreground"], "one node at a time"),
        (["a", "--broker", "amqp://x"], "--broker"),
    ],
)
def test_a_command_that_makes_no_sense_is_64_and_starts_nothing(host: Host, words: list[str], hint: str) -> None:
    done = host.multi("start", *words)
    assert (done.returncode, done.stdout) == (64, "")
    assert hint in done.stderr
    assert not (host.folder / "run").exists()


def test_a_pid_file_has_to_lead_to_one_node_each_time(host: Host) -> None:
    for path in ("/tmp/node.pid", "/tmp/%n-%d.pid"):
        done = host.shell.run("stem", "worker", "multi", "start", "a", "b", *SLEEP, "--pidfile", path)
        assert (done.returncode, "--pidfile" in done.stderr) == (64, True)


# ---------------------------------------------------------------- in the foreground


def test_in_the_foreground_the_exit_code_is_that_of_the_node(host: Host) -> None:
    words = ["stem", "worker", "multi", "start", "a", "--foreground", "--pidfile", f"{host.folder}/run/%n.pid"]
    done = host.shell.run(*words, "--command-line", "sh -c 'cat $STEM_WORKER_PIDFILE; exit 7'")
    assert done.returncode == 7
    assert "a: started, pid " in done.stderr
    assert os.listdir(host.folder / "run") == []


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM)]
)
def test_in_the_foreground_signals_are_passed_on(host: Host, number: signal.Signals, expected: signal.Signals) -> None:
    words = ["stem", "worker", "multi", "start", "a", "--no-detach", *SLEEP, "--pidfile", f"{host.folder}/run/%n.pid"]
    process = host.shell.start(*words)
    eventually(lambda: (host.folder / "run/a.pid").exists())
    pid = host.pid("a")
    process.send_signal(number)
    assert process.wait(10) == 128 + expected
    process.communicate()
    assert not is_alive(pid)
    assert os.listdir(host.folder / "run") == []


def test_a_node_in_the_foreground_is_seen_and_stopped_from_elsewhere(host: Host) -> None:
    process = host.shell.start("stem", "worker", "multi", "start", "a", "--foreground", *SLEEP, *host.files)
    eventually(lambda: (host.folder / "run/a.pid").exists())
    assert host.multi("status", "a").returncode == 0
    assert host.multi("start", "a", "--foreground", *SLEEP).returncode == 1
    assert host.multi("stop", "a").returncode == 0
    assert process.wait(10) == 128 + signal.SIGTERM
    process.communicate()


# ---------------------------------------------------------------- as the SysV script calls it


def test_the_sysv_script_starts_looks_at_and_stops_the_nodes(host: Host) -> None:
    templates = Path(__file__).parents[2] / "cli/templates/sysv"
    defaults, script = host.folder / "default", host.folder / "stem-worker"
    values = {
        "STEM_NODES": "one two",
        "STEM_OPTS": "--queue mail --queue slow",
        "STEM_ENV_FILE": f"{host.folder}/env",
        "STEM_BIN": Path(sys.executable).with_name("stem"),
        "STEM_USER": pwd.getpwuid(os.getuid()).pw_name,
        "STEM_GROUP": grp.getgrgid(os.getgid()).gr_name,
        "STEM_PID_DIR": f"{host.folder}/run",
        "STEM_LOG_DIR": f"{host.folder}/log",
        "STEM_WORK_DIR": f"{host.folder}/work",
        "STEM_WORKER_COMMAND": f"{sys.executable} {host.folder}/script.py",
    }
    known = set(re.findall(r"^#?(STEM_\w+)=", (templates / "default").read_text(), re.MULTILINE))
    assert known <= values.keys()
    defaults.write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
    script.write_text((templates / "stem-worker").read_text().replace("/etc/default/stem", str(defaults)))
    (host.folder / "env").write_text("FROM_FILE=yes\n")
    host.script(SAY_WHAT_YOU_GOT)

    def call(action: str) -> tuple[int, list[str]]:
        done = subprocess.run(
            ["sh", str(script), action], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=50
        )
        return done.returncode, (done.stdout + done.stderr).splitlines()

    assert call("status")[0] == 3
    assert call("start") == (0, [f"{name}: started, pid {host.pid(name)}" for name in ("one", "two")])
    said = host.said("two")
    assert (said["FROM_FILE"], said["STEM_WORKER_QUEUES"], said["cwd"]) == ("yes", "mail,slow", f"{host.folder}/work")
    assert call("status")[0] == 0
    before = host.pid("one")
    assert call("restart")[0] == 0
    assert host.pid("one") != before
    assert call("stop")[0] == 0
    assert call("status")[0] == 3
    assert call("nonsense")[0] == 2
