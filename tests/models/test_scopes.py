import pytest

from errors import UserError
from models.scopes import ScopeError, check_scopes, clean_scopes, first_match, within


def test_scopes_are_whole_segments():
    assert within("net/block1/unit_1/weights", "net/block1")
    assert within("net/block1", "net/block1")
    assert not within("net/block10/unit_1/weights", "net/block1")
    assert not within("my/net/block1", "net/block1")


def test_first_match_takes_the_first_scope_that_holds_the_name():
    assert first_match("net/block1/w", ("net/block10", "net/block1", "net")) == "net/block1"
    assert first_match("net/block2/w", ("net/block1", "block2")) is None


def test_a_scope_without_variables_is_an_error_that_lists_its_siblings():
    names = ["net/block1/w", "net/block10/w", "net/logits/weights"]
    check_scopes(["net", "net/block10", "net/logits/weights"], names, "exclude scope")
    with pytest.raises(
        ScopeError, match=r"exclude scope 'net/blok1' .*: net/block1, net/block10, net/logits$"
    ) as error:
        check_scopes(["net/block1", "net/blok1"], names, "exclude scope")
    assert isinstance(error.value, UserError)


@pytest.mark.parametrize(
    "given, expected",
    [
        (None, ()),
        ("", ()),
        ("a/b", ("a/b",)),
        (" a/b/ , c,", ("a/b", "c")),
        (["a", "b,c/"], ("a", "b", "c")),
    ],
)
def test_scopes_are_cleaned(given, expected):
    assert clean_scopes(given) == expected
