// The canonical encoding and the approved list's digest (docs/protocol.md). A part is a Uint8Array, a string, a bigint
// or whole number, an array of parts, or null for an absent one.

const ABSENT = Uint8Array.of(0xff, 0xff, 0xff, 0xff);
const NIF_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE";
const NIF_FIRST = { X: "0", Y: "1", Z: "2", K: "", L: "", M: "" };
const utf8 = new TextEncoder();

export function concat(...pieces) {
  const all = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

export function encode(...parts) {
  return concat(...parts.map(encodePart));
}

function encodePart(part) {
  if (part === null) return ABSENT;
  if (part instanceof Uint8Array) return concat(u32(part.length), part);
  if (typeof part === "string") {
    const text = utf8.encode(part.normalize("NFC"));
    return concat(u32(text.length), text);
  }
  if (typeof part === "number" || typeof part === "bigint") {
    const eight = new Uint8Array(8);
    new DataView(eight.buffer).setBigUint64(0, BigInt(part));
    return concat(u32(8), eight);
  }
  if (Array.isArray(part)) return concat(u32(part.length), encode(...part));
  throw new TypeError("not a part");
}

function u32(number) {
  const four = new Uint8Array(4);
  new DataView(four.buffer).setUint32(0, number);
  return four;
}

export async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

// HL of the items as the gate describes them.
export async function encodeList(items) {
  const encoded = [u32(items.length)];
  for (const item of items) {
    const digests = [];
    for (const digest of item.digests) digests.push(...digestParts(digest));
    for (const reference of item.references ?? []) {
      digests.push(reference.uri, reference.type, [...reference.transforms], ...digestParts(reference.digest));
    }
    const fields = [];
    for (const name of Object.keys(item.fields).sort(byCodePoint)) fields.push(name, item.fields[name]);
    encoded.push(
      encode(
        item.purpose,
        item.format,
        item.packaging,
        item.algorithm,
        digests,
        item.title,
        await sha256(encode(fields)),
      ),
    );
  }
  return concat(...encoded);
}

export async function listSha256(items) {
  return sha256(await encodeList(items));
}

function digestParts(digest) {
  return [digest.algorithm, unbase64url(digest.value)];
}

function byCodePoint(one, other) {
  const [left, right] = [[...one], [...other]];
  for (let at = 0; at < Math.min(left.length, right.length); at += 1) {
    const difference = left[at].codePointAt(0) - right[at].codePointAt(0);
    if (difference) return difference;
  }
  return left.length - right.length;
}

export function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function unbase64url(text) {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) throw new TypeError("not base64url");
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (sign) => sign.charCodeAt(0));
}

export function normalizedNif(nif) {
  return nif.toUpperCase().replace(/[^\p{L}\p{N}]/gu, "");
}

// Whether it has the shape of a natural person's NIF or NIE and the letter that goes with its digits.
export function isNif(nif) {
  const [, first, digits, letter] = /^([0-9XYZKLM])(\d{7})([A-Z])$/.exec(normalizedNif(nif)) ?? [];
  return letter !== undefined && NIF_LETTERS[Number((NIF_FIRST[first] ?? first) + digits) % NIF_LETTERS.length] === letter;
}

export function normalizedPassword(password) {
  return utf8.encode(password.normalize("NFKC"));
}

export function normalizedActivationCode(code) {
  return utf8.encode(code.toUpperCase().replace(/[- ]/g, ""));
}

export function normalizedOtp(otp) {
  return utf8.encode(otp.replace(/\s/g, ""));
}
