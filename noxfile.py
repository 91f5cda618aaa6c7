#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["nox>=2026", "uv>=0.11"]
# ///
"""Every task of the project. It starts itself with nothing but Python 3.11 or newer and pip:

    python3 noxfile.py -s demo     a spoken conversation, offline
    python3 noxfile.py -s tests    the tests, against the built wheels
    python3 noxfile.py -l          the others

The first start puts nox and uv, pinned and hashed in constraints.txt, into .nox/bootstrap-X.Y.
`nox -s tests` and `uv run noxfile.py -s tests` work as well where those are installed.

Written so that an old interpreter can read it as far as the line that says it is too old: no syntax
newer than Python 3.6, and no future import, which 3.6 refuses before running anything.
"""

import sys

if sys.version_info < (3, 11):
    sys.stderr.write(
        "noxfile.py needs Python 3.11 or newer; %s is %d.%d. Try: python3.12 noxfile.py -s tests\n"
        % (sys.executable, sys.version_info[0], sys.version_info[1])
    )
    sys.exit(2)

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent
NOX_FOLDER = ROOT / ".nox"
DIST = ROOT / "dist"
PYTHONS = ("3.11", "3.12", "3.13")
WEBSOCKETS_MAJORS = ("15", "16", "17")
OLDEST_NOX = 2026


# --- Starting with nothing but Python and pip ---------------------------------------------------


def pins(group: str, file: str = "constraints.txt") -> str:
    """The pins of one group, with markers and hashes, as the text of a requirements file."""
    blocks = re.split(r"\n# for: ", (ROOT / file).read_text("utf-8"))[1:]
    found = [block.partition("\n") for block in blocks]
    text = "".join(body.rstrip("\n") + "\n" for names, _, body in found if group in names.split())
    if not text:
        raise SystemExit(f"{file} has no pins for {group!r}. Try: python3 noxfile.py -s constraints")
    return text


def usable_nox() -> bool:
    try:
        return int(importlib.metadata.version("nox").split(".")[0]) >= OLDEST_NOX
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def installed_uv() -> str | None:
    """The uv of this run: named by UV, on the path, or in the package of that name."""
    found = shutil.which(os.environ.get("UV") or "uv")
    if found:
        return found
    try:
        from uv import find_uv_bin

        return os.fsdecode(find_uv_bin())
    except (ImportError, FileNotFoundError):
        return None


