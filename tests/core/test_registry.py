"""The registry: what is installed is found once, loaded late, and breaks nothing else."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.providers_for_tests import Plain, remade
from voxengine.errors import ConfigError, LocalProtocolError, ProviderNotFound
from voxengine.providers.registry import (
    FIRST_PARTY,
    GROUP,
    ProviderRegistry,
    available_providers,
    default_registry,
    get_provider,
    register_provider,
    unregister_provider,
)

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
from tests.core.providers_for_tests import Plain

class Provider(Plain):
    pass
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Offer a distribution to importlib.metadata; nothing else is installed while the test runs.

    ``install("voxengine-acme", "1.0", {"acme": "acme_pkg:Provider"}, acme_pkg="source")``
    """
    known = set(sys.modules)
    # The standard library stays; the environment's distributions and the project's own folders go.
    kept = [p for p in sys.path if "site-packages" not in p and not Path(p or ".").is_relative_to(ROOT)]
    monkeypatch.setattr(sys, "path", kept)
    here = tmp_path / "site"

    def make(name: str, version: str, entries: dict[str, str], folder: str = "site", **modules: str) -> Path:
        place = tmp_path / folder
        info = place / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = "\n".join(f"{key} = {value}" for key, value in entries.items())
        info.joinpath("entry_points.txt").write_text(f"[{GROUP}]\n{lines}\n")
        for module, source in modules.items():
            place.joinpath(f"{module}.py").write_text(textwrap.dedent(source))
        if str(place) not in sys.path:
            sys.path.insert(0, str(place))  # Into the list set above, which goes with the test.
            importlib.invalidate_caches()
        return place

    make("something-else", "3.0", {})
    yield make
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    assert here.is_dir()


# --- register and unregister -----------------------------------------------------------------------


def test_registered_class_is_found_and_listed() -> None:
    registry = ProviderRegistry()

    registry.register("acme", Plain)

    info = {info.name: info for info in registry.infos()}["acme"]
    assert registry.get("acme") is Plain
    assert (info.cls, info.origin, info.error) == (Plain, "registered", "")
    assert info.target == "tests.core.providers_for_tests:Plain"


def test_same_class_again_is_no_change() -> None:
    registry = ProviderRegistry()

    registry.register("acme", Plain)
    registry.register("acme", Plain)

    assert registry.get("acme") is Plain


def test_another_class_needs_replace() -> None:
    registry, other = ProviderRegistry(), remade("Other")
    registry.register("acme", Plain)

    with pytest.raises(ConfigError, match=r"registered as Plain already.*replace=True.*Other"):
        registry.register("acme", other)
    assert registry.get("acme") is Plain
    registry.register("acme", other, replace=True)
    assert registry.get("acme") is other


def test_class_that_breaks_the_contract_is_not_registered() -> None:
    registry = ProviderRegistry()

    with pytest.raises(LocalProtocolError, match=r"Provider 'acme': .*provider_api"):
        registry.register("acme", remade("Old", provider_api="1"))
    assert "acme" not in {info.name for info in registry.infos()}


@pytest.mark.parametrize("name", ["", " ", " acme", "acme ", None, 3])
def test_name_is_a_word(name: Any) -> None:
    with pytest.raises(ConfigError, match="a word such as 'acme'"):
        ProviderRegistry().register(name, Plain)


def test_unregistered_class_is_gone() -> None:
    registry = ProviderRegistry()
    registry.register("acme", Plain)

    registry.unregister("acme")

    with pytest.raises(ProviderNotFound):
        registry.get("acme")
    with pytest.raises(ProviderNotFound, match="No provider was registered as 'acme'"):
        registry.unregister("acme")


def test_functions_of_the_package_use_the_registry_of_the_engines() -> None:
    register_provider("acme-for-a-test", Plain)
    try:
        assert get_provider("acme-for-a-test") is default_registry.get("acme-for-a-test") is Plain
        assert "acme-for-a-test" in {info.name for info in available_providers()}
    finally:
        unregister_provider("acme-for-a-test")
    assert "acme-for-a-test" not in {info.name for info in available_providers()}


# --- Entry points ----------------------------------------------------------------------------------


