"""The process of one evaluated program: confines itself, runs what standard input holds, reports on a pipe.

Started by path with `python -I`; see sandbox.py. The report is one line of JSON that only a program which ran to its
end gets: the word that it must contain is sent when the program is over, so none that looks for it finds it, in no
frame and in no pipe, and leaving early is a failure. A program that was written against this very harness could
still fetch it; see confinement.py for what that means.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from confinement import confine  # type: ignore[import-not-found]  # not a package here

LONGEST_NAME, LONGEST_MESSAGE = 100, 300  # characters, twelve bytes each at most: a report is read at once
OVER = b"over\n"  # as in sandbox.py


def main() -> None:
    """Arguments: file descriptor of the report, memory in bytes, seconds of processor time."""
    report, words, memory, seconds = map(int, sys.argv[1:])
    program = sys.stdin.buffer.read()
    sys.argv = ["program.py"]
    confine(os.getcwd(), memory, seconds)
    try:
        exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})
        result = {"word": ""}
    except BaseException as error:  # whatever a program raises is a failure of that program
        name = type(error).__name__[:LONGEST_NAME]
        try:
            message = str(error)[:LONGEST_MESSAGE]
        except BaseException:  # even its text may fail
            message = ""
        result = {"error": name, "message": message}
    if "word" in result:
        os.write(report, OVER)
        result["word"] = os.read(words, 64).decode()
    os.write(report, json.dumps(result).encode())
    os._exit(0)  # no exit handlers, no threads that go on


if __name__ == "__main__":
    main()
