"""Runs a firmware image with its arguments on an emulated board, as an emulator runs a program.

    python -m bitnetc.semihosting [-cpu BOARD] [-icount] IMAGE [argument ...]

The board is a machine of qemu-system-arm; arguments, standard streams and the exit code go through
Arm semihosting. With -icount, the board's clocks count instructions, one a nanosecond.
"""

import os
import shutil
import sys

EMULATOR = "qemu-system-arm"
_QUOTE = "\x01"  # around an argument with spaces: runtime_c/freestanding/bnc_firmware.c


def command(board: str, image: str, arguments: list[str], icount: bool = False) -> list[str]:
    """The emulator's words."""
    words = [EMULATOR, "-M", board, "-display", "none", "-monitor", "none", "-serial", "none"]
    words += ["-icount", "shift=0"] if icount else []
    quoted = [_QUOTE + a + _QUOTE if " " in a or not a else a for a in ["firmware", *arguments]]
    line = "".join(f",arg={a.replace(',', ',,')}" for a in quoted)
    return [*words, "-semihosting-config", f"enable=on,target=native{line}", "-kernel", image]


def main(words: list[str]) -> int:
    """Replaces this process by the emulator. Returns 1 when it is not installed."""
    board, icount = "mps2-an386", False
    if words[:1] == ["-cpu"]:
        board, words = words[1], words[2:]
    if words[:1] == ["-icount"]:
        icount, words = True, words[1:]
    if not shutil.which(EMULATOR):
        print(f"{EMULATOR} is not installed", file=sys.stderr)
        return 1
    os.execvp(EMULATOR, command(board, words[0], words[1:], icount))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
