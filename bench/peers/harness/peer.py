"""One peer on the path: its daemons, and the work they do."""
import json
import os
import re
import shutil
import statistics
import subprocess
import time

from . import machine, path

KIT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PINGS, PING_INTERVAL_S = 500, 0.01


def names():
    return sorted(os.listdir(os.path.join(KIT, "peers.d")))


class Peer:
    def __init__(self, name, work, options):
        self.name, self.options = name, options
        self.script = os.path.join(KIT, "peers.d", name)
        self.work = os.path.join(work, name)
        self.server = self.client = None

    def hook(self, step):
        return path.shell(f"W={self.work} {self.script} {step}")

    # ---------------------------------------------------------------- daemons
    def up(self):
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(self.work)
        os.chmod(self.work, 0o755)
        path.build()
        path.ENV["W"] = self.work
        steps = self.hook("steps").split()
        if "setup" in steps:
            self.hook("setup")
        if "server" in steps:
            self.server = self.daemon("server", path.GW, path.SERVER_CPU)
            time.sleep(1)
        if "client" in steps:
            self.client = self.daemon("client", path.UE, path.CLIENT_CPU)
            time.sleep(0.5)
        if "up" in steps:
            self.hook("up")
        self.wait_for_answer()
        return self.hook("detail").strip() if "detail" in steps else ""

    def daemon(self, role, namespace, core):
        with open(f"{self.work}/{role}.log", "ab") as log:
            return machine.start(["ip", "netns", "exec", namespace, self.script, role], path.ENV, core,
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_for_answer(self):
        for _ in range(40):
            if subprocess.run(["ip", "netns", "exec", path.UE, "ping", "-c1", "-W1", path.ENV["CORE_IP"]], capture_output=True).returncode == 0:
                return
            time.sleep(0.25)
        logs = ""
        for role in ("server", "client"):
            if os.path.exists(f"{self.work}/{role}.log"):
                with open(f"{self.work}/{role}.log", errors="replace") as file:
                    logs += f"\n{role}: {file.read()[-600:]}"
        raise RuntimeError(f"{self.name}: no answer through the tunnel; its last words:{logs}")

    def down(self):
        machine.stop_all()
        path.remove()

    # ---------------------------------------------------------------- work
    def iperf_server(self):
        process = machine.start(["ip", "netns", "exec", path.CORE, "iperf3", "-s", "-1", "-B", path.ENV["CORE_IP"]], {}, path.SERVER_CPU,
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            if path.shell("ip netns exec $CORE ss -ltnH sport = :5201"):
                break
            time.sleep(0.02)
        return process

    def iperf_client(self, *arguments):
        return machine.start(["ip", "netns", "exec", path.UE, "iperf3", "-c", path.ENV["CORE_IP"], "-J", *arguments], {}, path.CLIENT_CPU,
                             text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    @staticmethod
    def iperf_report(client, server, timeout):
        try:
            text, _ = client.communicate(timeout=timeout)
            report = json.loads(text)
        except (subprocess.TimeoutExpired, ValueError) as failure:
            machine.stop(client)
            report = {"error": str(failure)[:200]}
        machine.stop(server)
        return report

    def undisturbed(self, run):
        """Repeats a run from which others took CPU time, at most twice; keeps the least disturbed"""
        best = None
        for _ in range(1 if self.options.no_wait else 3):
            if not self.options.no_wait:
                self.options.patience = machine.wait_quiet(self.options.patience)
            result = run()
            if best is None or machine.taken(result["cpu"]) < machine.taken(best["cpu"]):
                best = result
            if not machine.disturbed(best["cpu"]):
                break
        return best

    def bulk(self, direction):
        """One iperf3 stream as fast as it goes, with the CPU time of both daemons"""
        def run():
            server = self.iperf_server()
            before = machine.snapshot(self.server, self.client)
            client = self.iperf_client("-t", str(self.options.seconds), *(["-R"] if direction == "down" else []))
            report = self.iperf_report(client, server, self.options.seconds + 30)
            cpu = machine.used(before, machine.snapshot(self.server, self.client))
            if "error" in report:
                return {"error": report["error"], "cpu": cpu}
            received = report["end"]["sum_received"]
            gigabytes = received["bytes"] / 1e9
            return {"gbit_per_s": received["bits_per_second"] / 1e9, "server_cpu_s_per_gb": cpu["server"] / gigabytes,
                    "client_cpu_s_per_gb": cpu["client"] / gigabytes, "cpu": cpu}
        return self.undisturbed(run)

    def ping(self, direction=None, gbit_per_s=None):
        """Round trips 10 ms apart, idle or beside a stream of at most gbit_per_s"""
        def run():
            server = client = None
            if direction:
                server = self.iperf_server()
                rate = ["-b", f"{gbit_per_s * 1e9:.0f}"] if gbit_per_s else []
                seconds = int(PINGS * PING_INTERVAL_S * 1.2) + 3
                client = self.iperf_client("-t", str(seconds), *rate, *(["-R"] if direction == "down" else []))
                time.sleep(1.5)
            before = machine.snapshot(self.server, self.client)
            output = subprocess.run(["ip", "netns", "exec", path.UE, "taskset", "-c", str(path.CLIENT_CPU), "ping", "-n", "-i",
                                     str(PING_INTERVAL_S), "-c", str(PINGS), path.ENV["CORE_IP"]], text=True, capture_output=True).stdout
            cpu = machine.used(before, machine.snapshot(self.server, self.client))
            result = {"cpu": cpu}
            if client:
                report = self.iperf_report(client, server, 60)
                result["bulk_gbit_per_s"] = None if "error" in report else report["end"]["sum_received"]["bits_per_second"] / 1e9
            times = sorted(map(float, re.findall(r"time=([\d.]+) ms", output)))
            if not times:
                return {**result, "error": "no replies"}
            at = lambda part: times[min(len(times) - 1, int(part * len(times)))]
            return {**result, "p50_ms": at(.5), "p99_ms": at(.99), "max_ms": times[-1], "lost": PINGS - len(times)}
        return self.undisturbed(run)

    def rates(self):
        """Median of the repeated bulk runs, each way"""
        found = {}
        for direction in ("up", "down"):
            runs = [self.bulk(direction) for _ in range(self.options.repeat)]
            good = [run for run in runs if "error" not in run]
            good = [run for run in good if not machine.disturbed(run["cpu"])] or good
            if not good:
                raise RuntimeError(f"{self.name} {direction}: {runs[-1]['error']}")
            found[direction] = {key: statistics.median(run[key] for run in good) for key in good[0] if key != "cpu"}
            found[direction]["disturbed"] = any(machine.disturbed(run["cpu"]) for run in good)
        return found

    def round_trips(self, offered):
        """Round trips idle and beside the offered load of each direction"""
        trips = {"idle": self.ping()}
        for direction in ("up", "down"):
            trips[direction] = self.ping(direction, offered.get(direction))
        for trip in trips.values():
            trip["disturbed"] = machine.disturbed(trip.pop("cpu"))
        return trips
