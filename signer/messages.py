"""Items of the approved list as protobuf messages and back, for servicer and client alike."""

from typing import Any

from domain.digests import Digest, DigestAlgorithm
from domain.items import Item, Purpose, Reference
from signer.proto import signer_pb2


def item_message(item: Item) -> Any:
    """``item`` as ``signer_pb2.Item``."""
    return signer_pb2.Item(
        purpose=item.purpose.value,
        format=item.format,
        packaging=item.packaging,
        algorithm=item.algorithm,
        digests=[_digest_message(digest) for digest in item.digests],
        references=[
            signer_pb2.Reference(
                uri=reference.uri,
                type=reference.type,
                transforms=reference.transforms,
                digest=_digest_message(reference.digest),
            )
            for reference in item.references
        ],
        title=item.title,
        fields=dict(item.fields),
    )


def item_of(message: Any) -> Item:
    """The item in a ``signer_pb2.Item``.

    Raises:
        ValueError: An unknown purpose or digest algorithm.
        MalformedRequest: Lengths.
    """
    return Item(
        purpose=Purpose(message.purpose),
        format=message.format,
        packaging=message.packaging,
        algorithm=message.algorithm,
        digests=tuple(_digest(digest) for digest in message.digests),
        references=tuple(
            Reference(
                uri=reference.uri,
                type=reference.type,
                transforms=tuple(reference.transforms),
                digest=_digest(reference.digest),
            )
            for reference in message.references
        ),
        title=message.title,
        fields=dict(message.fields),
    )


def _digest_message(digest: Digest) -> Any:
    return signer_pb2.Digest(algorithm=digest.algorithm.value, value=digest.value)


def _digest(message: Any) -> Digest:
    return Digest(DigestAlgorithm(message.algorithm), message.value)
