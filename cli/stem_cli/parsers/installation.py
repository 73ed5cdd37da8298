"""`stem config`, `health`, `doctor`, `bench` and `completion`: how Stem is set up here, and how well it does."""

from __future__ import annotations

from stem_cli.parsers.base import Commands
from stem_cli.parsers.common import add_command, add_group, add_process_files

__all__ = ["MEASUREMENTS", "add_bench", "add_completion", "add_config", "add_doctor", "add_health"]

MEASUREMENTS = ("throughput", "payload", "enqueue", "bulk", "latency", "async", "recovery", "idle")
SHELLS = ("bash", "zsh", "fish", "tcsh")
PROGRAMS = ("stem", "stem-node", "stem-chaos")


def add_config(commands: Commands) -> None:
    config = add_group(commands, "config", "look at the settings", "stem config show")
    add_command(config, "show", "config:show", "show every setting, its value and where it comes from", "stem config show --json")


def add_health(commands: Commands) -> None:
    health = add_command(
        commands,
        "health",
        "health:run",
        "check that every store answers, and how fast",
        "stem health",
        "stem health --broker sqlite:////var/lib/shop/stem.db --json",
        "stem health --broker rediss://cache:6379/0",
        more="Makes a round trip for each role, in a namespace of its own (NAMESPACE.health). "
        "Exits with 0 when all is well, 70 when something is not.",
    )
    health.add_argument("--skip-backend", action="store_true", help="leave out where results are kept")
    health.add_argument(
        "--allow-insecure",
        action="store_true",
        help="do not verify certificates, as STEM_TLS_ALLOW_INSECURE=true: to see what else is wrong",
    )
    health.add_argument("--timeout", metavar="DURATION", default="5s", help="for each round trip (default: 5s)")
    health.add_argument(
        "--watch", metavar="DURATION", nargs="?", const="2s", help="check again and again, with a pause between (default: 2s)"
    )


def add_doctor(commands: Commands) -> None:
    doctor = add_command(
        commands,
        "doctor",
        "doctor:run",
        "look at everything that can be wrong, and say what to do",
        "stem doctor",
        "stem doctor --app shop.tasks:app --json",
        "stem doctor --pidfile /var/run/stem/mail.pid --env-file /etc/shop/stem.env",
        more="What `stem health` and `stem worker diagnose` know, and: versions, leases against the time a node takes to leave, "
        "queues that nobody works on, workers that are not ready, dead letters. With --app the application is imported, too. "
        "Exits with 0 when nothing is wrong (warnings aside), else with 70.",
    )
    add_process_files(doctor)
    doctor.add_argument("--timeout", metavar="DURATION", default="5s", help="for each question to a store (default: 5s)")


def add_bench(commands: Commands) -> None:
    bench = add_command(
        commands,
        "bench",
        "bench.command:run",
        "measure how fast tasks run on this machine",
        "stem bench --quick",
        "stem bench --broker sqlite:////var/lib/shop/stem.db --what throughput,latency --json",
        more="Starts a node of its own and never touches your queues: on SQLite it uses a new file beside the one named, "
        "elsewhere a namespace of its own, and removes them afterwards. Each figure stands beside the store's own raw rate, "
        "taken in turns with it. Exits with 70 when a task did not run exactly once.",
    )
    bench.add_argument("--what", metavar="NAMES", help=f"only these, with commas between them: {', '.join(MEASUREMENTS)}")
    bench.add_argument(
        "--tasks", metavar="N", type=int, dest="count", help="tasks of a throughput measurement (default: 20000; quick: 4000)"
    )
    bench.add_argument("--quick", action="store_true", help="one round with few tasks: a first impression, in half a minute")


def add_completion(commands: Commands) -> None:
    completion = add_command(
        commands,
        "completion",
        "completion:run",
        "print a script that completes commands in a shell",
        "stem completion bash > ~/.local/share/bash-completion/completions/stem",
        "stem completion zsh > ~/.zfunc/_stem",
        "stem completion fish > ~/.config/fish/completions/stem.fish",
        "stem completion bash --program stem-node > ~/.local/share/bash-completion/completions/stem-node",
        more="zsh needs `fpath+=~/.zfunc` before compinit in ~/.zshrc.",
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.add_argument(
        "--program", choices=PROGRAMS, metavar="NAME", default="stem", help="the command to complete: " + ", ".join(PROGRAMS)
    )
