"""Processes and the CPU time they and the machine have spent."""
import os
import re
import signal
import subprocess
import time

HZ = os.sysconf("SC_CLK_TCK")
FOREIGN_START = 0.05  # cores that other processes may use before a run ...
FOREIGN_RUN = 0.10    # ... and during it,
STEAL_RUN = 0.20      # and that the hypervisor may keep, for the run to count as undisturbed

started = []          # every process started here; none outlives the program


def table():
    """pid -> (parent, ticks of its own and of its reaped children, whether it is a kernel thread)"""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        found[int(pid)] = int(fields[1]), sum(map(int, fields[11:15])), "2" in (fields[1], pid)
    return found


def tree(root, processes):
    """root and all its descendants"""
    children = {}
    for pid, (parent, *_) in processes.items():
        children.setdefault(parent, []).append(pid)
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        if pid in processes:
            found.append(pid)
        todo += children.get(pid, [])
    return found


def snapshot(server=None, client=None):
    """CPU seconds so far of the daemons at both ends, of foreign processes, and of each core"""
    processes = table()

    def spent(process):
        return sum(processes[pid][1] for pid in tree(process.pid, processes)) / HZ if process else 0.0

    ours = set(tree(os.getpid(), processes))
    foreign = sum(ticks for pid, (_, ticks, kernel) in processes.items() if pid not in ours and not kernel)
    found = {"t": time.monotonic(), "server": spent(server), "client": spent(client), "foreign": foreign / HZ, "steal": 0.0}
    with open("/proc/stat") as file:
        for core, text in re.findall(r"^cpu(\d+) (.*)$", file.read(), re.M):
            ticks = list(map(int, text.split()))
            found["cpu" + core] = (sum(ticks[:8]) - ticks[3] - ticks[4] - ticks[7]) / HZ
            found["steal"] += ticks[7] / HZ
    return found


def used(before, after):
    return {key: after[key] - before[key] for key in before}


def disturbed(cpu):
    """Whether others took so much of the machine that a run says little"""
    return cpu["foreign"] / cpu["t"] > FOREIGN_RUN or cpu["steal"] / cpu["t"] > STEAL_RUN


def taken(cpu):
    return (cpu["foreign"] + cpu["steal"]) / cpu["t"]


def wait_quiet(patience):
    """Waits until nobody else computes; returns what is left of the patience, in seconds"""
    while patience > 0:
        before = snapshot()
        time.sleep(0.5)
        spent = used(before, snapshot())
        if spent["foreign"] / spent["t"] < FOREIGN_START:
            break
        time.sleep(3)
        patience -= 3.5
    return patience


def start(argv, environment, core=None, **options):
    """Starts a process, on one core if so asked"""
    process = subprocess.Popen(argv, env={**os.environ, **environment}, start_new_session=True,
                               preexec_fn=(lambda: os.sched_setaffinity(0, {core})) if core is not None else None, **options)
    started.append(process)
    return process


def stop(process):
    """Ends a process started here and all that it has started"""
    for number in (signal.SIGTERM, signal.SIGKILL):
        pids = tree(process.pid, table())
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        try:
            process.wait(timeout=4)
        except subprocess.TimeoutExpired:
            continue
        time.sleep(0.2)
        for pid in pids:  # children that outlived it
            if pid != process.pid and os.path.exists(f"/proc/{pid}"):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        return


def stop_all():
    while started:
        stop(started.pop())
