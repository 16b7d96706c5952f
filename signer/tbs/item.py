"""The bytes that are signed for one item, and its signature as the item's format has it."""

from dataclasses import dataclass
from datetime import datetime

from domain.items import Item, SignatureFormat
from signer.tbs import xades
from signer.tbs.cms import signed_attributes


@dataclass(frozen=True, slots=True)
class Built:
    """The bytes that will be signed for one item."""

    to_be_signed: bytes
    signing_time: datetime
    signed_properties: bytes | None = None


def build(item: Item, certificate: bytes, signing_time: datetime) -> Built:
    """Built here, from the approved digests and the citizen's certificate (DER); nobody hands these bytes in."""
    if item.format == SignatureFormat.XADES:
        both = xades.to_be_signed(item, certificate, signing_time)
        return Built(both.signed_info, signing_time, both.signed_properties)
    return Built(signed_attributes(item.digests[0], certificate, dict(item.fields)), signing_time)


def signature_value(item: Item, signature: bytes) -> bytes:
    """The signature as the item's format has it."""
    return xades.signature_value(item.algorithm, signature) if item.format == SignatureFormat.XADES else signature
