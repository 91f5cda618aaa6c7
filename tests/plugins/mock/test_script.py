from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from voxengine.errors import ConfigError
from voxengine_mock.patterns import PatternError, Regex
from voxengine_mock.script import Script, ScriptRun, fill, plain


def say(responses: dict[str, Any], *texts: str) -> list[str | None]:
    run = ScriptRun(Script.from_mapping({"responses": responses}))
    found = [run.find(text) for text in texts]
    return [None if f is None else f[0].say for f in found]


@pytest.mark.parametrize("text", ["Hello", "hello", "  HELLO!! ", "Hello...", "héllo".replace("é", "e")])
def test_exact_pattern_ignores_case_punctuation_and_spaces(text: str) -> None:
    assert say({"Hello": "hi"}, text) == ["hi"]


def test_exact_pattern_matches_nothing_but_itself() -> None:
    assert say({"Hello": "hi"}, "Hello there", "hell", "") == [None, None, None]


def test_apostrophes_do_not_count() -> None:
    assert say({"What's the weather?": "sunny"}, "whats the weather", "What’s the weather") == ["sunny"] * 2


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("*weather*", "What's the weather today?", True),
        ("*weather*", "weather", True),
        ("*weather*", "wether", False),
        ("tell me * story", "Tell me a long story!", True),
        ("tell me * story", "please tell me a story", False),
        ("*", "", True),
        ("re:my name is (?P<name>\\w+)", "Hi, MY NAME is Ada.", True),
        ("re:^bye$", "good bye", False),
    ],
)
def test_wildcards_and_regular_expressions(pattern: str, text: str, matches: bool) -> None:
    assert say({pattern: "yes"}, text) == ["yes" if matches else None]


def test_exact_pattern_wins_and_then_the_first_in_the_file() -> None:
    responses = {"*hello you*": "more", "*hello*": "wild", "*": "any", "hello": "exact"}

    assert say(responses, "hello", "hello you", "oh hello", "you") == ["exact", "more", "wild", "any"]


def test_answers_of_a_list_come_in_turn_and_start_again() -> None:
    assert say({"hi": ["one", "two"]}, "hi", "hi", "hi") == ["one", "two", "one"]


def test_named_groups_are_handed_on() -> None:
    run = ScriptRun(Script.from_mapping({"responses": {"re:name is (?P<name>\\w+)": "x"}}))

    found = run.find("my name is Ada")

    assert found is not None
    assert found[1] == {"name": "Ada"}


def test_spoken_words_come_in_turn_and_then_by_default() -> None:
    run = ScriptRun(Script.from_mapping({"hears": ["first words"], "hears_default": "more words"}))

    assert [run.hear().text for _ in range(3)] == ["first words", "more words", "more words"]


def test_jitter_follows_the_seed() -> None:
    def delays(seed: int) -> list[float]:
        run = ScriptRun(Script.from_mapping({"seed": seed, "jitter_ms": 100, "delay_ms": 50}))
        return [run.delay_s(run.default()) for _ in range(5)]

    assert delays(1) == delays(1)
    assert delays(1) != delays(2)
    assert all(0.05 <= delay <= 0.15 for delay in delays(1))


def test_delay_of_an_answer_replaces_the_scripts() -> None:
    script = Script.from_mapping({"delay_ms": 500, "default": {"say": "x", "delay_ms": 20}})
    run = ScriptRun(script)

    assert run.delay_s(run.default()) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("It is {result}", 'It is {"sky": "blue", "n": [1, {"a": 2}]}'),
        ("The sky is {result.sky}", "The sky is blue"),
        ("{result.n}", '[1, {"a": 2}]'),
        ("{result.sky.deeper} {result.none} {nobody} {}", "{result.sky.deeper} {result.none} {nobody} {}"),
        ("{plain.key}", "{plain.key}"),
    ],
)
def test_places_are_filled_and_unknown_ones_stay(template: str, expected: str) -> None:
    names = {"result": '{"sky": "blue", "n": [1, {"a": 2}]}', "plain": "text"}

    assert fill(template, names) == expected


@given(st.text())
def test_plain_words_are_stable(text: str) -> None:
    assert plain(plain(text)) == plain(text)


def test_file_and_metadata_are_joined_and_metadata_wins(tmp_path: Path) -> None:
    path = tmp_path / "talk.toml"
    path.write_text('seed = 3\ndelay_ms = 10\n[responses]\n"hi" = "file"\n"bye" = "file"\n')

    script = Script.from_mapping({"script": str(path), "delay_ms": 99, "responses": {"hi": "metadata"}})

    assert (script.seed, script.delay_ms) == (3, 99.0)
    run = ScriptRun(script)
    assert [run.find(text)[0].say for text in ("hi", "bye")] == ["metadata", "file"]  # type: ignore[index]


