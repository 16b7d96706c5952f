"""What SMS say, in Spanish and English; each fits one part of 160 septets (3GPP TS 23.038 §6.2.1).

A letter outside the GSM alphabet would turn the whole message into UCS-2 and cut a part to 70 characters, so texts here
stay inside it and what comes from others is transliterated. A text with a one-time code ends with the origin line of
"Origin-bound one-time codes delivered via SMS" (WICG): a browser fills the code in at that host only.
"""

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

PART_SEPTETS = 160

# 3GPP TS 23.038 §6.2.1: default alphabet, and its extension, where each sign takes two septets (an escape goes before).
BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENDED = frozenset("^{}\\[~]|€")

# What NFKD does not take apart.
_PLAIN = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "«": '"', "»": '"', "–": "-", "—": "-", "‑": "-", "ł": "l", "Ł": "L"}
)
# A stranger's title may not look like an origin line or like a second sender.
_TAKEN_AWAY = str.maketrans({"@": " ", "#": " ", '"': "'", "\n": " ", "\r": " "})
_ELLIPSIS = ".."

LEAST_ROOM_SEPTETS = 30
"""What agency and title together get at the very least."""


class Language(StrEnum):
    """Languages that messages are written in."""

    SPANISH = "es"
    ENGLISH = "en"


def septets(text: str) -> int:
    """Septets that ``text`` takes.

    Raises:
        ValueError: A sign is outside the GSM alphabet, so the message would not be sent in septets at all.
    """
    if not BASIC.union(EXTENDED).issuperset(text):
        raise ValueError("the text has signs outside the GSM alphabet")
    return len(text) + sum(sign in EXTENDED for sign in text)


def to_gsm(text: str) -> str:
    """Put ``text`` into the GSM alphabet: accents that it lacks are dropped, other foreign signs become "?"."""
    return "".join(
        sign if sign in BASIC or sign in EXTENDED else _nearest(sign)
        for sign in unicodedata.normalize("NFC", text).translate(_PLAIN)
    )


def clean(text: str) -> str:
    """A stranger's text on one line of GSM signs, without runs of spaces and what an origin line is made of."""
    plain = "".join(" " if unicodedata.category(sign).startswith(("C", "Z")) else sign for sign in text)
    return " ".join(to_gsm(plain).translate(_TAKEN_AWAY).split())


def cut(text: str, limit_septets: int) -> str:
    """``text``, or as much of it as fits with two dots behind."""
    if septets(text) <= limit_septets:
        return text
    while septets(text) > limit_septets - len(_ELLIPSIS):
        text = text[:-1]
    return text.rstrip() + _ELLIPSIS


@dataclass(frozen=True, slots=True)
class _Phrases:
    sign_one: str
    sign_many: str
    activation: str
    change: str
    pin: str
    phone_changed_old: str
    phone_changed_new: str
    changed: str
    blocked: str
    blocked_for_good: str
    pin_blocked: str


_PHRASES = {
    Language.SPANISH: _Phrases(
        sign_one='{agency}: firmar "{title}". Ref {reference}. Codigo {otp} ({minutes} min), no lo diga.',
        sign_many='{agency}: firmar {count} documentos, "{title}" y mas. Ref {reference}. '
        "Codigo {otp} ({minutes} min), no lo diga.",
        activation="{service}: codigo {otp} para activar su contraseña. Ref {reference}. Vale {minutes} min, "
        "no lo diga.",
        change="{service}: codigo {otp} para cambiar su contraseña. Ref {reference}. Vale {minutes} min, no lo diga.",
        pin="{service}: PIN {otp} para entrar, con su clave de acceso. Ref {reference}. Vale {minutes} min, "
        "no lo diga.",
        phone_changed_old="{service}: su firma ya no usa este telefono, sino otro. Si no lo ha pedido, "
        "llame ya a su oficina de registro.",
        phone_changed_new="{service}: su firma usa desde ahora este telefono. Si no lo ha pedido, "
        "llame ya a su oficina de registro.",
        changed="{service}: su contraseña ha cambiado. Si no ha sido usted, llame ya a su oficina de registro.",
        blocked="{service}: demasiados fallos de contraseña o codigo. Su firma queda bloqueada {minutes} min. "
        "Si no era usted, cambie su contraseña.",
        blocked_for_good="{service}: demasiados fallos de contraseña. Su firma queda bloqueada hasta que la "
        "desbloquee una oficina de registro. Su clave no se pierde.",
        pin_blocked="{service}: demasiados PIN fallidos. No podra entrar con PIN durante {minutes} min. "
        "Su firma no cambia. Si no era usted, no diga a nadie ningun PIN.",
    ),
    Language.ENGLISH: _Phrases(
        sign_one='{agency}: sign "{title}". Ref {reference}. Code {otp} ({minutes} min), tell nobody.',
        sign_many='{agency}: sign {count} documents, "{title}" and more. Ref {reference}. '
        "Code {otp} ({minutes} min), tell nobody.",
        activation="{service}: code {otp} to activate your password. Ref {reference}. Valid {minutes} min, "
        "tell nobody.",
        change="{service}: code {otp} to change your password. Ref {reference}. Valid {minutes} min, tell nobody.",
        pin="{service}: PIN {otp} to log in, after your access code. Ref {reference}. Valid {minutes} min, "
        "tell nobody.",
        phone_changed_old="{service}: your signature no longer uses this phone but another. If you did not ask for it, "
        "call your registry office now.",
        phone_changed_new="{service}: your signature uses this phone from now on. If you did not ask for it, "
        "call your registry office now.",
        changed="{service}: your password has changed. If it was not you, call your registry office now.",
        blocked="{service}: too many wrong passwords or codes. Your signature is blocked for {minutes} min. "
        "If it was not you, change your password.",
        blocked_for_good="{service}: too many wrong passwords. Your signature is blocked until a registry office "
        "unblocks it. Your key is not lost.",
        pin_blocked="{service}: too many wrong PINs. No login by PIN for {minutes} min. "
        "Your signature stays as it is. If it was not you, tell nobody any PIN.",
    ),
}


