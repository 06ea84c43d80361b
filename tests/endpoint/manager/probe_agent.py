# Stands where the agent would: tells on the line what it is, tries what it must not be able to, waits for its end.
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys


def frame(document):
    body = json.dumps(document).encode()
    return len(body).to_bytes(4, "big") + body


def whole(sock, length):
    data = b""
    while len(data) < length:
        more = sock.recv(length - len(data))
        if not more:
            sys.exit(0)
        data += more
    return data


def outcome(call, *arguments):
    try:
        return repr(call(*arguments))
    except OSError as exc:
        return exc.strerror


name, line_fd, config_fd = sys.argv[2], int(sys.argv[4]), int(sys.argv[6])
fds = {
    fd: os.readlink(f"/proc/self/fd/{fd}")
    for fd in os.listdir("/proc/self/fd")
    if os.path.lexists(f"/proc/self/fd/{fd}")
}
with open(config_fd, "rb") as file:
    config = json.load(file)
line = socket.socket(fileno=line_fd)
begin = json.loads(whole(line, int.from_bytes(whole(line, 4), "big")))
wish, _, argument = json.loads(config["config"].split(":", 1)[1]).partition(" ")
with open("/proc/self/status") as file:
    status = dict(each.split(":\t", 1) for each in file.read().splitlines() if ":\t" in each)
umask = os.umask(0)
os.umask(umask)
told = {
    "argv": sys.argv[1:],
    "config": config,
    "begin": begin,
    "resuid": os.getresuid(),
    "resgid": os.getresgid(),
    "groups": sorted(os.getgroups()),
    "umask": umask,
    "cwd": os.getcwd(),
    "environ": dict(os.environ),
    "fds": fds,
    "status": status,
    "pid": os.getpid(),
    "ppid": os.getppid(),
    "sid": os.getsid(0),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "ignored": [
        s.name for s in signal.Signals if signal.getsignal(s) is signal.SIG_IGN and s.name not in ("SIGPIPE", "SIGXFSZ")
    ],
    "mask": [int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
}
if wish == "attack":
    aims = json.loads(argument)
    told["attempts"] = {
        **{f"read {path}": outcome(open, path) for path in aims["read"]},
        **{f"list {path}": outcome(os.listdir, path) for path in aims["list"]},
        **{f"signal {pid}": outcome(os.kill, pid, 0) for pid in aims["signal"]},
        "setuid": outcome(os.setuid, 0),
        "setgroups": outcome(os.setgroups, [0]),
        "chroot": outcome(os.chroot, "/"),
        "open manager's memory": outcome(open, f"/proc/{aims['signal'][0]}/mem", "rb"),
        "open manager's environment": outcome(open, f"/proc/{aims['signal'][0]}/environ", "rb"),
    }
    libc = ctypes.CDLL(None, use_errno=True)
    told["key"] = libc.syscall(*[ctypes.c_long(each) for each in aims["keyctl_read"]]) if aims["keyctl_read"] else -1
if wish in ("attack", "helper"):
    # Reads /etc/shadow with its set-group-id bit.
    told["helper"] = subprocess.run(["chage", "--list", os.environ["USER"]], capture_output=True, text=True).returncode
if wish == "leave":  # one that keeps the environment, one that has neither that nor our session, one in our session
    clean = {"PATH": os.environ["PATH"]}
    told["left"] = [
        subprocess.Popen(["sleep", "1000"], start_new_session=True).pid,
        subprocess.Popen(["sleep", "1000"], start_new_session=True, env=clean).pid,
        subprocess.Popen(["sleep", "1000"], env=clean).pid,
        subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 1000; :"]).pid,
    ]
if wish == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
line.sendall(frame({"kind": "rendered", "config": json.dumps(told)}))  # of all kinds the one that is not cut
if wish == "status":
    sys.exit(int(argument))
if wish == "stuck":  # hears nothing of the line
    signal.pause()
while line.recv(65536):
    pass
if wish == "deaf":
    signal.pause()