@pytest.mark.parametrize(
    "responses",
    [
        {"*": "{text} {instructions} {language} {voice}"},
        {"re:(?P<a>x+)(?:y|(?P<b>z))?": "{a}"},
        {"re:(?:(?P<a>x)){2}|": "yes"},
        {"a": {"tool": "t", "arguments": {"q": ["{text}"]}, "then": "{result} {result_1} {result.sky}"}},
        {"a": {"calls": [{"tool": "t"}, {"tool": "u"}], "then": {"tool": "v", "then": "{result_2}"}}},
        {"a": 'JSON such as {"sky": {}} or { text } holds no place'},
    ],
)
def test_places_that_stand_for_something_are_taken(responses: dict[str, Any]) -> None:
    (answer,) = Script.from_mapping({"responses": responses}).rules[0].answers

    assert answer.say or answer.calls


@given(st.text("abx|()?*", max_size=12), st.text("abx", max_size=12))
def test_group_that_is_in_every_match_is_in_each(source: str, text: str) -> None:
    try:
        regex = Regex(f"{source}(?P<last>a?)|(?P<other>b)(?P<same>a*)|x(?P<third>b){source}")
        alone = Regex(f"(?:{source}(?P<one>b*))+")
    except PatternError:
        reject()

    for tried in (regex, alone):
        found = tried.search(text)
        assert found is None or {name for name, always in tried.groups.items() if always} <= set(found)


