// Speaks with the gate: every secret goes out sealed, and only to a key that the pinned one vouches for.

import { checkedChallenge, StatementInvalid } from "./statement.js";
import { seal } from "./sealing.js";

// What the gate answered in place of what was asked for; code is stable.
export class Problem extends Error {
  constructor(code, detail, retryAfterSeconds) {
    super(code);
    this.code = code;
    this.detail = detail;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

// Answers after which this code is of no more use, or of one use less: it was wrong, it is over, or it was right and
// the citizen cannot sign all the same. After any other one the same code may be tried again.
export const CODE_REFUSALS = [
  "factor_mismatch",
  "factor_locked",
  "code_expired",
  "request_expired",
  "state_conflict",
  "credential_unusable",
  "no_certificate",
  "weak_registration",
  "credential_suspended",
  "credential_revoked",
  "certificate_expired",
];

export async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "omit",
      redirect: "error",
    });
  } catch {
    throw new Problem("no_network", "", null);
  }
  let answer;
  try {
    answer = await response.json();
  } catch {
    answer = {};
  }
  if (!response.ok) {
    const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
    throw new Problem(String(answer.code ?? ""), String(answer.detail ?? ""), Number.isNaN(seconds) ? null : seconds);
  }
  return answer;
}

// An envelope for one secret, with a challenge of its own.
export async function sealed(tokenKey, context, ...secrets) {
  const answer = await post("/v1/challenges");
  try {
    return await seal(await checkedChallenge(answer, tokenKey), context, ...secrets);
  } catch (error) {
    if (error instanceof StatementInvalid) throw new Problem("key_not_vouched", "", null);
    throw error;
  }
}
