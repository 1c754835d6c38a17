"""Being asked to stop: save, say so, leave."""

import os
import signal
import sys
from typing import NoReturn

from utils.errors import Interrupted

#: Signals that ask a script to stop: Ctrl-C, kill, a terminal that closes (not on Windows).
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopRequest:
    """Ctrl-C, SIGTERM and SIGHUP ask a loop to save and leave; a second Ctrl-C leaves at once.

    To be made right before a loop that looks at `requested`: until then a script ends where it is.
    """

    def __init__(self) -> None:
        self.requested = False
        for number in _SIGNALS:
            # Under nohup a closing terminal is to be ignored, and stays so.
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        if self.requested and number == signal.SIGINT:
            print("\nLeaving at once; the last checkpoint stands.", file=sys.stderr, flush=True)
            os._exit(130)
        self.requested = True

    def leave(self, where: str) -> NoReturn:
        """Raise `Interrupted` with the sentence that ends the run."""
        raise Interrupted(f"Stopped and saved at {where}. The same command goes on from there.")
