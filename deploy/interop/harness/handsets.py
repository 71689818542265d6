"""Phones with SIMs, played by loadgen: each handset of deploy/handsets at the embedded back end, SIMs at hostapd, and
tunnels by EAP-AKA' that carry iperf3."""
import glob
import json
import os

from .gateway import HERE, LOADGEN
from .lab import Lab, wait_for
from .radius import IMSI, K, OPC, Hostapd, configured
from .traffic import device_ue, iperf_both_ways, ping, step_detach

UES = 3
PROFILES = sorted(os.path.basename(path)[:-5] for path in glob.glob(os.path.join(HERE, "../../handsets/*.toml")))

_PHONES = """[[profile]]
name = "{name}"
match = {{ idi = "{idi}", idr = "{apn}" }}
auth = "{auth}"
secrets_file = "{secrets}"
pool = "default"
local_ts = ["10.77.0.0/24", "2001:db8:77::/64"]
ike = ["aes256gcm16-prfsha256-ecp256", "aes256-aes128-sha256-sha1-modp2048-modp1024"]
esp = ["aes256gcm16", "aes256-aes128-sha256-sha1"]
device_identity = "imei"
{more}
"""
_TOLD = 'p_cscf = ["10.77.0.10", "2001:db8:77::10"]\nliveness_s = 300\nempty_delete_response = true'


def command(bench, command, *options, port=4500, first=0):
    """A command line of loadgen for phones from the IMSI on that is so many after the first."""
    return [LOADGEN, command, "--gateway", f"{Lab.GATEWAY4}:{port}",
            "--imsi", f"{int(IMSI) + first:015}", "--k", K, "--opc", OPC, "--ca", bench.pki["rsa"].file("ca.pem"), *options]


def _loadgen(bench, name, *options):
    """Attaches UES phones; returns how many did, why the others did not, and how many took the fast way at the last attach."""
    report = bench.lab.path(f"{name}.json")
    argv = command(bench, "attach", "--ues", str(UES), "--idr", "ims", "--json", report, *options)
    _, said = bench.lab.exec(bench.network.mid, argv, timeout=60, check=False)
    try:
        with open(report) as file:
            attach = json.load(file)["attach"]
    except FileNotFoundError:
        return 0, {said[-300:]: UES}, 0
    return attach["ok"], attach["failed"], attach.get("fast", 0)


def subscribers(bench, count=UES):
    """A file with the first subscribers from IMSI on."""
    path = bench.lab.path("sims.toml")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        for number in range(count):
            file.write(f'[[secret]]\nimsi = "{int(IMSI) + number:015}"\nk = "{K}"\nopc = "{OPC}"\n')
    return path


def phones(name, idi, auth, path, more, apn="ims"):
    """A profile of the embedded back end with these subscribers."""
    return _PHONES.format(name=name, idi=idi, auth=auth, secrets=path, more=more, apn=apn)


def _profiles(bench, more):
    """Profiles of the embedded back end for phones of either method."""
    path = subscribers(bench)
    return phones("prime", "6*", "eap-aka-prime", path, more) + phones("aka", "*", "eap-aka", path, more)


def every(bench, verdict):
    """Each handset attaches over TCP and over UDP."""
    bench.network.open_direct()
    gateway = bench.gateway("rsa", profiles=False, more=_profiles(bench, _TOLD))
    for name in PROFILES:
        for transport in ("tcp", "udp"):
            ok, failed, _ = _loadgen(bench, f"{name}-{transport}", "--profile", name, "--transport", transport)
            verdict.step(f"{name} {transport}", ok == UES, f"{ok}" if ok == UES else str(failed))
    gateway.step_clean(verdict)
    gateway.stop()


def without_p_cscf(bench, verdict):
    """A gateway that tells no P-CSCF: handsets that need one give the tunnel up, the others stay."""
    gateway = bench.gateway("rsa", profiles=False, more=_profiles(bench, ""))
    for name, needs in (("samsung-2023", True), ("touchy", True), ("apple-2023", False), ("pixel-2023", False)):
        ok, failed, _ = _loadgen(bench, name, "--profile", name)
        gave_up = sum(count for cause, count in failed.items() if cause.startswith("handset: no answer to P_CSCF"))
        verdict.step(name, (gave_up, ok) == ((UES, 0) if needs else (0, UES)), f"{ok} attached" if ok else str(failed))
    gateway.stop()


