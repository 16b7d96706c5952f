"""Between messages of ``rubrica.v1`` and transactions."""

from api.rpc.proto import signing_pb2
from api.transactions.model import (
    PDF,
    Document,
    DocumentState,
    NewTransaction,
    Transaction,
    new_transaction,
)
from api.transactions.steps import next_step
from domain.digests import DigestAlgorithm
from domain.errors import MalformedRequest

MEDIA_TYPE_CHARACTERS = 100


def parsed(message: signing_pb2.NewTransaction) -> NewTransaction:
    """What is asked for, as the domain has it.

    Raises:
        RequestError: Something is none of ours.
    """
    for number, document in enumerate(message.documents, 1):
        if len(document.sha256) != DigestAlgorithm.SHA256.size_bytes:
            raise MalformedRequest(f"document {number} needs the SHA-256 of its octets")
        if len(document.media_type) > MEDIA_TYPE_CHARACTERS:
            raise MalformedRequest(f"a media type has at most {MEDIA_TYPE_CHARACTERS} characters")
    return new_transaction(
        titles=[document.title for document in message.documents],
        level=message.level,
        signature_format=message.format or "pades",
        packaging=message.packaging or "enveloped",
        algorithm=message.algorithm or "ES256",
        citizen_nif=message.citizen_nif,
        return_url=message.return_url,
        client_nonce=message.nonce,
    )


def media_type(document: signing_pb2.NewDocument) -> str:
    """What the octets to come are."""
    return document.media_type.strip().lower() or PDF


def transaction_message(transaction: Transaction, review_url: str) -> signing_pb2.Transaction:
    """A transaction for its owner."""
    step = next_step(transaction, review_url)
    return signing_pb2.Transaction(
        id=transaction.transaction_id,
        state=f"STATE_{transaction.state}",
        level=transaction.level.value,
        format=transaction.format.value,
        packaging=transaction.packaging.value,
        algorithm=transaction.algorithm.value,
        client_id=transaction.client_id,
        created=int(transaction.created.timestamp()),
        expires=int(transaction.expires.timestamp()),
        documents=[_document(document) for document in transaction.documents],
        failure_code=transaction.failure_code,
        result_token=transaction.result_token,
        receipt=transaction.receipt,
        next_step=signing_pb2.NextStep(action=step.action, documents=step.documents, url=step.url),
        final=transaction.final,
    )


def _document(document: Document) -> signing_pb2.Document:
    failure = None
    if document.state is DocumentState.FAILED:
        failure = signing_pb2.Failure(code=document.failure_code, detail=document.failure_detail)
    return signing_pb2.Document(
        number=document.number,
        title=document.title,
        state=f"DOCUMENT_STATE_{document.state}",
        size_bytes=document.size_bytes,
        sha256=document.sha256 or b"",
        level=document.level.value if document.level else "",
        failure=failure,
    )
