// Activation and change of the permanent password: something known, the code of the SMS, the new password.

import {
  base64url,
  normalizedActivationCode,
  normalizedNif,
  normalizedOtp,
  normalizedPassword,
  unbase64url,
} from "./canonical.js";
import { CODE_REFUSALS, post, Problem, sealed } from "./relay.js";
import { openAnswer } from "./sealing.js";
import { kept, Steps } from "./steps.js";

const CS_BYTES = 32;
const SHORTEST = 8;
const SHORTEST_FREE = 16;
const LONGEST = 128;
const CLASSES = [/\p{Ll}/u, /\p{Lu}/u, /\p{Nd}/u, /[^\p{Ll}\p{Lu}\p{Nd}]/u];
const CLASSES_NEEDED = 3;

const root = document.querySelector("[data-kind]");
const steps = new Steps(root);
const kind = root.dataset.kind;
const key = `rubrica/${kind}`;
let pending = kept.load(key);
let token;

function waitForCode() {
  steps.fill("code", "reference", pending.reference);
  steps.show("code");
  startWaiting();
}

const startWaiting = steps.resending(root.querySelector("[data-resend]"), () =>
  post(`/v1/challenges/${pending.challengeId}/resend`),
);

steps.onSubmit("begin", async (form) => {
  const cs = crypto.getRandomValues(new Uint8Array(CS_BYTES));
  const nif = form.elements.nif.value;
  const context = { purpose: `${kind}-begin`, subject: normalizedNif(nif) };
  const body = { nif };
  let secret;
  if (kind === "activation") {
    body.email = form.elements.email.value.trim();
    secret = normalizedActivationCode(form.elements.code.value);
  } else {
    secret = normalizedPassword(form.elements.old.value);
  }
  body.envelope = await sealed(steps.tokenKey, context, secret, cs);
  const answer = await post(`/v1/${kind}s/begin`, body);
  if (kind !== "activation") form.elements.old.value = "";
  pending = {
    challengeId: answer.challenge_id,
    reference: answer.reference,
    tries: answer.tries,
    expires: answer.expires,
    cs: base64url(cs),
  };
  kept.store(key, pending);
  waitForCode();
});

steps.onSubmit("code", async (form) => {
  const context = { purpose: `${kind}-complete`, challengeId: pending.challengeId };
  try {
    const cs = unbase64url(pending.cs);
    const envelope = await sealed(steps.tokenKey, context, normalizedOtp(form.elements.otp.value), cs);
    const answer = await post(`/v1/${kind}s/complete`, { challenge_id: pending.challengeId, envelope });
    token = await openAnswer(answer.sealed_token, cs, pending.challengeId);
    steps.show("new");
  } catch (error) {
    form.elements.otp.value = "";
    if (!(error instanceof Problem) || !CODE_REFUSALS.includes(error.code)) {
      throw error;
    }
    pending.tries = error.code === "factor_mismatch" ? pending.tries - 1 : 0;
    if (pending.tries > 0) {
      kept.store(key, pending);
      steps.fail("code", [{ field: "otp", text: steps.texts.wrongCode }]);
    } else {
      again(error.code === "factor_mismatch" ? steps.texts.triesOver : steps.sentence(error));
    }
  }
});

steps.onSubmit("new", async (form) => {
  const typed = form.elements.fresh.value;
  if (!Object.values(judged(typed)).every(Boolean)) {
    steps.fail("new", [{ field: "fresh", text: steps.texts.rulesNotMet }]);
    return;
  }
  const context = { purpose: `${kind}-set`, challengeId: pending.challengeId };
  try {
    const envelope = await sealed(steps.tokenKey, context, normalizedPassword(typed), token);
    await post(`/v1/${kind}s/password`, { challenge_id: pending.challengeId, envelope });
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== "weak_password") throw error;
    steps.fail("new", [{ field: "fresh", text: steps.texts.notYourName }]);
    return;
  }
  form.elements.fresh.value = "";
  kept.forget(key);
  steps.show("done");
});

// The rules that can be judged here; whether it holds one's name, only the core knows.
function judged(typed) {
  const password = typed.normalize("NFKC");
  const length = [...password].length;
  const classes = CLASSES.filter((kindOfSign) => kindOfSign.test(password)).length;
  return {
    length: length >= SHORTEST && length <= LONGEST,
    variety: length >= SHORTEST_FREE || classes >= CLASSES_NEEDED,
  };
}

const live = root.querySelector("[data-policy]");
document.getElementById("fresh").addEventListener("input", (event) => {
  const rules = judged(event.target.value);
  for (const [name, met] of Object.entries(rules)) {
    const line = root.querySelector(`[data-rule="${name}"]`);
    line.classList.toggle("met", met);
  }
  const told = Object.values(rules).every(Boolean) ? steps.texts.rulesMet : "";
  if (live.textContent !== told) live.textContent = told;
});

function again(text) {
  kept.forget(key);
  pending = null;
  steps.show("begin");
  if (text) steps.fail("begin", [{ field: null, text }]);
}

root.querySelector("[data-again]").addEventListener("click", () => again(""));

steps.start();
if (pending) waitForCode();
else steps.show("begin", { focus: false });
