// Login by PIN: NIF, e-mail and a chosen access code; then that code and the PIN of the SMS; then on to who asked.

import { base64url, normalizedActivationCode, normalizedNif, unbase64url } from "./canonical.js";
import { CODE_REFUSALS, post, Problem, sealed } from "./relay.js";
import { openAnswer } from "./sealing.js";
import { kept, Steps } from "./steps.js";

const CS_BYTES = 32;
const ACCESS_CODE = /^[0-9A-Z]{4}$/;
const PIN = /^[0-9A-Z]{6}$/;

const root = document.querySelector("[data-nonce]");
const steps = new Steps(root);
const { audience, nonce } = root.dataset;
const key = `rubrica/pin/${nonce}`;
let pending = kept.load(key);

// Upper case, without spaces and hyphens; null if it is not of that shape.
function typed(field, shape) {
  const secret = normalizedActivationCode(field.value);
  return shape.test(new TextDecoder().decode(secret)) ? secret : null;
}

function waitForPin() {
  steps.fill("code", "reference", pending.reference);
  tell();
  steps.show("code");
}

function tell() {
  const left = pending.tries;
  steps.fill("code", "tries", left === 1 ? steps.texts.oneTry : steps.texts.tries.replace("{tries}", left));
  const until = new Date(pending.expires).toLocaleTimeString(document.documentElement.lang, { timeStyle: "short" });
  steps.fill("code", "until", until);
}

steps.onSubmit("begin", async (form) => {
  const { nif, email, chosen } = form.elements;
  const secret = typed(chosen, ACCESS_CODE);
  if (secret === null) {
    steps.fail("begin", [{ field: "chosen", text: steps.texts.codeShape }]);
    return;
  }
  const cs = crypto.getRandomValues(new Uint8Array(CS_BYTES));
  const context = { purpose: "pin-begin", subject: normalizedNif(nif.value), clientId: audience };
  const envelope = await sealed(steps.tokenKey, context, secret, cs);
  const answer = await post("/v1/pins/begin", {
    nif: nif.value,
    email: email.value.trim(),
    audience,
    nonce,
    envelope,
  });
  // Spares typing it twice; after a reload it is gone, for no secret is kept outside of the fields.
  document.getElementById("again").value = chosen.value;
  chosen.value = "";
  pending = {
    challengeId: answer.challenge_id,
    reference: answer.reference,
    tries: answer.tries,
    expires: answer.expires,
    cs: base64url(cs),
  };
  kept.store(key, pending);
  waitForPin();
});

steps.onSubmit("code", async (form) => {
  const { again: chosen, pin } = form.elements;
  const [first, second] = [typed(chosen, ACCESS_CODE), typed(pin, PIN)];
  if (first === null || second === null) {
    const wrong = [];
    if (first === null) wrong.push({ field: "again", text: steps.texts.codeShape });
    if (second === null) wrong.push({ field: "pin", text: steps.texts.pinShape });
    steps.fail("code", wrong);
    return;
  }
  const context = { purpose: "pin-complete", subject: nonce, clientId: audience, challengeId: pending.challengeId };
  try {
    const cs = unbase64url(pending.cs);
    const envelope = await sealed(steps.tokenKey, context, new Uint8Array([...first, ...second]), cs);
    const body = { challenge_id: pending.challengeId, audience, nonce, envelope };
    const answer = await post("/v1/pins/complete", body);
    const token = new TextDecoder().decode(await openAnswer(answer.sealed_token, cs, pending.challengeId));
    kept.forget(key);
    chosen.value = pin.value = "";
    steps.say(steps.texts.leaving);
    location.replace(`${answer.return_url}?${new URLSearchParams({ token })}`);
  } catch (error) {
    pin.value = "";
    if (!(error instanceof Problem) || !CODE_REFUSALS.includes(error.code)) {
      throw error;
    }
    pending.tries = error.code === "factor_mismatch" ? pending.tries - 1 : 0;
    if (pending.tries > 0) {
      kept.store(key, pending);
      tell();
      steps.fail("code", [{ field: "pin", text: steps.texts.wrongCode }]);
    } else {
      beginAgain(error.code === "factor_mismatch" ? steps.texts.triesOver : steps.sentence(error));
    }
  }
});

function beginAgain(text) {
  kept.forget(key);
  pending = null;
  document.getElementById("again").value = "";
  steps.show("begin");
  if (text) steps.fail("begin", [{ field: null, text }]);
}

root.querySelector("[data-again]").addEventListener("click", () => beginAgain(""));

steps.start();
if (pending) waitForPin();
else steps.show("begin", { focus: false });
