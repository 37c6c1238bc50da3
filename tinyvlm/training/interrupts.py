"""Stop signals that wait for the end of a step."""

import signal
import threading


class GracefulStop:
    """Ctrl-C and SIGTERM wait for the end of a step: `with GracefulStop() as stop`, then ask
    `stop.caught`. A Ctrl-C after that does not wait."""

    def __enter__(self):
        self.caught, self.before = None, {}
        if threading.current_thread() is threading.main_thread():
            signals = (signal.SIGINT, signal.SIGTERM)
            self.before = {number: signal.signal(number, self.catch) for number in signals}
        return self

    def catch(self, number, frame):
        if self.caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        # SIGTERM often comes twice, from the system and from torchrun.
        self.caught = self.caught or number

    def restore(self):
        """Signals do again what they did before."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def __exit__(self, *error):
        self.restore()
