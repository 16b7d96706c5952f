// Seals what a person types so that only the core opens it; opens what the core answers to this browser's secret.

import { base64url, encode, unbase64url } from "./canonical.js";
import { seal as hpkeSeal } from "./hpke.js";

const CHANNEL = "sms";
const NONCE_BYTES = 12;

export function envelopeInfo(challenge, context) {
  return encode(
    "rubrica/1",
    challenge.sapId,
    challenge.nonce,
    context.purpose,
    context.subject ?? null,
    context.listSha256 ?? null,
    context.clientId ?? null,
    CHANNEL,
    context.challengeId ?? null,
  );
}

// The envelope as JSON has it, around the encoded secrets.
export async function seal(challenge, context, ...secrets) {
  const info = envelopeInfo(challenge, context);
  const { enc, ciphertext } = await hpkeSeal(challenge.sapPublicKey, info, encode(...secrets));
  return {
    sap_id: challenge.sapId,
    nonce: base64url(challenge.nonce),
    enc: base64url(enc),
    ciphertext: base64url(ciphertext),
  };
}

// The token of activation or password change, sealed to cs.
export async function openAnswer(sealed, cs, challengeId) {
  const raw = await derive("answer", cs, challengeId);
  const key = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["decrypt"]);
  const bytes = unbase64url(sealed);
  const cipher = { name: "AES-GCM", iv: bytes.slice(0, NONCE_BYTES), additionalData: encode(challengeId) };
  return new Uint8Array(await crypto.subtle.decrypt(cipher, key, bytes.slice(NONCE_BYTES)));
}

// KDF(label; parts): HKDF-SHA256, empty salt, 32 bytes.
export async function derive(label, ...parts) {
  const material = await crypto.subtle.importKey("raw", encode(...parts), "HKDF", false, ["deriveBits"]);
  const info = new TextEncoder().encode(`rubrica/1/${label}`);
  const hkdf = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(0), info };
  return new Uint8Array(await crypto.subtle.deriveBits(hkdf, material, 256));
}
