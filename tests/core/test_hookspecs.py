"""The contract's names and arguments, which are frozen, and which classes fulfil it."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pluggy
import pytest

import voxengine
from tests.core.providers_for_tests import Plain, remade
from voxengine.capabilities import Capabilities
from voxengine.errors import LocalProtocolError
from voxengine.hookspecs import (
    OPTIONAL_HOOKS,
    PROJECT,
    PROVIDER_API,
    REQUIRED_HOOKS,
    TAP_HOOKS,
    ProviderSpec,
    TapSpec,
)
from voxengine.providers.base import BaseProvider
from voxengine.providers.contract import CONTRACT, bind, check_provider, contract_arguments

# On purpose written out a second time: third parties depend on every one of these words.
FROZEN = {
    "connect": (), "disconnect": (), "send_audio": ("audio_data",), "send_text": ("text",),
    "interrupt": ("heard",), "configure_session": ("config",), "end_turn": ("respond",),
    "discard_input": (), "send_tool_result": ("call_id", "output", "is_error"), "load_history": ("items",),
    "send_item": ("item",), "speak": ("text", "is_last"), "resume": ("handle",), "get_usage": (),
    "estimate_cost": (),
}  # fmt: skip
FROZEN_TAPS = {
    "on_input": ("chunk",), "on_output": ("chunk",), "on_event": ("event",),
    "on_wire": ("direction", "wire", "now"),
}  # fmt: skip


def arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)[1:]


# --- The hooks -------------------------------------------------------------------------------------


def test_names_and_arguments_of_the_contract_are_frozen() -> None:
    assert dict(CONTRACT) == FROZEN
    assert (*REQUIRED_HOOKS, *OPTIONAL_HOOKS) == tuple(FROZEN)
    assert tuple(FROZEN)[:6] == REQUIRED_HOOKS
    assert {name: contract_arguments(name) for name in FROZEN} == FROZEN
    assert PROVIDER_API == 1


def test_names_and_arguments_of_the_taps_are_frozen() -> None:
    assert {name: arguments(getattr(TapSpec, name)) for name in TAP_HOOKS} == FROZEN_TAPS


@pytest.mark.parametrize(("spec", "names"), [(ProviderSpec, FROZEN), (TapSpec, FROZEN_TAPS)])
def test_pluggy_knows_every_hook_and_no_other(spec: type, names: dict[str, object]) -> None:
    manager = pluggy.PluginManager(PROJECT)

    manager.add_hookspecs(spec)

    assert {name for name in vars(manager.hook) if not name.startswith("_")} == set(names)


@pytest.mark.parametrize("hook", [*FROZEN, *FROZEN_TAPS])
def test_hook_is_described_in_one_sentence(hook: str) -> None:
    text = inspect.getdoc(getattr(ProviderSpec, hook, None) or getattr(TapSpec, hook)) or ""

    assert text.endswith(".")
    assert text.count(". ") == 0
    assert "\n" not in text


@pytest.mark.parametrize("hook", FROZEN)
def test_base_class_takes_what_the_hook_gives(hook: str) -> None:
    assert arguments(getattr(BaseProvider, hook)) == FROZEN[hook]
    assert inspect.iscoroutinefunction(getattr(BaseProvider, hook))
    assert (hook in BaseProvider.__abstractmethods__) is (hook in REQUIRED_HOOKS)


def test_decorated_methods_are_seen_by_pluggy() -> None:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(TapSpec)

    class Tap:
        @voxengine.hookimpl
        def on_input(self, chunk: bytes) -> bytes:
            return chunk.upper()

    manager.register(Tap())

    assert manager.hook.on_input(chunk=b"a") == [b"A"]


# --- Classes that fulfil the contract --------------------------------------------------------------


async def with_respond(self: Any, respond: bool) -> None: ...
async def with_nothing(self: Any) -> None: ...
async def with_default(self: Any, heard: object = None) -> None: ...
async def with_extra_default(self: Any, heard: object, fade_ms: int = 20) -> None: ...
async def with_stars(self: Any, *args: object, **kwargs: object) -> None: ...
async def with_keyword_default(self: Any, *, fade_ms: int = 20) -> None: ...
async def with_first_of_three(self: Any, call_id: str) -> None: ...
async def with_two_of_three(self: Any, call_id: str, output: str) -> None: ...


def passing_on(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return call


@pytest.mark.parametrize(
    ("hook", "method", "n_taken"),
    [
        ("interrupt", with_nothing, 0),
        ("interrupt", with_default, 1),
        ("interrupt", with_extra_default, 1),
        ("interrupt", with_stars, 1),
        ("interrupt", with_keyword_default, 0),
        ("interrupt", passing_on(with_default), 1),
        ("end_turn", with_nothing, 0),
        ("end_turn", with_respond, 1),
        ("send_tool_result", with_first_of_three, 1),
        ("send_tool_result", with_two_of_three, 2),
        ("send_tool_result", with_stars, 3),
    ],
)
async def test_implementation_may_leave_out_trailing_arguments_and_have_defaults(
    hook: str, method: Callable[..., Any], n_taken: int
) -> None:
    seen: list[tuple[Any, ...]] = []

    @functools.wraps(method)
    async def recording(self: Any, *args: Any, **kwargs: Any) -> None:
        seen.append(args)
        await method(self, *args, **kwargs)

    cls = check_provider(remade("Acme", **{hook: recording}))
    given = tuple(f"value of {name}" for name in FROZEN[hook])
    await bind(cls({}), hook)(*given)

    assert seen == [given[:n_taken]]


async def test_bind_works_on_a_class_that_was_never_checked() -> None:
    provider = Plain({})

    await bind(provider, "interrupt")("what was heard")

    assert bind(provider, "send_audio") == provider.send_audio


def test_complete_class_is_returned_and_cached() -> None:
    looked_at: list[str] = []

    class Meta(type(BaseProvider)):  # type: ignore[misc]
        def __getattribute__(cls, name: str) -> Any:
            looked_at.append(name)
            return super().__getattribute__(name)

    cls = Meta("Acme", (Plain,), {})

    assert check_provider(cls) is cls
    assert "send_audio" in looked_at
    looked_at.clear()
    assert check_provider(cls) is cls
    assert "send_audio" not in looked_at


# --- Each way to be refused ------------------------------------------------------------------------


def a_function(config: dict[str, Any]) -> Plain:
    return Plain(config)


class NotAProvider:
    async def connect(self) -> None: ...


@pytest.mark.parametrize(
    ("offered", "words"),
    [
        (sys, ["sys is a module", "'package.module:AcmeProvider'"]),
        (a_function, ["the function a_function", "extends voxengine.providers.base.BaseProvider"]),
        (lambda config: a_function(config | {}), ["the function <lambda>"]),
        (functools.partial(Plain, {}), ["a partial", "Give a class"]),
        (Plain({}), ["an instance of Plain", "Give the class Plain"]),
        (NotAProvider, ["NotAProvider does not extend"]),
        (NotAProvider(), ["a NotAProvider was given"]),
        (BaseProvider, ["BaseProvider itself"]),
        ("acme:Provider", ["a str was given"]),
        (None, ["a NoneType was given"]),
        (int, ["int does not extend"]),
    ],
)
def test_what_is_no_provider_class_is_refused(offered: object, words: list[str]) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        check_provider(offered, name="acme")

    for word in ["Provider 'acme': ", *words]:
        assert word in str(caught.value)
    assert caught.value.provider == "acme"
    assert not caught.value.recoverable


# fmt: off
def sync_method(self: Any, audio_data: bytes) -> None: ...
def generator(self: Any, audio_data: bytes) -> Iterator[bytes]:
    yield audio_data
async def async_generator(self: Any, audio_data: bytes) -> AsyncIterator[bytes]:
    yield audio_data
async def static(audio_data: bytes) -> None: ...
async def of_the_class(cls: Any, audio_data: bytes) -> None: ...
async def renamed(self: Any, data: bytes) -> None: ...
async def one_too_many(self: Any, audio_data: bytes, gain: float) -> None: ...
async def too_few(self: Any) -> None: ...
async def keyword_only(self: Any, *, audio_data: bytes) -> None: ...
async def after_an_option(self: Any, gain: float = 1.0, audio_data: bytes = b"") -> None: ...
async def no_output(self: Any, call_id: str, is_error: bool = False) -> None: ...
async def swapped(self: Any, output: str, call_id: str) -> None: ...
async def sentence(self: Any, sentence: str) -> None: ...
# fmt: on

AUDIO = "send_audio(self, audio_data)"
RESULT = "send_tool_result(self, call_id, output, is_error)"


@pytest.mark.parametrize(
    ("hook", "method", "words"),
    [
        ("send_audio", sync_method, ["Acme.send_audio is not a coroutine function", f"async def {AUDIO}"]),
        (
            "connect",
            lambda self: None,
            ["Acme.connect is not a coroutine function", "async def connect(self)"],
        ),
        ("send_audio", generator, ["Acme.send_audio is a generator", AUDIO]),
        ("send_audio", async_generator, ["Acme.send_audio is a generator", AUDIO]),
        ("send_audio", staticmethod(static), ["Acme.send_audio is a staticmethod"]),
        ("send_audio", classmethod(of_the_class), ["Acme.send_audio is a classmethod"]),
        ("send_audio", None, ["Acme.send_audio is a NoneType", f"async def {AUDIO}"]),
        ("get_usage", 3.5, ["Acme.get_usage is a float", "async def get_usage(self)"]),
        ("send_audio", property(lambda self: self), ["Acme.send_audio is a property"]),
        ("send_audio", renamed, ["Acme.send_audio(self, data)", AUDIO, "Rename data to audio_data"]),
        (
            "send_audio",
            one_too_many,
            ["Acme.send_audio(self, audio_data, gain)", AUDIO, "Give gain a default"],
        ),
        ("send_audio", too_few, ["Acme.send_audio(self)", AUDIO, "takes no audio_data"]),
        ("send_audio", keyword_only, [AUDIO, "audio_data is keyword-only"]),
        ("send_audio", after_an_option, [AUDIO, "audio_data by position, in this order"]),
        ("send_tool_result", no_output, ["(self, call_id, is_error)", RESULT, "in this order"]),
        ("send_tool_result", swapped, ["(self, output, call_id)", RESULT, "in this order"]),
        (
            "speak",
            sentence,
            ["speak(self, sentence)", "speak(self, text, is_last)", "Rename sentence to text"],
        ),
    ],
)
def test_method_that_does_not_fit_is_refused_with_both_signatures(
    hook: str, method: object, words: list[str]
) -> None:
    cls = remade("Acme", **{hook: method})

    with pytest.raises(LocalProtocolError) as caught:
        check_provider(cls)

    for word in words:
        assert word in str(caught.value)


def test_every_required_method_may_be_the_missing_one() -> None:
    for name in REQUIRED_HOOKS:
        left = {hook: getattr(Plain, hook) for hook in REQUIRED_HOOKS if hook != name}

        with pytest.raises(LocalProtocolError, match=rf"Acme does not implement async def {name}\(self"):
            check_provider(type("Acme", (BaseProvider,), left))


def test_empty_class_is_told_all_that_is_missing() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        check_provider(type("Acme", (BaseProvider,), {}))

    for name in REQUIRED_HOOKS:
        assert f"async def {name}(self" in str(caught.value)


@pytest.mark.parametrize(
    ("api", "word"),
    [
        (2, "Upgrade voxengine"),
        (0, "Upgrade the provider's package"),
        ("1", "the int 1"),
        (True, "the int 1"),
        (None, "the int 1"),
    ],
)
def test_other_version_of_the_contract_is_refused(api: object, word: str) -> None:
    with pytest.raises(LocalProtocolError, match=word):
        check_provider(remade("Acme", provider_api=api))


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"capabilities": {"cancel": "full"}}, "Acme.capabilities is a dict"),
        ({"capabilities": Capabilities}, "Acme.capabilities is a type"),
        ({"services": ["tts"]}, "Acme.services"),
        ({"services": {"tts": "full"}}, "Acme.services"),
        ({"services": {3: Capabilities()}}, "Acme.services"),
        ({"__init__": lambda self: None}, r"Acme\(self\) cannot be built with the configuration mapping"),
        ({"__init__": lambda self, config, key: None}, r"Acme\(self, config, key\) cannot be built"),
        ({"__init__": lambda self, *, config: None}, r"Acme\(self, config\) cannot be built"),
    ],
)
def test_wrong_declaration_is_refused(members: dict[str, Any], word: str) -> None:
    with pytest.raises(LocalProtocolError, match=word):
        check_provider(remade("Acme", **members))


def test_other_abstract_methods_are_named() -> None:
    import abc

    unfinished = abc.abstractmethod(lambda self: None)

    with pytest.raises(LocalProtocolError, match="Acme leaves handshake abstract"):
        check_provider(remade("Acme", handshake=unfinished))


def test_refused_class_is_not_cached_as_good() -> None:
    cls = remade("Acme", provider_api=2)
    with pytest.raises(LocalProtocolError):
        check_provider(cls)

    cls.provider_api = 1

    assert check_provider(cls) is cls
