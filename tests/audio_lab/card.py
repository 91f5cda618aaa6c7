"""A virtual sound card: a private PulseAudio with a loudspeaker and a microphone that tests can reach.

PortAudio finds it through a private ALSA configuration, so that real streams run on machines without a sound
card, in a container, as any user. The loudspeaker can be tapped and the microphone spoken into by programs
that share no code with what is tested. Both run at 24 kHz mono without conversion: what comes back is what
was played, sample for sample.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["PACKAGES", "RATE", "Card", "Tap", "ahead_of_others", "missing", "running"]

RATE = 24_000
PACKAGES = "pulseaudio pulseaudio-utils libasound2-plugins portaudio19-dev"
_PATIENCE_S = 10.0
_PLUGIN = "alsa-lib/libasound_module_pcm_pulse.so"
_SPEAKER, _MICROPHONE = "vox_speaker", "vox_mic"


def missing() -> str:
    """Why no virtual card can run here; empty when one can."""
    absent = [program for program in ("pulseaudio", "pactl", "parec", "pacat") if not shutil.which(program)]
    if not any(Path("/usr/lib").glob(f"*/{_PLUGIN}")) and not Path("/usr/lib", _PLUGIN).exists():
        absent.append("the ALSA plug-in of PulseAudio")
    try:
        import pyaudio  # type: ignore[import-untyped,import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        absent.append("PyAudio")
    return f"no virtual sound card without {', '.join(absent)} (apt: {PACKAGES})" if absent else ""


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"virtual card: {what} did not come about")
        time.sleep(0.02)


def ahead_of_others(pid: int) -> None:
    """Let a process (0: this one) go before others, where that is allowed: a starved stream has gaps."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, -11)


class Tap:
    """A recording of the loudspeaker, made by a program of its own."""

    def __init__(self, card: Card) -> None:
        self._file = Path(tempfile.mkstemp(suffix=".raw", dir=card.folder)[1])
        command = [
            "parec", "--raw", f"--device={_SPEAKER}.monitor", f"--rate={RATE}", "--channels=1",
            "--format=s16le", "--latency-msec=10",
        ]  # fmt: skip
        with self._file.open("wb") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=card.environ)
        _until(lambda: self.n_frames > 0, "a recording")

    @property
    def n_frames(self) -> int:
        """Frames that were recorded so far."""
        return self._file.stat().st_size // 2

    def read(self) -> bytes:
        """What was recorded so far."""
        data = self._file.read_bytes()
        return data[: len(data) // 2 * 2]

    def stop(self) -> bytes:
        """End the recording and return it."""
        self._process.terminate()
        self._process.wait(_PATIENCE_S)
        return self.read()


class Card:
    """The card. ``start`` one, or ``attach`` to the one that another process started in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._socket = f"unix:{folder}/native"
        self._server: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls) -> Card:
        """Start a server with its two devices in a folder of its own."""
        card = cls(Path(tempfile.mkdtemp(prefix="voxcard")))  # Short: a socket's path is at most 107 bytes.
        card._write_alsa()
        card.restart()
        return card

    @classmethod
    def attach(cls) -> Card:
        """Return the card that the environment names."""
        return cls(Path(os.environ["VOX_CARD"]))

    @property
    def environ(self) -> dict[str, str]:
        """Variables for a process that is to find this card and nothing else."""
        return {
            **os.environ,
            "VOX_CARD": str(self.folder),
            "ALSA_CONFIG_PATH": str(self.folder / "asound.conf"),
            "PULSE_SERVER": self._socket,
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder),
        }

    def _write_alsa(self) -> None:
        def pcm(name: str, device: str) -> str:
            return f'pcm.{name} {{ type pulse server "{self._socket}" device "{device}" }}\n'

        text = pcm("speaker", _SPEAKER) + pcm("mic", f"{_MICROPHONE}.monitor")
        text += "pcm.vox { type asym playback.pcm speaker capture.pcm mic }\n"
        text += pcm("tapped", f"{_SPEAKER}.monitor") + "pcm.tap { type asym capture.pcm tapped }\n"
        text += "pcm.!default { type asym playback.pcm speaker capture.pcm mic }\n"
        (self.folder / "asound.conf").write_text(text)

    def restart(self) -> None:
        """Start the server, again after :meth:`kill`."""
        (self.folder / "native").unlink(missing_ok=True)
        modules = f"module-native-protocol-unix auth-anonymous=1 socket={self.folder}/native"
        command = [
            "pulseaudio", "--daemonize=no", "-n", "--exit-idle-time=-1", "--use-pid-file=no",
            "--realtime=no", "--disable-shm=yes", "-L", modules,
        ]  # fmt: skip
        with (self.folder / "log").open("wb") as log:
            self._server = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environ, start_new_session=True
            )
        ahead_of_others(self._server.pid)
        (self.folder / "pid").write_text(str(self._server.pid))
        _until(lambda: self._ask("info") is not None, "the server")
        self.replug()

    def _ask(self, *words: str) -> str | None:
        done = subprocess.run(
            ["pactl", *words], env=self.environ, capture_output=True, text=True, check=False, timeout=10
        )
        return done.stdout if done.returncode == 0 else None

    def replug(self) -> None:
        """Bring the devices back."""
        there = self._ask("list", "short", "sinks") or ""
        for name in (_SPEAKER, _MICROPHONE):
            if name not in there:
                # Without norewinds a null sink sleeps for up to two seconds, and streams stall.
                options = [f"sink_name={name}", f"rate={RATE}", "channels=1", "format=s16le", "norewinds=1"]
                self._ask("load-module", "module-null-sink", *options)
        self._ask("set-default-sink", _SPEAKER)
        self._ask("set-default-source", f"{_MICROPHONE}.monitor")

    def unplug(self) -> None:
        """Take both devices away."""
        for line in (self._ask("list", "short", "modules") or "").splitlines():
            if "module-null-sink" in line:
                self._ask("unload-module", line.split()[0])

    def _signal(self, number: signal.Signals) -> None:
        os.kill(int((self.folder / "pid").read_text()), number)

    def freeze(self) -> None:
        """Let the server hang."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the server without warning."""
        self._signal(signal.SIGKILL)
        (self.folder / "pid").unlink()

    def tap(self) -> Tap:
        """Begin to record what the loudspeaker plays."""
        return Tap(self)

    def speak(self, data: bytes) -> None:
        """Say PCM16 into the microphone, and wait until it was said."""
        command = ["pacat", "--raw", f"--device={_MICROPHONE}", f"--rate={RATE}", "--channels=1"]
        command += ["--format=s16le", "--latency-msec=50"]
        subprocess.run(
            command, input=data, env=self.environ, check=True, timeout=60, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        """End the server, whatever state it is in, and remove the folder."""
        if (self.folder / "pid").exists():
            self.kill()
        if self._server is not None:
            self._server.wait(_PATIENCE_S)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def running() -> Iterator[Card]:
    """A card for the length of a block."""
    card = Card.start()
    try:
        yield card
    finally:
        card.stop()
