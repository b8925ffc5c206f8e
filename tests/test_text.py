from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opentau_prep.text import json_safe, printable, printable_lines

ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=40)


def _obeyed(char: str) -> bool:
    """What the Unicode database calls a control, a surrogate, a separator of lines, or bidi."""
    bidi = unicodedata.bidirectional(char) in {
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"
    }  # fmt: skip
    return bidi or unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}


def test_every_code_point_that_is_obeyed_is_spelled_out():
    for code in range(0x110000):
        char = chr(code)
        if _obeyed(char):
            assert printable(char).isascii(), hex(code)
            assert printable(char) != char, hex(code)
            assert printable_lines(char) == (char if char in "\n\t" else printable(char))


@given(ANY_TEXT)
def test_printable_holds_nothing_obeyed_and_is_its_own_result(text):
    shown = printable(text)
    assert not any(map(_obeyed, shown))
    assert printable(shown) == shown
    shown.encode("utf-8")
    assert not any(map(_obeyed, printable_lines(text).replace("\n", "").replace("\t", "")))


@given(st.recursive(ANY_TEXT, lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner)))
def test_json_safe_keeps_the_value(value):
    document = json_safe(json.dumps(value, ensure_ascii=False))
    assert not any(map(_obeyed, document))
    assert json.loads(document) == json.loads(json.dumps(value))


@pytest.mark.parametrize("text", ["拿起杯子", "چای‌خانه", "👩‍🔧 café", "naïve", "\u3000"])
def test_other_scripts_are_left_alone(text):
    assert printable(text) == printable_lines(text) == json_safe(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;cHduZWQ=\x07", r"\x1b]52;c;cHduZWQ=\x07"),
        ("a\u202eb", r"a\u202eb"),
        ("a\n::error::b", r"a\n::error::b"),
        ("\x9b31m\ud800\U000e0041", r"\x9b31m\ud800\U000e0041"),
    ],
)
def test_printable_spells_out(text, shown):
    assert printable(text) == shown
