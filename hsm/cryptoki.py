"""The few PKCS#11 calls that python-pkcs11 lacks, through the module's own function list (PKCS#11 v2.40, section 3.6).

Attributes are read raw here, so that what the ceremony wrote is compared byte for byte with what the token holds.
"""

import ctypes
from collections.abc import Mapping
from pathlib import Path

from hsm.errors import HSMError

# Positions in CK_FUNCTION_LIST, after the version field.
_INIT_TOKEN = 9
_GET_ATTRIBUTE_VALUE = 24

_OK = 0
_ATTRIBUTE_SENSITIVE = 0x11
_ATTRIBUTE_TYPE_INVALID = 0x12
_UNAVAILABLE = ctypes.c_ulong(-1).value
_LABEL_BYTES = 32


class _Attribute(ctypes.Structure):
    """CK_ATTRIBUTE."""

    _fields_ = (("type", ctypes.c_ulong), ("value", ctypes.c_void_p), ("size", ctypes.c_ulong))


class PackedTemplate:
    """An array of CK_ATTRIBUTE as the value of an attribute; its bytes are valid while this object lives."""

    def __init__(self, values: Mapping[int, bytes]) -> None:
        self._buffers = [ctypes.create_string_buffer(value, len(value)) for value in values.values()]
        self._array = (_Attribute * len(values))(
            *(
                _Attribute(kind, ctypes.cast(buffer, ctypes.c_void_p), len(buffer))
                for kind, buffer in zip(values, self._buffers, strict=True)
            )
        )

    def __bytes__(self) -> bytes:
        return bytes(self._array)


class Cryptoki:
    """A loaded module; python-pkcs11 has initialised it before any call here but ``C_GetFunctionList``."""

    def __init__(self, module: Path) -> None:
        try:
            library = ctypes.CDLL(str(module))
        except OSError as exc:
            raise HSMError(f"the PKCS#11 module {module} cannot be loaded") from exc
        functions = ctypes.c_void_p()
        _require(library.C_GetFunctionList(ctypes.byref(functions)), "C_GetFunctionList")
        pointers = ctypes.cast(functions, ctypes.POINTER(ctypes.c_void_p))
        ulong, pointer = ctypes.c_ulong, ctypes.c_void_p
        # CK_VERSION is two bytes, padded to the size of a pointer: functions begin at position 1.
        self._init_token = ctypes.CFUNCTYPE(ulong, ulong, ctypes.c_char_p, ulong, ctypes.c_char_p)(
            pointers[1 + _INIT_TOKEN] or 0
        )
        self._get_attribute_value = ctypes.CFUNCTYPE(ulong, ulong, ulong, pointer, ulong)(
            pointers[1 + _GET_ATTRIBUTE_VALUE] or 0
        )

    def init_token(self, slot: int, so_pin: bytes, label: str) -> None:
        """Initialise the token in ``slot``: everything on it is destroyed.

        Raises:
            HSMError: The label is too long, or the token refused.
        """
        padded = label.encode().ljust(_LABEL_BYTES)
        if len(padded) > _LABEL_BYTES:
            raise HSMError(f"a token label has at most {_LABEL_BYTES} bytes")
        _require(self._init_token(slot, so_pin, len(so_pin), padded), "C_InitToken")

    def attribute(self, session: int, key: int, kind: int) -> bytes | None:
        """The raw value of one attribute; ``None`` where the object has none or will not tell."""
        wanted = _Attribute(kind, None, 0)
        if not self._ask(session, key, wanted):
            return None
        buffer = ctypes.create_string_buffer(wanted.size)
        wanted.value = ctypes.cast(buffer, ctypes.c_void_p)
        return buffer.raw[: wanted.size] if self._ask(session, key, wanted) else None

    def template(self, session: int, key: int, kind: int) -> dict[int, bytes] | None:
        """An attribute that is itself an array of attributes, such as CKA_UNWRAP_TEMPLATE; ``None`` if there is none.

        Three passes: the length of the array, the lengths of its values, the values.
        """
        wanted = _Attribute(kind, None, 0)
        if not self._ask(session, key, wanted):
            return None
        inner = (_Attribute * (wanted.size // ctypes.sizeof(_Attribute)))()
        wanted.value = ctypes.cast(inner, ctypes.c_void_p)
        if not self._ask(session, key, wanted):
            return None
        buffers = [ctypes.create_string_buffer(entry.size) for entry in inner]
        for entry, buffer in zip(inner, buffers, strict=True):
            entry.value = ctypes.cast(buffer, ctypes.c_void_p)
        if not self._ask(session, key, wanted):
            return None
        return {entry.type: buffer.raw[: entry.size] for entry, buffer in zip(inner, buffers, strict=True)}

    def _ask(self, session: int, key: int, wanted: _Attribute) -> bool:
        result = self._get_attribute_value(session, key, ctypes.byref(wanted), 1)
        if result in {_ATTRIBUTE_SENSITIVE, _ATTRIBUTE_TYPE_INVALID}:
            return False
        _require(result, "C_GetAttributeValue")
        return bool(wanted.size != _UNAVAILABLE)


def _require(result: int, function: str) -> None:
    if result != _OK:
        raise HSMError(f"{function} answered 0x{result:08X}")
