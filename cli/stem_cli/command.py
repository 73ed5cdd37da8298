"""`stem`: parses the command line, imports the one command it names, and turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from stem_cli.exit_codes import ExitCode
from stem_cli.parsers.stem import build_stem_parser

__all__ = ["guarded", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = build_stem_parser().parse_args(argv)
    if args.handler is None:
        args.parser.print_help(sys.stderr)
        return ExitCode.USAGE

    def run() -> int:
        from stem_cli.output import Output

        module, _, function = args.handler.partition(":")
        if args.log_level is not None:
            _set_up_logging(vars(args))
        handler: Callable[..., int] = getattr(import_module(f"stem_cli.{module}"), function)
        return handler(args, Output(args.json, args.no_color))

    return guarded(args.parser.prog, run)


def guarded(program: str, run: Callable[[], int]) -> int:
    """Call `run`; an error becomes a message on stderr and an exit code."""
    from stem_actors.errors import StemError, UsageError

    try:
        return run()
    except UsageError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return ExitCode.USAGE
    except StemError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Who reads our output has seen enough. The interpreter would complain once more when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception:
        import traceback

        traceback.print_exc()
        print(f"{program}: this is a bug in Stem; please report it with the lines above", file=sys.stderr)
        return ExitCode.FAILED


def _set_up_logging(flags: dict[str, object]) -> None:
    from stem_actors import logs
    from stem_actors.config import resolve

    logs.set_up_logging(resolve(flags, os.environ).settings.log_level, "pretty" if sys.stderr.isatty() else "plain")


if __name__ == "__main__":
    sys.exit(main())
