"""Ping and iperf3 towards the host behind the gateway, whoever runs them."""
import itertools
import json
import re

from .lab import Lab, wait_for

# Echoes of one ping step.
PINGS = 3

# A direction that is slower has failed; the octet-by-octet stream still reaches it.
LEAST_MBIT = 0.5

_ports = itertools.count(5201)


def ping(verdict, name, execute, address=Lab.CORE4):
    """Every echo must be answered, once; execute(argv, timeout) runs a command where the UE is.

    A late answer is not a lost one: with -w, ping goes on asking until PINGS echoes are answered, where
    with -W it leaves 200 ms after the last, which a retransmission of TCP takes as well.
    """
    _, output = execute(["ping", "-c", str(PINGS), "-i", "0.2", "-w", "5", address], 10 + PINGS)
    # Those asked while the first were on their way may be answered too.
    answered = [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", output)][:PINGS]
    asked = list(range(1, PINGS + 1))
    rtt = re.search(r"= [\d.]+/([\d.]+)/", output)
    detail = f"{len(set(answered) & set(asked))}/{PINGS}" + (f" {float(rtt[1]):.1f}ms" if rtt else f" {output.strip()[-120:]}")
    verdict.step(name, answered == asked, detail)


def device_ue(lab, namespace, argv):
    """Starts `loadgen ue` and waits until it is attached, or gone."""
    ue = lab.spawn("loadgen-ue", argv, namespace=namespace)
    wait_for(lambda: "attached:" in ue.text() or not ue.running(), 10)
    return ue


def step_detach(verdict, ue):
    """It must end well."""
    status = ue.stop()
    verdict.step("detach", status == 0, ue.text()[-200:] if status else "")


class Iperf:
    """One iperf3 test against its own one-shot server in the core namespace."""

    def __init__(self, lab, seconds, *options, server=None):
        """server(port) starts it elsewhere than in the core namespace."""
        port, self.server = next(_ports), None
        if server:
            server(port)
        else:
            self.server = lab.spawn("iperf3-server", ["iperf3", "-s", "-1", "-p", str(port)], namespace=lab.core)
            wait_for(lambda: f":{port} " in lab.exec(lab.core, ["ss", "-Hltn"])[1], 5)
        self.argv = ["iperf3", "-J", "-c", lab.CORE4, "-p", str(port), "-t", str(seconds), "--connect-timeout", "5000",
                     *options]

    def step(self, verdict, name, output, to_the_end=False):
        """Judges the JSON report: what arrived, in Mbit/s, for each direction that ran.

        With to_the_end something must have arrived in the last whole second too, or in so many of them.
        """
        if self.server:
            self.server.stop()
        try:
            report = json.loads(output[output.index("{"):])
            rates = _rates(report["end"], "sum_received", "sum_received_bidir_reverse")
            seconds = [second for second in report["intervals"] if second["sum"]["seconds"] > 0.9]
            ends = [_rates(second, "sum", "sum_bidir_reverse") for second in seconds[-int(to_the_end or 1):]]
            last = [sum(rates) / len(rates) for rates in zip(*ends)]
        except (ValueError, KeyError, IndexError):
            return verdict.step(name, False, " ".join(output.split())[-200:])
        detail = "+".join(f"{rate:.0f}" for rate in rates) + " Mbit/s"
        if to_the_end:
            detail += ", at the end " + "+".join(f"{rate:.0f}" for rate in last)
        verdict.step(name, min(rates) >= LEAST_MBIT and (min(last) > 0 or not to_the_end), detail)


    def step_without_gap(self, verdict, name, output, longest_s):
        """No direction may stand still for longer; needs reports of parts of a second (`-i`)."""
        self.server.stop()
        try:
            intervals = json.loads(output[output.index("{"):])["intervals"]
            gaps = [_longest_gap(intervals, key) for key in ("sum", "sum_bidir_reverse") if key in intervals[0]]
        except (ValueError, KeyError, IndexError):
            return verdict.step(name, False, " ".join(output.split())[-200:])
        verdict.step(name, max(gaps) <= longest_s, "longest gap " + " and ".join(f"{gap:.1f} s" for gap in gaps))

    def step_nothing_lost(self, verdict, name, output):
        """UDP: every datagram that either end sent has arrived."""
        self.server.stop()
        try:
            end = json.loads(output[output.index("{"):])["end"]
            sums = [end[key] for key in ("sum_received", "sum_received_bidir_reverse") if key in end]
            counts = [(part["lost_packets"], part["packets"]) for part in sums]
        except (ValueError, KeyError, IndexError):
            return verdict.step(name, False, " ".join(output.split())[-200:])
        verdict.step(name, all(lost == 0 and packets > 100 for lost, packets in counts),
                     " and ".join(f"{lost} of {packets} lost" for lost, packets in counts))


def _longest_gap(intervals, key):
    """Seconds for which nothing arrived."""
    longest = current = 0.0
    for interval in intervals:
        current = current + interval[key]["seconds"] if interval[key]["bytes"] == 0 else 0.0
        longest = max(longest, current)
    return longest


def _rates(part, *keys):
    """Mbit/s of the directions that a part of an iperf3 report has."""
    return [part[key]["bits_per_second"] / 1e6 for key in keys if key in part]


def iperf_both_ways(verdict, lab, execute, seconds=2, server=None):
    """Up, then down, TCP inside the tunnel."""
    for name, options in (("up", []), ("down", ["-R"])):
        test = Iperf(lab, seconds, *options, server=server)
        _, output = execute(test.argv, seconds + 20)
        test.step(verdict, name, output)
