import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from domain import jws
from domain.errors import FactorMismatch
from hsm.keys import SigningKey
from tests.testkit.core import playing


async def test_a_citizen_signs_with_password_and_sms(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        staged, sad = await played.approved(documents=2)
        signed = await played.sign(sad, (0, 1, 2))
        certificate, document, _ = (item for item in signed.items)
        assert certificate.state == "SIGNED"
        citizen = x509.load_der_x509_certificate(document.chain[0])
        assert isinstance(citizen.public_key(), ec.EllipticCurvePublicKey)
        citizen.public_key().verify(document.signature, document.to_be_signed, ec.ECDSA(SHA256()))
        assert hashlib.sha256(b"Solicitud 1").digest() in document.to_be_signed
        key = load_der_public_key(await played.vault.public_key(SigningKey.TOKENS))
        receipt = jws.verify(signed.receipt, key)
        assert staged.list_sha256().hex() == receipt["list_sha256"]
        assert [leaf["tag"] for leaf in await played.leaves()][-4:] == ["INTENT", "INTENT", "COMPLETE", "COMPLETE"]
        assert played.issuer.issued == 1
        # The second time the certificate is there, so item 0 is skipped.
        _, sad = await played.approved()
        again = await played.sign(sad)
        assert [item.state for item in again.items] == ["SKIPPED", "SIGNED"]
        assert played.issuer.issued == 1


async def test_a_wrong_code_is_refused_and_three_of_them_end_the_challenge(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        staged = await played.stage()
        begun = await played.begin(staged)
        right = await played.otp(begun.challenge_id)
        wrong = f"{(int(right) + 1) % 10**6:06}"
        for _ in range(3):
            with pytest.raises(FactorMismatch):
                await played.complete(staged, begun, wrong)
        with pytest.raises(FactorMismatch):
            await played.complete(staged, begun, right)
        assert len([leaf for leaf in await played.leaves("AUTH_FAIL") if leaf["facts"]["factor"] == "otp"]) == 3
        assert await played.leaves("INTENT") == []
