"""Every system call that a taken-over parser might make, tried in the limited child: what the kernel answered."""

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import pyseccomp

NOT_A_CALL = 1000
"""No kernel has this number: without a filter that refuses what it does not know, the answer is ``ENOSYS``."""
_PAST_ALL_CALLS = 480
_PROBES = frozenset({335, 336}) if platform.machine() == "x86_64" else frozenset()
"""uretprobe and uprobe: the kernel asks no filter, and ends whoever calls them outside its own trampoline."""

DANGEROUS = (
    *("kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "pidfd_open", "pidfd_getfd"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp"),
    *("setpriority", "ioprio_set", "sched_setaffinity", "sched_setscheduler", "sched_setattr", "sched_setparam"),
    *("prlimit64", "setrlimit", "migrate_pages", "move_pages", "setpgid", "setsid", "prctl"),
    *("setxattr", "lsetxattr", "fsetxattr", "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr"),
    *("flistxattr", "removexattr", "lremovexattr", "fremovexattr"),
    *("open", "openat", "openat2", "creat", "open_by_handle_at", "name_to_handle_at", "truncate", "memfd_create"),
    *("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "statfs"),
    *("chdir", "fchdir", "chroot", "pivot_root", "umask", "chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown"),
    *("fchownat", "utime", "utimes", "utimensat", "futimesat", "fallocate", "flock", "getdents64"),
    *("unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("mkdir", "mkdirat", "rmdir", "mknod", "mknodat", "inotify_init1", "fanotify_init", "fanotify_mark"),
    *("mount", "umount2", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"),
    *("swapon", "swapoff", "acct", "quotactl", "sync", "syncfs", "vhangup", "syslog", "lookup_dcookie"),
    *("sethostname", "setdomainname", "clock_settime", "clock_adjtime", "settimeofday", "adjtimex", "reboot"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "iopl", "ioperm"),
    *("execve", "execveat", "fork", "vfork", "clone", "clone3", "unshare", "setns", "personality", "seccomp"),
    *("setuid", "setgid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid", "capset"),
    *("socket", "connect", "bind", "listen", "accept", "accept4", "sendmsg", "sendmmsg", "recvmsg"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "io_setup", "bpf", "perf_event_open", "userfaultfd"),
    *("keyctl", "add_key", "request_key", "shmget", "msgget", "semget", "mq_open", "mlockall", "modify_ldt"),
    *("landlock_create_ruleset", "memfd_secret", "timer_create", "setitimer", "pkey_alloc", "vmsplice", "splice"),
)

_LIBC = ctypes.CDLL(None, use_errno=True)
_HERE = -100
_PATH = ctypes.c_char_p(b"/etc/passwd")
_ROOM = ctypes.create_string_buffer(4096)
_SET_OWNER, _SET_SIGNAL = 8, 10
_SET_OWNER_BY_IOCTL = 0x8901
_FAKE_INPUT = 0x5412


def try_numbers(allowed: Iterable[str]) -> dict[str, str]:
    """The answer to each number but those of the names in ``allowed``; no argument is one that could do anything."""
    answers = {str(NOT_A_CALL): _answer(NOT_A_CALL)}
    if answers[str(NOT_A_CALL)] != "EPERM":
        return answers  # no filter worth the name: some of these calls would do harm
    passed_over = _PROBES | {number_of(name) for name in allowed}
    answers |= {str(call): _answer(call, *(-1,) * 6) for call in range(_PAST_ALL_CALLS) if call not in passed_over}
    return answers


def number_of(name: str) -> int:
    """Of the system call ``name``; negative where this machine has none."""
    return int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))


def try_with_arguments(descriptor: int) -> dict[str, str]:
    """What would work without the filter, even for nobody: on the parent, by name, by the descriptors in hand."""
    return {name: attempt() for name, attempt in _attempts(descriptor, os.getppid())}


def try_own() -> dict[str, str]:
    """What the filter leaves, as far as arguments decide: the same calls, on the child itself."""
    own = os.getpid()
    return {
        "signal itself": _answer(number_of("tgkill"), own, own, 0),
        "its processors": "done" if os.sched_getaffinity(0) else "none",
        "stream pair": _python(socket.socketpair),
        "flags of a descriptor": _answer(number_of("fcntl"), 0, 1),
    }


def _attempts(descriptor: int, parent: int) -> Iterator[tuple[str, Callable[[], str]]]:
    raw: Mapping[str, tuple[object, ...]] = {
        "tgkill": (parent, parent, 0),
        "rt_sigqueueinfo": (parent, 0, ctypes.create_string_buffer(struct.pack("iii", 0, 0, -1), 128)),
        "kill": (parent, 0),
        "setpriority": (0, parent, 1),
        "sched_getaffinity": (parent, 128, _ROOM),
        "prlimit64": (parent, resource.RLIMIT_CORE, None, _ROOM),
        "pidfd_open": (parent, 0),
        "stat": (_PATH, _ROOM),
        "newfstatat": (_HERE, _PATH, _ROOM, 0x1000),
        "statx": (_HERE, _PATH, 0, 0xFFF, _ROOM),
        "access": (_PATH, 4),
        "chdir": (ctypes.c_char_p(b"/tmp"),),
        "getxattr": (_PATH, ctypes.c_char_p(b"user.a"), _ROOM, 16),
        "flistxattr": (descriptor, _ROOM, 16),
        "fchmod": (descriptor, 0o777),
        "utimensat": (descriptor, None, None, 0),
        "flock": (descriptor, 2),
        "fcntl": (0, _SET_OWNER, parent),
        "ioctl": (0, _SET_OWNER_BY_IOCTL, ctypes.byref(ctypes.c_int(parent))),
        "open_tree": (_HERE, _PATH, 0),
        "memfd_create": (ctypes.c_char_p(b"a"), 0),
        "prctl": (15, ctypes.c_char_p(b"another")),
    }
    for name, arguments in raw.items():
        yield name, partial(_answer, number_of(name), *arguments)
    pair = number_of("socketpair")
    for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK):
        yield f"pair of kind {int(kind)}", partial(_answer, pair, int(socket.AF_UNIX), int(kind), 0, _ROOM)
    yield "signal of a descriptor", lambda: _answer(number_of("fcntl"), 0, _SET_SIGNAL, int(signal.SIGKILL))
    yield "typing for the terminal", lambda: _answer(number_of("ioctl"), 0, _FAKE_INPUT, _ROOM)
    ours, _theirs = socket.socketpair()
    address = struct.pack("H14s", socket.AF_UNIX, b"\0nowhere")
    yield "send to an address", lambda: _answer(number_of("sendto"), ours.fileno(), b"a", 1, 0, address, len(address))


def _answer(number: int, *arguments: object) -> str:
    wide = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    ctypes.set_errno(0)
    if _LIBC.syscall(ctypes.c_long(number), *wide) != -1:
        return "done"
    return errno.errorcode[ctypes.get_errno()]


def _python(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"
