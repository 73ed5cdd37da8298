"""The edge of a command, where what went wrong becomes a message and an exit code.

`stem`, `stem-node` and `stem-chaos` share it, and it loads nothing for any of them before something has to be run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from stem_cli.exit_codes import ExitCode

__all__ = ["guarded"]


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
