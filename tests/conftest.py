"""For all tests."""

import signal
import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parent))  # for official.py and the like; pytest's importlib mode leaves it out

# A shell that runs us in the background has us ignore Ctrl-C, and our children would inherit that; tests send it.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
