#!/usr/bin/env python3
"""The host's share of bringing a work tree: `banger vm workspace prepare` against `git ls-files -z | tar c | tar x` of the same tree.

    tests/bench/workspace.py [FILES [MIB [ROUNDS]]]      20000 files, 300 MiB, 5 rounds; after cargo build --release

This script is the daemon and the guest: it answers as they would, and throws away what comes. Both are measured in turns, in wall time and
in CPU time of banger (or tar) and what it starts. The ratio of the best rounds of each is to be at most 1.2 in wall time.
"""
import array, glob, json, os, random, resource, shutil, socket, struct, subprocess, sys, tempfile, threading, time

files, mib, rounds = (int(v) for v in (sys.argv[1:] + ["20000", "300", "5"][len(sys.argv) - 1 :]))
here = os.path.dirname(os.path.abspath(__file__))
banger = os.environ.get("BANGER_TEST_BINARY") or glob.glob(os.path.join(here, "../../target/*/release/banger"))[0]
work = tempfile.mkdtemp(prefix="bw")
repo = os.path.join(work, "repo")
GIT = ["git", "-C", repo, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "gc.auto=0"]


def make_repository():
    """A history of 12 commits over a tree of files of all sizes, text as well as what does not compress."""
    rng = random.Random(7)
    os.mkdir(repo)
    subprocess.run([*GIT, "init", "-q"], check=True)
    average = mib * 2**20 // files
    line = b"let it = be(some, text, that, compresses);\n"
    for n in range(files):
        path = os.path.join(repo, f"d{n % 97}", f"e{n % 13}", f"file{n}.rs")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        size = int(average * rng.choice([0.05, 0.2, 0.5, 0.5, 1, 1.5, 3.25]))
        with open(path, "wb") as f:
            f.write(rng.randbytes(size) if n % 5 == 0 else (b"%d " % n + line * (size // len(line) + 1))[:size])
    subprocess.run([*GIT, "add", "-A"], check=True)
    subprocess.run([*GIT, "commit", "-q", "-m", "all"], check=True)
    for n in range(11):
        for k in range(20):
            with open(os.path.join(repo, f"d{k}", "e0", f"more{n}"), "w") as f:
                f.write(f"{n} {k}\n" * 50)
        subprocess.run([*GIT, "add", "-A"], check=True)
        subprocess.run([*GIT, "commit", "-q", "-m", f"more {n}"], check=True)
    subprocess.run([*GIT, "repack", "-q", "-a", "-d"], check=True)
    os.utime(repo)


def vm():
    spec = {"vcpu": 2, "memory_mib": 512, "disk_mib": 8192, "vmm": "auto", "accel": "auto", "nat": False}
    record = {"id": "0000000000ab", "name": "dev", "image": "0" * 64, "image_name": "x", "kernel": None, "spec": spec}
    process = {"vmm": {"pid": 1, "started": 1}}
    return {**record, "state": "running", "processes": process, "created_at": 1, "started_at": 1, "owner": None,
            "directory": "/d", "address": None, "running_on": None}


class Guest(threading.Thread):
    """Answers one prepare, and keeps nothing but a count."""

    def __init__(self, sock, made):
        super().__init__(daemon=True)
        self.sock, self.made, self.bytes = sock, made, 0

    def segment(self):
        while True:
            kind, length = struct.unpack("<BI", self.exactly(5))
            if kind == 8:
                return
            self.exactly(length)
            self.bytes += length

    def exactly(self, n):
        while len(self.kept) - self.at < n:
            self.kept = self.kept[self.at :] + self.sock.recv(1 << 20)
            self.at = 0
        self.at += n
        return self.kept[self.at - n : self.at]

    def say(self, payload):
        for at in range(0, len(payload), 65536):
            piece = payload[at : at + 65536]
            self.sock.sendall(struct.pack("<BI", 7, len(piece)) + piece)
        self.sock.sendall(struct.pack("<BI", 8, 0))

    def run(self):
        self.kept, self.at = b"", 0
        self.say(b"")
        self.segment()
        self.segment()
        self.say(b"")
        self.segment()
        self.segment()
        self.say(self.made)
        self.segment()
        self.say(b"")
        self.sock.recv(1)


def daemon(listener, made, guests):
    while True:
        connection, _ = listener.accept()
        request = json.loads(connection.makefile().readline())
        method = request["method"]
        if method == "vm.workspace.prepare":
            near, far = socket.socketpair()
            guests.append(Guest(far, made))
            guests[-1].start()
            reply = json.dumps({"done": {"placed": None, "head": None, "branch": None}}).encode() + b"\n"
            fds = array.array("i", [near.fileno()])
            connection.sendmsg([reply], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            near.close()
        else:
            connection.sendall(json.dumps({"done": vm()}).encode() + b"\n")
        connection.close()


def timed(act):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    act()
    wall = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def prepare():
    env = {**os.environ, "BANGER_ROOT": os.path.join(work, "root")}
    subprocess.run([banger, "vm", "workspace", "prepare", "-q", "dev", repo], check=True, env=env)


def tar():
    to = os.path.join(work, "to")
    os.mkdir(to)
    script = 'git -C "$1" ls-files -z | tar -C "$1" -c --null -T - | tar -x -C "$2"'
    subprocess.run(["sh", "-c", script, "sh", repo, to], check=True)


try:
    make_repository()
    out = subprocess.run([*GIT, "ls-files", "-s", "-z"], check=True, capture_output=True).stdout
    made = b"".join(entry.split()[1] + b"\n" for entry in out.split(b"\0") if entry)
    os.makedirs(os.path.join(work, "root/run"), mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(work, "root/run/bangerd.sock"))
    os.chmod(os.path.join(work, "root/run/bangerd.sock"), 0o600)
    listener.listen()
    guests = []
    threading.Thread(target=daemon, args=(listener, made, guests), daemon=True).start()
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(timed(prepare))
        theirs.append(timed(tar))
        shutil.rmtree(os.path.join(work, "to"))
        print(f"prepare {ours[-1][0]:.3f} s ({ours[-1][1]:.3f} s CPU), tar | tar {theirs[-1][0]:.3f} s ({theirs[-1][1]:.3f} s CPU)")
    print(f"{made.count(10)} files, {guests[-1].bytes / 2**20:.0f} MiB went to the guest")
    wall, cpu = (min(o[i] for o in ours) / min(t[i] for t in theirs) for i in (0, 1))
    print(f"ratio: {wall:.2f} in wall time, {cpu:.2f} in CPU time (at most 1.2 in wall time is wanted)")
    sys.exit(wall > 1.2)
finally:
    shutil.rmtree(work)