def bootstrap() -> Path:
    """Make or find the folder that holds nox and uv.

    It is filled beside its place and moved there when complete, and it holds the digest of its pins,
    written last: a folder half made by an interrupted run, or made from other pins, is made again.
    """
    wanted = pins("bootstrap")
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    place = NOX_FOLDER / "bootstrap-{}.{}".format(*sys.version_info[:2])
    marker = place / "complete"
    if marker.is_file() and marker.read_text("utf-8") == digest:
        return place
    if importlib.util.find_spec("pip") is None:
        sys.stderr.write(
            f"noxfile.py needs pip, which {sys.executable} does not have. Try: "
            "apt install python3-pip (Debian, Ubuntu), or: python3 -m ensurepip --user\n"
        )
        raise SystemExit(2)
    NOX_FOLDER.mkdir(exist_ok=True)
    print(f"Putting nox and uv into {place.relative_to(ROOT)} (once) ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="bootstrap-", dir=NOX_FOLDER) as scratch:
        new = Path(scratch, "new")
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(wanted, "utf-8")
        run_pip(["--target", str(new), "--require-hashes", "-r", str(requirements)])
        (new / "complete").write_text(digest, "utf-8")
        shutil.rmtree(place, ignore_errors=True)
        try:
            new.rename(place)
        except OSError:
            # Another run was faster; what it made is complete, because moving is its last step.
            if not marker.is_file():
                raise
    return place


def run_pip(arguments: list[str]) -> None:
    """Install wheels with pip, whatever a user's pip settings say about where to and what else."""
    environment = dict(os.environ, PIP_REQUIRE_VIRTUALENV="0")
    for name in ("USER", "TARGET", "PREFIX", "ROOT", "CONSTRAINT", "NO_BINARY", "ONLY_BINARY", "DRY_RUN"):
        environment.pop("PIP_" + name, None)
    # --no-user: a configuration file may ask for it, and pip refuses it together with --target.
    command = [sys.executable, "-m", "pip", "install", "-qq", "--no-input", "--no-user"]
    command += ["--only-binary", ":all:", "--no-compile", "--disable-pip-version-check"]
    command += ["--root-user-action", "ignore", *arguments]
    if subprocess.run(command, env=environment, check=False).returncode:
        sys.stderr.write(
            "noxfile.py: pip could not fetch nox and uv; its reason is above. "
            "The first start needs a package index (PIP_INDEX_URL names a mirror).\n"
        )
        raise SystemExit(1)


def prepare() -> str:
    """Make nox importable and return the path of uv."""
    started_directly = __name__ == "__main__"
    uv = installed_uv()
    if uv is None or (started_directly and not usable_nox()):
        place = bootstrap()
        # On sys.path, not PYTHONPATH: what the sessions start must not see these packages.
        if started_directly:
            sys.path.insert(0, str(place))
        os.environ["PATH"] = os.pathsep.join([str(place / "bin"), os.environ.get("PATH", os.defpath)])
        uv = installed_uv()
    if uv is None:
        raise SystemExit("noxfile.py: uv did not start. Try: remove .nox and start again")
    return uv


UV = prepare()

import nox

nox.needs_version = f">={OLDEST_NOX}"
nox.options.default_venv_backend = "uv|virtualenv"
# An interpreter that the matrix lacks is skipped here and an error in CI; it is never downloaded.
nox.options.download_python = "never"
nox.options.sessions = ["lint", "types", "tests"]


# --- Helpers of the sessions --------------------------------------------------------------------


def run_uv(session: nox.Session, *arguments: str) -> None:
    """Run uv with what its cache holds; only when that fails, once more with the network.

    So a second run works offline, and a warm one asks no index. Every file is checked against its hash.
    """
    environment = {name: value for name, value in {**os.environ, **session.env}.items() if value is not None}
    # pip's mirror, where uv has none of its own.
    if "PIP_INDEX_URL" in os.environ:
        environment.setdefault("UV_DEFAULT_INDEX", os.environ["PIP_INDEX_URL"])
    environment.pop("UV_SYSTEM_PYTHON", None)
    command = [UV, *arguments]
    cached = subprocess.run(
        [*command, "--offline", "--quiet"], env=environment, capture_output=True, check=False, cwd=ROOT
    )
    if cached.returncode:
        # Quiet but for errors; what `pip check` finds wrong is no error to uv's --quiet.
        quiet = [] if "check" in arguments else ["--quiet"]
        session.run(*command, *quiet, external=True, env=environment)


def distributions() -> dict[str, Path]:
    """Name and folder of each distribution, the core first."""
    folders = [ROOT / "core", *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
    return {project(folder)["name"]: folder for folder in folders}


def project(folder: Path) -> dict[str, str]:
    table: dict[str, str] = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def sources(folder: Path) -> list[Path]:
    """What a distribution is built from, without what earlier runs left there."""
    leftovers = {"__pycache__", "build", "dist", "changelog.d"}
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(
            part in leftovers or part.endswith(".egg-info") for part in path.relative_to(folder).parts
        )
    ]


def build_wheels(session: nox.Session) -> list[str]:
    """Build each distribution whose sources changed, sdist first and the wheel from it, into dist/."""
    wheels = []
    for name, folder in distributions().items():
        stem = "{}-{}".format(name.replace("-", "_"), project(folder)["version"])
        wheel = DIST / f"{stem}-py3-none-any.whl"
        files = sources(folder)
        digest = hashlib.sha256(pins("build").encode())
        for file in files:
            content = file.read_bytes()
            digest.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
        marker = NOX_FOLDER / "built" / name
        if wheel.is_file() and marker.is_file() and marker.read_text("utf-8") == digest.hexdigest():
            session.log(f"{wheel.relative_to(ROOT)} is up to date")
        else:
            build(session, name, folder, files)
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.write_text(digest.hexdigest(), "utf-8")
        wheels.append(str(wheel))
    return wheels


def build(session: nox.Session, name: str, folder: Path, files: list[Path]) -> None:
    """Build one distribution from a copy of its files: nothing is written beside the sources, and a
    module deleted since the last build cannot come back from a leftover folder.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy, out, constraints = Path(scratch, name), Path(scratch, "out"), Path(scratch, "build.txt")
        for file in files:
            target = copy / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
        constraints.write_text(pins("build"), "utf-8")
        session.log(f"building {name} {project(folder)['version']}")
        arguments = ["--build-constraints", str(constraints), "--require-hashes", "--python", sys.executable]
        run_uv(session, "build", "--no-config", *arguments, "--out-dir", str(out), str(copy))
        DIST.mkdir(exist_ok=True)
        for old in DIST.glob("{}-*".format(name.replace("-", "_"))):
            old.unlink()
        for made in out.iterdir():
            if made.suffix in {".whl", ".gz"}:
                shutil.move(made, DIST / made.name)


def install(
    session: nox.Session,
    group: str,
    *,
    wheels: bool = True,
    websockets: str = "",
    file: str = "constraints.txt",
) -> None:
    """Fill the session's environment in two steps: the pins of one group by hash, then our wheels.

    pip and uv refuse local wheels among hashed requirements, and would fetch an unpinned dependency
    of theirs; so those go in without dependencies, and the last step checks that nothing is missing.
    """
    wanted = pins(group, file)
    if websockets:
        # Without picows, which would otherwise be the transport of every session.
        wanted = re.sub(r"(?m)^(websockets|picows)==.*\n(?:    .*\n)*", "", wanted)
        wanted += pins(f"websockets-{websockets}", "constraints-matrix.txt")
    built = build_wheels(session) if wheels else []
    target = ["--python", session.virtualenv.location]
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(wanted, "utf-8")
        session.log(f"installing the pins of {group!r}" + (" and our wheels" if wheels else ""))
        run_uv(session, "pip", "install", *target, "--require-hashes", "-r", str(requirements))
    if built:
        run_uv(session, "pip", "install", *target, "--no-deps", *built)
    run_uv(session, "pip", "check", *target)


def run_python(session: nox.Session, *arguments: str, **variables: str) -> None:
    """Run the session's Python; what a developer has on PYTHONPATH stays outside."""
    session.run("python", *arguments, env={"PYTHONPATH": None, **variables})


def run_tests(
    session: nox.Session, *arguments: str, runner: tuple[str, ...] = ("pytest",), **variables: str
) -> None:
    # The strangers' packages are installed with uv, which a session need not have on its path.
    run_python(session, "-m", *runner, *arguments, VOXENGINE_TEST_INSTALLED="1", UV=UV, **variables)


PARALLEL = ("-n", "auto", "--dist", "loadfile")
"""A worker for each processor; a file stays in one, since its fixtures make environments."""


# --- Sessions -----------------------------------------------------------------------------------


@nox.session
def demo(session: nox.Session) -> None:
    """Hold a spoken conversation offline and write demo/answer.wav and demo/transcript.jsonl."""
    install(session, "runtime")
    run_python(session, "examples/demo_conversation.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests against the built wheels. Arguments after `--` go to pytest."""
    install(session, "tests")
    run_tests(session, *PARALLEL, *session.posargs)


@nox.session(python=PYTHONS)
@nox.parametrize("websockets", WEBSOCKETS_MAJORS)
def matrix(session: nox.Session, websockets: str) -> None:
    """Run the tests of the code on each supported Python with each supported major version of websockets.

    Those of core and plug-ins but for the slow ones: all where both are the oldest and where both are the
    newest, elsewhere the files that name the transport or websockets. What is built, installed and
    documented is the same everywhere and is left to `tests`.
    `-- FILE…` overrides.
    """
    install(session, "tests", websockets=websockets)
    corner = (session.python, websockets)
    is_end = corner in {(PYTHONS[i], WEBSOCKETS_MAJORS[i]) for i in (0, -1)}
    chosen = session.posargs or (MATRIX_FOLDERS if is_end else transport_tests())
    chosen = [*chosen, "tests/meta/test_packaging.py::test_matrix_runs_against_the_version_that_it_names"]
    run_tests(session, "-q", *PARALLEL, "-m", "not slow", *chosen, VOXENGINE_TEST_WEBSOCKETS=websockets)


MATRIX_FOLDERS = ["tests/core", "tests/plugins"]


def transport_tests() -> list[str]:
    files = [file for folder in MATRIX_FOLDERS for file in sorted((ROOT / folder).rglob("test_*.py"))]
    files.remove(ROOT / "tests/core/transport/test_fast.py")  # Of picows, which the matrix goes without.
    return [str(file) for file in files if re.search("transport|websocket", file.read_text("utf-8"))]


@nox.session
def conformance(session: nox.Session) -> None:
    """Judge each provider of ours by the laws of the contract, and the laws by providers that are wrong.

    From the built wheels, against the emulators. `tests` holds it too. Arguments after `--` go to pytest.
    """
    install(session, "tests")
    run_tests(session, *PARALLEL, "tests/conformance", *session.posargs)


@nox.session
def witnesses(session: nox.Session) -> None:
    """Let foreign clients talk to the emulators: each holds a whole conversation.

    Where there is npm, OpenAI's client and Azure's Speech SDK for Node too. Arguments after `--` go to pytest.
    """
    install(session, "witnesses", file="constraints-witnesses.txt")
    modules = npm_packages(session)
    run_tests(
        session,
        "tests/witnesses",
        *session.posargs,
        VOXENGINE_TEST_WITNESSES="1",
        VOXENGINE_TEST_NODE_MODULES=modules,
    )


def npm_packages(session: nox.Session) -> str:
    """The folder of the npm packages of the lock file, which holds their hashes; empty without npm."""
    npm, lock = shutil.which("npm"), ROOT / "tests" / "witnesses" / "npm" / "package-lock.json"
    if npm is None:
        return ""
    place = NOX_FOLDER / "npm"
    digest, marker = hashlib.sha256(lock.read_bytes()).hexdigest(), place / "complete"
    if not (marker.is_file() and marker.read_text("utf-8") == digest):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for file in (lock, lock.with_name("package.json")):
            shutil.copy2(file, place)
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent")
        session.run(npm, "ci", *quiet, "--prefix", str(place), external=True)
        marker.write_text(digest, "utf-8")
    return str(place / "node_modules")


@nox.session
def audio(session: nox.Session) -> None:
    """Run PyAudio's streams on a virtual sound card, and echo cancelling and the neural detector for real.

    Left out, with the reason, where something of the system is missing; an error there when
    VOXENGINE_REQUIRE_CARD is set, as in CI: .ci/run installs it. PyAudio is built from source where there is
    no wheel. Arguments after `--` go to pytest.
    """
    missing = missing_for_sound()
    if missing:
        reason = f"no virtual sound card without {', '.join(missing)}. Try, as root: apt-get install {SOUND}"
        (session.error if "VOXENGINE_REQUIRE_CARD" in os.environ else session.skip)(reason)
    install(session, "audio")
    install_detector_model(session)
    folders = [
        "tests/audio_lab",
        "tests/core/audio/test_pyaudio_backend.py",
        "tests/plugins/audio_processors",
    ]
    # One after the other: each scenario has a card of its own, and a machine that is busy starves them all.
    run_tests(
        session,
        "-q",
        *folders,
        *session.posargs,
        VOXENGINE_REQUIRE_CARD="1",
        VOXENGINE_REQUIRE_PROCESSORS="1",
    )


SOUND = "pulseaudio pulseaudio-utils libasound2-plugins portaudio19-dev gcc libc6-dev python3-dev"
"""Debian's packages of what :func:`missing_for_sound` looks for; .ci/run reads this line."""


def missing_for_sound() -> list[str]:
    """What the session `audio` needs of the system and does not find."""
    missing = [name for name in ("pulseaudio", "pactl", "parec", "pacat", "gcc") if not shutil.which(name)]
    plugin = "alsa-lib/libasound_module_pcm_pulse.so"
    files = {
        "the ALSA plug-in of PulseAudio": [*Path("/usr/lib").glob(f"*/{plugin}"), Path("/usr/lib", plugin)],
        "the headers of PortAudio": [
            Path(folder, "portaudio.h") for folder in ("/usr/include", "/usr/local/include")
        ],
        "the headers of Python": [Path(sysconfig.get_path("include"), "Python.h")],
    }
    return missing + [what for what, places in files.items() if not any(place.exists() for place in places)]


def install_detector_model(session: nox.Session) -> None:
    """Install the model of the neural voice detector: without what its package asks for (PyTorch) and we do
    not use, and hence after the check of what is installed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(DETECTOR_MODEL, "utf-8")
        target = ["--python", session.virtualenv.location, "--no-deps", "--require-hashes"]
        run_uv(session, "pip", "install", *target, "-r", str(requirements))


DETECTOR_MODEL = (
    "silero-vad==6.2.3 --hash=sha256:7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8\n"
)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and print which lines and branches they missed."""
    install(session, "coverage")
    session.env["COVERAGE_FILE"] = str(NOX_FOLDER / "coverage.data")
    run_python(session, "-m", "coverage", "erase")
    run_tests(session, "-q", *session.posargs, runner=("coverage", "run", "-m", "pytest"))
    run_python(session, "-m", "coverage", "combine", "--quiet")
    run_python(session, "-m", "coverage", "report")


@nox.session
def docs(session: nox.Session) -> None:
    """Run every code block of the README and of docs/."""
    install(session, "tests")
    run_tests(session, "tests/meta/test_docs_blocks.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks, print their table, and fail when a gate does."""
    install(session, "runtime")
    run_python(session, "benchmarks/run.py", *session.posargs)


@nox.session(venv_backend="none")
def peers(session: nox.Session) -> None:
    """Measure VoxEngine beside other clients of the protocol, each in an environment of its own.

    It needs a package index and some minutes: the table in docs/explanation/performance.md is made by it.
    """
    arguments = session.posargs or ["--all"]
    command = [sys.executable, "benchmarks/peers/run.py", "--venvs", str(NOX_FOLDER / "peers"), *arguments]
    session.run(*command, external=True, env={"PYTHONPATH": None})


@nox.session
def soak(session: nox.Session) -> None:
    """Hold a conversation of eight hours in which the services fail at random, in some minutes of virtual time.

    `-- --real 1800` holds one of half an hour in real time, over loopback sockets.
    """
    install(session, "runtime")
    run_python(session, "benchmarks/soak.py", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check every annotation with mypy --strict."""
    install(session, "types", wheels=False)
    run_python(session, "-m", "mypy", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff."""
    install(session, "lint", wheels=False)
    run_python(session, "-m", "ruff", "check", ".")
    run_python(session, "-m", "ruff", "format", "--check", ".")


@nox.session(name="build", venv_backend="none")
def build_session(session: nox.Session) -> None:
    """Build the sdist and the wheel of every distribution into dist/."""
    build_wheels(session)


@nox.session(venv_backend="none")
def dev(session: nox.Session) -> None:
    """Make an editable environment with every tool in .venv/."""
    location = str(ROOT / ".venv")
    run_uv(session, "venv", "--clear", "--python", sys.executable, location)
    with tempfile.TemporaryDirectory() as scratch:
        requirements, constraints = Path(scratch, "requirements.txt"), Path(scratch, "build.txt")
        requirements.write_text(pins("dev"), "utf-8")
        constraints.write_text(pins("build"), "utf-8")
        target = ["--python", location]
        run_uv(session, "pip", "install", *target, "--require-hashes", "-r", str(requirements))
        editable = [part for folder in distributions().values() for part in ("-e", str(folder))]
        run_uv(
            session,
            "pip",
            "install",
            *target,
            "--no-deps",
            "--build-constraints",
            str(constraints),
            *editable,
        )
        run_uv(session, "pip", "check", *target)
    session.log("Ready. Activate it with: source .venv/bin/activate")


@nox.session(venv_backend="none")
def constraints(session: nox.Session) -> None:
    """Resolve the constraints files again; `-- --upgrade` takes the newest."""
    session.run(
        sys.executable, "scripts/export_constraints.py", *session.posargs, external=True, env={"UV": UV}
    )


if __name__ == "__main__":
    nox.main()
