// HPKE (RFC 9180), base mode, DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; one message per context, empty AAD.

import { concat } from "./canonical.js";

const CURVE = { name: "ECDH", namedCurve: "P-256" };
const KEM_ID = 0x0010;
const KDF_ID = 0x0001;
const AEAD_ID = 0x0002;
const MODE_BASE = 0x00;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const SECRET_BYTES = 32;
const ENC_BYTES = 65;
const EMPTY = new Uint8Array(0);

const ascii = new TextEncoder();
const KEM_SUITE = concat(ascii.encode("KEM"), i2osp(KEM_ID));
const SUITE = concat(ascii.encode("HPKE"), i2osp(KEM_ID), i2osp(KDF_ID), i2osp(AEAD_ID));

// Seals to the recipient's uncompressed point; gives {enc, ciphertext}.
export async function seal(recipientPoint, info, plaintext) {
  const recipient = await importPoint(recipientPoint);
  const ephemeral = await crypto.subtle.generateKey(CURVE, false, ["deriveBits"]);
  const enc = new Uint8Array(await crypto.subtle.exportKey("raw", ephemeral.publicKey));
  const shared = await sharedSecret(ephemeral.privateKey, recipient, concat(enc, recipientPoint));
  const { key, nonce } = await schedule(shared, info);
  const cipher = { name: "AES-GCM", iv: nonce, additionalData: EMPTY };
  return { enc, ciphertext: new Uint8Array(await crypto.subtle.encrypt(cipher, key, plaintext)) };
}

async function importPoint(point) {
  if (point.length !== ENC_BYTES || point[0] !== 4) throw new TypeError("not an uncompressed point");
  return crypto.subtle.importKey("raw", point, CURVE, false, []);
}

// §4.1: Encap.
async function sharedSecret(privateKey, publicKey, context) {
  const dh = await crypto.subtle.deriveBits({ name: "ECDH", public: publicKey }, privateKey, 8 * SECRET_BYTES);
  const prk = await labeledExtract(KEM_SUITE, EMPTY, "eae_prk", new Uint8Array(dh));
  return labeledExpand(KEM_SUITE, prk, "shared_secret", context, SECRET_BYTES);
}

// §5.1: KeySchedule with the default psk and psk_id.
async function schedule(shared, info) {
  const context = concat(
    Uint8Array.of(MODE_BASE),
    await labeledExtract(SUITE, EMPTY, "psk_id_hash", EMPTY),
    await labeledExtract(SUITE, EMPTY, "info_hash", info),
  );
  const secret = await labeledExtract(SUITE, shared, "secret", EMPTY);
  const raw = await labeledExpand(SUITE, secret, "key", context, KEY_BYTES);
  const nonce = await labeledExpand(SUITE, secret, "base_nonce", context, NONCE_BYTES);
  return { key: await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt"]), nonce };
}

// §4: LabeledExtract and LabeledExpand.
async function labeledExtract(suite, salt, label, keyMaterial) {
  return hmac(salt, concat(ascii.encode("HPKE-v1"), suite, ascii.encode(label), keyMaterial));
}

async function labeledExpand(suite, prk, label, info, length) {
  const labeled = concat(i2osp(length), ascii.encode("HPKE-v1"), suite, ascii.encode(label), info);
  // All lengths here fit one block of RFC 5869 §2.3.
  return (await hmac(prk, concat(labeled, Uint8Array.of(1)))).slice(0, length);
}

async function hmac(secret, message) {
  // WebCrypto refuses an empty key; HMAC pads it with zeros anyway (RFC 2104 §2, RFC 5869 §2.2).
  const usable = secret.length === 0 ? new Uint8Array(SECRET_BYTES) : secret;
  const key = await crypto.subtle.importKey("raw", usable, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, message));
}

function i2osp(number) {
  return Uint8Array.of(number >> 8, number & 0xff);
}
