from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_OPEN: _ClassVar[State]
    STATE_SUBMITTED: _ClassVar[State]
    STATE_REVIEWED: _ClassVar[State]
    STATE_APPROVED: _ClassVar[State]
    STATE_SIGNING: _ClassVar[State]
    STATE_DONE: _ClassVar[State]
    STATE_FAILED: _ClassVar[State]
    STATE_CANCELLED: _ClassVar[State]
    STATE_EXPIRED: _ClassVar[State]

class DocumentState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DOCUMENT_STATE_UNSPECIFIED: _ClassVar[DocumentState]
    DOCUMENT_STATE_EXPECTED: _ClassVar[DocumentState]
    DOCUMENT_STATE_RECEIVED: _ClassVar[DocumentState]
    DOCUMENT_STATE_PREPARED: _ClassVar[DocumentState]
    DOCUMENT_STATE_SIGNED: _ClassVar[DocumentState]
    DOCUMENT_STATE_PARTIAL: _ClassVar[DocumentState]
    DOCUMENT_STATE_FAILED: _ClassVar[DocumentState]
STATE_UNSPECIFIED: State
STATE_OPEN: State
STATE_SUBMITTED: State
STATE_REVIEWED: State
STATE_APPROVED: State
STATE_SIGNING: State
STATE_DONE: State
STATE_FAILED: State
STATE_CANCELLED: State
STATE_EXPIRED: State
DOCUMENT_STATE_UNSPECIFIED: DocumentState
DOCUMENT_STATE_EXPECTED: DocumentState
DOCUMENT_STATE_RECEIVED: DocumentState
DOCUMENT_STATE_PREPARED: DocumentState
DOCUMENT_STATE_SIGNED: DocumentState
DOCUMENT_STATE_PARTIAL: DocumentState
DOCUMENT_STATE_FAILED: DocumentState

class NewDocument(_message.Message):
    __slots__ = ("title", "media_type", "sha256")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    title: str
    media_type: str
    sha256: bytes
    def __init__(self, title: _Optional[str] = ..., media_type: _Optional[str] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class NewTransaction(_message.Message):
    __slots__ = ("idempotency_key", "documents", "citizen_nif", "level", "format", "packaging", "algorithm", "return_url", "nonce")
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CITIZEN_NIF_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PACKAGING_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    RETURN_URL_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    documents: _containers.RepeatedCompositeFieldContainer[NewDocument]
    citizen_nif: str
    level: str
    format: str
    packaging: str
    algorithm: str
    return_url: str
    nonce: str
    def __init__(self, idempotency_key: _Optional[str] = ..., documents: _Optional[_Iterable[_Union[NewDocument, _Mapping]]] = ..., citizen_nif: _Optional[str] = ..., level: _Optional[str] = ..., format: _Optional[str] = ..., packaging: _Optional[str] = ..., algorithm: _Optional[str] = ..., return_url: _Optional[str] = ..., nonce: _Optional[str] = ...) -> None: ...

class DocumentChunk(_message.Message):
    __slots__ = ("number", "data")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    number: int
    data: bytes
    def __init__(self, number: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class CreateRequest(_message.Message):
    __slots__ = ("transaction", "chunk")
    TRANSACTION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    transaction: NewTransaction
    chunk: DocumentChunk
    def __init__(self, transaction: _Optional[_Union[NewTransaction, _Mapping]] = ..., chunk: _Optional[_Union[DocumentChunk, _Mapping]] = ...) -> None: ...

class CreateAnswer(_message.Message):
    __slots__ = ("transaction", "review_url")
    TRANSACTION_FIELD_NUMBER: _ClassVar[int]
    REVIEW_URL_FIELD_NUMBER: _ClassVar[int]
    transaction: Transaction
    review_url: str
    def __init__(self, transaction: _Optional[_Union[Transaction, _Mapping]] = ..., review_url: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "detail")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Document(_message.Message):
    __slots__ = ("number", "title", "state", "size_bytes", "sha256", "level", "failure")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    number: int
    title: str
    state: DocumentState
    size_bytes: int
    sha256: bytes
    level: str
    failure: Failure
    def __init__(self, number: _Optional[int] = ..., title: _Optional[str] = ..., state: _Optional[_Union[DocumentState, str]] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ..., level: _Optional[str] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class NextStep(_message.Message):
    __slots__ = ("action", "documents", "url")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    action: str
    documents: _containers.RepeatedScalarFieldContainer[int]
    url: str
    def __init__(self, action: _Optional[str] = ..., documents: _Optional[_Iterable[int]] = ..., url: _Optional[str] = ...) -> None: ...

class Transaction(_message.Message):
    __slots__ = ("id", "state", "level", "format", "packaging", "algorithm", "client_id", "created", "expires", "documents", "failure_code", "result_token", "receipt", "next_step", "final")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PACKAGING_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_CODE_FIELD_NUMBER: _ClassVar[int]
    RESULT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: State
    level: str
    format: str
    packaging: str
    algorithm: str
    client_id: str
    created: int
    expires: int
    documents: _containers.RepeatedCompositeFieldContainer[Document]
    failure_code: str
    result_token: str
    receipt: str
    next_step: NextStep
    final: bool
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[State, str]] = ..., level: _Optional[str] = ..., format: _Optional[str] = ..., packaging: _Optional[str] = ..., algorithm: _Optional[str] = ..., client_id: _Optional[str] = ..., created: _Optional[int] = ..., expires: _Optional[int] = ..., documents: _Optional[_Iterable[_Union[Document, _Mapping]]] = ..., failure_code: _Optional[str] = ..., result_token: _Optional[str] = ..., receipt: _Optional[str] = ..., next_step: _Optional[_Union[NextStep, _Mapping]] = ..., final: _Optional[bool] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CollectRequest(_message.Message):
    __slots__ = ("id", "number", "original")
    ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_FIELD_NUMBER: _ClassVar[int]
    id: str
    number: int
    original: bool
    def __init__(self, id: _Optional[str] = ..., number: _Optional[int] = ..., original: _Optional[bool] = ...) -> None: ...

class CollectAnswer(_message.Message):
    __slots__ = ("media_type", "size_bytes", "data")
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    media_type: str
    size_bytes: int
    data: bytes
    def __init__(self, media_type: _Optional[str] = ..., size_bytes: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CancelAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
