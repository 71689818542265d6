"""Emergency attaches: phones without a SIM, whom FreeRADIUS may let in, and phones with one, who wait for nobody."""
import json

from .gateway import PSK
from .handsets import command, phones, subscribers
from .lab import Lab
from .radius import FreeRadius, configured, ue_class
from .strongswan import Direct
from .traffic import ping

IMEI = "490154203237518"
WITHOUT_SIM = f"imei{IMEI}@sos.nai.epc.mnc001.mcc001.3gppnetwork.org"

# Where emergencies arrive, and the rest.
SOS_PORT, PORT = 4501, 4500
# Phones of either kind, and the pace that makes the ordinary ones wait for seconds.
CROWD, PACE = 16, 4
# What an emergency may take while they wait, and what the last of them takes at least.
PROMPT_US, LATE_US = 1_000_000, 2_000_000


def _attempt(bench, policy):
    """strongSwan calls itself by an IMEI and knows a password, which stands for what an AAA server might go by."""
    server = FreeRadius(bench.lab, bench.pki["rsa"], "mschapv2", user=WITHOUT_SIM)
    more = configured(bench.lab, bench.pki["rsa"], ("10.77.0.1:1812",))
    more = more.replace('name = "eap"', f'name = "eap"\nmatch = {{ idi = "imei*@sos.*" }}\nemergency = true\n{policy}')
    gateway = bench.gateway("rsa", profiles=False, more=more)
    peer = ue_class(Direct, "mschapv2", name=WITHOUT_SIM)(
        bench.lab, bench.network, PSK, "eap", bench.pki["rsa"], esp="aes256gcm16")
    return server, gateway, peer


def without_sim(bench, verdict):
    """The profile leaves it to the server: the phone has a session by the key of the server's EAP method."""
    bench.network.open_direct()
    server, gateway, peer = _attempt(bench, "emergency_imei = true")
    addresses = peer.attach(verdict)
    gateway.step_session(verdict, addresses, esn=False, transport="udp")
    ping(verdict, "ping", bench.network.execute)
    rows = gateway.stats()["aaa"]
    verdict.step("the server let it in", [row["accepts"] for row in rows] == [1], rows[0]["server"])
    counted = gateway.counted("emergency_imei")
    verdict.step("counted", counted == 1, str(counted))
    peer.delete(verdict)
    gateway.step_clean(verdict)
    for process in (peer, gateway, server):
        process.stop()


def without_sim_refused(bench, verdict):
    """Without the policy the phone is told that it is not served, and no server is asked."""
    bench.network.open_direct()
    server, gateway, peer = _attempt(bench, "")
    _, output = peer.charon.ctl("--initiate", "--child", "net", "--timeout", "20")
    told = "11055" in peer.charon.log() or "(11055)" in output
    verdict.step("told 11055", told and "established with SPIs" not in output, "" if told else peer.reason(output))
    failed = json.loads(gateway.admin("sessions", "--failed", "--json", "--idi", WITHOUT_SIM))
    verdict.step("recorded", len(failed) == 1, failed and failed[0]["cause"])
    rows = gateway.stats()["aaa"]
    verdict.step("no server asked", [row["requests"] for row in rows] == [0])
    for process in (peer, gateway, server):
        process.stop()


def _attach(bench, name, port, *options):
    """Starts the attach of a crowd; a function waits for its figures."""
    report = bench.lab.path(f"{name}.json")
    argv = command(bench, "attach", "--ues", str(CROWD), "--auth", "eap-aka-prime", "--ike", "aes256gcm16-prfsha256-ecp256",
                   "--esp", "aes256gcm16", "--json", report, *options, port=port)
    process = bench.lab.spawn(name, argv, namespace=bench.network.mid)

    def figures():
        process.wait(30)
        with open(report) as file:
            return json.load(file)["attach"]
    return figures


def with_sim(bench, verdict):
    """While ordinary phones wait for their turn, emergencies at an address of their own are served at once."""
    path = subscribers(bench, CROWD)
    profiles = (phones("sos", "6*", "eap-aka-prime", path, "emergency = true", apn="sos")
                + phones("ims", "6*", "eap-aka-prime", path, ""))
    gateway = bench.gateway("rsa", profiles=False, more=profiles, ports=(PORT, SOS_PORT),
                            listen=f'emergency = ["{Lab.GATEWAY4}:{SOS_PORT}"]\n', limits=f"sa_init_per_s = {PACE}\n")
    ordinary = _attach(bench, "ordinary", PORT, "--idr", "ims")
    emergencies = _attach(bench, "emergencies", SOS_PORT, "--emergency")()
    ordinary = ordinary()
    for name, figures in (("emergencies", emergencies), ("ordinary phones", ordinary)):
        worst = figures["latency_us"]["max"]
        verdict.step(name, figures["ok"] == CROWD, f"{CROWD} within {worst / 1000:.0f} ms" if figures["ok"] == CROWD
                     else str(figures["failed"]))
    prompt, late = emergencies["latency_us"]["max"], ordinary["latency_us"]["max"]
    verdict.step("waited for nobody", prompt < PROMPT_US and late > LATE_US)
    counts = [gateway.counted(name) for name in ("emergency_inits", "paced")]
    verdict.step("counted", counts[0] == CROWD and counts[1] > 0, f"{counts[0]} emergencies, {counts[1]} paced")
    gateway.step_clean(verdict)
    gateway.stop()


SESSIONS = (
    ("radius-freeradius-imei", without_sim),
    ("radius-freeradius-imei-refused", without_sim_refused),
    ("eap-embedded-emergency", with_sim),
)