def hostapd(bench, verdict):
    """SIMs that are ahead of hostapd's centre by both methods: resynchronisation, then fast re-authentications."""
    sims = "".join(f"{int(IMSI) + number:015} {K} {OPC} 8000 000000000020\n" for number in range(UES))
    users = "".join(f'"{digit}"* {method}\n' for digit, method in zip("024678", ["AKA"] * 3 + ["AKA'"] * 3))
    # Protected success, pseudonyms and fast re-authentication.
    server = Hostapd(bench.lab, users=users, sims=sims, more="eap_sim_aka_result_ind=1\neap_sim_id=3\n")
    gateway = bench.gateway("rsa", profiles=False, more=configured(bench.lab, bench.pki["rsa"], ("10.77.0.1:1812",)))
    for method in ("eap-aka", "eap-aka-prime"):
        ok, failed, fast = _loadgen(bench, method, "--auth", method, "--ike", "aes256gcm16-prfsha256-ecp256", "--esp",
                                    "aes256gcm16", "--sqn", "000000040000", "--attaches", "3")
        verdict.step(method, ok == UES and fast == UES, f"{ok}, {fast} of them fast" if ok else str(failed))
    gateway.step_clean(verdict)
    gateway.stop()
    server.stop()


def other_p_cscf(bench, verdict):
    """P-CSCFs change: handsets that can be told within the session are and stay, the others are asked to attach again."""
    path = subscribers(bench, 2 * UES)
    gateway = bench.gateway("rsa", profiles=False, more=phones("aka", "*", "eap-aka", path, _TOLD))
    crowds = [bench.lab.spawn(name, command(bench, "attach", "--ues", str(UES), "--idr", "ims", "--profile", name, "--hold", "30",
                                            first=first), namespace=bench.network.mid)
              for name, first in (("pixel-2023", 0), ("apple-2023", UES))]
    wait_for(lambda: len(gateway.sessions()) == 2 * UES, 10)
    before = {session["id"] for session in gateway.sessions()}
    verdict.step("attach", len(before) == 2 * UES, str(len(before)))
    with open(gateway.config) as file:
        changed = file.read().replace("10.77.0.10", "10.77.0.11")
    with open(gateway.config, "w") as file:
        file.write(changed)
    gateway.admin("reload")
    said = gateway.admin("reselect", "--profile", "aka").strip()
    verdict.step("reselect", f"{UES} told, {UES} asked to attach again" in said, said)
    wait_for(lambda: len(before & {session["id"] for session in gateway.sessions()}) == UES, 5)
    stay = [session for session in gateway.sessions() if session["id"] in before]
    told = wait_for(lambda: gateway.counted("p_cscf_told") == UES, 5)
    verdict.step("told phones stay", len(stay) == UES and bool(told), str(len(stay)))
    for crowd in crowds:
        crowd.stop()
    gateway.stop()


def _tunnel(bench, gateway, verdict):
    """One phone by EAP-AKA' over TCP with a device of its own, through which ping and iperf3 go."""
    argv = command(bench, "ue", "--auth", "eap-aka-prime", "--idr", "ims", "--ike", "aes256gcm16-prfsha256-ecp256", "--esp",
                    "aes256gcm16", "--tun", "phone0")
    phone = device_ue(bench.lab, bench.network.mid, argv)
    sessions = gateway.sessions()
    verdict.step("attach", phone.running() and len(sessions) == 1, sessions and sessions[0]["idi"].split("@")[1] or phone.text())

    def execute(command, timeout):
        return bench.lab.exec(bench.network.mid, command, timeout, check=False)
    ping(verdict, "ping", execute)
    iperf_both_ways(verdict, bench.lab, execute)
    up, down = (gateway.stats()[way]["bytes"] for way in ("uplink", "downlink"))
    verdict.step("in the tunnel", min(up, down) > 1e6, f"{up / 1e6:.0f}+{down / 1e6:.0f} MB")
    step_detach(verdict, phone)
    # The phone's kernel solicits IPv6 routers on the device, from an address that is not the tunnel's.
    gateway.step_clean(verdict, expected=("uplink_selector",))
    gateway.stop()


def iperf_embedded(bench, verdict):
    """iperf3 through a tunnel of the embedded back end."""
    _tunnel(bench, bench.gateway("rsa", profiles=False, more=_profiles(bench, "")), verdict)


def iperf_hostapd(bench, verdict):
    """iperf3 through a tunnel that hostapd and its authentication centre let in by RADIUS."""
    server = Hostapd(bench.lab, users='"6"* AKA\'\n', sims=f"{IMSI} {K} {OPC} 8000 000000000020\n")
    more = configured(bench.lab, bench.pki["rsa"], ("10.77.0.1:1812",))
    _tunnel(bench, bench.gateway("rsa", profiles=False, more=more), verdict)
    server.stop()


SESSIONS = (
    ("handsets", every),
    ("handsets-without-p-cscf", without_p_cscf),
    ("handsets-other-p-cscf", other_p_cscf),
    ("radius-hostapd-loadgen", hostapd),
    ("eap-embedded-aka-prime-iperf3", iperf_embedded),
    ("radius-hostapd-aka-prime-iperf3", iperf_hostapd),
)