def test_installed_provider_is_listed_without_being_imported(install: Install) -> None:
    install("voxengine-acme", "1.2", {"acme": "acme_pkg:Provider"}, acme_pkg=GOOD)

    infos = ProviderRegistry().infos()

    assert [(info.name, info.origin, info.target, info.cls, info.error) for info in infos] == [
        ("acme", "voxengine-acme 1.2", "acme_pkg:Provider", None, "")
    ]
    assert "acme_pkg" not in sys.modules


def test_only_the_provider_that_is_asked_for_is_imported(install: Install) -> None:
    install("voxengine-acme", "1.0", {"acme": "acme_pkg:Provider"}, acme_pkg=GOOD)
    install("voxengine-other", "1.0", {"other": "other_pkg:Provider"}, other_pkg=GOOD)
    registry = ProviderRegistry()

    cls = registry.get("acme")

    assert cls.__module__ == "acme_pkg"
    assert registry.get("acme") is cls
    assert "other_pkg" not in sys.modules
    assert {info.name: info.cls for info in registry.infos()} == {"acme": cls, "other": None}


def test_loading_all_shows_every_class(install: Install) -> None:
    install("voxengine-acme", "1.0", {"acme": "acme_pkg:Provider"}, acme_pkg=GOOD)
    registry = ProviderRegistry()

    (info,) = registry.infos(load=True)

    assert info.cls is registry.get("acme")