BAD_FILES: list[tuple[str, int | None, str]] = [
    ("delay_ms = 1\nspede = 2\n", 2, r"spede is not a key of a script\. Did you mean 'seed'\?"),
    ('delay_ms = "soon"\n', 1, r"delay_ms is str; it takes a number from 0 to 600000 \(ms\)"),
    ("\n\njitter_ms = -1\n", 3, r"jitter_ms is -1; it takes a number from 0"),
    ("seed = 1.5\n", 1, r"seed is float; it takes a whole number"),
    ("pace = 0\n", 1, r"pace is 0; it takes a number from 0\.1"),
    ('hears = ["one two", ""]\n', 1, r"hears\[1\] is empty"),
    ('hears = "one"\n', 1, r"hears is str; it takes a list of texts"),
    ("default = []\n", 1, r"default is an empty list"),
    ('synthesizer = "siri"\n', 1, r"synthesizer takes one of 'tones', 'espeak'"),
    ('[responses]\n"a" = "b"\n"?!" = "x"\n', 3, r'responses\."\?!" is a pattern without words'),
    ('[responses]\n"re:(" = "x"\n', 2, r'responses\."re:\(" is no regular expression'),
    ('[responses]\n"a" = 5\n', 2, r"responses\.a is int; it takes a text, a table or a list"),
    ('[responses."a b"]\nsay = "x"\n\n[responses.c]\ntol = "x"\n', 5, r"responses\.c\.tol is not a key"),
    ("[responses.a]\ndelay_ms = 5\n", 1, r"responses\.a says nothing and calls nothing"),
    ('[responses.a]\nsay = "x"\nthen = "y"\n', 3, r"responses\.a\.then has no tool beside it"),
    ('[responses.a]\nsay = "x"\narguments = {}\n', 3, r"responses\.a\.arguments has no tool beside it"),
    (
        '[responses.a]\ntool = "t"\ncalls = [{tool = "t"}]\n',
        3,
        r"responses\.a\.calls stands beside tool",
    ),
    (
        '[responses.a]\ncalls = [{tool = "t"}, {tol = "x"}]\n',
        2,
        r"responses\.a\.calls\[1\]\.tol is not a key",
    ),
    ('[responses.a]\ntool = "t"\narguments = 4\n', 3, r"responses\.a\.arguments is int; it takes a table"),
    (
        '[responses.a]\ntool = "t"\narguments = {day = 2020-01-01}\n',
        3,
        r"responses\.a\.arguments\.day holds a value that JSON cannot carry",
    ),
    (
        '[responses.a]\ntool = "t"\n[responses.a.arguments]\nx = 1\ny = [0, {d = inf}]\n',
        5,
        r"responses\.a\.arguments\.y\[1\]\.d holds a value that JSON cannot carry",
    ),
    ('[responses.a]\ntool = "t"\narguments = {e = nan}\n', 3, r"responses\.a\.arguments\.e holds a value"),
    ('default = ""\n', 1, r"default is empty; it takes a text"),
    ('default = ["x", "  "]\n', 1, r"default\[1\] is empty; it takes a text"),
    ('[responses.a]\nsay = " "\ndelay_ms = 5\n', 2, r"responses\.a\.say is empty; it takes a text"),
    ('[responses.a]\ntool = ""\n', 2, r"responses\.a\.tool is empty"),
    ("seed = \n", None, r"is not valid TOML: .*line 1"),
    ("a = " + "[" * 2000, None, r"(is nested too deeply|is not valid TOML)"),
    # Places that would be spoken as they are written.
    (
        'delay_ms = 1\ndefault = "It is {txt}."\n',
        2,
        r"default holds the place \{txt\}, which stands for nothing. Did you mean \{text\}",
    ),
    (
        'default = ["Yes.", "No, {name}."]\n',
        1,
        r"default\[1\] holds the place \{name\}, which stands for nothing",
    ),
    (
        '[responses]\na = "b"\n"*" = "It is {result}."\n',
        3,
        r'responses."\*" holds the place \{result\}, and no tool',
    ),
    (
        '[responses.a]\ntool = "t"\nthen = "It is {resul.sky}."\n',
        3,
        r"responses\.a\.then holds the place \{resul\.sky\}",
    ),
    (
        '[responses.a]\nsay = "{result_1}"\ntool = "t"\n',
        2,
        r"responses\.a\.say holds .*no tool is called before",
    ),
    (
        '[responses.a]\ntool = "t"\nthen = "{result_2}"\n',
        3,
        r"responses\.a\.then holds the place \{result_2\}, and the calls before it are 1",
    ),
    (
        '[responses.a]\ntool = "t"\nthen = "{text.sky}"\n',
        3,
        r"responses\.a\.then holds the place \{text\.sky\}, and only the result of a call has keys",
    ),
    (
        '[responses.a]\ntool = "t"\n[responses.a.arguments]\nx = 1\ny = ["{text}", {d = "{day}"}]\n',
        5,
        r"responses\.a\.arguments\.y\[1\]\.d holds the place \{day\}",
    ),
    (
        '[responses]\n"re:i am (?P<name>\\\\w+)|it is me" = "Hi {name}."\n',
        2,
        r".*holds the place \{name\}, a group that is not in every match",
    ),
    # What is heard.
    ('hears = [\n  "one two",\n  "one",\n]\n', 3, r"hears\[1\] has fewer than two words"),
    ('hears_default = "stop!"\n', 1, r"hears_default has fewer than two words"),
    ('hears = [{partials = ["a"]}]\n', 1, r"hears\[0\] has no text"),
    ('[[hears]]\ntext = "one two"\nwordms = 4\n', 3, r"hears\[0\]\.wordms is not a key of an utterance"),
    ('[[hears]]\ntext = "a b"\n[[hears]]\ntext = "c d"\nword_ms = 1\n', 5, r"hears\[1\]\.word_ms is 1; it"),
    (
        '[[hears]]\ntext = "one two"\nwords = [\n {word = "one", at_ms = 0, end_ms = 90},\n'
        ' {word = "two", at_ms = 80, end_ms = 120},\n]\n',
        5,
        r"hears\[0\]\.words\[1\]\.at_ms is 80, before the word before it ends",
    ),
    (
        '[[hears]]\ntext = "a b"\nwords = [{word = "a", at_ms = 9, end_ms = 9}]\n',
        3,
        r"hears\[0\]\.words\[0\]\.end_ms is 9; the word begins at 9",
    ),
    (
        '[[hears]]\ntext = "a b"\nwords = [{word = "a", at_ms = 1, end_ms = 9}]\n',
        3,
        r"hears\[0\]\.words has 1 words and the text 2",
    ),
    (
        '[[hears]]\ntext = "a b"\nwords = [{word = "a", at_ms = 1}]\n',
        3,
        r"hears\[0\]\.words\[0\] has no end_ms",
    ),
    # Times of an answer that cannot be.
    (
        '[responses.a]\nsay = "one two"\nduration_ms = 39\n',
        3,
        r"responses\.a\.duration_ms is 39, which 2 words",
    ),
    ('[responses.a]\nsay = "one"\nduration_ms = 10001\n', 3, r"responses\.a\.duration_ms is 10001, which 1"),
    ('[responses.a]\ntool = "t"\nduration_ms = 100\n', 3, r"responses\.a\.duration_ms has no say beside it"),
    (
        '[responses.a]\nsay = "x"\ndelay_ms = -5\n',
        3,
        r"responses\.a\.delay_ms is -5; it takes a number from 0",
    ),
    (
        '[responses.a]\nsay = "x y"\nat_ms = [50, 50]\n',
        3,
        r"responses\.a\.at_ms\[1\] is 50, not 20 ms after 50",
    ),
    ('[responses.a]\nsay = "x y"\nat_ms = [50]\n', 3, r"responses\.a\.at_ms has 1 times for 2 words"),
    (
        '[responses.a]\nsay = "x y"\nduration_ms = 200\nat_ms = [\n  0,\n  190,\n]\n',
        6,
        r"responses\.a\.at_ms\[1\] is 190, when the 200 ms of the answer are over",
    ),
    (
        '[responses.a]\nsay = "x {text}"\nat_ms = [0, 50]\n',
        3,
        r"responses\.a\.at_ms times the words of a text with",
    ),
    (
        '[responses.a]\nsay = "x"\nusage = {input_tokens = -1}\n',
        3,
        r"responses\.a\.usage\.input_tokens is -1",
    ),
    # Patterns that never match.
    (
        '[responses]\n"Hello" = "a"\n"x" = "b"\n"hello!" = "c"\n',
        4,
        r'responses\."hello!" never matches: "Hello" \(line 2\) is the same pattern',
    ),
    (
        '[responses]\n"*a b*" = "a"\n"* A, b *" = "b"\n',
        3,
        r'responses\."\* A, b \*" never matches: "\*a b\*"',
    ),
    (
        '[responses]\n"*" = "a"\nhello = "exact ones come first"\n"re:x" = "b"\n',
        4,
        r'responses\."re:x" never matches: "\*" \(line 2\) before it matches everything',
    ),
    (
        '[responses]\n"hello *" = "a"\n"x" = "b"\n"hello * you" = "c"\n',
        4,
        r'responses\."hello \* you" never matches: "hello \*" \(line 2\) before it matches all that this one',
    ),
    (
        "[responses]\n're:.*' = \"a\"\n'*b*' = \"b\"\n",
        3,
        r'responses\."\*b\*" never matches: "re:\.\*" \(line 2\) before it matches everything',
    ),
    (
        '[responses]\n"re:hello" = "a"\n"re:HELLO" = "b"\n',
        3,
        r'responses\."re:HELLO" never matches: "re:hello" \(line 2\) is the same pattern',
    ),
    ('[responses]\n"re:(?!)" = "a"\n', 2, r"responses\.\"re:\(\?!\)\" holds '\(\?!'\. Of groups"),
    ('[responses]\n"re: " = "a"\n', 2, r'responses\."re: " is an empty regular expression'),
    # Delays and usage.
    (
        "[delays]\nhandshake = 5\n",
        2,
        r"delays\.handshake is not a key of the delays\. Did you mean 'handshake_ms'",
    ),
    ("[delays]\nready_ms = 600001\n", 2, r"delays\.ready_ms is 600001; it takes a number from 0 to 600000"),
    ("delays = 5\n", 1, r"delays is int; it takes a table with handshake_ms"),
    ('usage.per_word = "many"\n', 1, r"usage\.per_word is str; it takes a number"),
    ("pace = nan\n", 1, r"pace is nan; it takes a number from 0\.1"),
    # Faults.
    ("faults = 1\n", 1, r"faults is int; it takes a list of tables"),
    ('[[faults]]\nat = "ready"\n', 1, r"faults\[0\] has no do; it takes a status from 400 to 599, 'quota'"),
    ('[[faults]]\ndo = "stal"\nat = "ready"\n', 2, r"faults\[0\]\.do is 'stal'; .* Did you mean 'stall'\?"),
    ("[[faults]]\ndo = 200\n", 2, r"faults\[0\]\.do is '200'; it takes a status from 400"),
    ('[[faults]]\ndo = "http"\n', 2, r"faults\[0\]\.do is 'http'"),
    ('[[faults]]\ndo = "stall"\n', 1, r"faults\[0\] has no at; it takes one of handshake, ready"),
    (
        '[[faults]]\ndo = 401\n[[faults]]\ndo = "reset"\nat = "redy"\n',
        5,
        r"faults\[1\]\.at names no point 'redy'\. Did you mean 'ready'",
    ),
    (
        '[[faults]]\ndo = "close"\nat = "handshake"\n',
        3,
        r"faults\[0\]\.at is 'handshake', where there is no session",
    ),
    ('[[faults]]\ndo = "close"\nat = "turn:0"\n', 3, r"faults\[0\]\.at has '0'; the count begins at 1"),
    ('[[faults]]\ndo = "close"\nat = "ready:2"\n', 3, r"faults\[0\]\.at counts 'ready', which comes once"),
    (
        '[[faults]]\ndo = "reset"\nat = "turn:1:after_audio_ms=5"\n',
        3,
        r"faults\[0\]\.at has after_audio_ms, which",
    ),
    (
        '[[faults]]\ndo = "reset"\nat = "response:1:later=5"\n',
        3,
        r"faults\[0\]\.at has 'later=5'; a point takes",
    ),
    (
        '[[faults]]\ndo = "reset"\nat = "ready:after_ms=-5"\n',
        3,
        r"faults\[0\]\.at has 'after_ms=-5'; after_ms takes",
    ),
    ('[[faults]]\ndo = "reset"\nat = "input"\n', 3, r"faults\[0\]\.at needs how much audio"),
    (
        '[[faults]]\ndo = "close"\nat = "ready"\ncode = 1006\n',
        4,
        r"faults\[0\]\.code is 1006, which may not be sent",
    ),
    (
        '[[faults]]\ndo = "error"\nat = "ready"\ncode = "bad"\n',
        4,
        r"faults\[0\]\.code takes one of 'authentication'",
    ),
    ('[[faults]]\ndo = "stall"\nat = "ready"\nfor_s = 0\n', 4, r"faults\[0\]\.for_s is 0; it takes a number"),
    (
        '[[faults]]\ndo = "reset"\nat = "ready"\nfor_s = 1\n',
        4,
        r"faults\[0\]\.for_s is not a key of the fault 'reset'",
    ),
    ("[[faults]]\ndo = 429\nretry_after_s = -1\n", 3, r"faults\[0\]\.retry_after_s is -1"),
    ("[[faults]]\ndo = 429\ntimes = 0\n", 3, r"faults\[0\]\.times is 0; it takes a whole number from 1"),
    ('[[faults]]\ndo = "garbage"\nat = "ready"\nas = "noise"\n', 4, r"faults\[0\]\.as takes one of 'text'"),
]


