import pytest

from authn.password.policy import check, normalise
from domain.codes import normalise_code
from domain.errors import WeakPassword
from tests.testkit.core import PASSWORD, playing

PERSONAL = ("María", "Núñez", "Ibáñez", "12345678Z")


@pytest.mark.parametrize(
    "password",
    ["Abcdef1x", "abcdef1!", "ABCDEF1!", "Abcdefg!", "contraseña1!", "una frase larga cualquiera", "A1" + "é" * 126],
)
def test_accepted(password):
    check(normalise(password), PERSONAL)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("Abcde1!", "at least 8"),
        ("abcdefgh1", "three of"),
        ("ABCDEFGH!", "three of"),
        ("abcdefghijklmno", "three of"),
        ("A1!" + "x" * 126, "at most 128"),
        ("MariaGana1!", "name"),
        ("xxNUÑEZ-12", "name"),
        ("12345678z!Aa", "name"),
        ("12345678-Z-a!", "name"),
    ],
)
def test_refused(password, why):
    with pytest.raises(WeakPassword, match=why):
        check(normalise(password), PERSONAL)


def test_look_alike_signs_become_one():
    assert normalise("ﬁrma①") == normalise("firma1")


async def test_activation_code_shape_and_check_symbol(tmp_path):
    async with playing(tmp_path) as played:
        code = await played.register()
        assert len(normalise_code(code.lower())) == 17
        begun = await played.activation_begin(("1" if code[0] == "0" else "0") + code[1:])
        with pytest.raises(AssertionError, match="no SMS"):
            await played.otp(begun.challenge_id)
        begun = await played.activation_begin(code.lower())
        await played.activation_token(begun)


async def test_six_wrong_codes_void_the_right_one(tmp_path):
    async with playing(tmp_path) as played:
        code = await played.register()
        for _ in range(5):
            await played.activation_begin("0" * 17)
        begun = await played.activation_begin(code)
        with pytest.raises(AssertionError, match="no SMS"):
            await played.otp(begun.challenge_id)


async def test_a_weak_password_may_be_replaced_with_the_same_token_but_only_once_set(tmp_path):
    async with playing(tmp_path) as played:
        code = await played.register()
        with pytest.raises(WeakPassword):
            await played.activate(code, password="short")
        begun = await played.activation_begin(code)
        assert begun.tries == 3
        await played.activate(code)
        # Now the password is active, the code opens nothing more.
        begun = await played.activation_begin(code)
        with pytest.raises(AssertionError, match="no SMS"):
            await played.otp(begun.challenge_id)


async def test_a_change_keeps_the_key_and_ends_the_old_password(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        _, sad = await played.approved()
        first = await played.sign(sad)
        await played.change_password(PASSWORD, "Nueva-Clave-77")
        staged = await played.stage()
        begun = await played.begin(staged, password="Nueva-Clave-77")
        code = await played.complete(staged, begun)
        again = await played.sign(await played.redeem(staged, code))
        assert first.items[1].chain == again.items[1].chain
        begun = await played.begin(await played.stage(), password=PASSWORD)
        with pytest.raises(AssertionError, match="no SMS"):
            await played.otp(begun.challenge_id)
        assert [leaf["facts"]["kind"] for leaf in await played.leaves("PW_CHANGE")] == ["activation", "change"]


async def test_the_previous_password_may_not_come_back(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        with pytest.raises(WeakPassword, match="differ"):
            await played.change_password(PASSWORD, PASSWORD)


async def test_a_wrong_old_password_changes_nothing(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        with pytest.raises(AssertionError, match="no SMS"):
            await played.change_password("Equivocada-9", "Nueva-Clave-77")
        assert len(await played.leaves("PW_CHANGE")) == 1
