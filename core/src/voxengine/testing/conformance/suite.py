"""The laws as a class of pytest tests. The only module of the kit that imports pytest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import attrs
import pytest

from voxengine.audio.format import AudioFormat
from voxengine.providers.base import BaseProvider
from voxengine.testing.clock import run_virtual
from voxengine.testing.conformance.law import Law, LawBroken, LawSkipped
from voxengine.testing.conformance.laws import LAWS
from voxengine.testing.conformance.probe import tell
from voxengine.testing.conformance.run import Clock, judge, masked
from voxengine.testing.conformance.subject import (
    Factory,
    Settings,
    Subject,
    remaking,
    secrets_in_environment,
    secrets_of,
)

__all__ = ["ProviderConformance"]

_DEFAULTS: Final = Settings()
_MAX_REAL_S: Final = 120.0

MaybeProvider = Callable[[], BaseProvider] | BaseProvider | None


class ProviderConformance:
    """Every law of the contract as a test of one provider.

    Subclass it and give the fixture ``provider``, an instance that is not connected; further ones are made
    of its class and configuration. Where that does not do, give the fixture ``provider_factory`` instead: a
    callable that takes options as keywords, which replace those of the configuration.

    The fixtures ``refused_provider``, ``unreachable_provider``, ``stalled_provider`` and ``lossy_provider``
    give instances (or factories of them) with a bad peer; see :class:`~voxengine.testing.Subject`. Without
    them the kit makes such peers where it can, and skips the laws where it cannot.

    With ``clock = "virtual"`` the tests are plain functions and fixtures have to be plain too; with
    ``"real"`` they are coroutines of pytest-asyncio, so that a fixture may run a service on their loop.
    """

    clock: ClassVar[Clock] = "real"
    """``virtual`` for a provider that lives in memory, ``real`` for one that talks to a socket."""

    prompt_text: ClassVar[str] = _DEFAULTS.prompt_text
    long_prompt_text: ClassVar[str] = _DEFAULTS.long_prompt_text
    tool: ClassVar[Mapping[str, Any]] = _DEFAULTS.tool
    tool_prompt_text: ClassVar[str] = _DEFAULTS.tool_prompt_text
    tool_output: ClassVar[str] = _DEFAULTS.tool_output
    speech: ClassVar[bytes | None] = _DEFAULTS.speech
    speech_format: ClassVar[AudioFormat] = _DEFAULTS.speech_format
    silence_ms: ClassVar[int] = _DEFAULTS.silence_ms
    connect_s: ClassVar[float] = _DEFAULTS.connect_s
    call_s: ClassVar[float] = _DEFAULTS.call_s
    close_s: ClassVar[float] = _DEFAULTS.close_s
    stalled_close_s: ClassVar[float] = _DEFAULTS.stalled_close_s
    answer_s: ClassVar[float] = _DEFAULTS.answer_s
    settle_s: ClassVar[float] = _DEFAULTS.settle_s
    quiet_s: ClassVar[float] = _DEFAULTS.quiet_s
    law_s: ClassVar[float] = _DEFAULTS.law_s
    stall_bytes: ClassVar[int] = _DEFAULTS.stall_bytes
    n_cancellations: ClassVar[int] = _DEFAULTS.n_cancellations

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for law in LAWS:
            name = f"test_{law.name}"
            # A subclass may replace a law's test by its own, or take it out with None.
            inherited = getattr(cls, name, None)
            if name not in vars(cls) and (inherited is None or hasattr(inherited, "_law")):
                if any(vars(base).get(name, law) is None for base in cls.__mro__):
                    continue
                setattr(cls, name, _test_of(law, cls.clock))

    @pytest.fixture
    def provider(self) -> BaseProvider:
        """An instance that is not connected."""
        raise pytest.UsageError(
            "Give the fixture `provider`: a fresh instance of the provider that is not connected."
        )

    @pytest.fixture
    def provider_factory(self, request: pytest.FixtureRequest) -> Factory:
        """Make instances; by default of the class and the configuration of ``provider``."""
        return remaking(request.getfixturevalue("provider"))

    @pytest.fixture
    def refused_provider(self) -> MaybeProvider:
        """An instance whose credentials the service refuses; None: made with a wrong key, where there is one."""
        return None

    @pytest.fixture
    def unreachable_provider(self) -> MaybeProvider:
        """An instance whose service is not there; None: made with a closed port, where there is an address."""
        return None

    @pytest.fixture
    def stalled_provider(self) -> MaybeProvider:
        """An instance whose service stops reading; None: made with a proxy, where there is a ws:// address."""
        return None

    @pytest.fixture
    def lossy_provider(self) -> MaybeProvider:
        """An instance whose service cuts the connection; None: made like ``stalled_provider``."""
        return None

    @pytest.fixture
    def subject(
        self,
        provider_factory: Factory,
        refused_provider: MaybeProvider,
        unreachable_provider: MaybeProvider,
        stalled_provider: MaybeProvider,
        lossy_provider: MaybeProvider,
    ) -> Subject:
        """Put together who is judged; override it for what the other fixtures cannot say."""
        sample = provider_factory()
        config = sample.config if isinstance(sample.config, Mapping) else {}
        return Subject(
            name=type(sample).__name__,
            make=_again(sample, provider_factory),
            settings=Settings(**{f.name: getattr(type(self), f.name) for f in attrs.fields(Settings)}),
            refused=_factory(refused_provider),
            unreachable=_factory(unreachable_provider),
            stalled=_factory(stalled_provider),
            lossy=_factory(lossy_provider),
            is_in_memory=self.clock == "virtual",
            secrets=(*secrets_of(config), *secrets_in_environment()),
        )


def _again(sample: BaseProvider, factory: Factory) -> Factory:
    """Return a factory that hands out the sample before it makes more."""
    held = [sample]

    def make(**changes: Any) -> BaseProvider:
        return held.pop() if held and not changes else factory(**changes)

    return make


def _factory(given: MaybeProvider) -> Callable[[], BaseProvider] | None:
    if isinstance(given, BaseProvider):
        return lambda: given
    return given


def _test_of(law: Law, clock: Clock) -> Callable[..., Any]:
    """Return the test of a law: a function on virtual time, or a coroutine function on the real clock."""

    async def judged(subject: Subject) -> None:
        # The outcome is told outside of the handlers: pytest then shows it alone.
        skipped = broken = ""
        try:
            await judge(law, subject)
        except LawSkipped as skip:
            skipped = masked(str(skip), subject)
        except LawBroken as fault:
            broken = masked(str(fault), subject)
        except Exception as error:
            reason = masked(f"The provider raised {tell(error)}", subject)
            raise LawBroken(f"{law.sentence}\n{reason}") from error
        if skipped:
            pytest.skip(skipped)
        if broken:
            pytest.fail(f"{law.sentence}\n{broken}", pytrace=False)

    if clock == "virtual":

        def test(self: ProviderConformance, subject: Subject) -> None:
            run_virtual(judged(subject), max_real_s=_MAX_REAL_S)

        made: Callable[..., Any] = test
    else:

        async def test_on_the_loop(self: ProviderConformance, subject: Subject) -> None:
            await judged(subject)

        # The mark is what pytest-asyncio asks for in its strict mode.
        made = pytest.mark.asyncio(test_on_the_loop)
    made.__name__ = f"test_{law.name}"
    made.__qualname__ = f"{ProviderConformance.__name__}.test_{law.name}"
    made.__doc__ = law.sentence
    made._law = law  # type: ignore[attr-defined]
    return made
