"""A program called adb, for tests: its device is a folder of this machine.

It takes `[-s SERIAL] push FILES… FOLDER/`, `shell COMMAND` and `exec-out COMMAND…` as adb does: words of a command are joined by
blanks and given to the device's shell. `shell` returns the command's exit code and keeps its two outputs apart (the shell
protocol of Android 7 and later); with `$FAKE_ADB_OLD` it returns 0, and both outputs come as one with the line ends of a
terminal. `exec-out` returns 0 in all versions, and both outputs come as one. /data/local/tmp is the folder `$FAKE_ADB`.
"""

import os
import shutil
import subprocess
import sys

DEVICE_FOLDER = "/data/local/tmp"


def main(arguments: list[str]) -> int:
    """Does what adb does."""
    if arguments[:1] == ["-s"]:
        if arguments[1] != "fake-1":
            print(f"adb: device '{arguments[1]}' not found", file=sys.stderr)
            return 1
        arguments = arguments[2:]
    root = os.environ["FAKE_ADB"]
    verb, rest = arguments[0], arguments[1:]
    if verb == "push":
        *files, folder = rest
        there = folder.replace(DEVICE_FOLDER, root)
        if not os.path.isdir(there):
            print(f"adb: error: target '{folder}' is not a directory", file=sys.stderr)
            return 1
        for file in files:
            shutil.copy(file, there)
        print(f"{len(files)} files pushed")
        return 0
    if verb in ("shell", "exec-out"):
        command = " ".join(rest).replace(DEVICE_FOLDER, root)
        if verb == "shell" and "FAKE_ADB_OLD" not in os.environ:
            return subprocess.run(["sh", "-c", command], check=False).returncode
        done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        sys.stdout.buffer.write(done.stdout.replace(b"\n", b"\r\n") if verb == "shell" else done.stdout)
        return 0
    print(f"adb: unknown command {verb}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
