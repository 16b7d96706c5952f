"""What a registrar types about a citizen, checked: only ``check`` makes a ``NewCitizen``."""

import re
import unicodedata
from dataclasses import dataclass, field

import phonenumbers
from stdnum.es import nif as stdnum_nif
from stdnum.exceptions import ValidationError

from domain.assurance import RegistrationLevel
from domain.errors import MalformedRequest

NAME_LIMIT_CHARACTERS = 60
EMAIL_LIMIT_CHARACTERS = 254
"""RFC 5321 §4.5.3.1.3, less the angle brackets."""
EMAIL_LOCAL_LIMIT_CHARACTERS = 64
"""RFC 5321 §4.5.3.1.1."""

NATIONAL_REGION = "ES"
MOBILE = {phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE}
"""Some countries' plans do not tell mobile numbers from others."""

# First symbol of a natural person's NIF: a digit (DNI), X Y Z (NIE), K L M (special ones). The other letters that the
# check digit knows belong to legal persons (CIF).
_NATURAL_PERSON = re.compile(r"[0-9XYZKLM][0-9]{7}[A-Z]")
_NAME = re.compile(r"[^\W\d_](?:[^\W\d_]|[ '’.ªº·-])*")
_EMAIL_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_EMAIL_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]{0,61}[A-Za-z0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCitizen:
    """Checked and normalised data of one citizen; its ``repr`` shows none of them."""

    nif: str = field(repr=False)
    given_name: str = field(repr=False)
    first_surname: str = field(repr=False)
    second_surname: str = field(repr=False)
    """Empty where the person has one surname."""
    phone: str = field(repr=False)
    """E.164, of a mobile."""
    email: str = field(repr=False)
    """Lower case."""
    level: RegistrationLevel


def check(
    *,
    nif: str,
    given_name: str,
    first_surname: str,
    second_surname: str,
    phone: str,
    email: str,
    level: str,
) -> NewCitizen:
    """Check and normalise what was typed.

    Raises:
        MalformedRequest: A field is wrong; the detail names the field, never its content.
    """
    try:
        checked_level = RegistrationLevel(level)
    except ValueError:
        raise MalformedRequest(f"the level must be one of {', '.join(RegistrationLevel)}") from None
    return NewCitizen(
        nif=check_nif(nif),
        given_name=check_name(given_name, "given name"),
        first_surname=check_name(first_surname, "first surname"),
        second_surname=check_name(second_surname, "second surname") if second_surname.strip() else "",
        phone=check_phone(phone),
        email=check_email(email),
        level=checked_level,
    )


def check_nif(typed: str) -> str:
    """The NIF of a natural person (DNI, NIE, or K, L, M), upper case without separators.

    Raises:
        MalformedRequest: Not a NIF, its letter is wrong, or it is a legal person's.
    """
    try:
        nif: str = stdnum_nif.validate(typed)
    except ValidationError:
        raise MalformedRequest("the NIF is not valid") from None
    if _NATURAL_PERSON.fullmatch(nif) is None:
        raise MalformedRequest("the NIF must be a natural person's")
    return nif


def check_name(typed: str, field_name: str) -> str:
    """A name or surname in NFC, single spaces; at most 60 characters.

    Raises:
        MalformedRequest: Empty, too long, or with signs that no name has.
    """
    name = " ".join(unicodedata.normalize("NFC", typed).split())
    if len(name) > NAME_LIMIT_CHARACTERS or _NAME.fullmatch(name) is None:
        raise MalformedRequest(f"the {field_name} must be a name of at most {NAME_LIMIT_CHARACTERS} characters")
    return name


def check_phone(typed: str) -> str:
    """A mobile number in E.164; without a country prefix it is read as a national one.

    Raises:
        MalformedRequest: Not a number, or not one that takes SMS.
    """
    try:
        number = phonenumbers.parse(typed, NATIONAL_REGION)
    except phonenumbers.NumberParseException:
        raise MalformedRequest("the phone is not a telephone number") from None
    if number.extension or not phonenumbers.is_valid_number(number) or phonenumbers.number_type(number) not in MOBILE:
        raise MalformedRequest("the phone must be a mobile number")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def normalise_email(typed: str) -> str:
    """Lower case, without spaces around; not checked. Letters that differ by case alone name one mailbox here."""
    return typed.strip().lower()


def check_email(typed: str) -> str:
    """An address of the plain form (RFC 5321 dot-string and domain), normalised.

    Raises:
        MalformedRequest: Not such an address.
    """
    email = normalise_email(typed)
    local, _, domain = email.rpartition("@")
    if (
        len(email) > EMAIL_LIMIT_CHARACTERS
        or len(local) > EMAIL_LOCAL_LIMIT_CHARACTERS
        or _EMAIL_LOCAL.fullmatch(local) is None
        or _EMAIL_DOMAIN.fullmatch(domain) is None
    ):
        raise MalformedRequest("the e-mail address is not valid")
    return email
