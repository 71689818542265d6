"""The steps of one scenario and the line that tells how they went."""
import time


class StepFailed(Exception):
    """A step did not give what it must; the scenario ends here."""


class Verdict:
    """Collects steps; the first failed one ends the scenario by raising StepFailed."""

    def __init__(self, scenario):
        self.scenario, self.steps, self.failed = scenario, [], False
        self._start = time.monotonic()

    def step(self, name, ok, detail=""):
        """Records one step; detail is a figure when it went well, the reason when it did not."""
        self.steps.append(f"{name} {detail}".rstrip() if ok else f"{name} FAILED: {detail or 'no'}")
        if not ok:
            self.failed = True
            raise StepFailed(name)

    def error(self, reason):
        """The harness or a peer broke down outside a step."""
        self.failed = True
        self.steps.append("ERROR: " + " ".join(str(reason).split())[:600])

    def line(self):
        seconds = time.monotonic() - self._start
        return f"{'FAIL' if self.failed else 'PASS'} {self.scenario:<28} {seconds:5.1f}s  {', '.join(self.steps)}"
