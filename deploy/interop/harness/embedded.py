"""strongSwan with a software USIM or a password against the gateway's own subscribers."""
import json
import os

from .bridge import Originated
from .gateway import PSK
from .radius import IMSI, K, NAI, OPC, PASSWORD, USER, ue_class
from .strongswan import Direct
from .traffic import iperf_both_ways, ping

_SUBSCRIBERS = """[[secret]]
imsi = "{imsi}"
k = "{k}"
opc = "{opc}"
[[secret]]
user = "{user}"
password = "{password}"
"""
_PROFILE = """[[profile]]
name = "phones"
auth = "{auth}"
secrets_file = "{secrets}"
pool = "default"
local_ts = ["10.77.0.0/24", "2001:db8:77::/64"]
ike = ["aes256gcm16-prfsha256-ecp256"]
esp = ["aes256gcm16"]
{more}
"""


def _configured(lab, auth, k, more):
    """The gateway's profile and its subscribers."""
    path = lab.path("subscribers.toml")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(_SUBSCRIBERS.format(imsi=IMSI, k=k, opc=OPC, user=USER, password=PASSWORD))
    return _PROFILE.format(auth=auth, secrets=path, more=more)


def session(method, auth, ue=Direct, transport="udp", more="", remote=None):
    """A whole session of a UE that the embedded back end lets in, and one more after a restart of the gateway."""
    def body(bench, verdict):
        pki = bench.pki["rsa"]
        if transport == "udp":
            bench.network.open_direct()
        more_config = _configured(bench.lab, auth, K, more)
        gateway = bench.gateway("rsa", profiles=False, more=more_config)
        peer = ue_class(ue, method, remote)(bench.lab, bench.network, PSK, "eap", pki, esp="aes256gcm16")
        addresses = peer.attach(verdict)
        log = peer.charon.log()
        verdict.step("EAP", "succeeded, MSK established" in log)
        if remote:
            verdict.step("without our certificate", "received end entity cert" not in log)
        gateway.step_session(verdict, addresses, esn=False, transport=transport)
        ping(verdict, "ping", bench.network.execute)
        iperf_both_ways(verdict, bench.lab, bench.network.execute, seconds=1)
        peer.rekey_child(verdict)
        peer.rekey_ike(verdict)
        ping(verdict, "ping", bench.network.execute)
        peer.delete(verdict)
        # The USIM takes no sequence number twice: one that the gateway used before would be out of step.
        peer.attach(verdict)
        peer.delete(verdict)
        gateway.step_clean(verdict)
        peer.stop()
        gateway.stop()
    return body


def refused(bench, verdict):
    """A SIM with another key: the UE is told, and the operator why."""
    pki = bench.pki["rsa"]
    bench.network.open_direct()
    gateway = bench.gateway("rsa", profiles=False, more=_configured(bench.lab, "eap-aka", "ff" * 16, ""))
    peer = ue_class(Direct, "aka")(bench.lab, bench.network, PSK, "eap", pki, esp="aes256gcm16")
    _, output = peer.charon.ctl("--initiate", "--child", "net", "--timeout", "20")
    verdict.step("refused", "established with SPIs" not in output)
    failed = json.loads(gateway.admin("sessions", "--failed", "--json"))
    verdict.step("recorded", len(failed) == 1 and NAI not in json.dumps(failed), failed and failed[0]["cause"])
    found = json.loads(gateway.admin("sessions", "--failed", "--json", "--idi", IMSI))
    verdict.step("found by IMSI", len(found) == 1)
    verdict.step("no session", not gateway.sessions())
    peer.stop()
    gateway.stop()


SESSIONS = [
    ("eap-embedded-aka", session("aka", "eap-aka")),
    ("eap-embedded-aka-tcp", session("aka", "eap-aka", ue=Originated, transport="tcp")),
    ("eap-embedded-aka-alone", session("aka", "eap-aka", more="eap_only = true",
                                       remote="auth = eap-aka\n    id = gw.test")),
    ("eap-embedded-mschapv2", session("mschapv2", "eap-mschapv2")),
    ("eap-embedded-wrong-key", refused),
]