class SMSTexts:
    """Writes the messages of one service, in one language, for the gate at one host."""

    LONGEST_CODE: ClassVar[str] = "0" * 8

    def __init__(self, *, service: str, gate_host: str, language: Language = Language.SPANISH) -> None:
        """Take the names that every message shows.

        Raises:
            ValueError: They leave too little room for agency and title in one part.
        """
        self._service = clean(service)
        self._host = gate_host
        self._phrases = _PHRASES[language]
        longest = self._origin_line(self.LONGEST_CODE)
        fixed = {"reference": "A" * 6, "otp": self.LONGEST_CODE, "minutes": 60, "service": self._service}
        many = self._phrases.sign_many.format(agency="", title="", count=10_000, **fixed) + longest
        codes = (self._phrases.activation, self._phrases.change, self._phrases.pin)
        notices = (
            self._phrases.phone_changed_old,
            self._phrases.phone_changed_new,
            self._phrases.changed,
            self._phrases.blocked,
            self._phrases.blocked_for_good,
            self._phrases.pin_blocked,
        )
        if (
            septets(many) > PART_SEPTETS - LEAST_ROOM_SEPTETS
            or any(septets(text.format(**fixed) + longest) > PART_SEPTETS for text in codes)
            or any(septets(text.format(**fixed)) > PART_SEPTETS for text in notices)
        ):
            raise ValueError("the names of service and gate are too long for an SMS of one part")

    def sign(self, *, agency: str, count: int, title: str, reference: str, otp: str, minutes: int) -> str:
        """The code that approves a list of documents.

        Args:
            agency: Name from our register of callers.
            count: Number of documents, item 0 not counted.
            title: Title of the first document.
            reference: Letters that the gate's page shows as well.
            otp: Six or eight digits.
            minutes: How long the code is valid.
        """
        phrase = self._phrases.sign_one if count == 1 else self._phrases.sign_many
        fixed = {"count": count, "reference": reference, "otp": otp, "minutes": minutes}
        origin = self._origin_line(otp)
        room = PART_SEPTETS - septets(phrase.format(agency="", title="", **fixed) + origin)
        agency, title = clean(agency), clean(title)
        # The agency may take what a short title leaves, and two fifths of the room in any case.
        agency = cut(agency, max(room * 2 // 5, room - septets(title)))
        title = cut(title, room - septets(agency))
        return phrase.format(agency=agency, title=title, **fixed) + origin

    def activation(self, *, reference: str, otp: str, minutes: int) -> str:
        """The code that activates the permanent password."""
        return self._with_code(self._phrases.activation, reference, otp, minutes)

    def password_change(self, *, reference: str, otp: str, minutes: int) -> str:
        """The code that changes the permanent password."""
        return self._with_code(self._phrases.change, reference, otp, minutes)

    def pin(self, *, reference: str, otp: str, minutes: int) -> str:
        """The PIN of a login."""
        return self._with_code(self._phrases.pin, reference, otp, minutes)

    def phone_changed_old(self) -> str:
        """Notice to the phone that was replaced."""
        return self._phrases.phone_changed_old.format(service=self._service)

    def phone_changed_new(self) -> str:
        """Notice to the phone that replaces it."""
        return self._phrases.phone_changed_new.format(service=self._service)

    def password_changed(self) -> str:
        """Notice of a new password."""
        return self._phrases.changed.format(service=self._service)

    def blocked(self, *, minutes: int | None) -> str:
        """Notice of a block after too many failures; without ``minutes`` it lasts until somebody ends it."""
        if minutes is None:
            return self._phrases.blocked_for_good.format(service=self._service)
        return self._phrases.blocked.format(service=self._service, minutes=minutes)

    def pin_blocked(self, *, minutes: int) -> str:
        """Notice of a block of logins by PIN."""
        return self._phrases.pin_blocked.format(service=self._service, minutes=minutes)

    def _with_code(self, phrase: str, reference: str, otp: str, minutes: int) -> str:
        text = phrase.format(service=self._service, reference=reference, otp=otp, minutes=minutes)
        return text + self._origin_line(otp)

    def _origin_line(self, otp: str) -> str:
        return f"\n@{self._host} #{otp}"


def _nearest(sign: str) -> str:
    found = "".join(part for part in unicodedata.normalize("NFKD", sign) if not unicodedata.combining(part))
    return found if found and BASIC.issuperset(found) else "?"
