#!/usr/bin/env python3
"""The measuring of tests/bench/import.sh, which makes what this needs and says what it is for.

    import.py DIR ROUNDS

Wall is the clock's; CPU is user and system time of all processes of that way, bangerd's included; resident is the most that
bangerd ever had, of a fresh one (VmHWM).
"""
import json, os, shutil, socket, statistics, subprocess, sys, tempfile, time

dir, rounds = sys.argv[1], int(sys.argv[2])
banger = os.environ["BANGER_TEST_BINARY"]
work = tempfile.mkdtemp(prefix="w", dir=dir)
ticks = os.sysconf("SC_CLK_TCK")


def blob(layout, digest):
    return os.path.join(layout, "blobs", *digest.split(":"))


def layers(layout):
    with open(f"{layout}/index.json") as f:
        (top,) = json.load(f)["manifests"]
    with open(blob(layout, top["digest"])) as f:
        return [blob(layout, layer["digest"]) for layer in json.load(f)["layers"]]


def run(*args, **options):
    """Runs to the end; returns the CPU seconds that it and its children took."""
    child = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(args)}: {child.returncode}: {said.decode(errors='replace')}")
    return usage.ru_utime + usage.ru_stime


def timed(way, *args):
    """Wall and CPU seconds, and resident MiB if the way tells."""
    os.sync()  # what the last one wrote is not to be paid by this one
    result = way(*args)
    shutil.rmtree(work)
    os.mkdir(work)
    return result


def clocked(action):
    begin = time.monotonic()
    cpu = action()
    return time.monotonic() - begin, cpu, None


def gzip(layout):
    return clocked(lambda: sum(run("gzip", "-dc", layer) for layer in layers(layout)))


def cpu_of(pid):
    """Of a process and the children that it waited for (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return sum(int(fields[n]) for n in (11, 12, 13, 14)) / ticks


def in_a_fresh_banger(*args):
    env = dict(os.environ, BANGER_ROOT=work)
    run(banger, "image", "list", env=env)  # starts bangerd
    pid = json.loads(subprocess.check_output([banger, "daemon", "status", "--json"], env=env))["pid"]
    before = cpu_of(pid)
    wall, cpu, _ = clocked(lambda: run(banger, *args, env=env))
    cpu += cpu_of(pid) - before
    with open(f"/proc/{pid}/status") as f:
        resident = int(next(line for line in f if line.startswith("VmHWM:")).split()[1]) / 1024
    run(banger, "daemon", "stop", env=env)
    return wall, cpu, resident


def import_(layout):
    return in_a_fresh_banger("image", "import", layout, "--name", "bench")


def pull(address, name):
    return in_a_fresh_banger("image", "pull", f"{address}/{name}:bench")


def umoci(layout):
    def both():
        cpu = run("umoci", "unpack", "--image", f"{layout}:bench", f"{work}/bundle")
        root = f"{work}/bundle/rootfs"
        size = int(subprocess.check_output(["du", "-sm", root]).split()[0])
        return cpu + run("mkfs.ext4", "-q", "-d", root, f"{work}/out.ext4", f"{size * 13 // 10 + 64}M")

    return clocked(both)


def arcbox(layout):
    paths = layers(layout)
    size = str(sum(os.path.getsize(path) for path in paths) * 5)
    return clocked(lambda: run(f"{dir}/bin/arcbox", f"{work}/out.ext4", size, *paths))


class Registry:
    """docker's, on a port of 127.0.0.1, with the images of the layouts."""

    def __enter__(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % s.getsockname()[1]
        storage = f"{dir}/registry"
        with open(f"{dir}/registry.yml", "w") as f:
            f.write(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {storage}}}}}\nhttp: {{addr: '{self.address}'}}\n")
        self.child = subprocess.Popen(["docker-registry", "serve", f"{dir}/registry.yml"], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        host, port = self.address.split(":")
        for _ in range(600):
            try:
                socket.create_connection((host, int(port))).close()
                return self
            except OSError:
                time.sleep(0.1)
        sys.exit("docker-registry does not listen")

    def push(self, layout, name):
        run("skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", f"oci:{layout}:bench",
            f"docker://{self.address}/{name}:bench")

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()


def measure(name, ways):
    for way in ways.values():  # the caches are warm, the programs are read
        timed(way[0], *way[1:])
    found = {title: [] for title in ways}
    for _ in range(rounds):
        for title, (way, *args) in ways.items():
            found[title].append(timed(way, *args))
    median = {title: [statistics.median(column) if None not in column else None for column in zip(*results)]
              for title, results in found.items()}
    base = median["gzip -dc"][0]
    packed = sum(os.path.getsize(path) for path in layers(f"{dir}/{name}")) / 1e6
    print(f"\n{name}: {len(layers(f'{dir}/{name}'))} layers, {packed:.0f} MB packed; medians of {rounds} rounds")
    print("| | wall s | of gzip -dc | from - to | CPU s | resident MiB |\n|---|---|---|---|---|---|")
    for title, (wall, cpu, resident) in median.items():
        walls = [result[0] for result in found[title]]
        peak = max((result[2] for result in found[title] if result[2] is not None), default=None)
        print(f"| {title} | {wall:.2f} | {wall / base:.2f} | {min(walls):.2f} - {max(walls):.2f} | {cpu:.2f} | "
              f"{'' if peak is None else f'{peak:.0f}'} |")


try:
    with Registry() as registry:
        for name in ("small", "large"):
            layout = f"{dir}/{name}"
            registry.push(layout, name)
            measure(name, {
                "gzip -dc": (gzip, layout),
                "banger image import": (import_, layout),
                "banger image pull, loopback": (pull, registry.address, name),
                "arcbox-ext4 0.1.2, no digests": (arcbox, layout),
                "umoci unpack + mkfs.ext4 -d": (umoci, layout),
            })
finally:
    # One that was interrupted has left its bangerd.
    subprocess.run([banger, "daemon", "stop"], env=dict(os.environ, BANGER_ROOT=work), capture_output=True)
    shutil.rmtree(work)
