from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LogRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LogAnswer(_message.Message):
    __slots__ = ("origin", "key", "checkpoint")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    origin: str
    key: bytes
    checkpoint: bytes
    def __init__(self, origin: _Optional[str] = ..., key: _Optional[bytes] = ..., checkpoint: _Optional[bytes] = ...) -> None: ...

class ProofAnswer(_message.Message):
    __slots__ = ("proof",)
    PROOF_FIELD_NUMBER: _ClassVar[int]
    proof: str
    def __init__(self, proof: _Optional[str] = ...) -> None: ...

class FileRequest(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class FileAnswer(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...

class EntriesRequest(_message.Message):
    __slots__ = ("after", "limit", "pid", "agency", "since", "until", "types", "results")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    AGENCY_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    after: int
    limit: int
    pid: bytes
    agency: str
    since: int
    until: int
    types: _containers.RepeatedScalarFieldContainer[str]
    results: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, after: _Optional[int] = ..., limit: _Optional[int] = ..., pid: _Optional[bytes] = ..., agency: _Optional[str] = ..., since: _Optional[int] = ..., until: _Optional[int] = ..., types: _Optional[_Iterable[str]] = ..., results: _Optional[_Iterable[str]] = ...) -> None: ...

class EntriesAnswer(_message.Message):
    __slots__ = ("entries", "reached", "at_end")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    REACHED_FIELD_NUMBER: _ClassVar[int]
    AT_END_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[LogEntry]
    reached: int
    at_end: bool
    def __init__(self, entries: _Optional[_Iterable[_Union[LogEntry, _Mapping]]] = ..., reached: _Optional[int] = ..., at_end: _Optional[bool] = ...) -> None: ...

class EntryRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class Digest(_message.Message):
    __slots__ = ("algorithm", "value")
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    algorithm: str
    value: bytes
    def __init__(self, algorithm: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class LogEntry(_message.Message):
    __slots__ = ("position", "leaf", "result", "agency", "agency_name", "purpose", "format", "packaging", "algorithm", "proved_by", "digests", "certificate_serial", "evidence")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    LEAF_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    AGENCY_FIELD_NUMBER: _ClassVar[int]
    AGENCY_NAME_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PACKAGING_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    PROVED_BY_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SERIAL_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    position: int
    leaf: bytes
    result: str
    agency: str
    agency_name: str
    purpose: str
    format: str
    packaging: str
    algorithm: str
    proved_by: str
    digests: _containers.RepeatedCompositeFieldContainer[Digest]
    certificate_serial: str
    evidence: str
    def __init__(self, position: _Optional[int] = ..., leaf: _Optional[bytes] = ..., result: _Optional[str] = ..., agency: _Optional[str] = ..., agency_name: _Optional[str] = ..., purpose: _Optional[str] = ..., format: _Optional[str] = ..., packaging: _Optional[str] = ..., algorithm: _Optional[str] = ..., proved_by: _Optional[str] = ..., digests: _Optional[_Iterable[_Union[Digest, _Mapping]]] = ..., certificate_serial: _Optional[str] = ..., evidence: _Optional[str] = ...) -> None: ...
