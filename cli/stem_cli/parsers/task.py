"""`stem enqueue`, `stem task` and `stem tasks`: task runs, and the tasks that an application defines."""

from __future__ import annotations

from stem_cli.parsers.base import Commands
from stem_cli.parsers.common import REVOKING, add_command, add_group, add_paging, add_revoking

__all__ = ["TASK_STATES", "add_enqueue", "add_task", "add_tasks"]

TASK_STATES = ("queued", "running", "retried", "succeeded", "failed", "cancelled")


def add_enqueue(commands: Commands) -> None:
    enqueue = add_command(
        commands,
        "enqueue",
        "enqueue:run",
        "enqueue one task and print its id",
        "stem enqueue shop.tasks.send_mail --args '[\"a@b.c\"]'",
        'stem enqueue reports.build --kwargs \'{"month": "2025-01"}\' --countdown 5m --queue slow',
    )
    enqueue.add_argument("task_name", metavar="NAME", help="name of the task")
    enqueue.add_argument("--args", metavar="JSON", default="[]", help="positional arguments, a JSON list")
    enqueue.add_argument("--kwargs", metavar="JSON", default="{}", help="keyword arguments, a JSON object")
    enqueue.add_argument("--queue", "-q", metavar="QUEUE", help="queue (default: the task's)")
    enqueue.add_argument("--priority", metavar="0-9", type=int, help="9 goes first (default: the task's)")
    enqueue.add_argument("--countdown", metavar="DURATION", help="do not start it before so long from now, such as 30s")
    enqueue.add_argument("--eta", metavar="TIME", help="do not start it before this ISO-8601 time; wins over --countdown")
    enqueue.add_argument("--expires", metavar="DURATION|TIME", help="do not start it later than this")
    enqueue.add_argument("--task-id", metavar="ID", help="an id of your own; a second task with it is refused")
    enqueue.add_argument("--header", metavar="KEY=VALUE", action="append", default=[], help="header of the message; repeatable")
    enqueue.add_argument("--max-retries", metavar="N", type=int, help="retries at most (default: the task's)")
    enqueue.add_argument(
        "--wait",
        metavar="DURATION",
        nargs="?",
        const="",
        help="wait until it has ended, for ever unless told, and print its result",
    )


def add_task(commands: Commands) -> None:
    task = add_group(
        commands, "task", "look at single tasks, and cancel them", "stem task show 0190b6c8-8b1e-7c3a-9d2f-1a2b3c4d5e6f"
    )
    task_list = add_command(
        task,
        "list",
        "task:list_tasks",
        "list tasks by their records, newest first",
        "stem task list --state failed --limit 10",
        "stem task list --queue mail --json",
        more="A task that only waits has no record yet, and is counted by `stem queue list`; records go after STEM_RESULT_TTL.",
    )
    task_list.add_argument(
        "--state", choices=TASK_STATES, help="only tasks in this state: " + ", ".join(TASK_STATES), metavar="STATE"
    )
    task_list.add_argument("--queue", "-q", metavar="QUEUE", help="only tasks of this queue")
    add_paging(task_list)
    show = add_command(
        task, "show", "task:show", "show the state, result and error of a task", "stem task show 0190b6c8-… --json"
    )
    show.add_argument("id", metavar="ID", help="id of the task")
    wait = add_command(
        task,
        "wait",
        "task:wait",
        "wait until a task has ended and print its result",
        "stem task wait 0190b6c8-… --timeout 1m",
        more="Exits with 0 when it succeeded, 1 when it failed or was cancelled, 70 at the timeout.",
    )
    wait.add_argument("id", metavar="ID", help="id of the task")
    wait.add_argument("--timeout", metavar="DURATION", help="give up after so long (default: none)")
    cancel = add_command(
        task,
        "revoke",
        "task:revoke",
        "cancel tasks, wherever they are",
        "stem task revoke 0190b6c8-… --reason 'wrong month'",
        "stem task revoke 0190b6c8-… 0190b6c9-… --terminate --json",
        more=REVOKING,
    )
    cancel.add_argument("task", metavar="ID", nargs="+", help="id of a task")
    add_revoking(cancel)
    cancel.add_argument("--timeout", metavar="DURATION", default="5s", help="wait so long for workers' answers (default: 5s)")
    unique = add_command(
        task,
        "unique",
        "unique:unique",
        "show who holds the key of a unique task, or give it free",
        "stem task unique user-42",
        "stem task unique user-42 --queue mail --free --json",
        more="Exits with 1 when nobody holds it. A task whose key is given free goes on; another may be enqueued beside it.",
    )
    unique.add_argument("key", metavar="KEY", help="the key: a call's own, or the one in the task's record (stem.unique.key)")
    unique.add_argument("--queue", "-q", metavar="QUEUE", help="only in this queue (default: in all)")
    unique.add_argument("--free", action="store_true", help="give it free")


def add_tasks(commands: Commands) -> None:
    tasks = add_group(commands, "tasks", "look at the tasks of an application", "stem tasks ls --app shop.tasks:app")
    add_command(
        tasks,
        "ls",
        "tasks:ls",
        "list the tasks that an application defines",
        "stem tasks ls --app shop.tasks:app",
        more="Imports the application named by --app or STEM_APP, and the modules in STEM_TASKS.",
    )
