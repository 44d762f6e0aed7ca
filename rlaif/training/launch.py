"""Several processes for one training: `accelerate launch`, with the exit code and the messages of those it starts.

Run in a stage's own process. What it starts dies with it, works under the run folder's lock that it holds, and is
told apart by RANK and WORLD_SIZE, as torch's launchers set them.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

from rlaif import lock
from rlaif.process import LAUNCHED_VARIABLE, PARENT_VARIABLE
from rlaif.training.common import prepare_environment


def launch(flags: Sequence[str], arguments: Sequence[str]) -> int:
    """`accelerate launch *flags -m rlaif *arguments`; the exit code of the process that failed first, else 0.

    A process that was ended by signal n is 128 + n. Its own messages are the only ones: the launcher's traceback and
    table of processes say nothing that the exit code does not.
    """
    prepare_environment()
    lock.vouch()
    os.environ |= {PARENT_VARIABLE: str(os.getpid()), LAUNCHED_VARIABLE: "1"}
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for name in ("torch.distributed", "accelerate"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        launch_command(launch_command_parser().parse_args([*flags, "--module", "rlaif", *arguments]))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return _code(failure.exitcode)
    except SignalException as error:
        return 128 + (signal.SIGINT if error.sigval == signal.SIGINT else signal.SIGTERM)
    except SystemExit as error:  # of one process, which accelerate runs without torch's launcher
        return _code(error.code if isinstance(error.code, int) else 1)
    return 0


def _code(code: int) -> int:
    sys.stderr.flush()
    return code if code >= 0 else 128 - code
