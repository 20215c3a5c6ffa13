"""What a process gives up before it runs a program that a model wrote. Standard library only: it runs isolated.

Four layers: another user, where the harness runs as root; resource limits; on Linux a system-call filter (no network,
no other process, nothing done to one, no file's mode, owner or times) and file rules (nothing written outside one
directory, nothing read but that and what Python itself reads); an audit hook with the same rules for systems that have
no filter. It contains what a model writes by mistake; it is no answer to code that was written to break out, for which
use a virtual machine. Not confined: what a program does inside its own process, the harness's code there included, so
one that was written to look right can; processor caches; how much of them and of memory bandwidth it uses.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path

NO_FILE_LARGER = 1 << 20
NO_MORE_FILES = 64

# System calls by number: x86-64, then the generic table (aarch64).
_DENIED = {
    "x86_64": {
        "socket": 41, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "ptrace": 101, "tkill": 200,
        "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "process_vm_writev": 311, "execveat": 322, "setsid": 112,
        "setpgid": 109, "socketpair": 53,
    },
    "aarch64": {
        "socket": 198, "execve": 221, "kill": 129, "ptrace": 117, "tkill": 130, "rt_sigqueueinfo": 138,
        "rt_tgsigqueueinfo": 240, "process_vm_writev": 271, "execveat": 281, "setsid": 157, "setpgid": 154,
        "socketpair": 199,
    },
}  # fmt: skip
# What is done to other processes by their numbers, or to files without opening them for writing. A limit, priority or
# processor set of its own a program does not need either.
_DENIED_CHANGES = {
    "x86_64": {
        "process_vm_readv": 310, "setpriority": 141, "ioprio_set": 251, "sched_setaffinity": 203,
        "sched_setscheduler": 144, "sched_setparam": 142, "sched_setattr": 314, "setrlimit": 160, "chmod": 90,
        "fchmod": 91, "fchmodat": 268, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260, "utime": 132,
        "utimes": 235, "futimesat": 261, "utimensat": 280, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190,
        "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "perf_event_open": 298, "bpf": 321,
        "userfaultfd": 323, "mount": 165, "unshare": 272, "setns": 308, "chroot": 161, "add_key": 248,
        "request_key": 249, "keyctl": 250, "kcmp": 312, "open_by_handle_at": 304, "mq_open": 240, "shmat": 30,
        "shmctl": 31, "semop": 65, "semctl": 66, "semtimedop": 220, "msgsnd": 69, "msgrcv": 70, "msgctl": 71,
    },
    "aarch64": {
        "process_vm_readv": 270, "setpriority": 140, "ioprio_set": 30, "sched_setaffinity": 122,
        "sched_setscheduler": 119, "sched_setparam": 118, "sched_setattr": 274, "setrlimit": 164, "fchmod": 52,
        "fchmodat": 53, "fchownat": 54, "fchown": 55, "utimensat": 88, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7,
        "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16, "perf_event_open": 241, "bpf": 280,
        "userfaultfd": 282, "mount": 40, "unshare": 97, "setns": 268, "chroot": 51, "add_key": 217, "request_key": 218,
        "keyctl": 219, "kcmp": 272, "open_by_handle_at": 265, "mq_open": 180, "shmat": 196,
        "shmctl": 195, "semop": 193, "semctl": 191, "semtimedop": 192, "msgsnd": 189, "msgrcv": 188, "msgctl": 187,
    },
}  # fmt: skip
_DENIED_EVERYWHERE = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438, "fchmodat2": 452,
    "move_mount": 429, "setxattrat": 463, "removexattrat": 466,
}  # fmt: skip
# By an argument: fcntl's ways to have the kernel send a signal to any process, and to keep others from a file.
_FCNTL_IOCTL = {"x86_64": (72, 16), "aarch64": (25, 29)}
_DENIED_FCNTL = (8, 10, 15, 1024)  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE
# What Python itself asks of a file: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Others sign files,
# change their flags, type for others.
_ALLOWED_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_PRLIMIT = {"x86_64": 302, "aarch64": 261}  # of another process
_ARCHITECTURES = {"x86_64": (0xC000003E, 56, 234), "aarch64": (0xC00000B7, 220, 131)}  # audit name, clone, tgkill
_CLONE3 = 435
_CLONE_THREAD = 0x10000
# Classic BPF: load a word, compare, test bits, return; what a filter may return.
_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24  # offsets in struct seccomp_data
_EPERM, _ENOSYS = 1, 38
_CAPABILITIES_VERSION = 0x20080522
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38

# Landlock: rights to change files, and to do so beneath a directory.
_WRITE_FILE = 1 << 1
_CHANGE = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))
_TRUNCATE = 1 << 14  # from the third version on, Linux 6.2
_READ = 1 << 2 | 1 << 3
# What a program may read beside its own directory and Python's: the system's libraries, time zones, randomness.
_READABLE = (
    "/usr", "/lib", "/lib64", "/lib32", "/opt", "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom",
    "/etc/ld.so.cache", "/etc/localtime", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu",
)  # fmt: skip
NOBODY = 65534
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # the flag that asks for it

_REFUSED_EVENTS = ("socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.kill",
                   "pty.spawn", "ctypes.", "signal.pthread_kill")  # fmt: skip
_CHANGING_EVENTS = ("os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.mkdir", "os.truncate",
                    "os.chmod", "os.chown", "shutil.")  # fmt: skip


def confine(directory: str, memory: int, cpu_seconds: int) -> None:
    """Confines this process for good: `memory` bytes of addresses, `cpu_seconds`, files beneath `directory` only."""
    drop_user(directory)
    limit_resources(memory, cpu_seconds)
    if sys.platform == "linux":
        drop_capabilities()
        die_with_parent()
        restrict_files(directory)
        filter_system_calls()
    sys.addaudithook(audit_hook(directory))


def lacking(temporary: str) -> list[str]:
    """What is not taken from a program here, in words for a person; its directory will lie in `temporary`."""
    found = []
    if os.geteuid() == 0 and not _suits_nobody(temporary):
        found.append("they run as root, since others cannot enter the folders of Python or temporary files")
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES:
        found.append("there is no filter of system calls for this system")
    if sys.platform != "linux" or _libc().syscall(_CREATE_RULESET, None, 0, _VERSION) < 1:
        found.append("files can be read everywhere, since this system has no Landlock")
    return found


def drop_user(directory: str) -> bool:
    """Becomes nobody, where the harness is root and others can enter what is needed; False where it stays who it is."""
    if os.geteuid() != 0 or not _suits_nobody(os.path.dirname(directory)):
        return False
    os.chown(directory, NOBODY, NOBODY)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    return True


def python_folders() -> list[str]:
    """Where this interpreter and its packages lie."""
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, *(path for path in sys.path if os.path.isdir(path))}
    return sorted({os.path.realpath(path) for path in found} | {path for path in found if path})


def _suits_nobody(temporary: str) -> bool:
    return all(_open_to(path) for path in {*python_folders(), os.path.abspath(__file__), temporary})


def _open_to(path: str, user: int | None = None) -> bool:
    """Whether every folder on the way to a path can be entered by any user, or by this one."""
    parents = [Path(path), *Path(path).parents] if os.path.isdir(path) else [*Path(path).parents]
    return all(found.st_mode & 0o001 or found.st_uid == user for found in (parent.stat() for parent in parents))


def limit_resources(memory: int, cpu_seconds: int) -> None:
    """Hard limits; a file larger than allowed ends in an OSError, not in a signal that ends the process."""
    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: NO_FILE_LARGER,
        resource.RLIMIT_NOFILE: NO_MORE_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_AS: memory,
    }
    for kind, value in limits.items():
        with contextlib.suppress(OSError, ValueError):  # macOS knows no limit of addresses
            resource.setrlimit(kind, (value, value))


def drop_capabilities() -> bool:
    """Root that stays root may no more make devices, set the clock or pass over the permissions of others' files.

    But where Python itself lies in a folder that only another user enters: nothing more could be imported.
    """
    if os.geteuid() == 0 and not all(_open_to(path, 0) for path in python_folders()):
        return False
    done: int = _libc().capset(struct.pack("<Ii", _CAPABILITIES_VERSION, 0), bytes(24))
    return done == 0


def die_with_parent() -> None:
    """The kernel kills this process when the one that started it ends, however that happens."""
    _libc().prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def restrict_files(directory: str) -> bool:
    """Files are changed in `directory` (and /dev/null) only, and read there and where Python and its libraries lie.

    So no home, no passwords, no /proc of another process. False where the kernel has no Landlock.
    """
    libc = _libc()
    truncate = _TRUNCATE if libc.syscall(_CREATE_RULESET, None, 0, _VERSION) >= 3 else 0
    change = _CHANGE | truncate
    rules = struct.pack("<Q", change | _READ)
    ruleset = libc.syscall(_CREATE_RULESET, rules, len(rules), 0)
    if ruleset < 0:
        return False
    reads = dict.fromkeys((*_READABLE, *python_folders()), _READ)
    for path, rights in (reads | {directory: change | _READ, os.devnull: _WRITE_FILE | truncate | 1 << 2}).items():
        try:
            beneath = os.open(path, os.O_PATH)
        except OSError:
            continue  # this system has no such place
        if not os.path.isdir(path):
            rights &= _WRITE_FILE | truncate | 1 << 2  # the others are for folders, and refused for files
        libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("<Qi", rights, beneath), 0)
        os.close(beneath)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    done: int = libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return done == 0


def filter_system_calls() -> bool:
    """No network, no new process, no signal to another one; threads are allowed. False where that is unknown."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return False
    code = b"".join(struct.pack("<HBBI", *line) for line in _filter(machine, os.getpid()))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    libc = _libc()
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    done: int = libc.prctl(_PR_SET_SECCOMP, 2, program, 0, 0)
    return done == 0


