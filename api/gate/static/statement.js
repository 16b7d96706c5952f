// Checks that the core vouches for the key that a secret is to be sealed to (docs/protocol.md, Challenge).

import { unbase64url } from "./canonical.js";

export class StatementInvalid extends Error {}

const ES256 = { name: "ECDSA", namedCurve: "P-256" };
const KIND = "sap+jwt";

// The challenge as bytes, if a key pinned as JWK signed its statement. Its times are the core's business: a clock of
// ours may be wrong, or made wrong.
export async function checkedChallenge(answer, tokenKey) {
  const claims = await verified(String(answer.statement), tokenKey);
  if (claims.sap_id !== answer.sap_id || claims.key !== answer.sap_public_key) {
    throw new StatementInvalid("the statement speaks of another key");
  }
  if (!Number.isInteger(claims.nbf) || !Number.isInteger(claims.exp)) {
    throw new StatementInvalid("the statement has no times");
  }
  return {
    nonce: unbase64url(answer.nonce),
    sapId: answer.sap_id,
    sapPublicKey: unbase64url(answer.sap_public_key),
  };
}

async function verified(token, tokenKey) {
  const parts = token.split(".");
  if (parts.length !== 3) throw new StatementInvalid("not a compact JWS");
  let header, claims, signature;
  try {
    [header, claims] = parts.slice(0, 2).map((part) => JSON.parse(new TextDecoder().decode(unbase64url(part))));
    signature = unbase64url(parts[2]);
  } catch {
    throw new StatementInvalid("not a compact JWS");
  }
  if (header?.alg !== "ES256" || header?.typ !== KIND || typeof claims !== "object" || claims === null) {
    throw new StatementInvalid("not a statement");
  }
  const { kty, crv, x, y } = tokenKey;
  const key = await crypto.subtle.importKey("jwk", { kty, crv, x, y }, ES256, false, ["verify"]);
  const signed = new TextEncoder().encode(`${parts[0]}.${parts[1]}`);
  if (!(await crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, signature, signed))) {
    throw new StatementInvalid("the pinned key did not sign the statement");
  }
  return claims;
}
