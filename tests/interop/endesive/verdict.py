"""Asks endesive about signed PDFs; runs in its own environment.

``verdict.py ROOT.pem FILE…`` prints a JSON list for each file: what endesive says of each signature, in their order.
"""

import json
import re
import sys
from pathlib import Path


def import_endesive():
    """Import ``endesive.pdf`` although oscrypto 1.3.0 knows no OpenSSL whose last number has two digits."""
    search = re.search

    def search_with_longer_numbers(pattern, string, flags=0):
        if isinstance(pattern, str):
            pattern = pattern.replace(r"(\d\.\d\.\d[a-z]*)", r"(\d+\.\d+\.\d+[a-z]*)")
        return search(pattern, string, flags)

    re.search = search_with_longer_numbers
    try:
        from endesive import pdf
    finally:
        re.search = search
    return pdf


def judge(pdf, file: Path, root: bytes) -> list[dict]:
    """What endesive says of one file."""
    return [
        {
            "document_timestamp": one.signed_data is None,
            "hash": one.hashok,
            "signature": one.signatureok,
            "certificate": one.certok,
            "timestamp": one.tspok,
            "timestamp_message": one.tspmsg,
        }
        for one in pdf.PDFVerifier(file.read_bytes(), [root]).verify_all_signatures()
    ]


def main() -> None:
    """Judge all files."""
    root, *files = (Path(name) for name in sys.argv[1:])
    pdf = import_endesive()
    sys.stdout.write(json.dumps([judge(pdf, file, root.read_bytes()) for file in files]))


if __name__ == "__main__":
    main()
