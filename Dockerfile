# One image for every process; the command says which. The same script provisions it as provisions a workstation.
FROM debian:12-slim

WORKDIR /opt/rubrica
COPY scripts/provision scripts/
COPY pyproject.toml README.md LICENSE ./
COPY client/pyproject.toml client/
COPY verifier/pyproject.toml verifier/
COPY requirements/run.txt requirements/
COPY rubrica rubrica
COPY api api
COPY documents documents
COPY signer signer
COPY authn authn
COPY audit audit
COPY certs certs
COPY hsm hsm
COPY domain domain
COPY client/rubrica_client client/rubrica_client
COPY verifier/rubrica_verify verifier/rubrica_verify
RUN scripts/provision run \
    && .venv/bin/python -m compileall -q . \
    && rm -rf /var/lib/apt/lists/* /root/.cache

# Volumes take over the owner and mode of the folders that they cover.
RUN useradd --uid 10001 --home-dir /var/lib/rubrica --shell /usr/sbin/nologin rubrica \
    && install -d -o rubrica -g rubrica -m 0700 /var/lib/rubrica /var/lib/hsm /var/lib/tok /var/lib/trust \
        /run/rubrica /run/rubrica/edge /run/rubrica/gate /run/rubrica/operator /run/issuer

USER rubrica
ENV PATH=/opt/rubrica/.venv/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["rubrica"]
CMD ["--help"]