@pytest.mark.parametrize(("content", "line", "message"), BAD_FILES)
def test_error_in_a_file_names_the_file_the_line_and_the_key(
    content: str, line: int | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "talk.toml"
    path.write_text(content)

    with pytest.raises(ConfigError) as caught:
        Script.from_file(path)

    where = f"{path} " if line is None else f"{path}, line {line}: "
    assert re.match(re.escape(where) + message, str(caught.value)), str(caught.value)


def test_error_in_metadata_names_metadata() -> None:
    with pytest.raises(
        ConfigError, match=r"^metadata: respones is not a key of a script. Did you mean 'responses'"
    ):
        Script.from_mapping({"respones": {}})


@pytest.mark.parametrize("given", ["none.toml", "./none.toml", "no/such/none.toml"])
def test_missing_file_is_named_as_it_was_given(given: str) -> None:
    said = re.escape(f"The script {given!r} cannot be read (FileNotFoundError)")

    with pytest.raises(ConfigError, match=f"^{said}"):
        Script.from_mapping({"script": given})


def test_byte_that_is_not_utf_8_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes('seed = 1\ndefault = "später"\n'.encode("latin-1"))

    with pytest.raises(ConfigError, match=r"latin\.toml, line 2: a byte is not UTF-8\."):
        Script.from_file(path)


def test_a_file_cannot_point_to_another_file(tmp_path: Path) -> None:
    path = tmp_path / "talk.toml"
    path.write_text('script = "other.toml"\n')

    with pytest.raises(ConfigError, match="line 1: script is not a key of a script"):
        Script.from_file(path)


@given(
    st.dictionaries(
        st.sampled_from(["responses", "default", "hears", "delay_ms", "seed", "pace", "nonsense", "voice"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["say", "tool", "then", "calls", "arguments", "*", "re:[", "hi"]),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=6,
        ),
    )
)
def test_any_mapping_is_a_script_or_a_config_error(values: dict[str, Any]) -> None:
    refusal = "metadata: "

    try:
        Script.from_mapping(values)
    except ConfigError as error:
        refusal = str(error)

    assert refusal.startswith("metadata: ")