def _filter(machine: str, pid: int) -> list[tuple[int, int, int, int]]:
    """Lines of (code, jump if true, jump if false, operand)."""
    architecture, clone, tgkill = _ARCHITECTURES[machine]
    refuse = (_RETURN, 0, 0, _ERROR | _EPERM)
    allow = (_RETURN, 0, 0, _ALLOW)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, 0x40000000), refuse,  # x86's second set of numbers
        # The C library tries clone3, whose flags a filter cannot see, and falls back to clone.
        (_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERROR | _ENOSYS),
    ]  # fmt: skip
    for number in (_DENIED[machine] | _DENIED_CHANGES[machine] | _DENIED_EVERYWHERE).values():
        lines += [(_EQUAL, 0, 1, number), refuse]
    arguments = ((_DENIED_FCNTL, refuse, allow), (_ALLOWED_IOCTL, allow, refuse))
    for number, (values, listed, other) in zip(_FCNTL_IOCTL[machine], arguments, strict=True):
        tests = [line for value in values for line in ((_EQUAL, 0, 1, value), listed)]
        lines += [(_EQUAL, 0, len(tests) + 2, number), (_LOAD, 0, 0, _SECOND_ARGUMENT), *tests, other]
    lines += [(_EQUAL, 0, 4, _PRLIMIT[machine]), (_LOAD, 0, 0, _ARGUMENT), (_EQUAL, 0, 1, 0), allow, refuse]
    lines += [(_EQUAL, 0, 4, clone), (_LOAD, 0, 0, _ARGUMENT), (_BITS, 0, 1, _CLONE_THREAD), allow, refuse]
    lines += [(_EQUAL, 0, 4, tgkill), (_LOAD, 0, 0, _ARGUMENT), (_EQUAL, 0, 1, pid), allow, refuse]
    return [*lines, allow]


def audit_hook(directory: str) -> Callable[[str, tuple[object, ...]], None]:
    """A hook that refuses what the system-call filter and the file rule refuse."""
    root = str(Path(directory).resolve()) + os.sep

    def inside(path: object) -> bool:
        if isinstance(path, int) or path is None:
            return True  # a file that is already open
        text = os.fsdecode(path)  # type: ignore[arg-type]
        return text == os.devnull or os.path.realpath(text).startswith(root)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(_REFUSED_EVENTS):
            raise PermissionError(f"{event} is not allowed in an evaluated program")
        changes = event.startswith(_CHANGING_EVENTS)
        if event == "open":
            flags = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0
            changes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND))
        if changes and not all(inside(a) for a in arguments[:2] if isinstance(a, (str, bytes, os.PathLike))):
            raise PermissionError(f"{event} is not allowed outside the program's directory")

    return hook
