// Approve a list: password, then the code of the SMS, then back to whoever shows the documents.

import { base64url, listSha256, normalizedNif, normalizedOtp, normalizedPassword, unbase64url } from "./canonical.js";
import { CODE_REFUSALS, post, Problem, sealed } from "./relay.js";
import { kept, Steps } from "./steps.js";

const CS_BYTES = 32;

const root = document.querySelector("[data-request]");
const steps = new Steps(root);
const requestId = root.dataset.requestId;
const request = JSON.parse(root.dataset.request);
const key = `rubrica/authorise/${requestId}`;

// The titles that are read are those that are hashed: both come from this one list.
const documents = request.items.filter((item) => item.purpose === "sign");
const shown = [...root.querySelectorAll("[data-title]")];
shown.forEach((place, at) => {
  place.textContent = documents[at].title;
});
if (shown.length !== documents.length) throw new Error("the page does not show the whole list");
const hash = await listSha256(request.items);
root.querySelector("[data-fill='hash']").textContent = base64url(hash);

let pending = kept.load(key);
if (pending && pending.listSha256 !== base64url(hash)) pending = null;

function waitForCode() {
  steps.fill("code", "reference", pending.reference);
  tell();
  steps.show("code");
  startWaiting();
}

function tell() {
  const left = pending.tries;
  steps.fill("code", "tries", left === 1 ? steps.texts.oneTry : steps.texts.tries.replace("{tries}", left));
  const until = new Date(pending.expires).toLocaleTimeString(document.documentElement.lang, { timeStyle: "short" });
  steps.fill("code", "until", until);
}

const startWaiting = steps.resending(root.querySelector("[data-resend]"), () =>
  post(`/v1/challenges/${pending.challengeId}/resend`),
);

steps.onSubmit("password", async (form) => {
  const cs = crypto.getRandomValues(new Uint8Array(CS_BYTES));
  const nif = form.elements.nif.value;
  const context = {
    purpose: "sign-begin",
    subject: normalizedNif(nif),
    listSha256: hash,
    clientId: request.client_id,
  };
  const envelope = await sealed(steps.tokenKey, context, normalizedPassword(form.elements.password.value), cs);
  const answer = await post(`/v1/requests/${requestId}/begin`, { nif, envelope });
  form.elements.password.value = "";
  pending = {
    challengeId: answer.challenge_id,
    reference: answer.reference,
    tries: answer.tries,
    expires: answer.expires,
    listSha256: base64url(hash),
    cs: base64url(cs),
  };
  kept.store(key, pending);
  waitForCode();
});

steps.onSubmit("code", async (form) => {
  const context = {
    purpose: "sign-complete",
    listSha256: hash,
    clientId: request.client_id,
    challengeId: pending.challengeId,
  };
  try {
    const typed = normalizedOtp(form.elements.otp.value);
    const envelope = await sealed(steps.tokenKey, context, typed, unbase64url(pending.cs));
    const answer = await post(`/v1/challenges/${pending.challengeId}/complete`, { envelope });
    kept.forget(key);
    steps.say(steps.texts.leaving);
    location.replace(answer.redirect_url);
  } catch (error) {
    form.elements.otp.value = "";
    if (!(error instanceof Problem) || !CODE_REFUSALS.includes(error.code)) {
      throw error;
    }
    pending.tries = error.code === "factor_mismatch" ? pending.tries - 1 : 0;
    if (pending.tries > 0) {
      kept.store(key, pending);
      tell();
      steps.fail("code", [{ field: "otp", text: steps.texts.wrongCode }]);
    } else {
      again(error.code === "factor_mismatch" ? steps.texts.triesOver : steps.sentence(error));
    }
  }
});

// Back to the password; the list and the documents stay.
function again(text) {
  kept.forget(key);
  pending = null;
  steps.show("password");
  if (text) steps.fail("password", [{ field: null, text }]);
}

root.querySelector("[data-again]").addEventListener("click", () => again(""));

steps.start();
if (pending) waitForCode();
else steps.show("password", { focus: false });
