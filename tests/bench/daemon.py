#!/usr/bin/env python3
"""What the daemon and the command line cost: exec, create, list, and an idle daemon. Medians of one run on this machine.

    tests/bench/daemon.py [ROUNDS]      after tests/run.sh e2e has made the parts (BANGER_TEST_DIR, target/test-parts)

The host's share of an exec is what `banger vm exec -- true` takes beyond the same operation spoken by this script straight to
the guest's vsock socket; both are measured in turns.
"""
import glob, json, os, shutil, socket, statistics, struct, subprocess, sys, tempfile, time

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 31
here = os.path.dirname(os.path.abspath(__file__))
parts = os.path.abspath(os.environ.get("BANGER_TEST_DIR", os.path.join(here, "../../target/test-parts")))
banger = os.environ.get("BANGER_TEST_BINARY") or glob.glob(os.path.join(here, "../../target/*/release/banger"))[0]
os.environ["PATH"] += f":{parts}/tools/bin:{os.path.expanduser('~/.cargo/bin')}"
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
work = tempfile.mkdtemp(prefix="b", dir=parts)
os.environ["BANGER_ROOT"] = work
os.mkdir(os.path.join(work, "config"))
with open(os.path.join(work, "config/config.toml"), "w") as f:
    f.write("network = 'user'\n")


def run(*args):
    return subprocess.run([banger, *args], stdin=subprocess.DEVNULL, check=True, capture_output=True, text=True).stdout


def timed(f):
    begin = time.monotonic()
    f()
    return (time.monotonic() - begin) * 1000


def median(f, n=rounds):
    return statistics.median(timed(f) for _ in range(n))


def straight(path):
    """exec of `true`, by the protocol of src/proto/agent.rs."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(b"CONNECT 1000\n")
        while s.recv(1) != b"\n":
            pass
        request = {"op": "exec", "argv": ["true"], "env": ["PATH=/bin"], "cwd": "/", "user": "root"}
        s.sendall(json.dumps(request).encode() + b"\n")
        while True:
            kind, length = struct.unpack("<BI", s.recv(5, socket.MSG_WAITALL))
            s.recv(length, socket.MSG_WAITALL)
            if kind == 6:
                return


def status(pid, key):
    with open(f"/proc/{pid}/status") as f:
        return int(next(line for line in f if line.startswith(key + ":")).split()[1])


def wakeups(pid):
    return sum(status(f"{pid}/task/{t}", "voluntary_ctxt_switches") for t in os.listdir(f"/proc/{pid}/task"))


try:
    subprocess.run(["cp", "-a", f"{parts}/seed/state", work], check=True)
    run("vm", "run", "-q", "-d", "--name", "dev", "--image", "busybox")
    (vsock,) = glob.glob(f"{work}/run/vms/*/vsock.sock")
    execs, raws = [], []
    for _ in range(rounds):
        execs.append(timed(lambda: run("vm", "exec", "dev", "--", "true")))
        raws.append(timed(lambda: straight(vsock)))
    e, r = statistics.median(execs), statistics.median(raws)
    start = median(lambda: run("--version"))
    print(f"vm exec -- true: {e:.1f} ms; straight to the guest: {r:.1f} ms; the host's share: {e - r:.1f} ms")
    print(f"  of which starting a process that prints its version: {start:.1f} ms")
    run("vm", "delete", "dev")
    n = iter(range(1000))
    create = median(lambda: run("vm", "create", "-q", "--no-start", "--name", f"v{next(n)}", "--image", "busybox"), 100)
    print(f"vm create --no-start: {create:.1f} ms")
    print(f"vm list of {len(json.loads(run('vm', 'list', '--json')))} stopped VMs: {median(lambda: run('vm', 'list')):.1f} ms")
    pid = json.loads(run("daemon", "status", "--json"))["pid"]
    time.sleep(3)
    before = wakeups(pid)
    time.sleep(10)
    print(f"idle daemon: {status(pid, 'VmRSS') / 1024:.1f} MiB resident, {wakeups(pid) - before} wake-ups in 10 s")
finally:
    names = run("vm", "list", "--ids").split()
    if names:
        run("vm", "delete", *names)
    run("daemon", "stop")
    shutil.rmtree(work)
