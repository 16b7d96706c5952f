"""Client of the Rúbrica signing service.

An agency creates a transaction, uploads, sends the citizen to the review address, and collects::

    agency = AgencyClient("https://firma.example", "sede", private_key)
    created = agency.send([NewDocument("Solicitud", pdf)], citizen_nif="12345678Z")
    ...                                   # the citizen opens created.review_url
    signed = agency.collect(created.id, 1)

``rubrica_client.grpc`` has the same client for gRPC (extra ``grpc``).

``CitizenBrowser`` plays the citizen's browser: it seals password and one-time code itself, so that only the core opens
them. ``GateClient`` alone activates and changes the permanent password, and logs in by PIN.
"""

from rubrica_client.agency import AgencyClient, Created, NewDocument
from rubrica_client.citizen import CitizenBrowser, Outcome, Review
from rubrica_client.gate import (
    GateClient,
    PasswordToken,
    PendingApproval,
    PendingPassword,
    PendingPIN,
    RequestToApprove,
)
from rubrica_client.jws import JWSInvalid
from rubrica_client.problems import RubricaProblem
from rubrica_client.sealing import StatementInvalid

__all__ = [
    "AgencyClient",
    "CitizenBrowser",
    "Created",
    "GateClient",
    "JWSInvalid",
    "NewDocument",
    "Outcome",
    "PasswordToken",
    "PendingApproval",
    "PendingPIN",
    "PendingPassword",
    "RequestToApprove",
    "Review",
    "RubricaProblem",
    "StatementInvalid",
]
