"""What ``rubrica demo`` writes, judged with nothing but its last line: output, trust anchors and their lists."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testkit.documents import SAMPLES
from tests.testkit.pki import PROJECT

CASES = {
    # Its own sample; and a level whose state of certificates has to come from the folder of trust anchors.
    "defaults": {},
    "XML, enveloped": {"FORMAT": "xades"},
    "XML, detached": {"FORMAT": "xades", "PACKAGING": "detached", "ALGORITHM": "RS256"},
    "B-B by RSA": {"SIGN": str(SAMPLES / "good" / "libreoffice.pdf"), "LEVEL": "B-B", "ALGORITHM": "RS256"},
}

FORMATS = {"pades": "PAdES", "xades": "XAdES"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Each run has the state of the one before, as on a real machine."""
    state = tmp_path_factory.mktemp("demo")
    return {case: demo(state, options) for case, options in CASES.items()}


def demo(state, options):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUBRICA_")}
    wishes = {f"RUBRICA_DEMO_{name}": value for name, value in options.items()}
    done = subprocess.run(
        [sys.executable, "-m", "rubrica", "demo"],
        cwd=PROJECT,
        env=environment | {"RUBRICA_VAR": str(state)} | wishes,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    label, _, result = done.stdout.splitlines()[-1].partition(" ")
    assert label == "RESULT"
    return json.loads(result)


def judged(dss, name, result, data):
    content = Path(result["content"]) if result["content"] else None
    return dss.judge(
        name,
        data,
        Path(result["trust_anchors"]),
        content=content.read_bytes() if content else None,
        content_name=content.name if content else "content",
        suffix=Path(result["output"]).suffix.removeprefix("."),
    )


@pytest.mark.parametrize("case", CASES)
def test_dss_agrees_offline(case, results, dss):
    result = results[case]
    verdict = judged(dss, f"demo/{case}", result, Path(result["output"]).read_bytes())
    (one,) = verdict.signatures
    assert (one.indication, one.format, one.errors, one.warnings) == (
        result["indication"].replace("-", "_"),
        f"{FORMATS[result['format']]}-BASELINE-{result['level'].removeprefix('B-')}",
        *((), ()),
    )
    assert one.indication == "TOTAL_PASSED"
    assert {stamp.indication for stamp in one.timestamps} <= {"PASSED"}
    assert (verdict.fetched, verdict.refused) == ((), ())


@pytest.mark.parametrize("case", CASES)
def test_a_changed_output_is_no_pass(case, results, dss):
    result = results[case]
    data = bytearray(Path(result["output"]).read_bytes())
    covered = b"<xades:MimeType>" if result["format"] == "xades" else b"stream"
    data[data.index(covered) + len(covered) + 6] ^= 1
    verdict = judged(dss, f"demo-flipped/{case}", result, bytes(data))
    assert [one.indication for one in verdict.signatures] == ["TOTAL_FAILED"]
