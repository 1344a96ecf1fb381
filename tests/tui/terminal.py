"""The app in a terminal of its own: a real process behind a pty, real keys, and what its screen shows by now."""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from codecs import getincrementaldecoder
from pathlib import Path

LOOPKIT = [sys.executable, "-m", "loopkit", "tui"]
LONG = 120  # seconds on a busy machine before a test gives up
QUIET = 0.3  # seconds without output after which a key has had its effect: a key goes to whatever has the focus when it comes
MOVE, STRING = r"\x1b\[(\d+);(\d+)H", r"\x1b[\]P_].*?(?:\x07|\x1b\\)"
TOKEN = re.compile(rf"{MOVE}|\x1b\[[0-9;?>=<$ ]*[a-zA-Z]|{STRING}|\x1b[^\[\]P_]|[\r\n]|[^\x1b\r\n]+", re.DOTALL)
TORN = re.compile(r"\x1b(?:\[[0-9;?>=<$ ]*|[\]P_](?:(?!\x07|\x1b\\).)*)?$", re.DOTALL)
KEYS = {
    "enter": "\r",
    "tab": "\t",
    "escape": "\x1b",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "right": "\x1b[C",
    "ctrl+c": "\x03",
    "ctrl+u": "\x15",
}


class Screen:
    """The characters that stand on a terminal's screen after what was written to it: cursor moves and text, which is all the app uses."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[int, str]] = {}
        self.fed, self._rest, self._row, self._column = 0, "", 0, 0
        self._decoder = getincrementaldecoder("utf-8")()

    def feed(self, data: bytes) -> None:
        """More output, perhaps torn in the middle of a character or an escape sequence."""
        self.fed += len(data)
        text = self._rest + self._decoder.decode(data)
        torn = TORN.search(text)
        whole, self._rest = (text[: torn.start()], torn[0]) if torn else (text, "")
        for token in TOKEN.finditer(whole):
            self._take(token)

    def _take(self, token: re.Match[str]) -> None:
        if token[1]:
            self._row, self._column = int(token[1]) - 1, int(token[2]) - 1
        elif token[0] == "\r":
            self._column = 0
        elif token[0] == "\n":
            self._row += 1
        elif token[0][0] != "\x1b":
            self.rows.setdefault(self._row, {}).update(enumerate(token[0], self._column))
            self._column += len(token[0])
        elif token[0].endswith("H"):
            self._row = self._column = 0

    @property
    def text(self) -> str:
        """Line by line."""
        lines = [self.rows.get(row, {}) for row in range(max(self.rows, default=-1) + 1)]
        return "\n".join("".join(line.get(column, " ") for column in range(max(line, default=-1) + 1)).rstrip() for line in lines)


class Terminal:
    """``loopkit tui WORDS`` in a terminal of a size, started in a folder."""

    def __init__(self, *words: str, size: tuple[int, int] = (100, 30), here: Path | None = None) -> None:
        self.size, self.screen, self.seen = size, Screen(), b""
        self.pid, self._pty = pty.fork()
        if not self.pid:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
            os.chdir(here or Path.cwd())
            kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
            os.execve(LOOPKIT[0], [*LOOPKIT, *words], {**kept, "TERM": "xterm-256color", "COLORTERM": "truecolor"})

    def until(self, *texts: str) -> str:
        """Read until all of these stand on the screen; what it shows then."""
        end = time.monotonic() + LONG
        while not all(text in self.screen.text for text in texts):
            assert time.monotonic() < end, f"{texts} never came; on screen:\n{self.screen.text}"
            if select.select([self._pty], [], [], 0.5)[0]:
                self._take()
        return self.screen.text

    def press(self, *keys: str) -> None:
        """Keys by name, or text, each once the one before has done what it does."""
        for key in keys:
            os.write(self._pty, KEYS.get(key, key).encode())
            while select.select([self._pty], [], [], QUIET)[0] and self._take():
                pass

    def end(self) -> int:
        """Read what is left; the exit code."""
        while self._take():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _take(self) -> bool:
        try:
            data = os.read(self._pty, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen += data
        self.screen.feed(data)
        return bool(data)