def test_entry_points_are_scanned_once_until_rescan(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans: list[str] = []
    scan = importlib.metadata.entry_points

    def counted(**selection: Any) -> Any:
        scans.append(selection["group"])
        return scan(**selection)

    monkeypatch.setattr(importlib.metadata, "entry_points", counted)
    registry = ProviderRegistry()
    registry.infos()
    install("voxengine-late", "1.0", {"late": "late_pkg:Provider"}, late_pkg=GOOD)

    with pytest.raises(ProviderNotFound):
        registry.get("late")
    assert scans == [GROUP]
    registry.rescan()
    assert registry.get("late").__module__ == "late_pkg"
    assert scans == [GROUP, GROUP]


def test_registered_class_wins_over_an_installed_one(install: Install) -> None:
    install("voxengine-acme", "1.0", {"acme": "acme_pkg:Provider"}, acme_pkg=GOOD)
    registry = ProviderRegistry()

    registry.register("acme", Plain)

    assert registry.get("acme") is Plain
    assert [info.origin for info in registry.infos()] == ["registered"]
    registry.unregister("acme")
    assert registry.get("acme").__module__ == "acme_pkg"


def test_distribution_that_is_on_the_path_twice_is_one_owner(install: Install) -> None:
    install("voxengine-acme", "1.0", {"acme": "acme_pkg:Provider"}, acme_pkg=GOOD)
    install("voxengine-acme", "1.0", {"acme": "acme_pkg:Provider"}, folder="again", acme_pkg=GOOD)

    assert ProviderRegistry().get("acme").__name__ == "Provider"


def test_threads_that_ask_at_once_get_one_class(install: Install) -> None:
    install("voxengine-acme", "1.0", {"acme": "acme_pkg:Provider"}, acme_pkg=GOOD)
    registry, found = ProviderRegistry(), []
    threads = [threading.Thread(target=lambda: found.append(registry.get("acme"))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1


# --- Broken ones -----------------------------------------------------------------------------------

BROKEN = {
    "missing module": (
        "import nonexistent_thing",
        "acme_pkg:Provider",
        "No module named 'nonexistent_thing'",
    ),
    "syntax error": ("class Provider(", "acme_pkg:Provider", "SyntaxError"),
    "any exception": (
        "raise RuntimeError('no licence file')",
        "acme_pkg:Provider",
        "RuntimeError: no licence file",
    ),
    "exit": ("import sys; sys.exit('unsupported platform')", "acme_pkg:Provider", "SystemExit: unsupported"),
    "missing class": ("", "acme_pkg:Provider", "AttributeError"),
    "missing package": ("", "elsewhere:Provider", "No module named 'elsewhere'"),
    "malformed entry": ("", "acme_pkg:", "acme_pkg"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_plugin_is_named_with_its_reason_and_harms_no_other(install: Install, kind: str) -> None:
    source, target, reason = BROKEN[kind]
    install("voxengine-acme", "0.3", {"acme": target}, acme_pkg=source)
    install("voxengine-good", "1.0", {"good": "good_pkg:Provider"}, good_pkg=GOOD)
    registry = ProviderRegistry()

    with pytest.raises((ProviderNotFound, LocalProtocolError)) as caught:
        registry.get("acme")

    message = str(caught.value)
    for word in ("'acme'", "voxengine-acme 0.3", reason):
        assert word in message
    assert caught.value.provider == "acme"
    assert registry.get("good").__module__ == "good_pkg"
    by_name = {info.name: info for info in registry.infos(load=True)}
    assert by_name["acme"].error == message
    assert (by_name["acme"].cls, by_name["acme"].distribution) == (None, "voxengine-acme")
    assert by_name["good"].error == ""


UNREADABLE = {
    "not UTF-8": (b"[voxengine.providers]\nacme = acme_\xff:Provider\n", "its entry_points.txt is not UTF-8"),
    "no value": (b"[voxengine.providers]\nacme\n", "its entry_points.txt is malformed"),
    "of another group": (b"[console_scripts]\nacme\n", "its entry_points.txt is malformed"),
}


@pytest.mark.parametrize("metadata", ["readable", "not UTF-8", "missing"])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_distribution_that_cannot_be_read_is_named_with_its_reason_and_harms_no_other(
    install: Install, kind: str, metadata: str
) -> None:
    content, reason = UNREADABLE[kind]
    info = install("voxengine-acme", "0.3", {}) / "voxengine_acme-0.3.dist-info"
    (info / "entry_points.txt").write_bytes(content)
    if metadata == "missing":
        (info / "METADATA").unlink()
    elif metadata == "not UTF-8":
        (info / "METADATA").write_bytes(b"Name: voxengine-acme\nAuthor: \xff\n")
    install("voxengine-good", "1.0", {"good": "good_pkg:Provider"}, good_pkg=GOOD)
    registry = ProviderRegistry()

    good, broken = registry.infos(load=True)

    assert (good.name, good.error) == ("good", "")
    assert registry.get("good").__module__ == "good_pkg"
    name = "voxengine-acme" if metadata == "readable" else "voxengine_acme"
    assert (broken.name, broken.origin, broken.cls) == (name, f"{name} 0.3", None)
    assert broken.error.startswith(f"What the distribution {name} 0.3 offers is not known: {reason}")
    assert broken.error.endswith(". Reinstall or uninstall it.")
    with pytest.raises(ProviderNotFound, match=r"Installed: good \(voxengine-good 1.0\)") as caught:
        registry.get("acme")
    assert broken.error in str(caught.value)


def test_distribution_that_was_repaired_is_read_after_a_rescan(install: Install) -> None:
    place = install("voxengine-good", "1.0", {"good": "good_pkg:Provider"}, good_pkg=GOOD)
    entry_points = place / "voxengine_good-1.0.dist-info" / "entry_points.txt"
    right = entry_points.read_text()
    entry_points.write_bytes(b"\xff")
    registry = ProviderRegistry()
    assert [info.name for info in registry.infos()] == ["voxengine-good"]

    entry_points.write_text(right)
    registry.rescan()

    assert [info.name for info in registry.infos()] == ["good"]


def test_unreadable_distribution_that_another_one_hides_is_no_concern(install: Install) -> None:
    hidden = install("voxengine-good", "0.9", {}) / "voxengine_good-0.9.dist-info" / "entry_points.txt"
    hidden.write_bytes(b"\xff")
    install("voxengine-good", "1.0", {"good": "good_pkg:Provider"}, folder="first", good_pkg=GOOD)

    assert [info.name for info in ProviderRegistry().infos()] == ["good"]


def test_metadata_that_cannot_be_read_does_not_hide_a_provider(install: Install) -> None:
    place = install("voxengine-good", "1.0", {"good": "good_pkg:Provider"}, good_pkg=GOOD)
    (place / "voxengine_good-1.0.dist-info" / "METADATA").write_bytes(b"Author: \xff\n")

    (info,) = ProviderRegistry().infos(load=True)

    assert (info.name, info.origin, info.error) == ("good", "voxengine_good 1.0", "")


@pytest.mark.parametrize(
    ("n_others", "sentence"),
    [(0, ""), (1, "The other provider is unaffected."), (3, "The other 3 providers are unaffected.")],
)
def test_message_says_how_many_are_unaffected(install: Install, n_others: int, sentence: str) -> None:
    install("voxengine-acme", "0.3", {"acme": "acme_pkg:Provider"}, acme_pkg="import nonexistent_thing")
    for n in range(n_others):
        install(f"other{n}", "1.0", {f"other{n}": "x:Y"})

    with pytest.raises(ProviderNotFound) as caught:
        ProviderRegistry().get("acme")

    assert sentence in str(caught.value)
    assert ("unaffected" in str(caught.value)) is bool(n_others)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class Provider: pass", "does not extend"),
        ("def Provider(config): pass", "the function Provider"),
        (GOOD + "\n    def send_audio(self, audio_data): pass", "not a coroutine function"),
        (GOOD + "\n    provider_api = 99", "Upgrade voxengine"),
    ],
)
def test_class_that_breaks_the_contract_names_its_distribution(
    install: Install, source: str, words: str
) -> None:
    install("voxengine-acme", "0.3", {"acme": "acme_pkg:Provider"}, acme_pkg=source)
    registry = ProviderRegistry()

    with pytest.raises(LocalProtocolError) as caught:
        registry.get("acme")

    assert words in str(caught.value)
    assert "(from voxengine-acme 0.3)" in str(caught.value)
    assert registry.infos(load=True)[0].error == str(caught.value)


def test_plugin_that_was_repaired_is_no_longer_listed_as_broken(install: Install) -> None:
    place = install("voxengine-acme", "0.3", {"acme": "acme_pkg:Provider"}, acme_pkg="import not_there_yet")
    registry = ProviderRegistry()
    with pytest.raises(ProviderNotFound):
        registry.get("acme")

    place.joinpath("not_there_yet.py").write_text(GOOD)
    place.joinpath("acme_pkg.py").write_text("from not_there_yet import Provider  # repaired")
    importlib.invalidate_caches()

    assert registry.get("acme").__module__ == "not_there_yet"
    assert [info.error for info in registry.infos()] == [""]


def test_two_distributions_with_one_name_are_an_error_for_who_asks_for_it(install: Install) -> None:
    install(
        "voxengine-acme", "1.0", {"acme": "acme_pkg:Provider", "fine": "acme_pkg:Provider"}, acme_pkg=GOOD
    )
    install("impostor", "6.6", {"acme": "impostor_pkg:Provider"}, impostor_pkg=GOOD)
    registry = ProviderRegistry()

    with pytest.raises(ProviderNotFound) as caught:
        registry.get("acme")

    for word in ("voxengine-acme 1.0", "impostor 6.6", "register_provider('acme', TheClass)"):
        assert word in str(caught.value)
    assert not {"acme_pkg", "impostor_pkg"} & set(sys.modules)
    assert registry.get("fine").__module__ == "acme_pkg"
    assert {info.name: bool(info.error) for info in registry.infos()} == {"acme": True, "fine": False}
    registry.register("acme", Plain)
    assert registry.get("acme") is Plain


# --- Unknown names ---------------------------------------------------------------------------------


def test_unknown_name_lists_what_there_is_and_what_is_close(install: Install) -> None:
    install("voxengine-acme", "1.0", {"acme": "acme_pkg:Provider"}, acme_pkg=GOOD)
    registry = ProviderRegistry()
    registry.register("local", Plain)

    with pytest.raises(ProviderNotFound) as caught:
        registry.get("acmee")

    assert str(caught.value) == (
        "No provider named 'acmee'. Installed: acme (voxengine-acme 1.0), local (registered). "
        "Did you mean 'acme'?"
    )
    assert (caught.value.provider, caught.value.code) == ("acmee", "not_found")


def test_unknown_name_on_an_empty_machine(install: Install) -> None:
    with pytest.raises(ProviderNotFound, match=r"^No provider named 'acme'\. No provider is installed\.$"):
        ProviderRegistry().get("acme")


@pytest.mark.parametrize(("name", "distribution"), FIRST_PARTY.items())
def test_first_party_name_says_what_to_install(install: Install, name: str, distribution: str) -> None:
    with pytest.raises(ProviderNotFound, match=rf"Try: pip install {distribution}$"):
        ProviderRegistry().get(name)


@pytest.mark.parametrize("name", ["opnai", "voxengine-azure", "azur", "requests", "Mock"])
def test_typed_name_is_never_turned_into_a_package_to_install(install: Install, name: str) -> None:
    with pytest.raises(ProviderNotFound) as caught:
        ProviderRegistry().get(name)

    assert "pip" not in str(caught.value)
