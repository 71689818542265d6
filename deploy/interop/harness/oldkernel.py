"""swugate inside the guest, whose Linux 6.1 is the oldest that it supports.

Newer kernels take other ways through the ring (direct descriptors, incremental receive buffers, multishot
reads of the inner device); this is where the ways without them are walked.
"""
import os
import shutil

from .gateway import BINARY, GatewayFailed, write_config
from .guest import Guest
from .lab import Lab


class GuestGateway:
    """One swugate on the guest's outside address, with a core namespace behind it in the guest."""

    ADDRESS = Lab.UE4           # the guest's end of the link; the harness is at the other end

    def __init__(self, lab):
        self.guest = Guest(lab, memory="512M")
        config = write_config(self.guest.file("gateway"))
        with open(config) as file:
            text = file.read()
        with open(config, "w") as file:     # the job directory takes no sockets
            file.write(text.replace(f'run_dir = "{os.path.dirname(config)}/run"', 'run_dir = "/run/swugate"'))
        shutil.copy(BINARY, self.guest.file("swugate"))
        _, self.release = self.guest.sh("uname -r", check=True)
        self.release = self.release.strip()
        self.guest.make_core()
        status, output = self.guest.sh("""set -e
            [ -e /dev/net/tun ] || { mkdir -p /dev/net; mknod /dev/net/tun c 10 200; }
            /job/swugate run -c /job/gateway/swugate.toml > /job/swugate.log 2>&1 &
            echo $! > /run/swugate.pid
            for i in $(seq 100); do
                /job/swugate stats -c /job/gateway/swugate.toml > /dev/null 2>&1 && exit 0
                sleep 0.1
            done
            exit 1""")
        if status:
            raise GatewayFailed(f"swugate in the guest: {output} {self.guest.get('swugate.log')[-600:]}")

    def stop(self):
        """SIGTERM; 0 when it ended within 5 s."""
        return self.guest.sh("""pid=$(cat /run/swugate.pid); kill $pid
            for i in $(seq 50); do kill -0 $pid 2> /dev/null || exit 0; sleep 0.1; done
            exit 1""")[0]
