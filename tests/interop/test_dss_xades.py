"""EU DSS on XML signatures of level B-B: every packaging by both algorithms, and what was changed in them."""

import pytest

from tests.testkit.xades import CASES, OCTETS, XML, signed

ALGORITHMS = ("ES256", "RS256")


@pytest.fixture(scope="module")
def outputs(pki, citizens):
    return {
        (case, algorithm): signed(original, options, citizens[algorithm], pki.trust, commitment_type="proof_of_origin")
        for case, (original, options) in CASES.items()
        for algorithm in ALGORITHMS
    }


def content_of(case):
    return CASES[case][0] if case == "detached" else None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("case", CASES)
def test_total_passed_at_b_b(case, algorithm, outputs, pki, dss):
    verdict = dss.judge(
        f"xades/{case}/{algorithm}",
        outputs[case, algorithm],
        pki.folder,
        content=content_of(case),
        content_name=CASES[case][1].content_name or "content",
        suffix="xml",
    )
    (one,) = verdict.signatures
    assert (one.indication, one.sub_indication, one.format, one.errors) == (
        "TOTAL_PASSED",
        "",
        "XAdES-BASELINE-B",
        (),
    )
    assert one.warnings == ()
    assert (verdict.fetched, verdict.refused) == ((), ())


@pytest.mark.parametrize("case", CASES)
def test_what_changed_is_no_pass(case, outputs, pki, dss):
    output, content = outputs[case, "ES256"], content_of(case)
    forged = {
        "properties": (output.replace(b"<xades:SigningTime>2", b"<xades:SigningTime>3"), content),
        "data": (output.replace(b"hijos", b"hija!"), content)
        if CASES[case][0] == XML
        else (output.replace(b"AAECAwQF", b"AAECAwQG"), OCTETS[:-1] if content else None),
    }
    for name, (data, beside) in forged.items():
        assert data != output or beside != content
        verdict = dss.judge(f"xades-{name}/{case}", data, pki.folder, content=beside, suffix="xml")
        assert not verdict.passed, name
