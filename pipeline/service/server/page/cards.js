// One answer on the page: its text, thumbs, and a better version of it. Everything that a model says is put in as text.

import { post } from "./api.js";

export function fromTemplate(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

export class Card {
  constructor(title) {
    this.element = fromTemplate("card");
    this.text = "";
    this.fingerprint = "";
    this.title = title;
    this.part("h2").textContent = title;
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  note(text, isBad = false) {
    const note = this.part(".note");
    note.textContent = text;
    note.classList.toggle("bad", isBad);
  }

  append(piece) {
    this.text += piece;
    this.part(".said").textContent = this.text;
  }

  // The answer is complete, or as complete as it gets.
  end(note = "", isBad = false) {
    this.element.setAttribute("aria-busy", "false");
    this.part(".said").textContent = this.text;
    this.note(note, isBad);
  }

  // Thumbs and editing. `prompt` are the turns before the answer; `replace` is told the better version.
  offer(prompt, replace) {
    const up = this.part(".up"), down = this.part(".down");
    this.part(".actions").hidden = false;
    up.addEventListener("click", () => this.thumb(prompt, up, down, "up", "Written down: the next retraining learns it."));
    down.addEventListener("click", () => this.thumb(prompt, down, up, "down", "Written down: it is never learned."));
    this.part(".edit").addEventListener("click", () => this.edit());
    this.part(".cancel").addEventListener("click", () => this.leave());
    this.part(".editor").addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.leave();
    });
    this.part(".editor").addEventListener("submit", (event) => {
      event.preventDefault();
      this.correct(prompt, replace);
    });
  }

  async thumb(prompt, pressed, other, thumb, note) {
    const isOn = pressed.getAttribute("aria-pressed") === "true";
    const body = { messages: prompt, answer: this.text, model: this.fingerprint, thumb: isOn ? null : thumb };
    try {
      await post("/molt/thumbs", body);
    } catch (error) {
      this.note(error.message, true);
      return;
    }
    pressed.setAttribute("aria-pressed", String(!isOn));
    other.setAttribute("aria-pressed", "false");
    this.note(isOn ? "" : note);
  }

  edit() {
    this.show(true);
    const field = this.part(".editor textarea");
    field.value = this.text;
    field.focus();
  }

  leave() {
    this.show(false);
    this.part(".edit").focus();
  }

  show(isEditing) {
    this.part(".editor").hidden = !isEditing;
    this.part(".said").hidden = isEditing;
    this.part(".actions").hidden = isEditing;
  }

  async correct(prompt, replace) {
    const better = this.part(".editor textarea").value.trim();
    const body = { messages: prompt, answer: this.text, better, model: this.fingerprint };
    try {
      const result = await post("/molt/corrections", body);
      if (result.written) {
        this.text = better;
        this.part(".said").textContent = better;
        this.part(".up").hidden = this.part(".down").hidden = true;
        replace(better);
      }
      this.leave();
      this.note(result.notes.join("; "));
    } catch (error) {
      this.note(error.message, true);
    }
  }
}
