// A page of steps: one form is shown at a time, errors are told where the reader is, nothing is sent twice.

import { isNif } from "./canonical.js";
import { Problem } from "./relay.js";

const RESEND_SECONDS = 30;

export class Steps {
  constructor(root) {
    this.root = root;
    this.texts = JSON.parse(root.dataset.texts);
    this.sentences = JSON.parse(root.dataset.sentences);
    this.tokenKey = JSON.parse(root.dataset.tokenKey);
    this.status = root.querySelector("[data-status]");
    for (const button of root.querySelectorAll("[data-reveal]")) this.#revealing(button);
  }

  // Everything is in place: shows the steps instead of the notice that the page could not start.
  start() {
    this.root.querySelector("[data-unstarted]").remove();
    this.root.querySelector("[data-steps]").hidden = false;
  }

  step(name) {
    return this.root.querySelector(`[data-step="${name}"]`);
  }

  // Shows one step and tells where one is: its heading gets the focus.
  show(name, { focus = true } = {}) {
    for (const step of this.root.querySelectorAll("[data-step]")) step.hidden = step.dataset.step !== name;
    this.clear();
    if (focus) this.step(name).querySelector("[tabindex='-1']").focus();
  }

  say(text) {
    this.status.textContent = text;
  }

  fill(name, key, text) {
    this.step(name).querySelector(`[data-fill="${key}"]`).textContent = text;
  }

  clear() {
    for (const summary of this.root.querySelectorAll("[data-errors]")) {
      summary.hidden = true;
      summary.querySelector("[data-list]").replaceChildren();
    }
    for (const field of this.root.querySelectorAll("input")) {
      field.removeAttribute("aria-invalid");
      const told = document.getElementById(`${field.id}-error`);
      if (told) told.textContent = "";
    }
  }

  // Errors as [{field, text}], field null where it is about the whole.
  fail(name, errors) {
    this.clear();
    const summary = this.step(name).querySelector("[data-errors]");
    const list = summary.querySelector("[data-list]");
    for (const { field, text } of errors) {
      const line = document.createElement("li");
      if (field === null) {
        line.textContent = text;
      } else {
        const link = document.createElement("a");
        link.href = `#${field}`;
        link.textContent = text;
        link.addEventListener("click", (event) => {
          event.preventDefault();
          document.getElementById(field).focus();
        });
        line.append(link);
        document.getElementById(field).setAttribute("aria-invalid", "true");
        document.getElementById(`${field}-error`).textContent = text;
      }
      list.append(line);
    }
    summary.hidden = false;
    summary.focus();
  }

  sentence(error) {
    if (!(error instanceof Problem)) return this.sentences[""];
    return this.texts[error.code] ?? this.sentences[error.code] ?? this.sentences[""];
  }

  // Runs work when the form is sent, every field has something in it and a NIF has its letter; work may throw Problem.
  onSubmit(name, work) {
    const form = this.step(name).querySelector("form");
    const button = form.querySelector("button[type='submit']");
    let busy = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (busy) return;
      const wrong = [];
      for (const field of form.querySelectorAll("input[required]")) {
        if (field.value.trim() === "") wrong.push({ field: field.id, text: field.dataset.missing });
        else if (field.name === "nif" && !isNif(field.value)) wrong.push({ field: field.id, text: this.texts.notNif });
      }
      if (wrong.length) {
        this.fail(name, wrong);
        return;
      }
      busy = true;
      button.setAttribute("aria-disabled", "true");
      this.clear();
      this.say(this.texts.working);
      try {
        await work(form);
      } catch (error) {
        this.fail(name, [{ field: null, text: this.sentence(error) }]);
      } finally {
        busy = false;
        button.removeAttribute("aria-disabled");
        this.say("");
      }
    });
  }

  // "Send it again", not before some seconds are over.
  resending(button, send) {
    const label = button.textContent;
    let timer;
    const wait = () => {
      clearInterval(timer);
      const ends = Date.now() + RESEND_SECONDS * 1000;
      const tick = () => {
        const left = Math.ceil((ends - Date.now()) / 1000);
        if (left > 0) {
          button.textContent = `${label} (${left} s)`;
          return;
        }
        clearInterval(timer);
        button.textContent = label;
        button.disabled = false;
        this.say(this.texts.resendPossible);
      };
      button.disabled = true;
      tick();
      timer = setInterval(tick, 1000);
    };
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await send();
        this.say(this.texts.resent);
        wait();
      } catch (error) {
        const refused = error instanceof Problem && error.code === "factor_locked";
        this.say(refused ? this.texts.noMoreMessages : this.sentence(error));
        button.disabled = refused;
      }
    });
    return wait;
  }

  #revealing(button) {
    const field = document.getElementById(button.dataset.reveal);
    button.addEventListener("click", () => {
      const shown = field.type === "password";
      field.type = shown ? "text" : "password";
      button.setAttribute("aria-pressed", String(shown));
      button.textContent = shown ? this.texts.hide : this.texts.show;
    });
  }
}

// What is kept between reloads of this tab: the secret cs and where one is. Never a password or a code.
export const kept = {
  load(key) {
    try {
      const found = JSON.parse(sessionStorage.getItem(key));
      return found && Date.parse(found.expires) > Date.now() ? found : null;
    } catch {
      return null;
    }
  },
  store(key, value) {
    sessionStorage.setItem(key, JSON.stringify(value));
  },
  forget(key) {
    sessionStorage.removeItem(key);
  },
};
