"""An independent reader of the wire: tshark with the key tables that swugate writes."""
import os
import re

from .lab import run, wait_for

DISSECTOR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "rfc9329.lua")


class Capture:
    """Records the outside of the gateway while swugate logs its keys."""

    def __init__(self, lab, gateway, label):
        self.file, self.keys, self.gateway = lab.path(label + ".pcap"), lab.path(label + "-keys"), gateway
        gateway.admin("keylog", "start", self.keys)
        self.process = lab.capture("out0", self.file, f"tcp port {lab.PORT}")

    def finish(self):
        size = -1
        def settled():
            nonlocal size
            before, size = size, os.path.getsize(self.file)
            return before == size
        wait_for(settled, 5, 0.3)
        self.process.stop()
        self.gateway.admin("keylog", "stop")

    def _tshark(self, *arguments):
        """tshark takes its key tables from ikev2_decryption_table and esp_sa in the configuration directory."""
        return run(["tshark", "-X", f"lua_script:{DISSECTOR}", "-o", "esp.enable_encryption_decode:TRUE",
                    "-o", "esp.enable_authentication_check:TRUE", "-r", self.file, *arguments],
                   timeout=60, env={**os.environ, "WIRESHARK_CONFIG_DIR": self.keys})[1]

    def _count(self, display_filter):
        return len(re.findall(r"(?m)^\d+$", self._tshark("-Y", display_filter, "-T", "fields", "-e", "frame.number")))

    def step_decrypted(self, verdict, pings):
        """IKE_AUTH shows its AUTH payloads, CREATE_CHILD_SA its SA payloads, ESP the echoes that were sent."""
        auth = self._count("isakmp.exchangetype == 35 && isakmp.auth.method")
        verdict.step("tshark reads IKE_AUTH", auth >= 2, f"{auth} AUTH payloads")
        rekey = self._count("isakmp.exchangetype == 36 && isakmp.prop.number")
        verdict.step("tshark reads CREATE_CHILD_SA", rekey >= 4, f"{rekey} SA payloads")
        echoes = self._count("esp && icmp.type == 8"), self._count("esp && icmp.type == 0")
        verdict.step("tshark reads ESP", echoes == (pings, pings), f"{echoes[0]} echoes, {echoes[1]} replies")
        good = self._count("esp.icv_good == 1")
        verdict.step("every ICV good", good == 2 * pings, "" if good == 2 * pings else f"{good} good")
        bad = self._count("isakmp.ikev2.integrity_checksum || esp.icv_bad == 1 || _ws.malformed")
        verdict.step("nothing malformed", bad == 0, "" if bad == 0 else f"{bad} frames")
